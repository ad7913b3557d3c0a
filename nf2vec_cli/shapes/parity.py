"""Ray parity: a point is inside if a ray from it crosses the surface an odd number of times.

Faces need not agree on a side, which is what the winding number cannot do without. libigl shoots
one ray a call; Embree (by trimesh) adds 45 MB for a Python loop over float32 hits. Casting whole
lines through a grid of triangles is 100 lines of numpy, exact along edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.shapes.orient import Faces, Vertices
from nf2vec_cli.shapes.sample import Points

LINES = 5  # each is two rays, up and down
BLOCK = 1 << 19  # pairs of point and triangle tested at once
SLACK = 1e-6  # of a cell: rounding must not keep a triangle from a cell that it touches
SAME = 1e-9  # crossings of a line this close, relative to the mesh, are one face twice


@dataclass(frozen=True)
class Parity:
    """inside [M] bool: what most lines say; sure [M] bool: enough lines say it."""

    inside: NDArray[np.bool_]
    sure: NDArray[np.bool_]


def parity(vertices: Vertices, faces: Faces, points: Points, *, lines: int = LINES) -> Parity:
    """Tell inside from outside at points [M, 3] by the vote of several lines through each.

    A line that crosses the surface an odd number of times in all went through a hole: it has no
    vote. A point is sure if at least half of its lines vote and three of four of those agree.
    """
    odd = np.zeros(len(points), np.int64)
    votes = np.zeros(len(points), np.int64)
    for turn in _turns(lines):
        above, below = _crossings(vertices @ turn, faces, points @ turn)
        whole = (above + below) % 2 == 0
        votes += whole
        odd += whole & (above % 2 == 1)
    most = np.maximum(odd, votes - odd)
    return Parity(2 * odd > votes, (2 * votes >= lines) & (4 * most >= 3 * votes))


def _turns(count: int) -> list[NDArray[np.float64]]:
    """Give rotations that send the z axis to directions spread over the half sphere."""
    golden = np.pi * (3 - np.sqrt(5))
    found = []
    for k in range(count):
        z = (k + 0.5) / count
        x, y = np.sqrt(1 - z * z) * np.array([np.cos(golden * k + 0.3), np.sin(golden * k + 0.3)])
        frame = np.stack([[0.36, 0.48, 0.8], [0.8, -0.6, 0.0], [x, y, z]][::-1], axis=1)
        turn = np.linalg.qr(frame)[0]
        found.append(turn[:, [1, 2, 0]])
    return found


def _crossings(
    vertices: Vertices, faces: Faces, points: Points
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # [M], [M]
    """Count the faces that a line along z through each point crosses, above it and below."""
    order, first, low, step, grid = _grid(vertices, faces)
    cell = np.floor((points[:, :2] - low) / step).astype(np.int64)
    hit = np.flatnonzero(((cell >= 0) & (cell < grid)).all(axis=1))
    cell = cell[hit, 0] * grid + cell[hit, 1]
    count = first[cell + 1] - first[cell]
    above, below = np.zeros((2, len(points)), np.int64)
    ends = np.cumsum(count)
    start = 0
    while start < len(hit):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK, side="right")))
        part = count[start:stop]
        owner, place = _expanded(first[cell[start:stop]], part)
        point, height = _hits(vertices, faces[order[place]], points, hit[start:stop][owner])
        above += np.bincount(point[height > 0], minlength=len(points))
        below += np.bincount(point[height <= 0], minlength=len(points))
        start = stop
    return above, below


def _grid(
    vertices: Vertices, faces: Faces
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], int]:
    """Sort triangles into the cells of the plane that they touch, row by row.

    Returns:
        Triangles in order of their cell, each cell's first one, the grid's corner, its cell's
        sides, and cells a side.
    """
    grid = int(np.clip(np.sqrt(len(faces)), 8, 1024))
    flat = vertices[faces][:, :, :2]
    low = flat.min((0, 1))
    step = (flat.max((0, 1)) - low) * (1 + 1e-9) / grid
    flat = (flat - low) / step
    face, row = _expanded(*_span(flat[:, :, 1].min(1), flat[:, :, 1].max(1), grid))
    # between the row's borders each edge spans some columns: a long thin triangle takes few cells
    part = flat[face]
    least, most = np.full(len(face), np.inf), np.full(len(face), -np.inf)
    for k in range(3):
        (x0, y0), (x1, y1) = part[:, k].T, part[:, (k + 1) % 3].T
        rise = np.where(y1 == y0, 1, y1 - y0)
        ends = np.sort([(row - SLACK - y0) / rise, (row + 1 + SLACK - y0) / rise], axis=0)
        ends = np.where(y1 == y0, [[0.0], [1.0]], np.clip(ends, 0, 1))
        met = (np.maximum(y0, y1) >= row - SLACK) & (np.minimum(y0, y1) <= row + 1 + SLACK)
        across = x0 + ends * (x1 - x0)
        least = np.where(met, np.minimum(least, across.min(0)), least)
        most = np.where(met, np.maximum(most, across.max(0)), most)
    pair, column = _expanded(*_span(least - SLACK, most + SLACK, grid))
    cell = column * grid + row[pair]
    by_cell = np.argsort(cell, kind="stable")
    first = np.r_[0, np.cumsum(np.bincount(cell, minlength=grid * grid))]
    return face[pair][by_cell], first, low, step, grid


def _span(
    low: NDArray[np.float64], high: NDArray[np.float64], grid: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the first of the unit intervals that each range touches, and how many they are."""
    first, last = (np.clip(np.floor(end), 0, grid - 1).astype(np.int64) for end in (low, high))
    return first, last - first + 1


def _expanded(
    first: NDArray[np.int64], count: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number each range's owner and members: ranges (5, 2), (8, 1) give 0 0 1 and 5 6 8."""
    owner = np.repeat(np.arange(len(first)), count)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(count) - count - first, count)


def _hits(
    vertices: Vertices, corners: Faces, points: Points, point: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give the pairs (point, corners of a face) where the face is above or below, and how far.

    Each edge is tested from its smaller vertex, so that two faces that share it agree on which
    of them a line through it crosses. Faces that lie in one place and face one way count once.
    """
    at_x, at_y = points[point, 0], points[point, 1]
    sides, lefts = [], []
    for k in range(3):
        tail, head = corners[:, k], corners[:, (k + 1) % 3]
        small, large = np.minimum(tail, head), np.maximum(tail, head)
        x, y = vertices[small, 0], vertices[small, 1]
        area = (vertices[large, 0] - x) * (at_y - y) - (vertices[large, 1] - y) * (at_x - x)
        sides.append(np.where(tail < head, area, -area))
        lefts.append((area >= 0) == (tail < head))
    front = lefts[0]
    agree = (lefts[1] == front) & (lefts[2] == front)
    kept = np.flatnonzero(agree)
    weight = np.stack([side[kept] for side in sides], axis=1)[:, [1, 2, 0]]
    total = weight.sum(axis=1)
    total[total == 0] = 1
    height = (weight * vertices[corners[kept], 2]).sum(axis=1) / total - points[point[kept], 2]
    point, front = point[kept], front[kept]
    rank = np.lexsort((height, front, point))
    point, front, height = point[rank], front[rank], height[rank]
    again = np.zeros(len(point), bool)
    again[1:] = (point[1:] == point[:-1]) & (front[1:] == front[:-1]) & (np.diff(height) < SAME)
    return point[~again], height[~again]
