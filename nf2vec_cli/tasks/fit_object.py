"""One object from file to field: read, normalise, sample, fit, measure. Runs in a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.mlp import siren_values
from nf2vec_cli.errors import InputError, Nf2vecError
from nf2vec_cli.fields.pool import Pool
from nf2vec_cli.models.network import NetworkSpec, split_theta
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.discover import fingerprint
from nf2vec_cli.shapes.mesh import load_mesh, normalise
from nf2vec_cli.store.codec import CODECS, codec_size, roundtrip
from nf2vec_cli.tasks.optimise import network_of, object_seed, optimise
from nf2vec_cli.tasks.spread import WorkerDied, spread

log = logging.getLogger(__name__)
MEASURED = 10_000  # pool points on which a fit's error is measured
Theta = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """One object to fit."""

    id: str
    path: Path
    field: str
    config: FitConfig
    init_hash: str
    study: bool = False


@dataclass(frozen=True)
class Prepared:
    """An object ready to be fitted: its query points, and what the store will know about it."""

    pool: Pool
    seed: int
    columns: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """A field: theta [P], the store's columns, and each codec's (bytes, error) if asked for."""

    theta: Theta
    columns: dict[str, Any]
    study: dict[str, tuple[int, float]] | None = None


@dataclass(frozen=True)
class Failed:
    """An object that was not fitted, and why; the columns that are known all the same."""

    reason: str
    columns: dict[str, Any]


def fit_jobs(
    jobs: Iterable[Job], init: Theta, *, device: torch.device, workers: int, size: int
) -> Iterator[Fitted | Failed]:
    """Fit each job's object, in order: one a worker process on a CPU, `size` at once on a GPU."""
    if device.type == "cpu":
        for outcome in spread(partial(fit_object, init=init), jobs, workers=workers):
            yield _lost() if isinstance(outcome, WorkerDied) else outcome
        return
    queue = iter(jobs)
    queue = iter(jobs)
    while batch := list(islice(queue, size)):
        yield from _fit_together(batch, init, device, workers)


def fit_object(job: Job, init: Theta) -> Fitted | Failed:
    """Fit one object on this process's CPU, with one thread."""
    prepared = prepare(job)
    if isinstance(prepared, Failed):
        return prepared
    started = time.process_time()
    start = torch.from_numpy(init)
    field = field_module(job.field)
    cpu = torch.device("cpu")
    theta = optimise(start, [prepared.pool], [prepared.seed], field, job.config, device=cpu)
    spent = time.process_time() - started
    return _measured(job, prepared, theta[0].numpy(), init, spent)


def _fit_together(
    batch: list[Job], init: Theta, device: torch.device, workers: int
) -> Iterator[Fitted | Failed]:
    """Prepare objects in worker processes, then fit them as one batched network on the GPU."""
    found = [
        _lost() if isinstance(p, WorkerDied) else p for p in spread(prepare, batch, workers=workers)
    ]
    good = [p for p in found if isinstance(p, Prepared)]
    thetas = iter(())
    spent = 0.0
    if good:
        started = time.process_time()
        field = field_module(batch[0].field)
        pools, seeds = [p.pool for p in good], [p.seed for p in good]
        start = torch.from_numpy(init)
        fitted = optimise(start, pools, seeds, field, batch[0].config, device=device)
        thetas = iter(fitted.cpu().numpy())
        spent = (time.process_time() - started) / len(good)
    for job, prepared in zip(batch, found, strict=True):
        if isinstance(prepared, Failed):
            yield prepared
        else:
            yield _measured(job, prepared, next(thetas), init, spent)


def prepare(job: Job) -> Prepared | Failed:
    """Read a shape and sample its field; a shape that cannot be used comes back as Failed."""
    started = time.process_time()
    columns: dict[str, Any] = {}
    try:
        digest, size, mtime = fingerprint(job.path)
        columns |= {"hash": digest, "size": size, "mtime": mtime}
        mesh = load_mesh(job.path)
        columns |= {"watertight": int(mesh.watertight), "faces": len(mesh.faces)}
        unit, centre, scale = normalise(mesh.vertices, how=job.config.normalise)
        columns["transform"] = np.array([*centre, scale])
        seed = object_seed(job.id, job.config.seed)
        pool = _sampled(Mesh(unit, mesh.faces, mesh.watertight, mesh.notes), seed, job)
        columns |= {"seed": seed, "doubt": pool.doubt, "message": _remarks(mesh, pool)}
        _refuse_doubt(pool, job.config)
    except Exception as error:  # one shape, however odd, must not end a run of thousands
        if not isinstance(error, Nf2vecError | OSError | MemoryError):
            log.exception("%s", job.path)
        return Failed(_reason(error), columns)
    columns["key"] = product_key(digest, job)
    return Prepared(pool, seed, columns, time.process_time() - started)


def product_key(source_hash: bytes, job: Job) -> bytes:
    """Name the product of this source, these settings and this start: 16 bytes."""
    settings = job.config.model_dump_json(exclude={"codec", "bits", "batch"})
    text = f"{source_hash.hex()}/{job.field}/{job.init_hash}/{settings}"
    return sha256(text.encode()).digest()[:16]


def field_module(name: str) -> ModuleType:
    """Import the file of a kind of field."""
    return import_module(f"nf2vec_cli.fields.{name}")


def field_values(
    theta: Theta, spec: NetworkSpec, field: ModuleType, coords: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Evaluate one field, theta [P], at points [M, 3]: what it says there, in unit space, [M]."""
    weights, biases = split_theta(torch.from_numpy(theta)[None], spec)
    raw = siren_values(
        [w[0] for w in weights], [b[0] for b in biases], torch.from_numpy(coords), spec.omega
    )
    values: NDArray[np.float32] = field.read_back(raw[:, 0]).numpy()
    return values


def _sampled(unit: Mesh, seed: int, job: Job) -> Pool:
    field = field_module(job.field)
    sample = field.sample_as_paper if job.config.recipe == "paper" else field.sample
    pool: Pool = sample(unit, job.config.pool, rng=np.random.default_rng([seed, 0]))
    return pool


def _refuse_doubt(pool: Pool, config: FitConfig) -> None:
    if pool.doubt > config.max_doubt:
        raise InputError(
            f"the surface is open: for {pool.doubt:.0%} of the points near it inside and outside "
            "cannot be told apart; close it (fields without sign, `--field udf`, are to come)"
        )


def _remarks(mesh: Mesh, pool: Pool) -> str:
    remarks = list(mesh.notes)
    if not mesh.watertight:
        remarks.append(
            f"the surface is open, its sign is doubtful at {pool.doubt:.2%} of the points near it"
        )
    return "; ".join(remarks)


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is not there"
    if isinstance(error, OSError):
        return f"the file cannot be read: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "not enough memory for this shape"
    if isinstance(error, Nf2vecError):
        return str(error)
    return f"an unexpected {type(error).__name__}: {error}"


def _lost() -> Failed:
    return Failed("its worker process died (out of memory, or a crash in a library)", {})


def _measured(
    job: Job, prepared: Prepared, theta: Theta, init: Theta, spent: float
) -> Fitted | Failed:
    if not np.isfinite(theta).all():
        return Failed("the fit diverged (weights are not finite)", prepared.columns)
    spec, field, pool = network_of(job.config), field_module(job.field), prepared.pool
    # even steps through the Morton order: the whole shape
    near = np.flatnonzero(np.abs(pool.values) < np.abs(pool.values).max())
    some = near[np.linspace(0, len(near) - 1, min(MEASURED, len(near))).astype(int)]

    def error_of(weights: Theta) -> float:
        found = field_values(weights, spec, field, pool.coords[some])
        return float(np.abs(found - pool.values[some]).mean())

    config = job.config
    kept = roundtrip(theta, init, spec.blocks, config.codec, config.bits)
    columns = {**prepared.columns, "error": error_of(kept), "seconds": prepared.seconds + spent}
    study = None
    if job.study:
        study = {}
        for codec, bits in CODECS:
            size = codec_size(theta, init, spec.blocks, codec, bits)
            error = error_of(roundtrip(theta, init, spec.blocks, codec, bits))
            study[codec if codec == "exact" else f"{codec} {bits} bit"] = (size, error)
    return Fitted(theta, columns, study)
