"""The zero surface of a signed field as triangles, evaluated only where the surface is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

Evaluate = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # [M, 3] -> [M]
STRIDES = (8, 4, 2, 1)
SLACK = 1.3  # a fitted distance is not exactly 1-Lipschitz: cells this much farther away count too
BLOCK = 1 << 18  # points handed to `evaluate` at once


@dataclass(frozen=True)
class Surface:
    """Triangles in object space: vertices [V, 3] in [-1, 1]^3, faces [F, 3], outward normals.

    evaluated: share of the dense grid's points that were evaluated.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    evaluated: float


def zero_surface(evaluate: Evaluate, resolution: int, *, reach: float) -> Surface:
    """Run marching cubes at level 0 on the grid linspace(-1, 1, resolution)^3 (paper, section IV).

    A coarse lattice is evaluated first; the full grid only in its cells that the surface can
    touch, which leaves out about 6 of 7 points. The grid is closed with a layer of outside
    values, so that a surface that touches the border of the box has no hole there.

    Args:
        evaluate: signed distances in unit space, clipped to +-reach.
        resolution: points along each axis.
        reach: where the field is clipped; nothing is skipped by values that say only "far".

    Returns:
        The surface; without vertices if the field has no zero crossing.
    """
    cell = 2 / (resolution - 1)
    stride = next(s for s in STRIDES if s == 1 or _bound(s, cell) < 0.95 * reach)
    cells = -(-(resolution - 1) // stride)
    values, evaluated = _refined_grid(evaluate, cells, stride, cell, resolution)
    if not (values.min() < 0 < values.max()):
        return Surface(np.empty((0, 3)), np.empty((0, 3), np.int64), evaluated)
    closed = np.pad(values, 1, constant_values=reach)
    vertices, faces, _, _ = marching_cubes(closed, 0.0)
    points = np.clip((vertices.astype(np.float64) - 1) * cell - 1, -1, 1)
    return Surface(points, faces.astype(np.int64), evaluated)


def _bound(stride: int, cell: float) -> float:
    """Distance from a lattice corner within which a surface in the corner's cell must lie."""
    return SLACK * 0.5 * sqrt(3.0) * stride * cell


def _refined_grid(
    evaluate: Evaluate, cells: int, stride: int, cell: float, resolution: int
) -> tuple[NDArray[np.float32], float]:
    axis = np.arange(cells + 1) * stride
    corners = _evaluate_at(
        evaluate, np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1), cell
    )
    if stride == 1:
        return corners, 1.0
    size = cells * stride
    # outside the refined cells only the sign matters: the nearest corner's will do
    near = np.minimum((np.arange(size + 1) + stride // 2) // stride, cells)
    values = corners[np.ix_(near, near, near)]
    small = np.abs(corners)
    nearest = np.min(
        [
            small[i : cells + i, j : cells + j, k : cells + k]
            for i in (0, 1)
            for j in (0, 1)
            for k in (0, 1)
        ],
        axis=0,
    )
    active = np.argwhere(nearest < _bound(stride, cell))
    step = np.arange(stride)
    inside = np.stack(np.meshgrid(step, step, step, indexing="ij"), -1).reshape(-1, 3)
    done = corners.size
    per_block = max(1, BLOCK // len(inside))
    for start in range(0, len(active), per_block):
        index = (active[start : start + per_block, None] * stride + inside).reshape(-1, 3)
        values[tuple(index.T)] = _evaluate_at(evaluate, index, cell)
        done += len(index)
    kept = values[:resolution, :resolution, :resolution]
    return kept, done / resolution**3


def _evaluate_at(evaluate: Evaluate, index: NDArray[np.int64], cell: float) -> NDArray[np.float32]:
    flat = index.reshape(-1, 3)
    out = np.empty(len(flat), np.float32)
    for start in range(0, len(flat), BLOCK):
        part = slice(start, start + BLOCK)
        out[part] = evaluate(np.minimum(flat[part] * cell - 1, 1).astype(np.float32))
    return out.reshape(index.shape[:-1])
