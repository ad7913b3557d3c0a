"""How good a field is: its error near the surface, and what is rebuilt against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.fields.pool import Pool
from nf2vec_cli.fields.udf import distance
from nf2vec_cli.metrics import iou, surface_score
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.sample import Points, surface_points
from nf2vec_cli.shapes.voxels import Voxels
from nf2vec_cli.tasks.field_function import FieldFunction

SAMPLES = 20_000  # surface points on each side of a comparison


@dataclass(frozen=True)
class Quality:
    """What is rebuilt, compared with its source in unit space; None: it does not apply.

    chamfer: mean of the two mean distances, both ways; f1, f025: F-score at 1 % and 0.25 % of the
    unit sphere's radius; iou: occupied cells in both over those in either.
    """

    chamfer: float | None = None
    f1: float | None = None
    f025: float | None = None
    iou: float | None = None


def field_error(field: FieldFunction, pool: Pool) -> float:
    """Mean absolute error of the field's values at the pool's points near the surface."""
    near = pool.near
    return float(np.abs(field.values(pool.coords[near]) - pool.values[near]).mean())


def compare(found: Shape, truth: Shape) -> Quality:
    """Compare a shape with the truth, both in unit space.

    Voxels are compared with voxels of the same grid. All else by distances from a fixed sample of
    each to the other: to its triangles, or to the nearest point of a cloud.
    """
    if isinstance(found, Voxels):
        if not isinstance(truth, Voxels) or truth.grid.shape != found.grid.shape:
            return Quality()
        return Quality(iou=iou(found.grid, truth.grid))
    if isinstance(truth, Voxels) or not _size(found):
        return Quality()
    score = surface_score(
        distance(truth, sample_of(found, seed=1)), distance(found, sample_of(truth, seed=0))
    )
    return Quality(score.chamfer, score.f1, score.f025)


def sample_of(shape: Shape, *, seed: int) -> Points:  # [SAMPLES, 3] at most
    """Draw the fixed sample of a mesh's surface, or of a cloud's points."""
    rng = np.random.default_rng(seed)
    if isinstance(shape, Mesh):
        return surface_points(shape.vertices, shape.faces, SAMPLES, rng=rng)
    assert not isinstance(shape, Voxels)
    points: NDArray[np.float64] = shape.points
    if len(points) <= SAMPLES:
        return points
    return points[np.sort(rng.choice(len(points), SAMPLES, replace=False))]


def _size(shape: Shape) -> int:
    return len(shape.faces) if isinstance(shape, Mesh) else len(getattr(shape, "points", ()))
