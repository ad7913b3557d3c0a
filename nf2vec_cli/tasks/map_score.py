"""Shapes of mapped embeddings against the truth, beside what no mapper, and a perfect one, give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.errors import StoreError
from nf2vec_cli.metrics import f_score, nearest_distance
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.schema import Status
from nf2vec_cli.tasks.decoded_clouds import decoded_clouds
from nf2vec_cli.tasks.mapper import Kept, nearest
from nf2vec_cli.tasks.pairs import Pairs
from nf2vec_cli.tasks.radiance_cloud import lens_of, picture_psnr

POINTS = 2_048  # of a cloud, as in the literature
COMPARED = 128  # test objects at most, evenly chosen: three shapes are decoded of each
SAME_PLACE = 1e-3  # of a shape's size: how far A's frame may lie from B's
Points = NDArray[np.float64]


@dataclass(frozen=True)
class MapRow:
    """Shapes of one origin against the points on the surfaces of B's test objects, in unit space.

    shapes: compared. empty: decoded to no surface, and left out of the means. chamfer: mean of the
    two mean distances. f1, f5: F-score at 1 % and 5 % of the unit sphere's radius; 2,048 points of
    a surface are 2 to 3 % apart, so that two draws of one surface do not score 1 at 1 %. psnr: of
    decoded pictures from cameras held out against the stored field's, the mean (B of radiance).
    """

    shape: str
    shapes: int
    empty: int = 0
    chamfer: float | None = None
    f1: float | None = None
    f5: float | None = None
    psnr: float | None = None


def score_map(
    pairs: Pairs, kept: Kept, decoder: Decoder, *, jobs: int = 0, progress: Progress
) -> tuple[MapRow, ...]:
    """Decode the test objects' mapped embeddings and compare them with B's surfaces.

    Beside them: A's own surface points as they are, where A's frame is B's (completion: before
    and after); the nearest training object in its place (no mapper), decoded from its embedding in
    B, and its own surface points; and the test objects' own embeddings in B, the best that the
    decoder allows.

    Raises:
        StoreError: as `compared_rows`.
    """
    a, b = pairs.a.store, pairs.b.store
    rows_a, rows_b, truth = compared_rows(pairs)
    source, target = pairs.a.read(rows_a), pairs.b.read(rows_b)
    train_a, train_b = pairs.read("train")
    near = nearest(kept.module, torch.from_numpy(source), torch.from_numpy(train_a)).numpy()
    with torch.no_grad():
        mapped = kept.module(torch.from_numpy(source)).numpy()
    parts = {"mapped": mapped, "nearest in train": train_b[near], "own embedding": target}
    twins = b.surface(pairs.rows["train"][1][near])
    clouds: dict[str, Sequence[Points | None]] = {}
    before = a.surface(rows_a)
    if _known(before).all() and _same_frame(pairs, rows_a, rows_b):
        clouds["source, as it is"] = list(before.astype(np.float64))
    clouds |= decoded_clouds(
        *(decoder, b.field, parts),
        points=POINTS,
        jobs=jobs,
        progress=progress,
        lens=lens_of(b, rows_b),
    )
    if _known(twins).all():
        clouds["nearest in train, as it is"] = list(twins.astype(np.float64))
    wanted = list(truth.astype(np.float64))
    rows = (_scored(name, found, wanted) for name, found in clouds.items())
    if b.field != "nerf":
        return tuple(rows)
    seen = {name: _psnr(pairs, rows_b, decoder, z) for name, z in parts.items()}
    return tuple(replace(row, psnr=seen.get(row.shape)) for row in rows)


def compared_rows(pairs: Pairs) -> tuple[Rows, Rows, Floats]:
    """Give the rows in A and B of the test objects to compare, and points on them, [N, S, 3].

    Raises:
        StoreError: B knows no surface of any test object.
    """
    rows_a, rows_b = pairs.rows["test"]
    truth = pairs.b.store.surface(rows_b)
    some = np.flatnonzero(_known(truth))
    if not len(some):
        raise StoreError(
            f"{pairs.b.store.path} knows no points on the surfaces of its test objects",
            hint=f"`nf2vec fit SHAPES --field {pairs.b.store.field} --store {pairs.b.store.path} "
            "--force` keeps some; or leave out `--metrics`",
        )
    some = some[np.linspace(0, len(some) - 1, min(COMPARED, len(some))).round().astype(int)]
    return rows_a[some], rows_b[some], truth[some]


def _psnr(pairs: Pairs, rows: Rows, decoder: Decoder, z: Floats) -> float | None:
    """Compare pictures of embeddings [N, E] with those of B's stored fields, where it has them."""
    b = pairs.b.store
    fitted = np.isin(rows, b.rows(Status.DONE))
    found = [
        picture_psnr(b, int(row), decoder, torch.from_numpy(one))
        for row, one in zip(rows[fitted], z[fitted], strict=True)
    ]
    return float(np.mean(found)) if found else None


def _known(surface: Floats) -> NDArray[np.bool_]:  # [N, S, 3] -> [N]
    """Tell which objects' surfaces are known: points that are not, are 0."""
    found: NDArray[np.bool_] = np.asarray(surface.any(axis=(1, 2)))
    return found


def _same_frame(pairs: Pairs, rows_a: Rows, rows_b: Rows) -> bool:
    """Tell whether the unit spheres of A and B are at one place: else they cannot be compared."""
    one = np.asarray(pairs.a.store.column("transform"))[rows_a]
    other = np.asarray(pairs.b.store.column("transform"))[rows_b]
    return bool((np.abs(one - other) <= SAME_PLACE * other[:, 3:]).all())


def _scored(name: str, found: Sequence[Points | None], truth: Sequence[Points]) -> MapRow:
    scores = []
    for cloud, wanted in zip(found, truth, strict=True):
        if cloud is not None:
            there, back = nearest_distance(cloud, wanted), nearest_distance(wanted, cloud)
            bounds = [f_score(there, back, bound) for bound in (0.01, 0.05)]
            scores.append((float(there.mean() + back.mean()) / 2, *bounds))
    empty = len(truth) - len(scores)
    if not scores:
        return MapRow(name, len(truth), empty)
    return MapRow(name, len(truth), empty, *np.mean(scores, axis=0).tolist())
