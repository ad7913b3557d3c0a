"""Train an encoder and its decoder on a store's fields: plan, do, record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.config.train import LATER, TrainConfig
from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import StoreError
from nf2vec_cli.progress import Progress, Silent
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
from nf2vec_cli.store.store import Rows, Store, open_store
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
    held out against those of the stored field, decibels, on white (nerf).
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
        UsageFault: `out` cannot be written.
        LockedError: another run is writing.
    """
    target = open_device(device)
    if out is not None:
        require_writable(out)
    with store_lock(path, wait=wait), progress or Silent() as teller:
        store = open_store(path, mode="a")
        require_known_init(store)
        done = store.rows(Status.DONE)
        fields = HeldFields(store, done, progress=teller)
        skipped = len(done) - len(fields.rows)
        train, val = training_rows(store, fields.rows, config)
        key = train_key(store, config, train)
        if key not in keys(store, ENCODERS) or force:
            study = Study(store, fields, (train, val), config, target)
            result = _trained(study, key, skipped, sources=sources, force=force, progress=teller)
            save_state(
                store,
                ENCODERS,
                key,
                arrays_of(study.module),
                config=config.model_dump(mode="json"),
                field=store.field,
                network=store.network,
                init_hash=store.init_hash,
                precision="bfloat16" if study.amp else "float32",
                curve=vars(study.curve),
                result=vars(result),
                ended=datetime.now(UTC).isoformat(),
                versions=versions(target),
            )
        remove_checkpoints(store, key)  # those too of a run that was killed just here
        trained = open_encoder(store, key)
        if out is not None:
            write_encoder(trained, out)
    result = TrainResult(**trained.facts["result"])
    return replace(result, file=str(out) if out else None)


def _trained(
    study: Study, key: str, skipped: int, *, sources: Path | None, force: bool, progress: Progress
) -> TrainResult:
    """Train a study's module, from its checkpoint if there is one."""
    store, config = study.store, study.config
    loop = Loop(study.module, config, loss_of=study.loss, look=study.look, by="error")
    study.ask_from(sources, progress)
    if force:
        remove_checkpoints(store, key)
    if (known := newest_checkpoint(store, key)) is not None:
        loop.restore(*load_state(store, CHECKPOINTS, known))
    else:
        study.project(progress)
    study.read()

    def checkpoint(arrays: State, facts: dict[str, Any]) -> None:
        save_checkpoint(store, key, arrays, **facts)

    loop.run(checkpoint=checkpoint, progress=progress)
    study.curve = loop.curve
    best = loop.curve.best("error")
    rebuilt = study.rebuilt()
    return TrainResult(
        encoder=key,
        steps=loop.step,
        best_step=loop.curve.steps[best],
        train_objects=len(study.train),
        val_objects=len(study.val),
        skipped=skipped,
        loss=loop.curve.losses[-1],
        error=loop.curve.looks[best]["error"],
        chamfer=rebuilt.get("chamfer"),
        f1=rebuilt.get("f1"),
        psnr=rebuilt.get("psnr"),
        seconds=loop.curve.seconds,
    )
