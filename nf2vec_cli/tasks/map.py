"""Learn a mapping from one store's embeddings to another's, and apply it: plan, do, record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from shlex import quote
from typing import Any

import torch

from nf2vec_cli.config.map import MapConfig
from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import Place, same
from nf2vec_cli.store.products import HEADS
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.embedded import open_embeddings
from nf2vec_cli.tasks.encoders import Trained, open_encoder
from nf2vec_cli.tasks.fit import versions
from nf2vec_cli.tasks.map_score import MapRow, compared_rows, score_map
from nf2vec_cli.tasks.mapped_store import check_replaceable, write_mapped
from nf2vec_cli.tasks.mapper import TASK, Kept, trained_mapper
from nf2vec_cli.tasks.pairs import Pairs, pairs_of


@dataclass(frozen=True)
class MapResult:
    """What `map` learnt. Errors: share of the variance of B's embeddings that is not explained.

    nearest_error: that of the nearest training object's embedding in B, on test. seconds: of
    training, whenever that was. mapped: objects of A whose embeddings in B's space are in `store`;
    written: whether they were written now. reconstruct: the command that makes shapes of them.
    shapes: as `score_map` gives them, if asked for.
    """

    mapper: str
    encoder: str
    target_encoder: str
    train_pairs: int
    val_pairs: int
    test_pairs: int
    steps: int
    best_step: int
    seconds: float
    val_error: float
    test_error: float
    nearest_error: float
    store: str | None = None
    mapped: int = 0
    written: bool = False
    reconstruct: str | None = None
    shapes: tuple[MapRow, ...] = ()


def map_stores(
    path: Place,
    target: Place,
    config: MapConfig,
    *,
    out: Place | None = None,
    encoder: str | None = None,
    target_encoder: str | None = None,
    metrics: bool = False,
    device: str = "auto",
    jobs: int = 0,
    force: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> MapResult:
    """Learn the mapping from A's embeddings to B's on the objects that both hold, and apply it.

    Paper, section on mapping between neural fields, and on completion. Pairs are found by id. The
    mapper is kept in A; B is only read. All of A's embedded objects are mapped, with pair or not.

    Args:
        path: store A.
        target: store B.
        config: settings of the mapper.
        out: store to make, of A's objects as embeddings in B's space.
        encoder: whose embeddings of A; None: the newest encoder's.
        target_encoder: whose of B; None: the newest encoder's.
        metrics: decode the test objects and compare them with B's surfaces.
        device: "cpu", "cuda", "cuda:N" or "auto".
        jobs: worker processes that decode; 0 for one a core.
        force: train again what is there, and replace a mapped store at `out`.
        wait: seconds to wait for another run's lock.
        progress: told about each step.

    Raises:
        UsageFault: both sides are the same embeddings.
        StoreError: embeddings, pairs or surfaces are missing, or something else is at `out`.
    """
    where = open_device(device)
    if out is not None:
        check_replaceable(out, f"nf2vec map {path} {target}")
    # before anything is locked: what is refused here changes nothing
    asked, _ = _opened(path, target, encoder, target_encoder)
    if metrics:
        compared_rows(asked)
    with progress or Silent() as teller, store_lock(path, wait=wait):
        pairs, known = _opened(path, target, encoder, target_encoder, mode="a")
        kept = trained_mapper(pairs, config, device=where, force=force, progress=teller)
        kept.module.cpu()
        result = MapResult(
            mapper=kept.key,
            encoder=pairs.a.key,
            target_encoder=pairs.b.key,
            **kept.facts["result"],
        )
        if metrics:
            result = replace(result, shapes=_scored(pairs, kept, known, jobs, teller))
        if out is not None:
            rows = pairs.a.current()
            with torch.no_grad():
                z = kept.module(torch.from_numpy(pairs.a.read(rows))).numpy()
            settings = config.model_dump(mode="json")
            written = write_mapped(
                out,
                pairs,
                known,
                rows,
                z,
                mapper=kept.key,
                force=force,
                config=settings,
                summary=asdict(result),
                versions=versions(where),
            )
            result = replace(
                result,
                store=str(out),
                mapped=len(rows),
                written=written,
                reconstruct=f"nf2vec reconstruct {quote(str(out))} --from embeddings --out DIR",
            )
    return result


def _opened(
    path: Place, target: Place, encoder: str | None, target_encoder: str | None, mode: str = "r"
) -> tuple[Pairs, Trained]:
    """Find the pairs, and the encoder whose decoder reads B's embeddings."""
    a = open_embeddings(open_store(path, mode), encoder)
    b = open_embeddings(open_store(target), target_encoder)
    if same(path, target) and a.key == b.key:
        raise UsageFault(
            f"{path} by encoder {a.key!r} is on both sides: there is nothing to map",
            hint=f"`nf2vec map {path} OTHER.zarr`, or another encoder by `--target-encoder`",
        )
    return pairs_of(a, b), open_encoder(b.store, b.key)


def _scored(
    pairs: Pairs, kept: Kept, known: Trained, jobs: int, progress: Progress
) -> tuple[MapRow, ...]:
    """Give the scores as they were measured on these test objects, or measure and keep them."""
    store = pairs.a.store
    name = sha256(pairs.digests("test")).hexdigest()
    held: dict[str, Any] = kept.facts.get("shapes", {})
    if held.get("tested") != name:
        rows = score_map(pairs, kept, known.module.decoder, jobs=jobs, progress=progress)
        held = {"tested": name, "rows": [asdict(row) for row in rows]}
        store.group[f"{HEADS}/{TASK}/{kept.key}"].update_attributes({"shapes": held})
    return tuple(MapRow(**row) for row in held["rows"])
