"""Random points on a surface, and an order that keeps neighbours together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def surface_points(
    vertices: Points,  # [V, 3]
    faces: NDArray[np.integer],  # [F, 3]
    count: int,
    *,
    rng: np.random.Generator,
) -> Points:  # [count, 3]
    """Draw points uniformly by area (paper, section III-A), one in each equal slice of the area.

    The same distribution as independent draws, with less clumping. The points come in the order
    of the faces.
    """
    return surface_sample(vertices, faces, count, rng=rng)[0]


def surface_sample(
    vertices: Points, faces: NDArray[np.integer], count: int, *, rng: np.random.Generator
) -> tuple[Points, Points]:  # [count, 3], [count, 3]
    """Draw points as `surface_points` does, with the unit normals of their faces."""
    corners = vertices[faces]
    edges = corners[:, 1:] - corners[:, :1]
    normals = np.cross(edges[:, 0], edges[:, 1])
    area = np.linalg.norm(normals, axis=1)
    ends = np.cumsum(area)
    at = (np.arange(count) + rng.random(count)) / count * ends[-1]
    chosen = np.minimum(np.searchsorted(ends, at, side="right"), len(faces) - 1)
    u, v = rng.random((2, count, 1))
    fold = u + v > 1
    u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
    points: Points = corners[chosen, 0] + u * edges[chosen, 0] + v * edges[chosen, 1]
    return points, normals[chosen] / np.maximum(area[chosen], 1e-300)[:, None]


def morton_order(points: Points, bits: int = 10) -> NDArray[np.int64]:  # [M, 3] -> [M]
    """Sort points in [-1, 1]^3 along a space-filling (Z) curve: neighbours stay close."""
    cells = np.clip((points + 1) * (1 << (bits - 1)), 0, (1 << bits) - 1).astype(np.int64)
    code = np.zeros(len(points), dtype=np.int64)
    for bit in range(bits):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")
