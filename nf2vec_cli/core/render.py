"""Volume rendering: rays through a grid of occupied cells, and what the samples on them add up to.

Object space is [-1, 1]^3. A ray is sampled at the lattice t = near + (k + j) dt, from where it
enters the cube, at the points that fall in an occupied cell: what nerfacc's occupancy grid does,
in PyTorch on any device. Samples of a ray are next to each other, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nf2vec_cli.core.composite import composite

DIAGONAL = 2 * 3**0.5  # of the cube
MARCHED = 1 << 17  # lattice points that are looked up at once
RENDERED = 1 << 14  # samples whose colours are asked for at once: they stay in the cache
# coordinates [M, 3] -> colours [M, 3] in [0, 1], densities [M] per unit of object space
Radiance = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rays:
    """Origins and directions of unit length, [R, 3] each, in object space."""

    origins: Tensor
    directions: Tensor

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, part: slice | Tensor) -> Rays:
        return Rays(self.origins[part], self.directions[part])


@dataclass(frozen=True)
class Samples:
    """Samples of R rays. ray: [M], whose they are, ascending; place: [M], k of the lattice.

    near: [R], where each ray enters the cube. step: dt.
    """

    ray: Tensor
    place: Tensor
    near: Tensor
    step: float

    def points(self, rays: Rays, jitter: Tensor | float = 0.5) -> Tensor:  # -> [M, 3]
        """Give where the samples lie; jitter: [M] or a number, within 0 and 1."""
        t = self.depths(jitter)
        return torch.addcmul(rays.origins[self.ray], rays.directions[self.ray], t[:, None])

    def depths(self, jitter: Tensor | float = 0.5) -> Tensor:  # -> [M]
        """Give how far along their rays the samples lie."""
        return self.near[self.ray] + (self.place + jitter) * self.step


@dataclass(frozen=True)
class Rendered:
    """What R rays see: colour [R, 3] over the background, opacity [R] in [0, 1], depth [R].

    depth: mean distance from the origin, of what is seen; 0 where there is nothing.
    """

    colour: Tensor
    opacity: Tensor
    depth: Tensor


def camera_rays(poses: Tensor, focal: Tensor, width: int, height: int) -> Rays:
    """Give the rays of all pixels of V pictures, row by row: V * height * width rays.

    Args:
        poses: camera to world, [V, 3, 4], OpenGL axes (a camera looks along -z, y is up).
        focal: [V], in pixels.
        width: pixels.
        height: pixels.
    """
    y, x = torch.meshgrid(
        torch.arange(height, device=poses.device),
        torch.arange(width, device=poses.device),
        indexing="ij",
    )
    pixels = torch.stack([x, y], -1).view(-1, 2)
    each = len(pixels)
    return pixel_rays(
        poses.repeat_interleave(each, 0),
        focal.repeat_interleave(each),
        torch.tensor([width, height], device=poses.device),
        pixels.repeat(len(poses), 1),
    )


def pixel_rays(poses: Tensor, focal: Tensor, size: Tensor, pixels: Tensor) -> Rays:
    """Give the rays of single pixels, each of a camera of its own.

    Args:
        poses: [R, 3, 4], as in `camera_rays`.
        focal: [R], in pixels.
        size: [R, 2] or [2], width and height of the cameras' pictures.
        pixels: [R, 2], column and row.
    """
    away = (pixels + 0.5 - size / 2) / focal[:, None]
    seen = torch.stack([away[:, 0], -away[:, 1], -torch.ones_like(focal)], 1)
    turned = torch.einsum("rij,rj->ri", poses[:, :, :3], seen)
    return Rays(poses[:, :, 3], torch.nn.functional.normalize(turned, dim=-1))


def march(rays: Rays, grid: Tensor, samples: int) -> Samples:
    """Find the samples of rays that fall in occupied cells.

    Args:
        rays: R rays.
        grid: [G, G, G] bool, cell (i, j, k) at x, y, z; on the rays' device.
        samples: of the cube's diagonal; the step is its length over this.
    """
    step = DIAGONAL / samples
    device = rays.origins.device
    near, _ = _crossing(rays, torch.tensor([-1.0, -1, -1]), torch.tensor([1.0, 1, 1]))
    low, high = _bounds(grid)
    enter, leave = _crossing(rays, low, high)
    first = ((enter - near) / step - 0.5).floor().clamp_min(0)
    last = ((leave - near) / step - 0.5).ceil()
    span = torch.where(leave > enter, last - first + 1, 0)
    hits = (span > 0).nonzero()[:, 0]
    found_ray, found_place = [], []
    most = int(span.max()) if len(span) else 0
    offset = torch.arange(most, device=device)
    for part in hits.split(max(1, MARCHED // max(most, 1))):
        places = first[part, None] + offset
        t = near[part, None] + (places + 0.5) * step
        points = rays.origins[part, None] + rays.directions[part, None] * t[..., None]
        taken = occupied(points, grid) & (offset < span[part, None])
        ray, place = taken.nonzero(as_tuple=True)
        found_ray.append(part[ray])
        found_place.append(places[ray, place].to(torch.int16))
    empty = torch.empty(0, dtype=torch.int64, device=device)
    return Samples(
        torch.cat([empty, *found_ray]),
        torch.cat([empty.to(torch.int16), *found_place]),
        near,
        step,
    )


def occupied(points: Tensor, grid: Tensor) -> Tensor:  # [.., 3] -> [..] bool
    """Tell which points lie in an occupied cell; outside the cube none does."""
    return at_cells(points, grid) & (points.abs() < 1).all(-1)


def at_cells(points: Tensor, grid: Tensor) -> Tensor:  # [.., 3], [G, G, G] -> [..]
    """Look up the cells that points lie in; of points outside the cube, the nearest."""
    side = len(grid)
    cell = ((points + 1) * (side / 2)).long().clamp_(0, side - 1)
    return grid.view(-1)[(cell[..., 0] * side + cell[..., 1]) * side + cell[..., 2]]


def render(
    radiance: Radiance,
    rays: Rays,
    grid: Tensor,
    *,
    samples: int,
    background: Tensor,
    backend: str = "auto",
) -> Rendered:
    """Render rays through one field, without gradients.

    Args:
        radiance: colours and densities at points.
        rays: R rays.
        grid: [G, G, G] bool, cells that may hold something.
        samples: of the cube's diagonal.
        background: [3] or [R, 3], seen where nothing is.
        backend: of `composite`.
    """
    with torch.no_grad():
        found = march(rays, grid, samples)
        points = found.points(rays)
        parts = [radiance(part) for part in points.split(RENDERED)]
        if not parts:
            parts = [(points.new_empty(0, 3), points.new_empty(0))]
        colours = torch.cat([colour for colour, _ in parts])
        density = torch.cat([density for _, density in parts])
        seen = composite(
            colours, density, found.depths(), found.step, found.ray, len(rays), backend=backend
        )
        colour = seen.colour + (1 - seen.opacity[:, None]) * background
        return Rendered(colour, seen.opacity, seen.depth / seen.opacity.clamp_min(1e-6))


def cell_densities(
    density: Callable[[Tensor], Tensor], among: Tensor
) -> tuple[Tensor, Tensor]:  # -> two of [G, G, G]
    """Give the lowest and the highest density of each cell, at nine points of it.

    Args:
        density: at points [M, 3] -> [M].
        among: [G, G, G] bool, cells that are asked about; the others have 0.
    """
    side = len(among)
    cells = among.view(-1).nonzero()[:, 0]
    width = 2 / side
    inner = torch.cartesian_prod(*[torch.tensor([0.2, 0.8])] * 3)
    at = torch.cat([inner, torch.full((1, 3), 0.5)]).to(among.device) * width
    low, high = torch.zeros(2, side**3, device=among.device)
    with torch.no_grad():
        for part in cells.split(RENDERED // len(at)):
            corner = torch.stack(torch.unravel_index(part, (side,) * 3), -1) * width - 1
            found = density((corner[:, None] + at).reshape(-1, 3)).view(len(part), -1)
            low[part], high[part] = found.amin(1), found.amax(1)
    return low.view(among.shape), high.view(among.shape)


def _bounds(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Give the corners of the box around all occupied cells; inside out if there is none."""
    low, high = [], []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        taken = grid.any(others[1]).any(others[0]).nonzero()[:, 0]
        low.append(float(taken[0]) if len(taken) else 1.0)
        high.append(float(taken[-1]) + 1 if len(taken) else 0.0)
    width = 2 / len(grid)
    return torch.tensor(low) * width - 1, torch.tensor(high) * width - 1


def _crossing(rays: Rays, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Give where rays enter and leave a box, [R] each; enter >= leave: they miss it."""
    device = rays.origins.device
    # not 0: infinity times 0, on a face of the box, would be no number
    inverse = 1 / torch.where(rays.directions == 0, 1e-12, rays.directions)
    one = (low.to(device) - rays.origins) * inverse
    other = (high.to(device) - rays.origins) * inverse
    enter = torch.minimum(one, other).amax(1).clamp_min(0)
    return enter, torch.maximum(one, other).amin(1)
