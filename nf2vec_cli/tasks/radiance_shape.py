"""From radiance to a mesh, a cloud or voxels, in unit space, and the colours on them."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from torch import Tensor

from nf2vec_cli.core.lattice import BATCH
from nf2vec_cli.core.march import at_cells, occupied
from nf2vec_cli.core.surface import Surface, occupancy_surface
from nf2vec_cli.tasks.radiance_field import Renderable

Floats = NDArray[np.float32]
Places = NDArray[np.float64]
THICKNESS = 1 / 32  # a cell of the usual grid of 64
DARK, MARGIN = 0.05, 2  # light that reaches what is hidden, and cells around that are left as is
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

    What is hidden counts as full. No picture shows it, so nothing has taught the field what is
    there: it is riddled with hollows, which would be most of the triangles. The triangles face
    outward, to where it is clear.
    """
    hidden = hidden_cells(field)

    def filled(coords: Floats) -> Floats:
        inside = at_cells(torch.from_numpy(coords), hidden).numpy()
        return np.where(inside, np.float32(1), opacity(field, coords))

    return occupancy_surface(filled, resolution, level=LEVEL)


def hidden_cells(field: Renderable) -> Tensor:
    """Find the cells that cannot be seen along any axis, without the outermost: [G, G, G] bool."""
    side = len(field.grid)
    middles = ((2 * np.indices((side,) * 3).reshape(3, -1).T + 1) / side - 1).astype(np.float32)
    passed = (1 - opacity(field, middles)).reshape((side,) * 3) ** (2 / side / THICKNESS)
    light = np.zeros_like(passed)
    for axis in range(3):
        ahead = np.cumprod(passed, axis)
        back = np.flip(np.cumprod(np.flip(passed, axis), axis), axis)
        light = np.maximum(light, np.maximum(ahead, back))
    hidden = binary_erosion(light < DARK, iterations=MARGIN)
    return torch.from_numpy(hidden)


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
