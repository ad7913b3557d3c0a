"""The surface of a signed or an occupancy field as triangles, evaluated only where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from nf2vec_cli.core.lattice import (
    BLOCK,
    Evaluate,
    Index,
    SparseLattice,
    evaluate_at,
    near_cells,
)

FINEST = 2  # edge of the smallest cell that is left out or kept, in grid steps
COARSE = 2 / 63  # edge of the cells in which an occupancy field is looked at first
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Surface:
    """Triangles in object space: vertices [V, 3] in [-1, 1]^3, faces [F, 3], outward normals.

    evaluated: points that were evaluated, as a share of the dense grid's.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    evaluated: float


def zero_surface(evaluate: Evaluate, resolution: int, *, reach: float) -> Surface:
    """Run marching cubes at level 0 on the grid linspace(-1, 1, resolution)^3 (paper, section IV).

    The triangles are those of the dense grid, but only cells near the surface are evaluated, and
    those next to them that the surface turns out to enter. The grid is closed with a layer of
    outside values, so that a surface that touches the border of the box has no hole there.

    Args:
        evaluate: signed distances in unit space, clipped to +-reach.
        resolution: points along each axis.
        reach: where the field is clipped; nothing is skipped by values that say only "far".

    Returns:
        The surface; without vertices if the field has no zero crossing.
    """
    near = near_cells(evaluate, resolution, reach=reach, finest=FINEST)
    lattice = SparseLattice(evaluate, resolution, outside=reach)
    return _polygonise(lattice, near.corners, near.stride, near.evaluated)


def occupancy_surface(evaluate: Evaluate, resolution: int, *, level: float) -> Surface:
    """Run marching cubes at `level` on the grid linspace(-1, 1, resolution)^3.

    A probability does not tell how far the surface is. A lattice of about 64^3 points is evaluated
    first, then the grid in its cells whose corners are not all on one side and in their
    neighbours, then wherever the surface leads. A part that lies between the points of that
    lattice and touches nothing else is missed.

    Args:
        evaluate: probabilities of being inside, [M, 3] -> [M].
        resolution: points along each axis.
        level: inside is where the probability is above it; in (0, 1).

    Returns:
        The surface; without vertices if all points are on one side, but for the closed box.
    """

    def below(coords: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.float32(level) - evaluate(coords)

    step = 2 / (resolution - 1)
    stride = 1
    while 2 * stride * step <= COARSE:
        stride *= 2
    cells = -(-(resolution - 1) // stride)
    lattice = SparseLattice(below, resolution, outside=level)
    if stride == 1:
        every = np.indices((cells,) * 3, np.int32).reshape(3, -1).T
        return _polygonise(lattice, every, 1, 0)
    grid = np.indices((cells + 1,) * 3, np.int32).reshape(3, -1).T * np.int32(stride)
    inside = np.zeros((cells + 3,) * 3, bool)  # in the same closing layer
    inside[1:-1, 1:-1, 1:-1] = (evaluate_at(below, grid, step) < 0).reshape((cells + 1,) * 3)
    mixed = _any_corner(inside) & _any_corner(~inside)
    ring = np.pad(mixed, 1)
    for axis in range(3):
        ring = _pairs(_pairs(ring, axis), axis)
    corners = np.argwhere(ring[1:-1, 1:-1, 1:-1]).astype(np.int32) * np.int32(stride)
    return _polygonise(lattice, corners, stride, len(grid))


def _polygonise(lattice: SparseLattice, corners: Index, stride: int, spent: int) -> Surface:
    """Evaluate the lattice in these cells and wherever the surface leaves them; mesh its blocks."""
    found: dict[tuple[int, ...], None] = {}
    blocks = lattice.fill(corners + 1, stride)
    while len(blocks):
        found |= dict.fromkeys(map(tuple, blocks.tolist()))
        torn = [_torn(lattice.block(index)) + index * np.int32(BLOCK) for index in blocks]
        blocks = lattice.fill(np.concatenate(torn).astype(np.int32), 1)
    points, triangles, count = [np.empty((0, 3))], [np.empty((0, 3), np.int64)], 0
    for index in sorted(found):
        some, joined = _march(lattice.block(np.array(index, np.int32)))
        points.append(some + np.array(index) * float(BLOCK))
        triangles.append(joined.astype(np.int64) + count)
        count += len(some)
    vertices, faces = _weld(np.concatenate(points), np.concatenate(triangles))
    size = lattice.resolution
    # one step back over the closing layer, whose vertices come to lie on the border
    unit = np.clip((vertices - 1) * (2 / (size - 1)) - 1, -1, 1)
    return Surface(unit, faces, (spent + lattice.evaluated) / size**3)


def _torn(values: NDArray[np.float32]) -> Index:
    """Find cells with unknown corners that the surface enters: known ones are on both sides."""
    unknown = np.isnan(values)
    if not unknown.any() or not (values < 0).any():
        return np.empty((0, 3), np.int32)
    crossed = _any_corner(values < 0) & _any_corner(values > 0)
    return np.argwhere(crossed & _any_corner(unknown)).astype(np.int32)


def _march(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Run marching cubes in the cells of one block whose corners are known."""
    crossed = _any_corner(values < 0) & _any_corner(values > 0) & ~_any_corner(np.isnan(values))
    if not crossed.any():
        return np.empty((0, 3), np.float32), np.empty((0, 3), np.int32)
    mask = np.zeros(values.shape, bool)
    mask[1:, 1:, 1:] = crossed  # a cell goes by its highest corner
    vertices, faces, _, _ = marching_cubes(np.nan_to_num(values, nan=1.0), 0.0, mask=mask)
    return vertices, faces


def _weld(
    points: NDArray[np.float64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make one vertex of those that two blocks have in the face, edge or corner that they share.

    They are equal to the last bit: the coordinate across the seam is a whole number, and along it
    both blocks have the same origin and values.
    """
    seam = np.flatnonzero((points % BLOCK == 0).any(1))
    _, first, same = np.unique(points[seam], axis=0, return_index=True, return_inverse=True)
    keep = np.ones(len(points), bool)
    keep[seam] = False
    keep[seam[first]] = True
    new = np.cumsum(keep) - 1
    new[seam] = new[seam[first]][same.reshape(-1)]
    welded = new[faces]
    whole = (welded != np.roll(welded, 1, axis=1)).all(1)
    return points[keep], welded[whole]


def _any_corner(points: Bools) -> Bools:
    for axis in range(3):
        points = _pairs(points, axis)
    return points


def _pairs(flags: Bools, axis: int) -> Bools:
    ahead = np.moveaxis(flags, axis, 0)
    return np.moveaxis(ahead[1:] | ahead[:-1], 0, axis)
