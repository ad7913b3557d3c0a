"""The query points of one object: prepared once, drawn from at each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.shapes.sample import Points, morton_order

CLIP = 0.1  # the paper's bound: beyond it a field of distances only says "far"
# Of each step's points: this share has a distance up to this bound (stratified draws). Most of the
# budget goes where the surface is; the rest keeps the far field from drifting.
STRATA = ((0.005, 0.40), (0.02, 0.40), (0.1, 0.12), (np.inf, 0.08))
# share of the pool, and standard deviation of its offset from the surface in unit space
NEAR = ((0.45, 0.003), (0.35, 0.015), (0.12, 0.05))
# the authors': of 500,000 points 250,000, 200,000 and 25,000; the last 25,000 are uniform
NEAR_AUTHORS = ((0.5, 0.003), (0.4, 0.01), (0.05, 0.1))


@dataclass(frozen=True)
class Pool:
    """Query points of one object, in Morton order.

    coords: [M, 3] float32 in [-1, 1]; values: [M] float32, what the field should give there;
    stratum: [M], group of each point, from the surface outward, the last one far from it;
    shares: share of each group in a step's points. Of signed distances: doubt and disagreement, as
    `shapes.inside.Inside` has them, sign: the way inside was told, note: what to say about it.
    cells: along each axis of the grid, 0 without one. surface: [S, 3] float32, points on the
    surface that was measured, in Morton order.
    """

    coords: NDArray[np.float32]
    values: NDArray[np.float32]
    stratum: NDArray[np.int8]
    shares: tuple[float, ...]
    surface: NDArray[np.float32]
    doubt: float = 0.0
    disagreement: float = 0.0
    sign: str = ""
    note: str = ""
    cells: int = 0

    @property
    def near(self) -> NDArray[np.bool_]:
        """Tell which points are near the surface: there a field's error is measured. [M]."""
        near: NDArray[np.bool_] = self.stratum < len(self.shares) - 1
        return near


def distance_pool(coords: Points, distance: NDArray[np.float64], surface: Points) -> Pool:
    """Make a pool of points [M, 3] and their distances [M], clipped, with strata by |distance|.

    `surface`: points on the surface, [S, 3].
    """
    values = np.clip(distance, -CLIP, CLIP).astype(np.float32)
    bounds = [high for high, _ in STRATA[:-1]]
    stratum = np.digitize(np.abs(values), np.array(bounds, np.float32)).astype(np.int8)
    shares = tuple(share for _, share in STRATA)
    return Pool(coords.astype(np.float32), values, stratum, shares, in_order(surface))


def in_order(points: Points) -> NDArray[np.float32]:  # [S, 3] -> [S, 3]
    """Sort points along the Morton curve: they compress better, and even steps see all of them."""
    return points[morton_order(points)].astype(np.float32)


def queries(
    base: Points,  # [N, 3], on the surface
    near: tuple[tuple[float, float], ...],
    count: int,
    *,
    rng: np.random.Generator,
) -> Points:  # [count, 3]
    """Draw query points in [-1, 1]^3, in Morton order: around `base`, and uniformly.

    Each point of `base` is used equally often, up to one, with an offset of normal distribution;
    `near` gives shares of `count` and standard deviations, what is left is uniform.
    """
    counts = [round(share * count) for share, _ in near]
    spread = np.repeat([sigma for _, sigma in near], counts)[:, None]
    order = rng.permutation(np.resize(rng.permutation(len(base)), len(spread)))
    around = base[order] + spread * rng.standard_normal((len(order), 3))
    points = np.concatenate([around, rng.uniform(-1, 1, (count - len(around), 3))])
    points = np.clip(points, -1, 1)
    ordered: Points = points[morton_order(points)]
    return ordered


def draw_stratified(
    pool: Pool, counts: NDArray[np.int64], *, rng: np.random.Generator
) -> list[NDArray[np.int64]]:  # [steps] -> a step each: [count]
    """Choose each step's points: fixed shares of each stratum, spread evenly along the pool.

    The pool is in Morton order, so equal slices of a stratum are regions of space: every step sees
    the whole shape, which lets 1,250 points do the work of 10,000 uniform ones.
    """
    groups, shares = [], []
    for stratum, share in enumerate(pool.shares):
        members = np.flatnonzero(pool.stratum == stratum)
        if len(members):
            groups.append(members)
            shares.append(share)
    weights = np.array(shares) / sum(shares)
    steps = []
    for total in counts:
        wanted = np.floor(weights * total).astype(int)
        wanted[0] += total - wanted.sum()
        chosen = []
        for members, count in zip(groups, wanted, strict=True):
            slices = (np.arange(count) + rng.random(count)) * (len(members) / max(count, 1))
            chosen.append(members[np.minimum(slices.astype(np.int64), len(members) - 1)])
        steps.append(np.concatenate(chosen))
    return steps


def draw_uniform(
    pool: Pool, counts: NDArray[np.int64], *, rng: np.random.Generator
) -> list[NDArray[np.int64]]:  # [steps] -> a step each: [count]
    """Choose each step's points uniformly, without repetition within a step (the authors' way)."""
    size = len(pool.values)
    return [rng.choice(size, count, replace=False, shuffle=False) for count in counts]
