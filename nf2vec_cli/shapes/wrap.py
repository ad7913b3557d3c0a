"""A closed surface around a mesh that has none: a grid, a flood from outside, and a pull back.

As in ManifoldPlus (Huang, Zhou, Guibas 2020), what the outside reaches is outside and its border is
pulled onto the source. Cracks narrower than a cell are bridged; what lies hidden inside is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, mean
from skimage.measure import marching_cubes

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.parity import parity
from nf2vec_cli.shapes.sample import Points, surface_points

RESOLUTION = 128  # grid points along the longest side
LEVEL = 0.55  # cells: a flood from node to node cannot cross a surface it passes within half a cell
MARGIN = 3  # cells of outside on every side
STRIDES = (16, 8, 4, 2, 1)
SAMPLE = 4000
CAVITY = 0.3  # a hollow whose mean winding number is below this, and that rays call outside
SHEETS = 0.1  # largest share of the wrap with nothing behind it: above, the inside has leaked away

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Wrap:
    """A closed mesh; how far 99 % of its surface is from the source at most; the grid's cell."""

    mesh: Mesh
    within: float
    cell: float


def wrap(mesh: Mesh, *, rng: np.random.Generator, resolution: int = RESOLUTION) -> Wrap:
    """Wrap a mesh: the border of what cannot be reached from outside, on the source's own faces.

    The distance to the source is taken on a grid. Outside floods the nodes farther than half a
    cell from it; the level set around them is then moved to the nearest points of the source, so
    that nothing is thickened and no wall is too thin. Hollows that are sealed off are solid, or
    stay hollow where both the winding number and ray parity say so.

    Raises:
        InputError: it has holes wider than a cell, through which the outside flooded its inside.
    """
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    cell = float((high - low).max()) / (resolution - 1 - 2 * MARGIN)
    low = low - MARGIN * cell
    shape = tuple((np.ceil((high - low) / cell) + 1 + MARGIN).astype(int))
    distance = _distances(mesh, low, cell, shape)
    level = LEVEL * cell
    region, count = label(distance > level)
    hollow = _hollow(mesh, region, count, low, cell)
    field = np.where(hollow[region] | (region == 0), distance - level, -distance - level)
    vertices, faces, _, _ = marching_cubes(field, 0.0)
    source = mesh.faces.astype(np.int64)
    on = igl.point_mesh_squared_distance(vertices * cell + low, mesh.vertices, source)[2]
    wrapped = Mesh(on, faces.astype(np.int64), True)
    sheets = _sheets(wrapped, 0.05 * cell, rng)
    if sheets > SHEETS:
        raise InputError(
            f"no closed surface can be wrapped around it: {sheets:.0%} of its surface has nothing "
            f"behind it, it has holes wider than {cell:.1%} of its radius or consists of sheets "
            "(`--field udf` needs no inside)"
        )
    some = surface_points(on, wrapped.faces, SAMPLE, rng=rng)
    away = np.sqrt(igl.point_mesh_squared_distance(some, mesh.vertices, source)[0])
    return Wrap(wrapped, float(np.quantile(away, 0.99)), cell)


def _distances(mesh: Mesh, low: Points, cell: float, shape: tuple[int, ...]) -> Grid:
    """Measure distances at grid nodes, up to 3 cells; blocks of nodes that are farther are skipped.

    A block is split while the distance at its middle says that the surface may be near it.
    """
    band = 3 * cell
    faces = mesh.faces.astype(np.int64)
    stride = STRIDES[0]
    blocks = np.indices([-(-n // stride) for n in shape]).reshape(3, -1).T
    for stride in STRIDES:
        half = (stride - 1) / 2
        at = (blocks * stride + half) * cell + low
        far = np.sqrt(igl.point_mesh_squared_distance(at, mesh.vertices, faces)[0])
        if stride > 1:
            near = blocks[far < half * cell * np.sqrt(3) + band]
            blocks = (2 * near[:, None] + np.indices((2, 2, 2)).reshape(3, -1).T).reshape(-1, 3)
            blocks = blocks[(blocks * (stride // 2) < shape).all(axis=1)]
    grid = np.full(shape, band)
    grid[tuple(blocks.T)] = np.minimum(far, band)
    return grid


def _hollow(
    mesh: Mesh, region: NDArray[np.integer], count: int, low: Points, cell: float
) -> NDArray[np.bool_]:  # [count + 1]
    """Tell which regions are empty: the outside, and sealed cavities."""
    hollow = np.zeros(count + 1, bool)
    outside = region[0, 0, 0]
    hollow[outside] = True
    nodes = np.argwhere((region > 0) & (region != outside))
    if len(nodes):
        # every region has its share of the sample, the small ones too
        name = region[tuple(nodes.T)]
        order = np.argsort(name, kind="stable")
        rank = np.arange(len(name)) - np.searchsorted(name[order], name[order])
        some = order[rank % np.maximum(1, np.bincount(name)[name[order]] * count // SAMPLE) == 0]
        points, name = nodes[some] * cell + low, name[some]
        winding = igl.fast_winding_number(mesh.vertices, mesh.faces.astype(np.int64), points)
        odd = parity(mesh.vertices, mesh.faces, points).inside
        number = np.unique(name)
        turns = np.abs(mean(winding, name, number))
        hollow[number] = (turns < CAVITY) & (mean(odd.astype(float), name, number) < 0.5)
    return hollow


def _sheets(mesh: Mesh, depth: float, rng: np.random.Generator) -> float:
    """Give the share of a surface that has no inside just below it."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    size = np.linalg.norm(normal, axis=1)
    some = rng.choice(len(size), SAMPLE, p=size / size.sum())
    below = (a + b + c)[some] / 3 - depth * normal[some] / size[some, None]
    winding = igl.fast_winding_number(mesh.vertices, mesh.faces, below)
    return float((winding < 0.5).mean())
