"""Occupancy of the cells of a voxel grid, 0 or 1 at their centres (paper, section III-A)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.mlp import PointLoss
from nf2vec_cli.fields.loss import focal
from nf2vec_cli.fields.pool import Pool, in_order
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.sample import morton_order
from nf2vec_cli.shapes.voxels import (
    Voxels,
    shell_of_mesh,
    shell_of_points,
    solid_of_mesh,
    solid_of_shell,
)

LEVEL = 0.4  # probability from which the authors take a cell for occupied
Grid = NDArray[np.bool_]
# Strata: occupied cells at the boundary, empty cells that touch one, the next cells outside, and
# all others. Share of each in a step's points.
SHARES = (0.35, 0.35, 0.2, 0.1)
BAND = 3  # cells beyond the touching ones that count as the next


def prepare(shape: Shape, config: FitConfig, *, rng: np.random.Generator) -> Pool:
    """Give `config.pool` cell centres of a shape's grid with their occupancy.

    All cells near the boundary are taken, as far as they fit into 3/4 of the pool, and a random
    part of the others. With the recipe `paper` the pool is every cell of a grid of 64^3.
    """
    grid = occupied_cells(shape, config, rng=rng)
    stratum = _strata(grid).reshape(-1)
    chosen = _chosen(stratum, config.pool, rng)
    index = np.stack(np.unravel_index(chosen, grid.shape), axis=1)
    coords = (2 * index + 1) / len(grid) - 1
    order = morton_order(coords)
    chosen = chosen[order]
    return Pool(
        coords[order].astype(np.float32),
        grid.reshape(-1)[chosen].astype(np.float32),
        stratum[chosen],
        SHARES,
        _boundary(grid, stratum, rng),
        cells=len(grid),
    )


def occupied_cells(shape: Shape, config: FitConfig, *, rng: np.random.Generator) -> Grid:
    """Cut a shape in unit space into cells of the cube [-1, 1]^3: [n, n, n], True if occupied.

    A voxel grid keeps its own resolution. A mesh or a cloud is voxelised: `shell`, the cells that
    its surface or points pass through (the paper), or `solid`, with what they enclose.
    """
    if isinstance(shape, Voxels):
        return shape.grid
    if isinstance(shape, Cloud):
        shell = shell_of_points(shape.points, config.voxels)
        return shell if config.occupancy == "shell" else solid_of_shell(shell)
    assert isinstance(shape, Mesh)
    if config.occupancy == "shell":
        return shell_of_mesh(shape.vertices, shape.faces, config.voxels, rng=rng)
    return solid_of_mesh(shape.vertices, shape.faces, config.voxels)


def _strata(grid: Grid) -> NDArray[np.int8]:
    touching = np.ones((3, 3, 3), bool)
    stratum = np.full(grid.shape, 3, np.int8)
    grown = binary_dilation(grid, touching)
    stratum[binary_dilation(grown, touching, iterations=BAND)] = 2
    stratum[grown] = 1
    stratum[grid] = 3  # deep inside a solid
    stratum[grid & binary_dilation(~grid, touching)] = 0
    return stratum


def _boundary(
    grid: Grid, stratum: NDArray[np.int8], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw points on the faces between occupied cells and empty ones."""
    cells = np.stack(np.unravel_index(np.flatnonzero(stratum == 0), grid.shape), axis=1)
    padded = np.pad(grid, 1)
    ways = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    open_to = np.stack([~padded[tuple((cells + 1 + way).T)] for way in ways], axis=1)
    cell, way = np.nonzero(open_to)
    at = rng.integers(len(cell), size=SURFACE_POINTS)
    offset = rng.uniform(-0.5, 0.5, (SURFACE_POINTS, 3))
    facing = ways[way[at]]
    offset = np.where(facing, facing / 2, offset)
    return in_order((2 * (cells[cell[at]] + offset) + 1) / len(grid) - 1)


def _chosen(stratum: NDArray[np.int8], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose `count` cells: without repetition while there are enough."""
    if count >= len(stratum):
        rest = rng.integers(len(stratum), size=count - len(stratum))
        return np.concatenate([np.arange(len(stratum)), rest])
    near, far = np.flatnonzero(stratum < 2), np.flatnonzero(stratum >= 2)
    most = max(count * 3 // 4, count - len(far))
    if len(near) > most:
        near = rng.choice(near, most, replace=False, shuffle=False)
    return np.concatenate([near, rng.choice(far, count - len(near), replace=False, shuffle=False)])


def point_loss(config: FitConfig) -> PointLoss:
    """Give the loss: focal, with the configuration's weights."""
    return focal(config.focal_alpha, config.focal_gamma)


def labels(values: Tensor) -> Tensor:
    """Occupancy is its own label."""
    return values


def read_back(outputs: Tensor) -> Tensor:
    """Turn network outputs into probabilities that a point is occupied."""
    return torch.sigmoid(outputs)
