"""From radiance to a mesh, a cloud or voxels, in unit space, and the colours on them."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.core.lattice import BATCH
from nf2vec_cli.core.render import occupied
from nf2vec_cli.core.surface import Surface, occupancy_surface
from nf2vec_cli.tasks.radiance_field import Renderable

Floats = NDArray[np.float32]
Places = NDArray[np.float64]
THICKNESS = 1 / 32  # a cell of the usual grid of 64
LEVEL = 0.5  # opacity of a layer of that thickness from which on it is the object


def opacity(field: Renderable, coords: Floats) -> Floats:  # [M, 3] -> [M]
    """Give the share of light that a layer of THICKNESS stops at points; 0 in empty cells."""
    found = np.zeros(len(coords), np.float32)
    points = torch.from_numpy(coords)
    # just inside: what lies on the cube's faces belongs to the cells next to them
    taken = occupied(points.clamp(-1 + 1e-6, 1 - 1e-6), field.grid.cpu()).nonzero()[:, 0]
    for part in taken.split(BATCH):
        density = field.at(points[part])[1]
        found[part.numpy()] = (-torch.expm1(-density * THICKNESS)).numpy()
    return found


def radiance_surface(field: Renderable, resolution: int) -> Surface:
    """Run marching cubes where the opacity is LEVEL: a density of 22 per unit of object space.

    The triangles face outward, to where it is clear.
    """
    return occupancy_surface(lambda at: opacity(field, at), resolution, level=LEVEL)


def colours_at(field: Renderable, points: Places) -> NDArray[np.uint8]:  # [M, 3] -> [M, 3]
    """Give the field's colours at points, as bytes."""
    parts = [field.at(part)[0] for part in torch.from_numpy(points.astype(np.float32)).split(BATCH)]
    colours = torch.cat(parts) if parts else torch.empty(0, 3)
    whole: NDArray[np.uint8] = (colours * 255).round().to(torch.uint8).numpy()
    return whole


def reach_of(field: Renderable) -> float:
    """Give the distance from the origin to the farthest corner of an occupied cell, 1 at least."""
    cells = field.grid.nonzero().double()
    if not len(cells):
        return 1.0
    width = 2 / len(field.grid)
    low = (cells * width - 1).abs()
    corners = torch.maximum(low, ((cells + 1) * width - 1).abs())
    return min(max(1.0, float(corners.square().sum(1).max().sqrt())), sqrt(3))
