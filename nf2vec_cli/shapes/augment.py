"""Copies of a shape with other proportions, made offline (paper, section IV; the authors' code)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.unit import into_unit
from nf2vec_cli.shapes.voxels import Voxels, shell_of_points

SCALE = (2 / 3, 3 / 2)  # bounds of each axis's factor
JITTER, BOUND = 0.01, 0.05  # of a cloud's points in unit space: deviation, and where it is cut off
PARTS = 3  # points a cell is cut into along each axis: a cell grows by 3/2 over 2/3 at most


def augment(shape: Shape, *, rng: np.random.Generator) -> Shape:
    """Scale a shape along each axis by U(2/3, 3/2); a cloud's points are moved a little too.

    A voxel grid keeps its number of cells: what is occupied is scaled and cut into cells again.
    """
    factors = rng.uniform(*SCALE, 3)
    if isinstance(shape, Voxels):
        return _scaled_grid(shape, factors)
    if isinstance(shape, Cloud):
        unit, centre, scale = into_unit(shape)
        assert isinstance(unit, Cloud)
        jitter = np.clip(JITTER * rng.standard_normal(unit.points.shape), -BOUND, BOUND)
        points = (unit.points * factors + jitter) * scale + centre
        return replace(shape, points=points, normals=_scaled_normals(shape, factors))
    return replace(shape, vertices=shape.vertices * factors)


def _scaled_normals(cloud: Cloud, factors: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if cloud.normals is None:
        return None
    normals = cloud.normals / factors
    turned: NDArray[np.float64] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return turned


def _scaled_grid(voxels: Voxels, factors: NDArray[np.float64]) -> Voxels:
    unit, _, _ = into_unit(voxels)
    assert isinstance(unit, Voxels)
    part = (np.stack(np.meshgrid(*[np.arange(PARTS)] * 3, indexing="ij"), -1) + 0.5) / PARTS
    cells = np.argwhere(unit.grid)[:, None] + part.reshape(-1, 3)
    points = (cells.reshape(-1, 3) * unit.pitch - 1) * factors
    middle = (points.max(0) + points.min(0)) / 2
    # half a cell is left at each side, so that nothing is cut off by rounding
    size = np.abs(points - middle).max() / (1 - unit.pitch / 2)
    return replace(voxels, grid=shell_of_points((points - middle) / size, len(unit.grid)))
