"""Move a shape into object space: the unit sphere, or the cube [-1, 1]^3 for a voxel grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.mesh import Vertices, normalise
from nf2vec_cli.shapes.voxels import Voxels


def into_unit(
    shape: Shape, how: Literal["box", "vertices"] = "box"
) -> tuple[Shape, Vertices, float]:
    """Give a shape in object space, with its centre [3] and scale: user = unit * scale + centre."""
    if isinstance(shape, Voxels):
        return _cube(shape)
    if isinstance(shape, Cloud):
        points, centre, scale = normalise(shape.points, how=how)
        return replace(shape, points=points), centre, scale
    vertices, centre, scale = normalise(shape.vertices, how=how)
    return replace(shape, vertices=vertices), centre, scale


def onto_unit(shape: Shape, centre: Vertices, scale: float) -> Shape:
    """Move a shape by a centre and scale that are known, such as those of its field."""
    if isinstance(shape, Voxels):
        return _cube(shape)[0]
    if isinstance(shape, Cloud):
        return replace(shape, points=(shape.points - centre) / scale)
    return replace(shape, vertices=(shape.vertices - centre) / scale)


def _cube(voxels: Voxels) -> tuple[Voxels, Vertices, float]:
    """Pad a grid with empty cells to a cube, which becomes [-1, 1]^3."""
    size = max(voxels.grid.shape)
    before = [(size - n) // 2 for n in voxels.grid.shape]
    after = [size - n - b for n, b in zip(voxels.grid.shape, before, strict=True)]
    grid = np.pad(voxels.grid, list(zip(before, after, strict=True)))
    scale = voxels.pitch * size / 2
    centre = voxels.origin - voxels.pitch * np.array(before) + scale
    unit = replace(voxels, grid=grid, origin=np.full(3, -1.0), pitch=2 / size)
    return unit, centre, scale
