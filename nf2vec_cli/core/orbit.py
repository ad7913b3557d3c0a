"""Cameras on a circle around the origin, all looking at it."""

from __future__ import annotations

from math import tan

import torch
from torch import Tensor

# as in the synthetic NeRF scenes, whose field of view this is: from 3 away the unit sphere fills
# 0.98 of the picture
RADIUS, ANGLE = 3.0, 0.6911112070083618
AZIMUTH, ELEVATION = 35.0, 25.0  # degrees: from in front, a little to the right and above


def orbit(
    count: int,
    *,
    radius: float = RADIUS,
    azimuth: float = AZIMUTH,
    elevation: float = ELEVATION,
    up: str = "z",
) -> Tensor:  # [count, 3, 4]
    """Give cameras to world, OpenGL axes, evenly around the axis that points up.

    Args:
        count: cameras; the second is an `count`th of a turn to the left of the first.
        radius: distance from the origin.
        azimuth: of the first camera, in degrees.
        elevation: of all, in degrees.
        up: the axis that points up, "y" or "z".
    """
    turn = torch.deg2rad(azimuth + 360 / count * torch.arange(count, dtype=torch.float64))
    rise = torch.deg2rad(torch.tensor(elevation, dtype=torch.float64))
    back = torch.stack(
        [turn.cos() * rise.cos(), turn.sin() * rise.cos(), rise.sin().expand(count)], -1
    )
    above = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    if up == "y":
        back, above = back[:, [1, 2, 0]], above[[1, 2, 0]]
    right = torch.nn.functional.normalize(
        torch.linalg.cross(above.expand_as(back), back, dim=-1), dim=-1
    )
    ahead = torch.linalg.cross(back, right, dim=-1)
    return torch.stack([right, ahead, back, radius * back], -1).float()


def focal_length(width: int) -> float:
    """Give the focal length, in pixels, of a picture of that width that is ANGLE wide."""
    return 0.5 * width / tan(ANGLE / 2)
