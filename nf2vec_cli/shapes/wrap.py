"""A closed surface around a dirty mesh, by a grid: for what cannot be cleaned."""

from __future__ import annotations

import igl
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, generate_binary_structure, label
from skimage.measure import marching_cubes

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.sample import surface_points
from nf2vec_cli.shapes.voxels import shell_of_mesh

CELLS = 144  # along each axis of [-MARGIN, MARGIN]^3
MARGIN = 1.06
LEAKS = 0.05  # of the wrap's cells, the share that must be inside of the surface's own cells
TOUCH = 0.02  # distance that is left to the surface, in cells
Grid = NDArray[np.bool_]


def wrap(mesh: Mesh) -> tuple[Mesh, float]:
    """Wrap a mesh in unit space: what cannot be reached from outside is inside.

    Holes smaller than a cell (1/68 of the radius) are closed. The wrap is drawn at about a cell's
    distance and then pulled to the surface. Cavities are filled.

    Returns:
        A closed mesh, and the distance from the surface within which 95 % of it lies.

    Raises:
        InputError: the outside leaks in: nothing is inside but the surface itself.
    """
    rng = np.random.default_rng(0)
    shell = shell_of_mesh(mesh.vertices / MARGIN, mesh.faces, CELLS, rng=rng)
    outside = _outside(shell)
    solid = ~outside
    core = solid & ~shell
    if core.sum() < LEAKS * solid.sum():
        raise InputError(
            "the surface is open: a wrap around it has no inside; fit it with `--field udf`"
        )
    vertices, faces = _surface_of(solid)
    pulled = _pulled(mesh, vertices)
    closed = Mesh(pulled, faces, True, mesh.notes)
    some = surface_points(pulled, faces, 5_000, rng=rng)
    squared = igl.point_mesh_squared_distance(some, mesh.vertices, mesh.faces.astype(np.int64))[0]
    return closed, float(np.sqrt(np.quantile(squared, 0.95)))


def _outside(shell: Grid) -> Grid:
    """Mark the cells that can be reached from the border without passing the shell."""
    regions, _ = label(~np.pad(shell, 1))
    outside: Grid = (regions == regions[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return outside


def _surface_of(solid: Grid) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw the border of the solid cells, smoothed a little so that it can be pulled."""
    grown = np.pad(solid, 2)
    ring = generate_binary_structure(3, 1)
    height = grown.astype(np.float32) + binary_dilation(grown, ring)
    vertices, faces, _, _ = marching_cubes(1.0 - height, 0.0)
    unit = ((vertices.astype(np.float64) - 2 + 0.5) * 2 / CELLS - 1) * MARGIN
    return unit, faces.astype(np.int64)


def _pulled(mesh: Mesh, vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move vertices that are near the surface onto it; those that span a hole stay."""
    faces = mesh.faces.astype(np.int64)
    squared, _, nearest = igl.point_mesh_squared_distance(vertices, mesh.vertices, faces)
    cell = 2 * MARGIN / CELLS
    distance = np.sqrt(squared)[:, None]
    target = nearest + (vertices - nearest) * (TOUCH * cell / np.maximum(distance, TOUCH * cell))
    return np.where(distance < 2 * cell, target, vertices)
