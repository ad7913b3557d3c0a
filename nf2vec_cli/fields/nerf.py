"""Radiance: red, green, blue and density, fitted to pictures (paper, section VI)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.march import Rays, Samples, march
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.carve import carved_grid
from nf2vec_cli.shapes.views import Views

FOREGROUND = (
    0.8  # weight of the pixels that show the object; the others have the rest (the paper's)
)
LARGEST = 15.0  # of what the exponential is taken, so that it stays finite (tiny-cuda-nn's)
EMPTY = 8_192  # points in cells that hold nothing: single samples that should be clear


@dataclass(frozen=True)
class RayPool:
    """The rays of one object that pass an occupied cell, with their samples: drawn from to fit.

    rays: R of them, in unit space; colours: [R, 4], straight, with alpha; samples: M of them;
    first: [R + 1], where each ray's samples begin; grid: [G, G, G] bool, the visual hull; share:
    part of all pixels whose rays pass it.
    """

    rays: Rays
    colours: Tensor
    samples: Samples
    first: Tensor
    grid: Tensor
    share: float


def prepare(
    views: Views, config: FitConfig, *, rng: np.random.Generator, carved: bool = True
) -> RayPool:
    """Find the rays of an object's pictures that can see it, and their samples.

    The grid starts as the visual hull: what every silhouette that sees a cell covers. Rays beside
    it see the background, whatever the field is, and are left out. Points in empty cells stand for
    them in the loss, so that the field is clear there as well.

    Args:
        views: pictures and cameras; those held out are not looked at.
        config: settings.
        rng: of the points in empty cells.
        carved: False: all cells count, as if nothing were known of the shape.

    Raises:
        InputError: nothing is to be seen; or no cell is covered by all silhouettes: the cameras do
            not fit the pictures.
    """
    taken = ~views.held
    poses, focal = in_unit(views, taken)
    pixels = torch.from_numpy(views.pixels[taken])
    if not pixels[..., 3].any():
        raise InputError("all pictures that are to be fitted are transparent: there is no object")
    grid = torch.ones((config.grid,) * 3, dtype=torch.bool)
    if carved:
        alpha = pixels[..., 3].numpy()
        grid = torch.from_numpy(
            carved_grid(alpha, poses.double().numpy(), focal.numpy(), cells=config.grid)
        )
    if not grid.any():
        raise InputError(
            "no part of space is inside all silhouettes: the cameras do not fit the pictures"
        )
    height, width = pixels.shape[1:3]
    rays = camera_rays(poses, focal, width, height)
    colours = pixels.view(-1, 4).float() / 255
    samples = march(rays, grid, config.samples)
    # renumbered: only rays with samples are kept
    hit, ray = samples.ray.unique_consecutive(return_inverse=True)
    clear = _empty_points(grid, rng)
    count = len(hit)
    rays = Rays(
        torch.cat([rays.origins[hit], clear]),
        torch.cat([rays.directions[hit], torch.zeros_like(clear)]),
    )
    samples = Samples(
        torch.cat([ray, count + torch.arange(len(clear))]),
        torch.cat([samples.place, samples.place.new_zeros(len(clear))]),
        torch.cat([samples.near[hit], samples.near.new_zeros(len(clear))]),
        samples.step,
    )
    colours = torch.cat([colours[hit], colours.new_zeros(len(clear), 4)])
    return RayPool(
        rays, colours, samples, first_of(samples, len(rays)), grid, count / pixels[..., 0].numel()
    )


def first_of(samples: Samples, rays: int) -> Tensor:  # -> [R + 1]
    """Tell where the samples of each ray begin."""
    counts = torch.bincount(samples.ray, minlength=rays)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def in_unit(views: Views, taken: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Give cameras in unit space: poses [V, 3, 4], focal lengths [V]."""
    poses = views.poses[taken].astype(np.float64)
    poses[:, :, 3] = (poses[:, :, 3] - views.box[:3]) / views.box[3]
    return torch.from_numpy(poses.astype(np.float32)), torch.from_numpy(views.focal[taken])


def radiance_of(
    outputs: Tensor, unit: float = 1.0
) -> tuple[Tensor, Tensor]:  # [.., 4] -> [.., 3], [..]
    """Turn network outputs into colours in [0, 1] and densities per unit of object space.

    unit: length in object space that the network's own densities are per (`NetworkSpec.density`).
    """
    density = torch.exp((outputs[..., 3] - 1).clamp_max(LARGEST))
    return torch.sigmoid(outputs[..., :3]), density if unit == 1 else density * unit


def _empty_points(grid: Tensor, rng: np.random.Generator) -> Tensor:  # -> [EMPTY, 3]
    side = len(grid)
    cells = np.flatnonzero(~grid.numpy().reshape(-1))
    if not len(cells):
        return torch.empty(0, 3)
    drawn = rng.choice(cells, EMPTY)
    corner = np.stack(np.unravel_index(drawn, (side,) * 3), axis=1)
    points = (corner + rng.random((EMPTY, 3))) * (2 / side) - 1
    return torch.from_numpy(points.astype(np.float32))
