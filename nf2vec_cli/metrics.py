"""How good a reconstruction is: pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class SurfaceScore:
    """Two surfaces compared in unit space (the shape in a sphere of radius 1).

    chamfer: mean of the two mean distances, sample to surface, both ways. f1 and f025: F-score at
    1 % and 0.25 % of the radius, in [0, 1].
    """

    chamfer: float
    f1: float
    f025: float


def surface_distance(
    points: Points, vertices: Points, faces: NDArray[np.integer]
) -> NDArray[np.float64]:  # [M, 3], [V, 3], [F, 3] -> [M]
    """Measure the exact distance of each point to a triangle mesh, without sign."""
    squared = igl.point_mesh_squared_distance(points, vertices, faces.astype(np.int64))[0]
    distance: NDArray[np.float64] = np.sqrt(squared)
    return distance


def f_score(to_truth: NDArray[np.float64], to_result: NDArray[np.float64], bound: float) -> float:
    """Harmonic mean of precision and recall: shares of distances below `bound`; 0 if both are 0."""
    precision, recall = (to_truth < bound).mean(), (to_result < bound).mean()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


def surface_score(to_truth: NDArray[np.float64], to_result: NDArray[np.float64]) -> SurfaceScore:
    """Score from the distances of result samples to the truth, and of truth samples to the result.

    Distances are to the surface, not to another sample, so that F at 0.25 % is not bounded by how
    densely the surfaces were sampled.
    """
    return SurfaceScore(
        chamfer=float(to_truth.mean() + to_result.mean()) / 2,
        f1=f_score(to_truth, to_result, 0.01),
        f025=f_score(to_truth, to_result, 0.0025),
    )
