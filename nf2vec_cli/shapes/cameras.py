"""Where the cameras stand that take pictures of a mesh."""

from __future__ import annotations

from math import pi, sqrt, tan

import numpy as np
from numpy.typing import NDArray

# as in the synthetic NeRF scenes, whose field of view this is; the unit sphere fills 0.98 of it
RADIUS, ANGLE = 3.0, 0.6911112070083618
GOLDEN = pi * (3 - sqrt(5))  # [rad] between two neighbours of the spiral
Floats = NDArray[np.float64]


def focal_length(width: int) -> float:
    """Give the focal length [pixels] of a picture of that width."""
    return 0.5 * width / tan(ANGLE / 2)


def cameras_around(count: int, *, turn: float) -> Floats:  # [count, 3, 4]
    """Spread cameras evenly over the whole sphere of RADIUS around the origin, looking at it.

    They stand on a Fibonacci spiral (equal areas). No direction is left out, since files do not
    agree on which axis is up: y is, for the pictures, as in glTF.

    Args:
        count: of cameras.
        turn: by which the spiral is turned about y [rad].

    Returns:
        Camera to world, OpenGL axes: right, up, and back, away from the origin; and the place.
    """
    height = 1 - (2 * np.arange(count) + 1) / count
    around = GOLDEN * np.arange(count) + turn
    flat = np.sqrt(1 - height**2)
    back = np.stack([flat * np.sin(around), height, flat * np.cos(around)], -1)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(back, right), back, RADIUS * back], -1)


def directions(width: int, pose: Floats) -> Floats:  # [3, 4] -> [width * width, 3]
    """Give the unit directions of the rays through a square picture's pixels, row by row."""
    across = (np.arange(width) + 0.5 - width / 2) / focal_length(width)
    x, y = np.meshgrid(across, -across)
    rays = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3) @ pose[:, :3].T
    unit: Floats = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return unit
