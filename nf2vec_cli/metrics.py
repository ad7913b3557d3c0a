"""How good a reconstruction is: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.float64]
CHUNK = 1 << 16  # queries of a tree at once


@dataclass(frozen=True)
class CloudScore:
    """Two clouds compared point by point.

    chamfer_t: mean squared distance to the nearest point, one way plus the other, as the paper's
    tables have it (times 1000). chamfer_p: mean of the two mean distances. f_score: harmonic mean
    of the shares of points nearer than the bound, 0 if both are 0.
    """

    chamfer_t: float
    chamfer_p: float
    f_score: float


def cloud_score(a: Points, b: Points, bound: float = 0.01) -> CloudScore:  # [M, 3], [N, 3]
    """Compare two clouds: Chamfer distances of both conventions, and the F-score at `bound`."""
    there, back = nearest_distance(a, b), nearest_distance(b, a)
    return CloudScore(
        chamfer_t=float((there**2).mean() + (back**2).mean()),
        chamfer_p=float(there.mean() + back.mean()) / 2,
        f_score=f_score(there, back, bound),
    )


def cloud_scores(a: Points, b: Points, bound: float = 0.01) -> list[CloudScore]:
    """Compare B pairs of clouds [B, M, 3], [B, N, 3], one by one, so that memory stays flat."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} clouds cannot be compared with {len(b)}")
    return [cloud_score(one, other, bound) for one, other in zip(a, b, strict=True)]


def nearest_distance(points: Points, cloud: Points) -> NDArray[np.float64]:  # [M, 3], [N, 3] -> [M]
    """Measure each point's distance to the nearest point of a cloud."""
    if not len(points) or not len(cloud):
        raise ValueError("a cloud without points has no distance to anything")
    tree = cKDTree(cloud)
    parts = [
        tree.query(points[start : start + CHUNK], workers=1)[0]
        for start in range(0, len(points), CHUNK)
    ]
    return np.concatenate(parts)


def normal_consistency(
    a: Points, a_normals: Points, b: Points, b_normals: Points
) -> float:  # [M, 3] each, [N, 3] each
    """Mean |cosine| between a point's unit normal and its nearest point's, both ways."""
    there, back = cKDTree(b).query(a, workers=1)[1], cKDTree(a).query(b, workers=1)[1]
    one = np.abs((a_normals * b_normals[there]).sum(1)).mean()
    other = np.abs((b_normals * a_normals[back]).sum(1)).mean()
    return float(one + other) / 2


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Cells that are occupied in both grids over those in either; 1 if both are empty."""
    if a.shape != b.shape:
        raise ValueError(f"grids of {a.shape} and {b.shape} cells cannot be compared")
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def psnr(a: NDArray[np.floating], b: NDArray[np.floating], peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB; infinite if the two are equal."""
    error = float(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


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


@dataclass(frozen=True)
class RankScore:
    """How good ranked lists are, up to rank k: means over the queries, in percent.

    hit: queries with at least one relevant object among the k (the paper's "mAP@k"). map: mean
    average precision. precision: relevant ones among the k. ndcg: discounted cumulative gain, over
    that of the best list possible. A query without any relevant object in the gallery counts as 0.
    """

    k: int
    hit: float
    map: float
    precision: float
    ndcg: float


def rank_score(relevant: NDArray[np.bool_], total: NDArray[np.integer], k: int) -> RankScore:
    """Score ranked lists: is each hit relevant [Q, K], how many are in the gallery [Q], rank k."""
    if not len(relevant):
        raise ValueError("no query, no score")
    parts = (hit_at, average_precision_at, precision_at, ndcg_at)
    hit, precise, share, gain = (100 * float(part(relevant, total, k).mean()) for part in parts)
    return RankScore(k, hit, precise, share, gain)


Ranked = NDArray[np.bool_]  # [Q, K]
Counts = NDArray[np.integer]  # [Q]
Scores = NDArray[np.float64]  # [Q]


def hit_at(relevant: Ranked, total: Counts, k: int) -> Scores:  # noqa: ARG001
    """Say 1 where one of the first k is relevant, else 0."""
    return relevant[:, :k].any(1).astype(float)


def precision_at(relevant: Ranked, total: Counts, k: int) -> Scores:  # noqa: ARG001
    """Give the share of relevant ones among k; a list that is shorter is filled with misses."""
    return np.asarray(relevant[:, :k].sum(1) / k)


def average_precision_at(relevant: Ranked, total: Counts, k: int) -> Scores:
    """Average the precision at each relevant rank up to k, over as many as could be there."""
    first = relevant[:, :k]
    precision = np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1)
    return np.asarray((precision * first).sum(1) / np.clip(total, 1, k))


def ndcg_at(relevant: Ranked, total: Counts, k: int) -> Scores:
    """Give the gain of the first k, 1 / log2(rank + 1) each, over the gain of the best list."""
    gains = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], np.cumsum(gains)])[np.clip(total, 0, k)]
    first = relevant[:, :k]
    return np.asarray((first * gains[: first.shape[1]]).sum(1) / np.where(best > 0, best, 1))


def parts_of_scores(
    scores: NDArray[np.floating], parts: Sequence[int]
) -> NDArray[np.int64]:  # [M, P] -> [M]
    """Give each point the part that scores highest among those of its object's class."""
    allowed = np.asarray(parts, np.int64)
    found: NDArray[np.int64] = allowed[np.asarray(scores)[:, allowed].argmax(1)]
    return found


def shape_part_iou(
    truth: NDArray[np.integer], found: NDArray[np.integer], parts: Sequence[int]
) -> float:  # [M], [M]
    """Mean intersection over union of a shape's parts, those of its class (paper, section IV).

    A part that is neither there nor found counts 1, as the field defines it.
    """
    if truth.shape != found.shape:
        raise ValueError(f"{len(found)} parts cannot be compared with {len(truth)}")
    return float(np.mean([iou(truth == part, found == part) for part in parts]))


@dataclass(frozen=True)
class PartScore:
    """Part segmentation of many shapes, in [0, 1].

    instance_miou: mean over the shapes. class_miou: mean over the classes' own means, `by_class`.
    """

    instance_miou: float
    class_miou: float
    by_class: dict[int, float]


def part_score(ious: Sequence[float], classes: Sequence[int]) -> PartScore:
    """Average shapes' part IoUs over all of them, and class by class."""
    if not len(ious) or len(ious) != len(classes):
        raise ValueError(f"{len(ious)} IoUs of {len(classes)} shapes cannot be averaged")
    each, of = np.asarray(ious, float), np.asarray(classes)
    by_class = {int(label): float(each[of == label].mean()) for label in np.unique(of)}
    return PartScore(float(each.mean()), float(np.mean(list(by_class.values()))), by_class)
