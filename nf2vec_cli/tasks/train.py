"""Train an encoder and its decoder on a store's fields: plan, do, record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.core.device import open_device, use_bfloat16
from nf2vec_cli.errors import StoreError
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.encoder import AlignedEncoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.store.lock import store_lock
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
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.encoders import open_encoder, write_encoder
from nf2vec_cli.tasks.fit import versions
from nf2vec_cli.tasks.held import HeldFields
from nf2vec_cli.tasks.loop import Curve, Loop, State, arrays_of
from nf2vec_cli.tasks.rebuild import Form, build
from nf2vec_cli.tasks.score import compare
from nf2vec_cli.tasks.teacher import FieldTeacher, SampleTeacher, Teacher, generator_of

HELD_OUT = 10  # of objects without a split, one in so many is val
LOOKED_AT = 64  # val objects of a look
LOOK_POINTS, LOOK_SEED = 1_024, 2**40
REBUILT, REBUILT_AT = 16, 64  # val objects that are rebuilt in the end; grid points an axis
READ_AT_ONCE = 256  # fields
PROJECTED, PROJECTED_BYTES = 4_096, 1 << 30  # training fields that a projection is taken from


@dataclass(frozen=True)
class TrainResult:
    """What `train` made, with what was measured on val objects decoded from their embeddings.

    error: mean difference from the stored field near the surface. chamfer, f1: of points on the
    decoded surface against the object's own, F-score at 1 % of the unit sphere's radius.
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


def train_key(store: Store, config: TrainConfig, rows: Rows) -> str:
    """Name an encoder: the init, the settings and the fields that it is trained on."""
    digest = sha256(f"{store.init_hash}/{store.field}/{config.model_dump_json()}".encode())
    digest.update(np.asarray(store.column("digest"))[rows].tobytes())
    return digest.hexdigest()[:16]


def split_rows(store: Store, rows: Rows) -> tuple[Rows, Rows]:
    """Divide rows into those to train on and those to look at.

    By the store's splits, test left out; objects without any are split by their parent's name, so
    that copies stay with their object. Only objects themselves are looked at, no copies.
    """
    splits, parents = store.column("split"), store.column("parent")
    copies = store.column("copy")
    place = {row: splits[row] or _drawn(parents[row]) for row in rows}
    train = np.array([row for row in rows if place[row] == "train"], np.int64)
    val = np.array([r for r in rows if place[r] == "val" and not copies[r]], np.int64)
    return train, val


def _drawn(name: str) -> str:
    drawn = int.from_bytes(sha256(name.encode()).digest()[:4], "little")
    return "train" if drawn % HELD_OUT else "val"


def train_encoder(
    path: Path,
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
        LockedError: another run is writing.
    """
    target = open_device(device)
    with store_lock(path, wait=wait), progress or Silent() as teller:
        store = open_store(path, mode="a")
        done = store.rows(Status.DONE)
        fields = HeldFields(store, done, progress=teller)
        skipped = len(done) - len(fields.rows)
        train, val = split_rows(store, fields.rows)
        _enough(store, train, val, config)
        key = train_key(store, config, train)
        if key not in keys(store, ENCODERS) or force:
            study = _Study(store, fields, (train, val), config, target)
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
                curve=vars(study.curve),
                result=vars(result),
                ended=datetime.now(UTC).isoformat(),
                versions=versions(target),
            )
            remove_checkpoints(store, key)
        trained = open_encoder(store, key)
        if out is not None:
            write_encoder(trained, out)
    result = TrainResult(**trained.facts["result"])
    return replace(result, file=str(out) if out else None)


def _trained(
    study: _Study, key: str, skipped: int, *, sources: Path | None, force: bool, progress: Progress
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
    chamfer, f1 = study.rebuilt()
    return TrainResult(
        encoder=key,
        steps=loop.step,
        best_step=loop.curve.steps[best],
        train_objects=len(study.train),
        val_objects=len(study.val),
        skipped=skipped,
        loss=loop.curve.losses[-1],
        error=loop.curve.looks[best]["error"],
        chamfer=chamfer,
        f1=f1,
        seconds=loop.curve.seconds,
    )


def _enough(store: Store, train: Rows, val: Rows, config: TrainConfig) -> None:
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


class _Study:
    """The fields of a store as training material, and the module that learns from them."""

    def __init__(
        self,
        store: Store,
        fields: HeldFields,
        parts: tuple[Rows, Rows],
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.store, self.fields = store, fields
        self.train, self.val = parts
        self.config, self.device = config, device
        self.spec = NetworkSpec(**store.network)
        self.field = field_of(store.field)
        self.point_loss = self.field.point_loss(FitConfig.model_validate(store.config))
        self.amp = use_bfloat16(config.precision, device)
        self.curve = Curve()
        self.teacher: Teacher = FieldTeacher(store, fields)
        self.looked_at = _spread_over(self.val, LOOKED_AT)
        self._held: tuple[Tensor, Tensor, Tensor] | None = None
        self._components, self._place = torch.empty(0), np.empty(0, np.int64)
        torch.manual_seed(config.seed)
        self.module = AutoEncoder(self.spec, config).to(device)

    def ask_from(self, sources: Path | None, progress: Progress) -> None:
        """Prepare what the targets of training come from."""
        if self.config.supervise == "samples":
            self.teacher = SampleTeacher(self.store, self.train, sources=sources, progress=progress)

    def project(self, progress: Progress) -> None:
        """Take the projection of an aligned encoder from the training fields."""
        encoder = self.module.encoder
        if isinstance(encoder, AlignedEncoder):
            progress.start(None, "projection")
            most = min(PROJECTED, PROJECTED_BYTES // (4 * self.spec.parameters))
            theta = self._theta(_spread_over(self.train, most))
            encoder.fit_projection(theta, torch.from_numpy(self.store.init).to(self.device))

    def read(self) -> None:
        """Keep what an aligned encoder reads of each field: training never changes it.

        In the same parts each time, so that a run that is resumed reads the same bits.
        """
        encoder = self.module.encoder
        if isinstance(encoder, AlignedEncoder):
            rows = np.union1d(self.train, self.looked_at)
            parts = np.array_split(rows, -(-len(rows) // READ_AT_ONCE))
            self._components = torch.cat([encoder.components(self._theta(part)) for part in parts])
            self._place = np.full(self.store.slots, -1)
            self._place[rows] = np.arange(len(rows))

    def embed(self, rows: Rows, theta: Tensor) -> Tensor:
        """Embed fields of `read`."""
        encoder = self.module.encoder
        if isinstance(encoder, AlignedEncoder):
            return encoder.embed(self._components[self._place[rows]])
        found: Tensor = encoder(theta)
        return found

    def loss(self, step: int) -> Tensor:
        """Give the mean loss of a step's objects at its points."""
        generator = generator_of(self.config.seed, step)
        chosen = torch.randperm(len(self.train), generator=generator)[: self.config.batch]
        rows = self.train[chosen.numpy()]
        theta = self._theta(rows)
        coords, values = self.teacher.ask(rows, theta, self.config.points, generator)
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of dropout
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            found = self.module.decoder(self.embed(rows, theta), coords)[..., 0]
        found = found.float()
        each, slope = self.point_loss(found.detach(), self.field.labels(values))
        # the loss comes with its slope written out: this has its value, and its slope as gradient
        passed: Tensor = ((found - found.detach()) * slope + each).mean()
        return passed

    def look(self) -> dict[str, float]:
        """Compare decoded val objects with their stored fields, near the surface."""
        if self._held is None:
            theta = self._theta(self.looked_at)
            generator = generator_of(0, LOOK_SEED)
            coords, values = FieldTeacher(self.store, self.fields).ask(
                self.looked_at, theta, LOOK_POINTS, generator
            )
            self._held = theta, coords, values
        theta, coords, values = self._held
        z = self.embed(self.looked_at, theta)
        found = self.field.read_back(self.module.decoder(z, coords)[..., 0])
        return {"error": float((found - values).abs().mean())}

    @torch.no_grad()
    def rebuilt(self) -> tuple[float | None, float | None]:
        """Rebuild val objects from their embeddings: mean Chamfer distance and F-score at 1 %."""
        rows = self.looked_at[:REBUILT]
        theta = self._theta(rows)
        z = self.module.eval().encoder(theta).cpu()
        decoder = self.module.decoder.cpu()
        found = []
        for one, points in zip(z, self.fields.surface(rows), strict=True):
            field = DecodedField(decoder, one, self.store.field)
            with torch.enable_grad():
                built = build(
                    field, self.store.field, Form.cloud, resolution=REBUILT_AT, points=len(points)
                )
            quality = compare(built.shape, Cloud(points.astype(float), None, ()))
            if quality.chamfer is not None and quality.f1 is not None:
                found.append((quality.chamfer, quality.f1))
        self.module.decoder.to(self.device)
        if not found:
            return None, None
        chamfer, f1 = np.array(found).mean(0).tolist()
        return chamfer, f1

    def _theta(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self.fields.take(rows)).to(self.device)


def _spread_over(rows: Rows, most: int) -> Rows:
    """Choose at most so many rows, evenly."""
    chosen: Rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return chosen
