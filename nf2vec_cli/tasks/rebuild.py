"""From one field to a mesh, a cloud or voxels, in unit space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.project import zero_cloud
from nf2vec_cli.core.shell import Shell, shell_surface
from nf2vec_cli.core.surface import Surface, occupancy_surface, zero_surface
from nf2vec_cli.fields import occ
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.sample import surface_points
from nf2vec_cli.shapes.voxels import Voxels, shell_of_points
from nf2vec_cli.tasks.field_function import Askable
from nf2vec_cli.tasks.radiance_field import Renderable
from nf2vec_cli.tasks.radiance_shape import LEVEL, colours_at, opacity, radiance_surface

BLOCK = 1 << 18  # cells whose values are asked for at once
Shown = Askable | Renderable  # a field that can be shown, of any kind
KEPT = 0.02  # distance, by the field, up to which a point is on the surface (the authors')


class Form(StrEnum):
    """What a field can be turned into."""

    mesh = "mesh"
    cloud = "cloud"
    voxels = "voxels"
    pictures = "pictures"  # of nerf alone: `tasks.picture_object`


NATURAL = {"sdf": Form.mesh, "udf": Form.cloud, "occ": Form.voxels, "nerf": Form.pictures}


@dataclass(frozen=True)
class Built:
    """A shape in unit space, and the share of the dense grid's points that it took to find it.

    colours: of a mesh's vertices or a cloud's points (nerf), [M, 3].
    """

    shape: Shape
    evaluated: float | None
    colours: NDArray[np.uint8] | None = None


def build(
    field: Shown, kind: str, form: Form, *, resolution: int, points: int, seed: int = 0
) -> Built:
    """Turn a field into a shape.

    Args:
        field: the field.
        kind: "sdf", "udf", "occ" or "nerf".
        form: what to make of it; not pictures.
        resolution: grid points (mesh) or cells (voxels) along each axis of [-1, 1]^3.
        points: of a cloud.
        seed: of a cloud's points.
    """
    if isinstance(field, Renderable):
        return _coloured(field, form, resolution, points, seed)
    if form is Form.voxels:
        return Built(_voxels(field, kind, resolution, points, seed), None)
    if form is Form.cloud and kind == "udf":
        rng = np.random.default_rng(seed)
        found = zero_cloud(
            field.values, field.slopes, points, reach=field.reach, rng=rng, near=KEPT
        )
        return Built(Cloud(found.points.astype(np.float64), None, ()), None)
    surface = _surface(field, kind, resolution)
    mesh = Mesh(surface.vertices, surface.faces, True, ())
    if form is Form.mesh or not len(mesh.faces):
        empty = Cloud(np.empty((0, 3)), None, ())
        return Built(mesh if form is Form.mesh else empty, surface.evaluated)
    drawn = surface_points(mesh.vertices, mesh.faces, points, rng=np.random.default_rng(seed))
    return Built(Cloud(drawn, None, ()), surface.evaluated)


def _coloured(field: Renderable, form: Form, resolution: int, points: int, seed: int) -> Built:
    if form is Form.voxels:
        return Built(_cells(lambda at: opacity(field, at) > LEVEL, resolution), None)
    surface = radiance_surface(field, resolution)
    mesh = Mesh(surface.vertices, surface.faces, True, ())
    if form is Form.mesh:
        return Built(mesh, surface.evaluated, colours_at(field, mesh.vertices))
    if not len(mesh.faces):
        return Built(Cloud(np.empty((0, 3)), None, ()), surface.evaluated)
    drawn = surface_points(mesh.vertices, mesh.faces, points, rng=np.random.default_rng(seed))
    return Built(Cloud(drawn, None, ()), surface.evaluated, colours_at(field, drawn))


def _surface(field: Askable, kind: str, resolution: int) -> Surface | Shell:
    if kind == "udf":
        return shell_surface(field.values, field.slopes, resolution, reach=field.reach)
    if kind == "occ":
        return occupancy_surface(field.values, resolution, level=occ.LEVEL)
    return zero_surface(field.values, resolution, reach=field.reach)


def _voxels(field: Askable, kind: str, cells: int, points: int, seed: int) -> Voxels:
    if kind == "udf":
        # enough points that no cell of the surface is missed
        cloud = build(
            field, kind, Form.cloud, resolution=cells, points=max(points, 16 * cells**2), seed=seed
        ).shape
        assert isinstance(cloud, Cloud)
        return _unit_voxels(shell_of_points(cloud.points, cells))
    if kind == "occ":
        return _cells(lambda at: field.values(at) > occ.LEVEL, cells)
    return _cells(lambda at: field.values(at) < 0, cells)


def _cells(inside: Callable[[NDArray[np.float32]], NDArray[np.bool_]], cells: int) -> Voxels:
    """Ask for the centres of all cells of a grid over [-1, 1]^3 whether they are inside."""
    grid = np.empty(cells**3, bool)
    for start in range(0, len(grid), BLOCK):
        at = np.arange(start, min(start + BLOCK, len(grid)))
        index = np.stack(np.unravel_index(at, (cells,) * 3), axis=1)
        grid[at] = inside(((2 * index + 1) / cells - 1).astype(np.float32))
    return _unit_voxels(grid.reshape((cells,) * 3))


def _unit_voxels(grid: NDArray[np.bool_]) -> Voxels:
    return Voxels(grid, np.full(3, -1.0), 2 / len(grid), ())


def same_form(source: Shape, kind: str, form: Form, cells: int, config: FitConfig) -> Shape:
    """Give the truth in the form of what was built: voxels as the field was fitted to them."""
    if form is not Form.voxels or isinstance(source, Voxels):
        return source
    occupancy = {"sdf": "solid", "udf": "shell"}.get(kind, config.occupancy)
    wanted = config.model_copy(update={"voxels": cells, "occupancy": occupancy})
    return _unit_voxels(occ.occupied_cells(source, wanted, rng=np.random.default_rng(0)))
