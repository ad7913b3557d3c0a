"""The zero set of an unsigned distance: a cloud of any size, or a thin closed shell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.core.surface import CORNERS, SLACK, Surface, zero_surface

Floats = NDArray[np.float32]
Evaluate = Callable[[Floats], Floats]  # [M, 3] -> [M]
Slopes = Callable[[Floats], Floats]  # [M, 3] -> [M, 3]
COARSE, FINE = 32, 128  # cells along each axis, at first and at last, in which points are sought
STEPS = 5  # moves of a point towards the surface
KEPT = 0.02  # distance after the last move from which a point is none (the authors')
ROUNDS = 20  # draws of points before fewer than wanted are given
LEVEL, THICKNESS = 1.0, 0.25  # of a shell, in grid cells: where it is cut, half of what is left


@dataclass(frozen=True)
class ZeroCloud:
    """Points [n, 3] on the surface, n up to what was wanted, and the points evaluated for it."""

    points: NDArray[np.float64]
    evaluated: int


def zero_cloud(
    evaluate: Evaluate, slopes: Slopes, count: int, *, reach: float, rng: np.random.Generator
) -> ZeroCloud:
    """Draw points of the surface of an unsigned distance field (paper, section IV).

    The authors draw from the whole cube, of which the surface's neighbourhood is less than 1 %;
    here points start in cells that the surface can touch, found from coarse to fine. They move
    against the gradient by the distance, and count if they end up near the surface.

    Returns:
        `count` points; fewer, down to none, if the field has too little surface: no loop for ever.
    """
    cells, cell, seen = _cells(evaluate, reach)
    found: list[Floats] = []
    total = 0
    for _ in range(ROUNDS if len(cells) else 0):
        draws = max(2 * (count - total), 1_000)
        # every cell as often as any other, up to one: even spacing
        chosen = rng.permutation(np.resize(rng.permutation(len(cells)), draws))
        start = (cells[chosen] + rng.random((draws, 3))) * cell - 1
        points = _pulled(evaluate, slopes, start.astype(np.float32), 0.0, STEPS)
        good = (evaluate(points) <= KEPT) & (np.abs(points) <= 1).all(axis=1)
        seen += (STEPS + 1) * draws
        found.append(points[good])
        total += int(good.sum())
        if total >= count:
            break
    points = np.concatenate(found)[:count] if found else np.empty((0, 3), np.float32)
    return ZeroCloud(points.astype(np.float64), seen)


def _cells(evaluate: Evaluate, reach: float) -> tuple[NDArray[np.int64], float, int]:
    """Find the cells [K, 3] of a grid that the surface can touch, their size, and the cost."""
    size, seen = COARSE, 0
    axis = np.arange(size)
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    while True:
        cell = 2 / size
        values = evaluate(((cells + 0.5) * cell - 1).astype(np.float32))
        seen += len(cells)
        bound = SLACK * 0.5 * sqrt(3.0) * cell
        if bound < 0.95 * reach:  # else the field says only "far"
            cells = cells[values < bound]
        if size >= FINE:
            return cells, cell, seen
        size *= 2
        cells = (2 * cells[:, None] + CORNERS).reshape(-1, 3)


def _pulled(
    evaluate: Evaluate, slopes: Slopes, points: Floats, height: float, steps: int
) -> Floats:
    """Move points [M, 3] along the gradient to a distance of `height` from the surface."""
    for _ in range(steps):
        way = slopes(points)
        length = np.linalg.norm(way, axis=1, keepdims=True)
        # where the field is flat there is no way to tell
        way = np.where(length > 1e-6, way / np.maximum(length, 1e-6), 0)
        points = points - way * (evaluate(points) - np.float32(height))[:, None]
    return points


def shell_surface(evaluate: Evaluate, slopes: Slopes, resolution: int, *, reach: float) -> Surface:
    """Mesh the surface of an unsigned distance field as a thin closed shell, without holes.

    An unsigned distance has no crossing for marching cubes to find. Its level set at one grid cell
    from the surface is closed, whatever the surface is: a sheet on each side, joined at the rims.
    Its vertices are then pulled to a quarter of a cell from the surface.
    """
    cell = 2 / (resolution - 1)
    level = np.float32(LEVEL * cell)

    def raised(coords: Floats) -> Floats:
        return evaluate(coords) - level

    found = zero_surface(raised, resolution, reach=reach - float(level))
    if not len(found.faces):
        return found
    points = found.vertices.astype(np.float32)
    points = _pulled(evaluate, slopes, points, THICKNESS * cell, 2)
    # a point that ends up far from where it was has been misled by a crease
    near = np.linalg.norm(points - found.vertices, axis=1) < 2 * LEVEL * cell
    vertices = np.where(near[:, None], points.astype(np.float64), found.vertices)
    return Surface(np.clip(vertices, -1, 1), found.faces, found.evaluated)
