"""What encoders of radiance are taught: rays of stored cameras, seen through the stored fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.core.composite import composite, ray_weights, sum_before
from nf2vec_cli.core.march import Rays, Samples, march
from nf2vec_cli.core.mlp import frequencies, relu_forward
from nf2vec_cli.core.render import pixel_rays
from nf2vec_cli.errors import StoreError
from nf2vec_cli.fields.nerf import first_of, radiance_of
from nf2vec_cli.models.network import NetworkSpec, split_theta
from nf2vec_cli.store.radiance import Cameras, read_cameras, read_grids
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.optimise_rays import HIDDEN

CORNERS = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)


@dataclass(frozen=True)
class Seen:
    """R rays that pass an object's grid, and what they see of it: colour [R, 3], opacity [R].

    colour: without background. samples: those that the stored field does not hide, at `points`
    [M, 3] and `depths` [M].
    """

    samples: Samples
    points: Tensor
    depths: Tensor
    colour: Tensor
    opacity: Tensor

    def __len__(self) -> int:
        return len(self.colour)


@dataclass(frozen=True)
class Scene:
    """A stored object: theta [P], grid [G, G, G] and cameras."""

    theta: Tensor
    grid: Tensor
    cameras: Cameras


def scene_of(store: Store, row: int, theta: Tensor) -> Scene:
    """Read what is kept beside a field's weights.

    Raises:
        StoreError: its cameras are not known.
    """
    (cameras,) = read_cameras(store, [row])
    if not len(cameras.focal):
        raise StoreError(
            f"{store.path} knows no cameras of {store.column('id')[row]!r}",
            hint="`nf2vec fit VIEWS --store STORE --force` fits it again",
        )
    return Scene(theta, torch.from_numpy(read_grids(store, [row])[0]).to(theta.device), cameras)


def draw_rays(
    scene: Scene,
    cameras: NDArray[np.bool_],
    count: int,
    generator: torch.Generator,
    *,
    anywhere: bool = False,
) -> Rays:
    """Draw rays of random pixels of some cameras.

    Only of the part of each picture that the occupied cells' box is in, unless `anywhere`: the
    others would miss.
    """
    chosen = np.flatnonzero(cameras)
    index = chosen[torch.randint(len(chosen), (count,), generator=generator).numpy()]
    poses = torch.from_numpy(scene.cameras.poses[index])
    focal = torch.from_numpy(scene.cameras.focal[index])
    size = torch.from_numpy(scene.cameras.size[index]).float()
    low, high = torch.zeros_like(size), size
    if not anywhere:
        low, high = _frame(scene.grid.cpu(), poses, focal, size)
    drawn = low + torch.rand(count, 2, generator=generator) * (high - low)
    rays = pixel_rays(poses, focal, size, torch.minimum(drawn.floor(), size - 1))
    return Rays(rays.origins.to(scene.theta.device), rays.directions.to(scene.theta.device))


def look_through(
    scene: Scene,
    spec: NetworkSpec,
    rays: Rays,
    samples: int,
    *,
    jitter: Tensor | float = 0.5,
    most: int | None = None,
) -> tuple[Seen, Tensor]:
    """Render the rays that pass the grid; says as well which those are, [R] ascending.

    Every sample counts in what is seen. Those behind what has swallowed all but HIDDEN of the light
    are then left out, so that the student is not asked there.

    Args:
        scene: the object.
        spec: its network.
        rays: some rays.
        samples: of the cube's diagonal.
        jitter: where in their intervals the samples of each ray lie: [R] in 0 to 1, or a number.
        most: rays that are rendered, the first ones that pass.
    """
    found = march(rays, scene.grid, samples)
    hit, ray = found.ray.unique_consecutive(return_inverse=True)
    if most is not None and len(hit) > most:
        hit, used = hit[:most], ray < most
        ray, found = ray[used], Samples(found.ray[used], found.place[used], found.near, found.step)
    rays = rays[hit]
    found = Samples(ray, found.place, found.near[hit], found.step)
    if isinstance(jitter, Tensor):
        jitter = jitter[hit][ray]
    points, depths = found.points(rays, jitter), found.depths(jitter)
    weights, biases = split_theta(scene.theta[None], spec)
    coded = frequencies(points, spec.octaves)
    outputs = relu_forward(weights, biases, coded[None])[0]
    colours, density = radiance_of(outputs, spec.density)
    seen = composite(colours, density, depths, found.step, ray, len(rays))
    kept = _lit(ray_weights(density, found.step, ray, len(rays)), found, len(rays))
    left = Samples(ray[kept], found.place[kept], found.near, found.step)
    return Seen(left, points[kept], depths[kept], seen.colour, seen.opacity), hit


def first_rays(seen: Seen, rays: int, samples: int) -> Seen:
    """Take whole rays from the start: at most `rays`, with at most `samples` on all; one at least.

    A ray is left out as a whole: without some of its samples it would see something else.
    """
    ends = first_of(seen.samples, len(seen))[1:]
    fits = int(torch.searchsorted(ends, samples, right=True))
    count = min(len(seen), max(1, min(rays, fits)))
    last = int(ends[count - 1]) if count else 0
    kept = seen.samples
    kept = Samples(kept.ray[:last], kept.place[:last], kept.near[:count], kept.step)
    return Seen(
        kept, seen.points[:last], seen.depths[:last], seen.colour[:count], seen.opacity[:count]
    )


def _lit(weights: Tensor, samples: Samples, rays: int) -> Tensor:  # -> [M] bool
    """Tell which samples light still comes to: what those before took is less than all."""
    lit: Tensor = 1 - sum_before(weights, samples.ray, rays) > HIDDEN
    return lit


def _frame(grid: Tensor, poses: Tensor, focal: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Give the corners [R, 2] of the rectangle that the occupied cells' box is in, in pixels.

    The whole picture where the box is not in front of the camera.
    """
    cells = grid.nonzero()
    if not len(cells):
        return torch.zeros_like(size), size
    width = 2 / len(grid)
    low, high = cells.amin(0) * width - 1, (cells.amax(0) + 1) * width - 1
    corners = torch.where(CORNERS > 0, high, low)
    seen = torch.einsum("rcj,rji->rci", corners - poses[:, None, :, 3], poses[:, :, :3])
    away = -seen[..., 2]
    front = (away > 0).all(1, keepdim=True)
    flat = seen[..., :2] * torch.tensor([1.0, -1.0]) / away.clamp_min(1e-6)[..., None]
    pixels = flat * focal[:, None, None] + size[:, None] / 2
    low, high = pixels.amin(1), pixels.amax(1)
    apart = front & (high > 0).all(1, keepdim=True) & (low < size).all(1, keepdim=True)
    low = torch.where(apart, torch.maximum(low, torch.zeros_like(low)), torch.zeros_like(low))
    return low, torch.where(apart, torch.minimum(high, size), size)
