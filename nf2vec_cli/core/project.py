"""Points on the zero set of an unsigned distance field, spread evenly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.core.lattice import BATCH, Evaluate, Index, near_cells

Points = NDArray[np.float32]
# [M, 3] -> distances [M], their gradients to the coordinates [M, 3]
Slopes = Callable[[Points], tuple[NDArray[np.float32], Points]]
GRID = 129  # seeds lie in cells of 2 grid steps, 1/32 of object space
SPARE = 5  # seeds for each point wanted: more make the spacing more even, and cost as much more
ROUNDS = 4  # tries before a cloud is given up as incomplete, on top of those a large one needs
YIELD = 0.01  # share of the seeds that must arrive; a field below it has no zero set to speak of


@dataclass(frozen=True)
class ZeroCloud:
    """Points [n, 3] in [-1, 1]^3; n is below `wanted` if the field has too small a zero set.

    evaluated: points at which the field was evaluated, with or without slope; rounds: of seeds.
    """

    points: Points
    wanted: int
    evaluated: int
    rounds: int


def zero_cloud(
    evaluate: Evaluate,
    slopes: Slopes,
    count: int,
    *,
    reach: float,
    rng: np.random.Generator,
    steps: int = 5,
    near: float = 0.01,
) -> ZeroCloud:
    """Sample the zero set of an unsigned distance field (after Chibane et al. 2020, algorithm 1).

    Seeds are drawn in the cells that the surface can touch, not in the whole cube, of which less
    than one in a hundred is near. They walk down the gradient, are kept if the field is small where
    they end, and are thinned to an even spacing.

    Args:
        evaluate: unsigned distances in unit space, clipped to `reach`.
        slopes: the same distances and their gradients.
        count: points wanted.
        reach: where the field is clipped.
        rng: decides the seeds and nothing else: the same one gives the same cloud.
        steps: moves of each seed.
        near: largest distance, by the field, of a point that is kept; above what a trained field
            leaves at its surface.

    Returns:
        `count` points, or fewer, possibly none, with the numbers that say so.
    """
    near_surface = near_cells(evaluate, GRID, reach=reach, finest=2)
    evaluated, rounds, missing = near_surface.evaluated, 0, SPARE * count
    kept = [np.empty((0, 3), np.float32)]
    allowed = ROUNDS + missing // BATCH
    while missing > 0 and rounds < allowed and len(near_surface.corners):
        rounds += 1
        seeds = _seeds(near_surface.corners, near_surface.stride, min(missing, BATCH), rng)
        ends = settle(slopes, seeds, steps=steps)
        # the field decides where a point is now, not where it was before its last move
        arrived = ends[evaluate(ends) < near]
        kept.append(arrived)
        evaluated += (steps + 1) * len(seeds)
        missing -= len(arrived)
        if len(arrived) < YIELD * len(seeds):
            break
    return ZeroCloud(_thin(np.concatenate(kept), count, rng), count, evaluated, rounds)


def settle(slopes: Slopes, points: Points, *, steps: int) -> Points:
    """Walk points [M, 3] to the zero set, down half the squared distance.

    For an exact distance each move is the distance along the unit gradient. A trained one has a
    rounded minimum, a little above zero, where the gradient vanishes: for sqrt(r^2 + e^2) the move
    is still r, where the unit gradient would overshoot. Where a field is steeper than a distance,
    the move is Newton's.
    """
    for _ in range(steps):
        distance, gradient = slopes(points)
        steepness = np.maximum((gradient * gradient).sum(1), 1)
        moved = points - gradient * (distance / steepness)[:, None]
        points = np.clip(moved, -1, 1).astype(np.float32, copy=False)
    return points


def _seeds(corners: Index, stride: int, count: int, rng: np.random.Generator) -> Points:
    """Draw points in the cells, as evenly as their number allows."""
    order = np.resize(rng.permutation(len(corners)), count)
    grid = corners[order] + rng.random((count, 3), np.float32) * stride
    seeds: Points = np.minimum(grid * (2 / (GRID - 1)) - 1, 1).astype(np.float32)
    return seeds


def _thin(points: Points, count: int, rng: np.random.Generator) -> Points:
    """Keep `count` points: those nearest the centres of the voxels of the size that fits."""
    if len(points) <= count:
        return points
    origin = rng.random(3)
    low, high, chosen = 0.0, 2.0, np.arange(len(points))
    for _ in range(16):  # the largest voxels that still leave enough: halving 2 to 3e-5
        size = (low + high) / 2
        some = _one_a_voxel(points, size, origin)
        if len(some) >= count:
            low, chosen = size, some
        else:
            high = size
    thinned: Points = points[np.sort(rng.permutation(chosen)[:count])]
    return thinned


def _one_a_voxel(points: Points, size: float, origin: NDArray[np.float64]) -> NDArray[np.int64]:
    place = (points + 1) / size + origin
    voxel = np.floor(place).astype(np.int64)
    off = ((place - voxel - 0.5) ** 2).sum(1)
    along = int(2 / size) + 3
    key = (voxel[:, 0] * along + voxel[:, 1]) * along + voxel[:, 2]
    order = np.lexsort((off, key))
    first = np.ones(len(order), bool)
    first[1:] = key[order][1:] != key[order][:-1]
    chosen: NDArray[np.int64] = order[first]
    return chosen
