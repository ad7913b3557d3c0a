"""A lattice of field values that holds only the points asked for, and the cells near a surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Evaluate = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # [M, 3] -> [M]
Index = NDArray[np.int32]
SLACK = 1.3  # a fitted distance is not exactly 1-Lipschitz: cells this much farther away count too
BATCH = 1 << 17  # points handed to a field at once
BRICK = 8  # points along a brick's edge
SPAN = 4  # bricks along a block's edge
BLOCK = BRICK * SPAN  # cells along a block's edge


@dataclass(frozen=True)
class NearCells:
    """Cells that a surface can touch: lowest corners [K, 3] in grid points, edge in grid steps.

    evaluated: how many points it took to find them.
    """

    corners: Index
    stride: int
    evaluated: int


def near_cells(evaluate: Evaluate, resolution: int, *, reach: float, finest: int) -> NearCells:
    """Find the cells of the grid linspace(-1, 1, resolution)^3 that a surface can touch.

    From coarse to fine a cell is kept if the distance at its centre is below half its diagonal,
    with some slack, and split in eight. The coarsest cells are the largest whose bound is below
    `reach`, so that nothing is left out by values that say only "far".

    Args:
        evaluate: distances in unit space, with or without sign, clipped to `reach`.
        resolution: points along each axis.
        reach: where the field is clipped.
        finest: edge of the cells that are returned, in grid steps.

    Returns:
        The cells; all of them if even the finest are too large for `reach`.
    """
    step = 2 / (resolution - 1)
    stride = finest
    while _bound(2 * stride * step) < 0.95 * reach and 2 * stride < resolution:
        stride *= 2
    cells = -(-(resolution - 1) // stride)
    corners = np.indices((cells, cells, cells), np.int32).reshape(3, -1).T * np.int32(stride)
    if _bound(stride * step) >= 0.95 * reach:
        return NearCells(corners, stride, 0)
    eighths = np.array(list(product((0, 1), repeat=3)), np.int32)
    evaluated = 0
    while True:
        distance = evaluate_at(evaluate, (corners + np.float32(stride / 2)), step)
        evaluated += len(corners)
        corners = corners[np.abs(distance) < _bound(stride * step)]
        if stride == finest:
            return NearCells(corners, stride, evaluated)
        stride //= 2
        corners = (corners[:, None] + eighths * np.int32(stride)).reshape(-1, 3)
        corners = corners[(corners < resolution - 1).all(1)]


def evaluate_at(
    evaluate: Evaluate, grid: NDArray[np.float32] | Index, step: float
) -> NDArray[np.float32]:
    """Evaluate a field at points [M, 3] given in grid steps from the corner (-1, -1, -1)."""
    out = np.empty(len(grid), np.float32)
    for start in range(0, len(grid), BATCH):
        part = slice(start, start + BATCH)
        out[part] = evaluate(np.minimum(grid[part] * step - 1, 1).astype(np.float32))
    return out


def _bound(edge: float) -> float:
    """Distance from the centre of a cell within which a surface in that cell must lie."""
    return SLACK * 0.5 * sqrt(3.0) * edge


class SparseLattice:
    """Field values on the points of a grid, in bricks of 8^3 that exist only where one is needed.

    Indices are those of the grid inside a layer of outside values: 0 and resolution + 1 are that
    layer, which closes a surface at the border of the box. Every point is evaluated once: the
    same point in another batch may come back with other last bits, and would tear a seam.
    """

    def __init__(self, evaluate: Evaluate, resolution: int, *, outside: float) -> None:
        """Begin with no values; `outside` is positive, and what the closing layer holds."""
        self.blocks_along = -(-(resolution + 1) // BLOCK)
        self.evaluated = 0
        self.resolution, self._evaluate, self._outside = resolution, evaluate, outside
        along = self.blocks_along * SPAN + 1
        self._table = np.zeros((along, along, along), np.int32)  # which brick; 0: none
        self._bricks = np.zeros((1, 3), np.int32)  # where each brick is; the first stands for none
        self._values = np.full((1, BRICK**3), np.nan, np.float32)

    def fill(self, cells: Index, stride: int) -> Index:
        """Evaluate what is unknown in cells [K, 3] of edge `stride` (a brick at most).

        Returns:
            The blocks with cells that have a new corner, [B, 3].
        """
        fresh = self._allocate(cells, stride)
        flat = self._values.reshape(-1)
        for offset in product(range(stride + 1), repeat=3):
            points = cells + np.array(offset, np.int32)
            points = points[((points > 0) & (points <= self.resolution)).all(1)]
            slots = self._slots(points)
            flat[slots[np.isnan(flat[slots])]] = np.inf  # wanted
        changed = np.zeros(len(self._bricks), bool)
        per_batch = BATCH // BRICK**3
        for start in range(1, len(self._bricks), per_batch):
            part = slice(start, start + per_batch)
            which, where = np.nonzero(np.isposinf(self._values[part]))
            if len(which):
                self._measure(which + start, where)
                changed[which + start] = True
        changed[len(changed) - fresh :] = True
        return self._blocks_of(self._bricks[changed])

    def block(self, index: Index) -> NDArray[np.float32]:
        """Copy the points of one block, [33, 33, 33], NaN where none is known."""
        i, j, k = index * SPAN
        which = self._table[i : i + SPAN + 1, j : j + SPAN + 1, k : k + SPAN + 1]
        side = (SPAN + 1) * BRICK
        bricks = self._values[which].reshape(*which.shape, BRICK, BRICK, BRICK)
        points = bricks.transpose(0, 3, 1, 4, 2, 5).reshape(side, side, side)
        points = np.ascontiguousarray(points[: BLOCK + 1, : BLOCK + 1, : BLOCK + 1])
        for axis, first in enumerate(index * BLOCK):
            across = np.moveaxis(points, axis, 0)
            if first == 0:
                across[0] = self._outside
            across[max(self.resolution + 1 - first, 0) :] = self._outside
        return points

    def _allocate(self, cells: Index, stride: int) -> int:
        touched = np.zeros(self._table.shape, bool)
        for offset in product((0, stride), repeat=3):
            touched[tuple(((cells + np.array(offset, np.int32)) // BRICK).T)] = True
        fresh = np.argwhere(touched & (self._table == 0)).astype(np.int32)
        count = len(self._bricks)
        self._table[tuple(fresh.T)] = np.arange(count, count + len(fresh), dtype=np.int32)
        self._bricks = np.concatenate([self._bricks, fresh])
        empty = np.full((len(fresh), BRICK**3), np.nan, np.float32)
        self._values = np.concatenate([self._values, empty])
        return len(fresh)

    def _slots(self, points: Index) -> NDArray[np.int64]:
        brick, (x, y, z) = self._table[tuple((points // BRICK).T)], (points % BRICK).T
        slots: NDArray[np.int64] = brick.astype(np.int64) * BRICK**3 + (x * BRICK + y) * BRICK + z
        return slots

    def _measure(self, which: NDArray[np.int64], where: NDArray[np.int64]) -> None:
        local = np.stack(np.unravel_index(where, (BRICK, BRICK, BRICK)), 1)
        grid = (self._bricks[which] * BRICK + local - 1).astype(np.int32)
        found = evaluate_at(self._evaluate, grid, 2 / (self.resolution - 1))
        limit = self._outside
        found = np.nan_to_num(found, nan=limit, posinf=limit, neginf=-limit)
        # a value of 0 would put several vertices on one spot; this is far below a cell
        tiny = np.float32(1e-5 * limit)
        small = np.abs(found) < tiny
        found[small] = np.where(found[small] < 0, -tiny, tiny)
        self._values[which, where] = found
        self.evaluated += len(found)

    def _blocks_of(self, bricks: Index) -> Index:
        """Name the blocks that have one of these bricks, or see its first points as their last."""
        seen = np.zeros((self.blocks_along,) * 3, bool)
        for back in product((0, 1), repeat=3):
            index = (bricks - np.array(back, np.int32)) // SPAN
            index = index[(index >= 0).all(1) & (index < self.blocks_along).all(1)]
            seen[tuple(index.T)] = True
        return np.argwhere(seen).astype(np.int32)
