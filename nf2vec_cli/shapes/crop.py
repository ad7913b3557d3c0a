"""Partial copies of shapes: what is on one side of a random plane (paper: completion of clouds)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import trimesh
from numpy.typing import NDArray

from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import FEWEST, Cloud
from nf2vec_cli.shapes.load import Shape

Floats = NDArray[np.float64]
HALVINGS = 60  # of the range in which a mesh's plane lies: down to the rounding of a double


def crop(shape: Shape, share: float, *, rng: np.random.Generator) -> Shape:
    """Keep a share of a shape's surface: what is on one side of a plane of random direction.

    Kept are the points whose place along the direction is the greatest. The shape stays where it
    is, and is not scaled: it lies on the whole one. A mesh's triangles are cut at the plane, which
    leaves it open; nothing covers the cut.

    Args:
        shape: mesh, cloud or voxel grid, in any units.
        share: of a mesh's area, a cloud's points, or a grid's occupied cells, in (0, 1]. A cloud
            keeps four points at least, a grid one cell.
        rng: draws the direction, uniformly on the sphere.
    """
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    if share >= 1:
        return shape
    note = f"cut: {share:.0%} of the surface kept"
    if isinstance(shape, Mesh):
        return _cut(shape, share, direction, note)
    notes = (*shape.notes, note)
    if isinstance(shape, Cloud):
        kept = _greatest(shape.points @ direction, share, FEWEST)
        normals = None if shape.normals is None else shape.normals[kept]
        return Cloud(shape.points[kept], normals, notes)
    cells = np.argwhere(shape.grid)
    grid = np.zeros_like(shape.grid)
    grid[tuple(cells[_greatest(cells @ direction, share, 1)].T)] = True
    return replace(shape, grid=grid, notes=notes)


def _greatest(heights: Floats, share: float, fewest: int) -> NDArray[np.int64]:
    """List the places of the greatest values, in their order."""
    count = min(max(round(share * len(heights)), fewest), len(heights))
    kept: NDArray[np.int64] = np.sort(np.argsort(heights, kind="stable")[len(heights) - count :])
    return kept


def _cut(mesh: Mesh, share: float, direction: Floats, note: str) -> Mesh:
    corners = mesh.vertices[mesh.faces]
    heights = np.sort(corners @ direction, axis=1)
    edges = corners[:, 1:] - corners[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    low, high = float(heights.min()), float(heights.max())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if area @ _above(heights, middle) > share * area.sum():
            low = middle
        else:
            high = middle
    # the last plane that leaves at least the share: a flat piece across it is kept whole
    vertices, faces, _ = trimesh.intersections.slice_faces_plane(
        mesh.vertices, mesh.faces, direction, low * direction
    )
    used, faces = np.unique(faces, return_inverse=True)
    return Mesh(vertices[used], faces.reshape(-1, 3), False, (*mesh.notes, note))


def _above(heights: Floats, level: float) -> Floats:  # [F, 3], each row sorted -> [F]
    """Give the share of each triangle's area that is above a level."""
    low, middle, high = heights.T
    with np.errstate(divide="ignore", invalid="ignore"):
        below = (level - low) ** 2 / ((middle - low) * (high - low))
        above = (high - level) ** 2 / ((high - middle) * (high - low))
    part: Floats = np.where(level < middle, 1 - below, above)
    return np.where(level <= low, 1.0, np.where(level >= high, 0.0, part))
