"""Surfaces of a field as triangles, evaluated only where the surface is, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter
from skimage.measure import marching_cubes

Floats = NDArray[np.float32]
Index = NDArray[np.int64]
Evaluate = Callable[[Floats], Floats]  # [M, 3] -> [M]
LEAF = 2  # grid cells along an edge of the smallest cube that is kept or left out
BLOCK = 32  # grid cells along an edge of a block that marching cubes sees at once
SLACK = 1.3  # a fitted distance is not exactly 1-Lipschitz: cubes this much farther away count too
COARSE = 0.032  # edge of the coarsest cube where values tell no distance: half a cell of 64^3
CHUNK = 1 << 18  # points handed to `evaluate` at once
CORNERS = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)


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

    Cubes are looked at from coarse to fine: one whose centre is farther from the surface than its
    corners are is left out with all that is in it. Memory is bounded by the surface, not the grid.
    The grid is closed with a layer of outside values, so that a surface that touches the border
    of the box has no hole there.

    Args:
        evaluate: signed distances in unit space, negative inside, clipped to +-reach.
        resolution: points along each axis.
        reach: where the field is clipped; nothing is left out by values that say only "far".

    Returns:
        The surface; without vertices if the field has no zero crossing.
    """
    cell = 2 / (resolution - 1)

    def bound(stride: int) -> float:
        return SLACK * 0.5 * sqrt(3.0) * stride * cell

    def near(values: Floats, stride: int, _: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.abs(values) < bound(stride)

    stride = LEAF
    while stride * 2 < resolution and bound(stride * 2) < 0.95 * reach:
        stride *= 2
    if bound(stride) >= 0.95 * reach:  # cubes too large for what the field tells: look at all

        def near(values: Floats, stride: int, _: NDArray[np.bool_]) -> NDArray[np.bool_]:  # noqa: ARG001
            return np.ones(len(values), bool)

    return _Extraction(evaluate, resolution, stride, near).surface(reach)


def occupancy_surface(evaluate: Evaluate, resolution: int, *, level: float) -> Surface:
    """Run marching cubes at a probability; inside is above it.

    A probability tells no distance, so cubes are refined where they or a neighbour differ in side.
    """

    def signed(coords: Floats) -> Floats:
        return np.float32(level) - evaluate(coords)

    def mixed(_: Floats, __: int, around: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return around

    stride = LEAF
    while stride * 2 < resolution and 2 * stride * 2 / (resolution - 1) <= COARSE:
        stride *= 2
    return _Extraction(signed, resolution, stride, mixed).surface(1.0)


class _Extraction:
    """Which cubes hold the surface, and the field's values at the grid points of those."""

    def __init__(
        self,
        evaluate: Evaluate,
        resolution: int,
        stride: int,
        keep: Callable[[Floats, int, NDArray[np.bool_]], NDArray[np.bool_]],
    ) -> None:
        self.evaluate, self.resolution = evaluate, resolution
        self.cell = 2 / (resolution - 1)
        self.count = 0
        self.inside, self.active = self._refined(stride, keep)
        self.points, self.values = np.empty(0, np.int64), np.empty(0, np.float32)
        fresh = np.argwhere(self.active)
        while len(fresh):
            self._add(fresh)
            fresh = self._crossed()

    def _refined(
        self, stride: int, keep: Callable[..., NDArray[np.bool_]]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Find, from coarse to fine, the side of each smallest cube and whether it is looked at."""
        size = -(-(self.resolution - 1) // stride)
        active = np.ones((size,) * 3, bool)
        inside = np.zeros((size,) * 3, bool)
        while True:
            index = np.argwhere(active)
            values = self._at(stride * (index + np.float64(0.5)))
            inside[tuple(index.T)] = values < 0
            around = _mixed(inside)[tuple(index.T)]
            active[tuple(index.T)] = keep(values, stride, around)
            if stride == LEAF:
                return inside, active
            stride //= 2
            for axis in range(3):
                inside, active = inside.repeat(2, axis), active.repeat(2, axis)

    def _at(self, index: NDArray[np.float64] | Index) -> Floats:
        """Evaluate at positions [M, 3] counted in grid cells."""
        out = np.empty(len(index), np.float32)
        for start in range(0, len(index), CHUNK):
            part = slice(start, start + CHUNK)
            out[part] = self.evaluate(np.minimum(index[part] * self.cell - 1, 1).astype(np.float32))
        self.count += len(index)
        return out

    def _add(self, cubes: Index) -> None:
        """Evaluate the grid points of cubes [K, 3] that are not known yet."""
        step = np.arange(LEAF + 1)
        offsets = np.stack(np.meshgrid(step, step, step, indexing="ij"), -1).reshape(-1, 3)
        found = []
        for start in range(0, len(cubes), CHUNK // 8):
            index = (cubes[start : start + CHUNK // 8, None] * LEAF + offsets).reshape(-1, 3)
            index = index[(index < self.resolution).all(axis=1)]
            found.append(np.unique(self._flat(index)))
        fresh = np.setdiff1d(np.concatenate(found), self.points)
        values = self._at(np.stack(np.unravel_index(fresh, (self.resolution,) * 3), axis=1))
        points, known = np.concatenate([self.points, fresh]), np.concatenate([self.values, values])
        order = np.argsort(points)
        self.points, self.values = points[order], known[order]

    def _flat(self, index: Index) -> Index:
        flat: Index = (index[..., 0] * self.resolution + index[..., 1]) * self.resolution
        return flat + index[..., 2]

    def _crossed(self) -> Index:
        """Find cubes that were left out though the surface enters them: it must not end there."""
        index = np.stack(np.unravel_index(self.points, (self.resolution,) * 3), axis=1)
        within = self.values < 0
        fresh = []
        for corner in CORNERS:
            cube = np.clip((index - corner) // LEAF, 0, np.array(self.active.shape) - 1)
            at = tuple(cube.T)
            wrong = ~self.active[at] & (self.inside[at] != within)
            fresh.append(cube[wrong])
        cubes = np.unique(np.concatenate(fresh), axis=0)
        self.active[tuple(cubes.T)] = True
        return cubes

    def surface(self, outside: float) -> Surface:
        """Run marching cubes in every block that holds a part of the surface, and join the parts.

        Neighbouring blocks see the same values on the face that they share, so the vertices there
        are equal to the last bit.
        """
        vertices, faces, at = [], [], 0
        blocks = -(-(self.resolution + 1) // BLOCK)
        for block in np.ndindex(blocks, blocks, blocks):
            # the grid begins with a layer of outside values, at index -1
            first = np.array(block) * BLOCK - 1
            values = self._block(first, outside)
            if values is None:
                continue
            points, corners, _, _ = marching_cubes(values, 0.0)
            vertices.append(points.astype(np.float64) + first)
            faces.append(corners.astype(np.int64) + at)
            at += len(points)
        share = self.count / self.resolution**3
        if not vertices:
            return Surface(np.empty((0, 3)), np.empty((0, 3), np.int64), share)
        joined, corners = _joined(np.concatenate(vertices), np.concatenate(faces))
        return Surface(np.clip(joined * self.cell - 1, -1, 1), corners, share)

    def _block(self, first: Index, outside: float) -> Floats | None:
        """Give the values of a block's grid points; None if they are all on one side."""
        span = [np.arange(start, start + BLOCK + 1) for start in first]
        valid = [(axis >= 0) & (axis < self.resolution) for axis in span]
        cubes = [np.clip(a // LEAF, 0, self.active.shape[0] - 1) for a in span]
        inside = self.inside[np.ix_(*cubes)] & valid[0][:, None, None]
        inside &= valid[1][:, None] & valid[2]
        active = self.active[np.ix_(*[np.unique(c) for c in cubes])].any()
        if not active and (inside.all() or not inside.any()):
            return None
        values = np.where(inside, np.float32(-outside), np.float32(outside))
        x, y, z = (np.clip(a, 0, self.resolution - 1) for a in span)
        index = self._flat(np.stack(np.meshgrid(x, y, z, indexing="ij"), -1))
        place = np.minimum(np.searchsorted(self.points, index), max(len(self.points) - 1, 0))
        if len(self.points):
            known = self.points[place] == index
            known &= valid[0][:, None, None] & valid[1][:, None] & valid[2]
            values[known] = self.values[place[known]]
        return values if values.min() < 0 < values.max() else None


def _mixed(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which cubes have one of the other side among their neighbours."""
    bits = inside.astype(np.uint8)
    mixed: NDArray[np.bool_] = maximum_filter(bits, 3) != minimum_filter(bits, 3)
    return mixed


def _joined(
    vertices: NDArray[np.float64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make one of equal vertices on the faces between blocks."""
    seam = np.flatnonzero(((vertices + 1) % BLOCK == 0).any(axis=1))
    _, first, group = np.unique(
        np.ascontiguousarray(vertices[seam]).view(np.dtype((np.void, 24)))[:, 0],
        return_index=True,
        return_inverse=True,
    )
    to = np.arange(len(vertices))
    to[seam] = seam[first][group]
    used = np.zeros(len(vertices), bool)
    used[to] = True
    faces = (np.cumsum(used) - 1)[to[faces]]
    a, b, c = faces.T
    whole = (a != b) & (b != c) & (c != a)
    return vertices[used], faces[whole]
