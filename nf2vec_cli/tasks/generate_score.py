"""Score generated shapes: as a set against test shapes, and for being more than training shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.progress import Progress
from nf2vec_cli.set_metrics import (
    Points,
    Table,
    chamfer_table,
    emd_table,
    novelty,
    set_score,
)
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.tasks.decoded_clouds import Clouds, decoded_clouds
from nf2vec_cli.tasks.radiance_cloud import Lens

POINTS = 1_024  # of a cloud
COMPARED = 128  # shapes of each kind that are compared at most: pairs grow with the square
EMD_POINTS = 512  # a pair takes 20 ms, and the time grows with the cube of the points
NEW, OLD, BOUND, TRUTH = "generated", "train, decoded", "test, decoded", "test, surfaces"


@dataclass(frozen=True)
class SetRow:
    """Shapes of one origin against the test objects' own surfaces, as `SetScore` words it.

    empty: those that decode to no surface; they are left out of the scores. mmd: squared Chamfer
    distance, both ways added; emd: scores by the earth mover's distance, if asked for.
    """

    set: str
    shapes: int
    empty: int
    mmd: float | None = None
    coverage: float | None = None
    nna: float | None = None
    emd_mmd: float | None = None
    emd_coverage: float | None = None
    emd_nna: float | None = None


@dataclass(frozen=True)
class NoveltyRow:
    """Generated shapes against training shapes, as `Novelty` words it; `of`: what is compared."""

    of: str
    to_train: float
    spacing: float
    ratio: float


def judge(
    decoder: Decoder,
    kind: str,
    drawn: Floats,
    train: Floats,
    test: Floats,
    surfaces: Floats,
    *,
    lens: Lens | None = None,
    emd: bool = False,
    jobs: int = 0,
    progress: Progress,
) -> tuple[tuple[SetRow, ...], tuple[NoveltyRow, ...]]:
    """Decode embeddings and score the shapes.

    Beside the generated shapes, the training objects' and the test objects' own embeddings are
    decoded and scored: what repeating the training set would reach, and the best that this decoder
    allows. Novelty compares decoded with decoded shapes, so that what the decoder gets wrong does
    not count as new, and the embeddings themselves, as far as the decoder reads them.

    Args:
        decoder: of the encoder that the embeddings belong to.
        kind: kind of field.
        drawn, train, test: embeddings [G, E], [T, E], [R, E]; COMPARED of each are decoded, evenly
            chosen.
        surfaces: points on the test objects' surfaces, [R, S, 3].
        lens: how radiance is looked at.
        emd: measure the earth mover's distance too.
        jobs: worker processes; 0 for one a core.
        progress: told about each shape.
    """
    picked = {NEW: drawn, OLD: train, BOUND: test}
    parts = {name: _some(z) for name, z in picked.items()}
    decoded = decoded_clouds(
        decoder, kind, parts, points=POINTS, jobs=jobs, progress=progress, lens=lens
    )
    # clouds of other sizes cannot be compared
    clouds: dict[str, Clouds] = {
        name: [c if c is not None and len(c) == POINTS else None for c in part]
        for name, part in decoded.items()
    }
    names = [name for name in clouds for cloud in clouds[name] if cloud is not None]
    whole = [cloud for part in clouds.values() for cloud in part if cloud is not None]
    whole += [_thinned(points.astype(float), POINTS) for points in _some(surfaces)]
    place = np.array([*names, *[TRUTH] * (len(whole) - len(names))])
    tables = {"": _table(chamfer_table, whole, progress)}
    if emd:
        few = [_thinned(cloud, EMD_POINTS) for cloud in whole]
        tables["emd_"] = _table(emd_table, few, progress)
    sets = tuple(_scored(name, clouds[name], tables, place) for name in clouds)
    new, old = (np.flatnonzero(place == name) for name in (NEW, OLD))
    told = []
    if len(new) and len(old) > 1:
        found = novelty(tables[""][np.ix_(new, old)], tables[""][np.ix_(old, old)])
        told.append(NoveltyRow("shape, chamfer", **vars(found)))
    if len(train) > 1:
        a, b = drawn[:, -decoder.reads :], train[:, -decoder.reads :]
        told.append(NoveltyRow("embedding, as decoded", **vars(novelty(cdist(a, b), cdist(b, b)))))
    return sets, tuple(told)


def _some(values: Floats) -> Floats:
    """Choose COMPARED at most, evenly."""
    found: Floats = values[
        np.linspace(0, len(values) - 1, min(COMPARED, len(values))).round().astype(int)
    ]
    return found


def _thinned(points: Points, count: int) -> Points:
    """Choose points at random, the same each time: they come in the order of the faces."""
    return np.random.default_rng(0).permutation(points)[:count]


def _table(
    measure: Callable[[Sequence[Points], Sequence[Points]], Table],
    clouds: Sequence[Points],
    progress: Progress,
) -> Table:
    """Compare all clouds with each other, [N, N], row by row."""
    progress.start(len(clouds), "compare")
    table = np.zeros((len(clouds), len(clouds)))
    for row in range(1, len(clouds)):
        table[row, :row] = measure(clouds[row : row + 1], clouds[:row])[0]
        progress.advance(1)
    return table + table.T


def _scored(name: str, clouds: Clouds, tables: dict[str, Table], place: NDArray[np.str_]) -> SetRow:
    """Score the shapes of a name against the test objects' own surfaces, by each table."""
    ours, truth = np.flatnonzero(place == name), np.flatnonzero(place == TRUTH)
    row = SetRow(name, len(clouds), len(clouds) - len(ours))
    if len(ours) < 2:
        return row
    told: dict[str, Any] = {}
    for prefix, table in tables.items():
        parts = (table[np.ix_(a, b)] for a, b in ((ours, ours), (ours, truth), (truth, truth)))
        told |= {f"{prefix}{key}": value for key, value in vars(set_score(*parts)).items()}
    return replace(row, **told)
