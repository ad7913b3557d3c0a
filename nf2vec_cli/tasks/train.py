"""Train an encoder and its decoder on a store's fields: plan, do, record."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.config.train import LATER, TrainConfig
from nf2vec_cli.core.ranks import Ranks, open_ranks
from nf2vec_cli.errors import StoreError, UsageFault
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.products import (
    CHECKPOINTS,
    ENCODERS,
    keys,
    load_state,
    newest_checkpoint,
    remove_checkpoints,
    save_checkpoint,
    save_state,
)
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.embedded import splits_of
from nf2vec_cli.tasks.encoders import (
    open_encoder,
    require_known_init,
    require_writable,
    write_encoder,
)
from nf2vec_cli.tasks.fit import versions
from nf2vec_cli.tasks.held import HeldFields
from nf2vec_cli.tasks.loop import Loop, State, arrays_of
from nf2vec_cli.tasks.study import Study


@dataclass(frozen=True)
class TrainResult:
    """What `train` made, with what was measured on val objects decoded from their embeddings.

    error: mean difference from the stored field near the surface; of radiance, mean difference of
    colours, of rays from cameras held out. chamfer, f1: of points on the decoded surface against
    the object's own, F-score at 1 % of the unit sphere's radius. psnr: of pictures from cameras
    held out against those of the stored field, decibels, on white (nerf). ranks: processes that
    trained it together.
    """

    encoder: str
    steps: int
    best_step: int
    train_objects: int
    val_objects: int
    skipped: int
    loss: float
    error: float
    chamfer: float | None
    f1: float | None
    seconds: float
    file: str | None = None
    psnr: float | None = None
    ranks: int = 1


def train_key(store: Store, config: TrainConfig, rows: Rows) -> str:
    """Name an encoder: the init, the settings and the fields that it is trained on."""
    known = config.model_dump(mode="json")
    settings = config.model_dump_json(exclude={n for n in LATER if known[n] == LATER[n]})
    digest = sha256(f"{store.init_hash}/{store.field}/{settings}".encode())
    digest.update(np.asarray(store.column("digest"))[rows].tobytes())
    return digest.hexdigest()[:16]


def training_rows(store: Store, rows: Rows, config: TrainConfig) -> tuple[Rows, Rows]:
    """Divide rows into those to train on and those to look at.

    Test is left out. Only objects themselves are looked at, no copies of other proportions.

    Raises:
        StoreError: there are too few of either.
    """
    splits, copies = splits_of(store), store.column("copy")
    train = np.array([row for row in rows if splits[row] == "train"], np.int64)
    val = np.array([r for r in rows if splits[r] == "val" and not copies[r]], np.int64)
    if len(train) < config.batch:
        raise StoreError(
            f"{store.path} has {len(train)} fields to train on, a batch takes {config.batch}",
            hint=f"fit more shapes, or `--set batch={max(2, len(train))}`",
        )
    if not len(val):
        raise StoreError(
            f"{store.path} has no fields to choose the best step by: none is in split val",
            hint="give some objects the split val (`nf2vec fit SHAPES --labels labels.csv`)",
        )
    return train, val


def train_encoder(
    path: Place,
    config: TrainConfig,
    *,
    sources: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
    force: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train an encoder and its decoder on a store's fields, and keep both in the store.

    A run that was killed goes on from its last checkpoint. An encoder with the same settings and
    fields that is there already is given back as it is.

    Args:
        path: the store.
        config: settings.
        sources: folder that holds the sources, if they are asked; None: where they were.
        out: safetensors file to write encoder and decoder to as well.
        device: "cpu", "cuda", "cuda:N" or "auto".
        force: train again what is there.
        wait: seconds to wait for another run's lock.
        progress: told about each step.

    Raises:
        StoreError: there are too few fields, or a source is gone that is to be asked.
        UsageFault: `out` cannot be written, or there are more processes than objects in a batch.
        LockedError: another run is writing.
    """
    with ExitStack() as held:
        ranks = held.enter_context(open_ranks(device, wait=wait))
        _refuse_ranks(ranks, config)
        if out is not None:
            ranks.lead(partial(require_writable, out))

        def taken() -> Store:
            held.enter_context(store_lock(path, wait=wait))
            return open_store(path, mode="a")

        store = ranks.lead(taken) or open_store(path)
        teller = held.enter_context((progress if ranks.leads else None) or Silent())
        require_known_init(store)
        done = store.rows(Status.DONE)
        fields = HeldFields(store, done, progress=teller, ranks=ranks)
        skipped = len(done) - len(fields.rows)
        train, val = training_rows(store, fields.rows, config)
        key = train_key(store, config, train)
        if ranks.tell(key not in keys(store, ENCODERS) or force):
            study = Study(store, fields, (train, val), config, ranks)
            loop = _trained(study, key, sources=sources, force=force, progress=teller)
            ranks.lead(lambda: _keep(study, loop, key, skipped))

        def kept() -> TrainResult:
            remove_checkpoints(store, key)  # those too of a run that was killed just here
            trained = open_encoder(store, key)
            if out is not None:
                write_encoder(trained, out)
            return TrainResult(**trained.facts["result"])

        result = ranks.tell(ranks.lead(kept))
    assert result is not None  # rank 0 has read it
    return replace(result, file=str(out) if out else None)


def _refuse_ranks(ranks: Ranks, config: TrainConfig) -> None:
    if config.batch < ranks.size:
        raise UsageFault(
            f"a batch of {config.batch} objects has no share for each of {ranks.size} processes",
            hint=f"`--nproc-per-node {config.batch}` at most, or `--set batch={ranks.size}`",
        )


def _trained(
    study: Study, key: str, *, sources: Path | None, force: bool, progress: Progress
) -> Loop:
    """Train a study's module, from its checkpoint if there is one."""
    store, config, ranks = study.store, study.config, study.ranks
    loop = Loop(study.module, config, loss_of=study.loss, look=study.look, by="error", ranks=ranks)
    study.ask_from(sources, progress)

    def begun() -> str | None:
        if force:
            remove_checkpoints(store, key)
        return newest_checkpoint(store, key)

    if (known := ranks.tell(ranks.lead(begun))) is not None:
        with ranks.together():
            loop.restore(*load_state(store, CHECKPOINTS, known))
    else:
        study.project(progress)
    study.read()

    def checkpoint(arrays: State, facts: dict[str, Any]) -> None:
        save_checkpoint(store, key, arrays, **facts)

    loop.run(checkpoint=checkpoint, progress=progress)
    return loop


def _keep(study: Study, loop: Loop, key: str, skipped: int) -> None:
    """Keep what was trained, with what whole objects made from their embeddings are like."""
    store, ranks, curve = study.store, study.ranks, loop.curve
    best = curve.best("error")
    rebuilt = study.rebuilt()
    result = TrainResult(
        encoder=key,
        steps=loop.step,
        best_step=curve.steps[best],
        train_objects=len(study.train),
        val_objects=len(study.val),
        skipped=skipped,
        loss=curve.losses[-1],
        error=curve.looks[best]["error"],
        chamfer=rebuilt.get("chamfer"),
        f1=rebuilt.get("f1"),
        psnr=rebuilt.get("psnr"),
        seconds=curve.seconds,
        ranks=ranks.size,
    )
    save_state(
        store,
        ENCODERS,
        key,
        arrays_of(study.module),
        config=study.config.model_dump(mode="json"),
        field=store.field,
        network=store.network,
        init_hash=store.init_hash,
        precision="bfloat16" if study.amp else "float32",
        curve=vars(curve),
        result=vars(result),
        ended=datetime.now(UTC).isoformat(),
        versions=versions(study.device),
    )
