"""How good a set of generated shapes is: pure functions of arrays.

Pairs are compared by a table of distances; the scores are those of Achlioptas 2018 (coverage,
minimum matching distance) and Yang 2019 (1-nearest-neighbour accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

Points = NDArray[np.float64]
Table = NDArray[np.float64]
DRAWS = 50  # subsets of equal size over which scores are averaged


@dataclass(frozen=True)
class SetScore:
    """A set of shapes against a reference set.

    mmd: mean distance of a reference shape to its nearest. coverage: share of the reference shapes
    that are nearest to one of the set. nna: share of all shapes whose nearest other is of their own
    set; 0.5 where the sets cannot be told apart, 1 where they are apart, 0 for copies.
    """

    mmd: float
    coverage: float
    nna: float


def chamfer_table(a: Sequence[Points], b: Sequence[Points]) -> Table:  # G and R clouds -> [G, R]
    """Chamfer distances: mean squared distance to the nearest point, one way plus the other."""
    trees_a = [cKDTree(cloud) for cloud in a]
    trees_b = trees_a if b is a else [cKDTree(cloud) for cloud in b]
    table = np.zeros((len(a), len(b)))
    for i, j in _pairs(a, b):
        there = trees_b[j].query(a[i], workers=1)[0]
        back = trees_a[i].query(b[j], workers=1)[0]
        table[i, j] = (there**2).mean() + (back**2).mean()
    return table + table.T if b is a else table


def emd_table(a: Sequence[Points], b: Sequence[Points]) -> Table:  # G and R clouds -> [G, R]
    """Earth mover's distances: mean distance of points matched one to one at the least cost."""
    table = np.zeros((len(a), len(b)))
    for i, j in _pairs(a, b):
        if len(a[i]) != len(b[j]):
            raise ValueError(f"{len(a[i])} points cannot be matched with {len(b[j])}")
        cost = cdist(a[i], b[j])
        table[i, j] = cost[linear_sum_assignment(cost)].mean()
    return table + table.T if b is a else table


def _pairs(a: Sequence[Points], b: Sequence[Points]) -> list[tuple[int, int]]:
    """List the pairs to compare; of one set with itself, each once."""
    return [(i, j) for i in range(len(a)) for j in range(i + 1 if b is a else 0, len(b))]


def set_score(within: Table, across: Table, reference: Table, *, seed: int = 0) -> SetScore:
    """Score a set of G shapes against R reference shapes.

    All three scores depend on how many shapes there are, so equally many of both are compared: of
    the larger set, DRAWS random subsets, whose scores are averaged.

    Args:
        within: distances inside the set, [G, G].
        across: distances from the set to the reference, [G, R].
        reference: distances inside the reference, [R, R].
        seed: of the subsets.

    Raises:
        ValueError: a set has less than two shapes, or the tables do not belong together.
    """
    g, r = across.shape
    if min(g, r) < 2:
        raise ValueError(f"{g} shapes cannot be scored against {r}: two are needed")
    if within.shape != (g, g) or reference.shape != (r, r):
        raise ValueError(f"tables of {within.shape}, {across.shape} and {reference.shape}")
    rng = np.random.default_rng(seed)
    size, found = min(g, r), []
    for _ in range(1 if g == r else DRAWS):
        of_g = rng.permutation(g)[:size] if g > r else np.arange(g)
        of_r = rng.permutation(r)[:size] if r > g else np.arange(r)
        pick = np.ix_(of_g, of_r)
        found.append(
            _equal(within[np.ix_(of_g, of_g)], across[pick], reference[np.ix_(of_r, of_r)])
        )
    return SetScore(*np.mean(found, axis=0).tolist())


def _equal(within: Table, across: Table, reference: Table) -> tuple[float, float, float]:
    size = len(across)
    coverage = len(np.unique(across.argmin(1))) / size
    joined = np.block([[within, across], [across.T, reference]])
    np.fill_diagonal(joined, np.inf)
    own = np.arange(2 * size) < size
    nna = float((own[joined.argmin(1)] == own).mean())
    return float(across.min(0).mean()), coverage, nna


@dataclass(frozen=True)
class Novelty:
    """How far generated shapes are from the training shapes.

    to_train: median distance of a generated shape to its nearest training shape. spacing: median
    distance of a training shape to its nearest other. ratio: the first over the second; near 0:
    training shapes are repeated; near 1: new ones are as different as training shapes are;
    above: farther away from them.
    """

    to_train: float
    spacing: float
    ratio: float


def novelty(to_train: Table, train: Table) -> Novelty:  # [G, T], [T, T]
    """Compare the distances of G generated to T training shapes with those between the latter.

    Raises:
        ValueError: there are less than two training shapes, or none generated.
    """
    if len(train) < 2 or not len(to_train):
        raise ValueError(f"{len(to_train)} shapes cannot be compared with {len(train)}")
    apart = train + np.diag(np.full(len(train), np.inf))
    near, spacing = float(np.median(to_train.min(1))), float(np.median(apart.min(1)))
    return Novelty(near, spacing, near / spacing if spacing else float("inf"))
