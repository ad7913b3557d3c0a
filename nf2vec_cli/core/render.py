"""Volume rendering: rays of cameras, and what the samples on them add up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nf2vec_cli.core.composite import composite
from nf2vec_cli.core.march import Rays, march

RENDERED = 1 << 14  # samples whose colours are asked for at once: they stay in the cache
# coordinates [M, 3] -> colours [M, 3] in [0, 1], densities [M] per unit of object space
Radiance = Callable[[Tensor], tuple[Tensor, Tensor]]


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


def render(
    radiance: Radiance,
    rays: Rays,
    grid: Tensor,
    *,
    samples: int,
    background: Tensor,
    backend: str = "auto",
) -> Rendered:
    """Render rays through one field, without gradients; on the grid's device.

    Args:
        radiance: colours and densities at points.
        rays: R rays, on any device: what they see comes there.
        grid: [G, G, G] bool, cells that may hold something.
        samples: of the cube's diagonal.
        background: [3] or [R, 3], seen where nothing is.
        backend: of `composite`.
    """
    asked, there = rays.origins.device, grid.device
    rays = Rays(rays.origins.to(there), rays.directions.to(there))
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
        colour = seen.colour + (1 - seen.opacity[:, None]) * background.to(there)
        depth = seen.depth / seen.opacity.clamp_min(1e-6)
        return Rendered(*(part.to(asked) for part in (colour, seen.opacity, depth)))


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
