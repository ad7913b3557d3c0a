"""How fields of radiance are learnt: what rays see, through the decoder (paper, section VI)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.core.composite import composite
from nf2vec_cli.core.march import Rays, at_cells, march
from nf2vec_cli.core.ranks import BatchShare
from nf2vec_cli.fields.nerf import FOREGROUND, radiance_of
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.radiance import Cameras
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.radiance_cloud import picture_psnr, psnr_of
from nf2vec_cli.tasks.ray_teacher import Scene, draw_rays, first_rays, look_through, scene_of
from nf2vec_cli.tasks.teacher import generator_of

SPARE = 4  # rays that are drawn for one that is wanted: some pass no occupied cell
KEPT = 2_048  # objects whose grids stay in memory: 0.5 GB of 64^3 cells
NEAR = 3.0  # cells: standard deviation of empty points from what rays pass
LOOK_RAYS, LOOK_SEED = 128, 2**40  # of a val object; half of them pass its grid
PICTURES = 8  # val objects that a picture is rendered of in the end


@dataclass(frozen=True)
class Sight:
    """What is asked of B objects: points [B, M + C, 3], M samples on rays and C in empty cells.

    depths, steps, ray: [B, M], of the samples, filled up with steps of length 0; ray counts on
    over all objects. wanted, behind: [R, 3], colours over the background, and that background.
    shares: [R], what a ray counts. clear: [B, C], what a point in an empty cell counts. step: dt.
    """

    coords: Tensor
    depths: Tensor
    steps: Tensor
    ray: Tensor
    wanted: Tensor
    behind: Tensor
    shares: Tensor
    clear: Tensor
    step: float


class RayLesson:
    """Colours of rays that the stored fields and the decoded ones see, at the same samples."""

    def __init__(self, store: Store, config: TrainConfig) -> None:
        self.store, self.config = store, config
        self.spec = NetworkSpec(**store.network)
        self.samples = fit_config(store).samples
        self._beside: dict[int, tuple[Tensor, Cameras]] = {}
        self._looks: list[tuple[Rays, Tensor, Tensor]] = []

    def draw(
        self, rows: Rows, theta: Tensor, generator: torch.Generator, share: BatchShare | None = None
    ) -> Sight:
        """Draw rays and empty points of each object, and render the rays through its field.

        Each object's draws are its own: how many numbers they take depends on what rays meet.
        """
        config, device = self.config, theta.device
        parts, colours, shares, owner, clear = [], [], [], [], []
        drawn = []
        share = share or BatchShare.all(len(rows))
        seeds = share.of(torch.randint(2**62, (share.whole,), generator=generator))
        own = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        for row, one, generator in zip(rows, theta, own, strict=True):
            scene = self._scene(int(row), one)
            rays = draw_rays(scene, ~scene.cameras.held, SPARE * config.rays, generator)
            jitter = torch.rand(len(rays), generator=generator).to(device)
            with torch.no_grad():
                seen, _ = look_through(
                    scene, self.spec, rays, self.samples, jitter=jitter, most=config.rays
                )
            seen = first_rays(seen, config.rays, config.step_samples)
            drawn.append((seen, *_empty_points(scene.grid, seen.points, config.empty, generator)))
        most = max([1, *(len(seen.points) for seen, _, _ in drawn)])
        step, base = drawn[0][0].samples.step, 0
        for (seen, empty, counts), generator in zip(drawn, own, strict=True):
            left = most - len(seen.points)
            fill = seen.depths.new_zeros(left)
            last = max(base + len(seen) - 1, 0)
            parts.append(
                (
                    torch.cat([seen.points, seen.points.new_zeros(left, 3), empty]),
                    torch.cat([seen.depths, fill]),
                    torch.cat([torch.full_like(seen.depths, step), fill]),
                    torch.cat([seen.samples.ray + base, seen.samples.ray.new_full((left,), last)]),
                )
            )
            background = torch.rand(3, generator=generator).to(device)
            colours.append(seen.colour + (1 - seen.opacity[:, None]) * background)
            owner.append(background.expand(len(seen), 3))
            shares.append(seen.opacity.new_full((len(seen),), 1 / max(len(seen), 1)))
            clear.append(counts / counts.sum().clamp_min(1))
            base += len(seen)
        coords, depths, steps, ray = (torch.stack(part) for part in zip(*parts, strict=True))
        size = len(rows)
        return Sight(
            *(coords, depths, steps, ray),
            *(torch.cat(colours), torch.cat(owner), torch.cat(shares) / size),
            torch.stack(clear) / size,
            step,
        )

    def loss(self, outputs: Tensor, asked: Sight) -> Tensor:
        """Give the mean difference of colours of rays, and of opacities of empty points from 0.

        Means of each object, then of the objects: how many rays another has changes nothing.
        """
        rgb, density = radiance_of(outputs)
        along = asked.depths.shape[1]
        seen = composite(
            rgb[:, :along].flatten(0, 1),
            density[:, :along].flatten(),
            asked.depths.flatten(),
            asked.steps.flatten(),
            asked.ray.flatten(),
            len(asked.wanted),
        )
        found = seen.colour + (1 - seen.opacity[:, None]) * asked.behind
        away = ((found - asked.wanted).abs().mean(1) * asked.shares).sum()
        fog = (-torch.expm1(-density[:, along:] * asked.step) * asked.clear).sum()
        loss: Tensor = FOREGROUND * away + (1 - FOREGROUND) * fog
        return loss

    def look(self, module: AutoEncoder, z: Tensor, rows: Rows, theta: Tensor) -> dict[str, float]:
        """Compare rays of cameras held out, on white: mean difference of colours, and PSNR.

        Half of the rays pass the object's grid; PSNR, the mean of the objects', is of these. What
        is decoded is asked along the whole of each ray, as no grid is known for it.
        """
        if not self._looks:
            generator = generator_of(0, LOOK_SEED)
            self._looks = [
                self._look_at(self._scene(int(row), one), generator)
                for row, one in zip(rows, theta, strict=True)
            ]
        errors, psnrs = [], []
        whole = torch.ones(1, 1, 1, dtype=torch.bool, device=z.device)
        for one, (rays, wanted, hit) in zip(z, self._looks, strict=True):
            found = march(rays, whole, self.samples)
            rgb, density = radiance_of(module.decoder(one[None], found.points(rays)[None])[0])
            seen = composite(rgb, density, found.depths(), found.step, found.ray, len(rays))
            away = seen.colour + (1 - seen.opacity[:, None]) - wanted
            errors.append(float(away.abs().mean()))
            if hit.any():
                psnrs.append(psnr_of(away[hit]))
        return {"error": float(np.mean(errors)), "psnr": float(np.mean(psnrs or [0.0]))}

    def rebuilt(self, module: AutoEncoder, rows: Rows, theta: Tensor) -> dict[str, float]:
        """Render a picture of each object from its embedding, by a camera held out: mean PSNR."""
        found = []
        module.eval()
        for row, one in zip(rows[:PICTURES], theta, strict=False):
            z = module.encoder(one[None])[0].cpu()
            found.append(picture_psnr(self.store, int(row), module.decoder.cpu(), z))
            module.decoder.to(theta.device)
        return {"psnr": float(np.mean(found))} if found else {}

    def _scene(self, row: int, theta: Tensor) -> Scene:
        """Give an object; the grids and cameras of the first KEPT are read once."""
        if row in self._beside:
            return Scene(theta, *self._beside[row])
        scene = scene_of(self.store, row, theta)
        if len(self._beside) < KEPT:
            self._beside[row] = scene.grid, scene.cameras
        return scene

    def _look_at(self, scene: Scene, generator: torch.Generator) -> tuple[Rays, Tensor, Tensor]:
        """Give LOOK_RAYS rays, their colours on white, and which of them pass the grid."""
        held = scene.cameras.held
        cameras = held if held.any() else ~held
        half = LOOK_RAYS // 2
        through = draw_rays(scene, cameras, SPARE * half, generator)
        _, hit = look_through(scene, self.spec, through, self.samples)
        through = through[hit[:half]]
        beside = draw_rays(scene, cameras, LOOK_RAYS - len(through), generator, anywhere=True)
        rays = Rays(
            torch.cat([through.origins, beside.origins]),
            torch.cat([through.directions, beside.directions]),
        )
        seen, hit = look_through(scene, self.spec, rays, self.samples)
        wanted = torch.ones_like(rays.origins)
        wanted[hit] = seen.colour + (1 - seen.opacity[:, None])
        passes = torch.zeros(len(rays), dtype=torch.bool, device=wanted.device)
        passes[hit] = True
        return rays, wanted, passes


def _empty_points(
    grid: Tensor, around: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # -> [count, 3], [count]
    """Draw points in empty cells, half of them near what rays pass; 1 where there is a point."""
    anywhere = torch.rand(count, 3, generator=generator) * 2 - 1
    near = anywhere
    if len(around):
        base = around.cpu()[torch.randint(len(around), (2 * count,), generator=generator)]
        near = base + NEAR * 2 / len(grid) * torch.randn(2 * count, 3, generator=generator)
    found = []
    for points in (near.to(grid.device), anywhere.to(grid.device)):
        clear = ~at_cells(points, grid) & (points.abs() < 1).all(1)
        found.append(points[clear][: count - count // 2])
    empty = torch.cat(found)[:count]
    counts = empty.new_zeros(count)
    counts[: len(empty)] = 1
    return torch.cat([empty, empty.new_zeros(count - len(empty), 3)]), counts
