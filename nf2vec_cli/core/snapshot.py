"""A picture of points with normals: splats in a depth buffer, no display and no GPU needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LIGHT = np.array([-0.4, 0.5, 0.77])  # from above the viewer's left shoulder
AMBIENT = 0.25
RADIUS = 1.08  # half of what is seen, in object space


def snapshot(
    points: Floats,  # [M, 3], in the unit sphere
    normals: Floats | None = None,  # [M, 3]
    *,
    size: int = 220,
    azimuth: float = 35.0,
    elevation: float = 25.0,
    up: str = "z",
    splat: int = 2,
) -> NDArray[np.uint8]:  # [size, size, 3]
    """Look at points from afar: parallel rays, white ground, the nearest point of a pixel wins.

    Args:
        points: what is seen.
        normals: for the shading, either way round; None: shaded by depth.
        size: pixels along an edge.
        azimuth, elevation: of the viewer, in degrees.
        up: the axis that points up, "y" or "z".
        splat: pixels along the edge of a point.
    """
    view = _view(azimuth, elevation, up)
    seen = points @ view.T
    if normals is None:
        shade = 0.35 + 0.6 * np.clip((seen[:, 2] + 1) / 2, 0, 1)
    else:
        cosine = np.abs((normals @ view.T) @ (LIGHT / np.linalg.norm(LIGHT)))
        shade = AMBIENT + (1 - AMBIENT) * cosine
    column = ((seen[:, 0] / RADIUS + 1) / 2 * size).astype(np.int64)
    row = ((1 - seen[:, 1] / RADIUS) / 2 * size).astype(np.int64)
    order = np.argsort(seen[:, 2])  # the nearest is drawn last, and stays
    picture = np.full((size + splat, size + splat), 1.0)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    order = order[inside[order]]
    depth = np.full(picture.shape, -np.inf)
    for down in range(splat):
        for right in range(splat):
            # of equal indices numpy keeps the last one
            r, c, z = row[order] + down, column[order] + right, seen[order, 2]
            nearest = np.full(picture.shape, -np.inf)
            tone = np.ones(picture.shape)
            nearest[r, c], tone[r, c] = z, shade[order]
            wins = nearest > depth
            depth[wins], picture[wins] = nearest[wins], tone[wins]
    grey = (255 * np.clip(picture[:size, :size], 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _view(azimuth: float, elevation: float, up: str) -> Floats:
    """Give the viewer's axes as rows: right, up, towards the viewer."""
    a, e = np.deg2rad([azimuth, elevation])
    towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    above = np.array([0.0, 0.0, 1.0])
    if up == "y":
        towards, above = towards[[1, 2, 0]], above[[1, 2, 0]]
    right = np.cross(above, towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])
