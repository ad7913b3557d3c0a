"""One object from file to field: read, normalise, sample, fit, measure. Runs in a worker."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import partial
from hashlib import sha256
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.config.fit import RADIANCE, FitConfig
from nf2vec_cli.errors import Nf2vecError
from nf2vec_cli.fields import FieldName
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.fields.pool import Pool
from nf2vec_cli.shapes.augment import augment
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.crop import crop
from nf2vec_cli.shapes.fingerprint import fingerprint
from nf2vec_cli.shapes.load import Shape, load_shape
from nf2vec_cli.shapes.unit import into_unit
from nf2vec_cli.store.codec import CODECS, codec_size, roundtrip
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.optimise import Optimised, network_of, object_seed, optimise
from nf2vec_cli.tasks.spread import Engine, WorkerDied, spread

log = logging.getLogger(__name__)
UNKNOWN = 255  # whether the surface is closed, of what has none
POOL_COLUMNS = ("doubt", "disagreement", "sign", "cells")
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
    copy: int = 0  # 0: the shape itself; from 1 on: an augmented copy
    study: bool = False
    cache: Path | None = None  # folder where pictures that were made of meshes are kept


@dataclass(frozen=True)
class Prepared:
    """An object ready to be fitted: its query points, and what the store will know about it."""

    pool: Pool
    seed: int
    columns: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """A field: theta [P], the store's columns, and each codec's (bytes, error) if asked for.

    beside: rows of the arrays that a store of radiance has besides.
    """

    theta: Theta
    surface: Theta  # [S, 3], points on the surface that was fitted
    columns: dict[str, Any]
    study: dict[str, tuple[int, float]] | None = None
    beside: dict[str, NDArray[Any]] = dataclass_field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """An object that was not fitted, and why; the columns that are known all the same."""

    reason: str
    columns: dict[str, Any]


def fit_jobs(
    jobs: Iterable[Job],
    init: Theta,
    *,
    device: torch.device,
    workers: int | Engine,
    size: int,
    limit: float | None = None,
    graphs: bool = False,
) -> Iterator[Fitted | Failed]:
    """Fit each job's object, in order: one a worker on a CPU, `size` at once on a GPU.

    limit: seconds that a worker may take for an object. graphs: several steps of those on the GPU
    as one CUDA graph.
    """
    if device.type == "cpu":
        work = partial(fit_object, init=init)
        for outcome in spread(work, jobs, workers=workers, limit=limit):
            yield lost(outcome) if isinstance(outcome, WorkerDied) else outcome
        return
    together = partial(_fit_prepared, init=init, device=device, size=size, graphs=graphs)
    if isinstance(workers, int):
        mine, theirs = tee(jobs)
        yield from together(mine, spread(prepare, theirs, workers=workers, limit=limit))
    else:
        yield from fit_batches(prepare, partial(listed, together), jobs, workers, size)


def fit_batches(
    prepare: Callable[[Job], Any],
    fit: Callable[[list[Job], list[Any]], list[Fitted | Failed]],
    jobs: Iterable[Job],
    engine: Engine,
    size: int,
) -> Iterator[Fitted | Failed]:
    """Fit the jobs' objects, `size` at once, on the GPUs of an engine."""
    mine, theirs = tee(batches(jobs, size))
    for batch, outcomes in zip(mine, engine.spread_batches(prepare, fit, theirs), strict=True):
        if not isinstance(outcomes, WorkerDied):
            yield from outcomes
            continue
        # any object may be to blame: fit each alone to find out
        for alone in engine.spread_batches(prepare, fit, ([job] for job in batch)):
            yield lost(alone) if isinstance(alone, WorkerDied) else alone[0]


def listed(
    fit: Callable[..., Iterator[Fitted | Failed]], jobs: list[Job], prepared: list[Any]
) -> list[Fitted | Failed]:
    """Fit a batch to its end, in a worker."""
    return list(fit(jobs, prepared))


def batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Cut jobs into lists of `size`; the last may be shorter."""
    queue = iter(jobs)
    while batch := list(islice(queue, size)):
        yield batch


def fit_object(job: Job, init: Theta) -> Fitted | Failed:
    """Fit one object on this process's CPU, with one thread."""
    prepared = prepare(job)
    if isinstance(prepared, Failed):
        return prepared
    started = time.process_time()
    pools = [(prepared.pool, prepared.seed)]
    cpu = torch.device("cpu")
    fitted = next(
        optimise(torch.from_numpy(init), pools, field_of(job.field), job.config, device=cpu)
    )
    return _measured(job, prepared, fitted, init, time.process_time() - started)


def _fit_prepared(
    jobs: Iterable[Job],
    prepared: Iterable[Prepared | Failed | WorkerDied],
    *,
    init: Theta,
    device: torch.device,
    size: int,
    graphs: bool,
) -> Iterator[Fitted | Failed]:
    """Fit objects that workers prepare as one batched network on the GPU."""
    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    known: dict[int, tuple[Job, Prepared]] = {}  # under way, in the order in which they came
    count = 0
    slots: deque[Fitted | Failed | int] = deque()  # each job's outcome, or its number
    outcomes: dict[int, Fitted | Failed] = {}

    def pools() -> Iterator[tuple[Pool, int]]:
        nonlocal count
        for job, ready in zip(chain([first], jobs), prepared, strict=True):
            if isinstance(ready, Prepared):
                slots.append(count)
                known[count] = (job, ready)
                count += 1
                yield ready.pool, ready.seed
            else:
                slots.append(lost(ready) if isinstance(ready, WorkerDied) else ready)

    field, start = field_of(first.field), torch.from_numpy(init)
    began = time.process_time()
    fits = optimise(start, pools(), field, first.config, device=device, places=size, graphs=graphs)
    for fitted in fits:
        now = time.process_time()
        job, ready = known.pop(fitted.index)
        outcomes[fitted.index] = _measured(job, ready, fitted, init, now - began)
        began = time.process_time()
        while slots and (not isinstance(slots[0], int) or slots[0] in outcomes):
            head = slots.popleft()
            yield outcomes.pop(head) if isinstance(head, int) else head
    for head in slots:
        yield outcomes.pop(head) if isinstance(head, int) else head


def prepare(job: Job) -> Prepared | Failed:
    """Read a shape and sample its field; a shape that cannot be used comes back as Failed."""
    started = time.process_time()
    columns: dict[str, Any] = {}
    try:
        digest, size, mtime = fingerprint(job.path)
        columns |= {"hash": digest, "size": size, "mtime": mtime}
        seed = object_seed(job.id, job.config.seed)
        shape = load_shape(job.path, job.field)
        columns |= _facts(shape)
        # the whole shape says where the unit sphere is, so that a crop lies on it
        unit, centre, scale = into_unit(copied(shape, job.copy, seed), how=job.config.normalise)
        unit = cropped(unit, job.config, seed)
        columns["transform"] = np.array([*centre, scale])
        rng = np.random.default_rng([seed, 0])
        pool = field_of(job.field).prepare(unit, job.config, rng=rng)
        columns |= {name: getattr(pool, name) for name in POOL_COLUMNS}
        columns |= {"seed": seed, "message": _remarks(replace(shape, notes=unit.notes), pool)}
    except Exception as error:  # one shape, however odd, must not end a run of thousands
        if not isinstance(error, Nf2vecError | OSError | MemoryError):
            log.exception("%r", str(job.path))
        return Failed(reason_of(error), columns)
    columns["key"] = product_key(digest, job)
    return Prepared(pool, seed, columns, time.process_time() - started)


def product_key(source_hash: bytes, job: Job) -> bytes:
    """Name the product of this source, these settings and this start: 16 bytes."""
    left_out = {"codec", "bits", "batch", "shard_length"}  # how it is kept, not what it is
    # `crop` and `precision` came later: a product keeps the name that it had before
    left_out |= {"crop"} if job.config.crop == 1 else set()
    left_out |= {"precision"} if job.config.precision == "tf32" else set()
    left_out |= set() if job.field == FieldName.nerf else RADIANCE
    settings = job.config.model_dump_json(exclude=left_out)
    text = f"{source_hash.hex()}/{job.field}/{job.init_hash}/{settings}"
    return sha256(text.encode()).digest()[:16]


def copied(shape: Shape, copy: int, seed: int) -> Shape:
    """Give a shape's augmented copy; copy 0 is the shape itself. `seed`: the copy's own."""
    return augment(shape, rng=np.random.default_rng([seed, 2])) if copy else shape


def cropped(shape: Shape, config: FitConfig, seed: int) -> Shape:
    """Give the part of a shape that its field is fitted to; `seed`: the object's own."""
    return crop(shape, config.crop, rng=np.random.default_rng([seed, 4]))


def _facts(shape: Shape) -> dict[str, Any]:
    if isinstance(shape, Mesh):
        return {"watertight": int(shape.watertight), "faces": len(shape.faces)}
    return {"watertight": UNKNOWN, "faces": 0}


def _remarks(shape: Shape, pool: Pool) -> str:
    remarks = [*shape.notes, *([pool.note] if pool.note else [])]
    if isinstance(shape, Mesh) and not shape.watertight and pool.sign not in ("", "wrap"):
        remarks.append(
            f"the surface is open, its sign is doubtful at {pool.doubt:.2%} of the points near it"
        )
    return "; ".join(remarks)


def reason_of(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is not there"
    if isinstance(error, OSError):
        return f"the file cannot be read: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "not enough memory for this shape"
    if isinstance(error, Nf2vecError):
        return str(error)
    return f"an unexpected {type(error).__name__}: {error}"


def lost(died: WorkerDied) -> Failed:
    return Failed(str(died), {})


def _measured(
    job: Job, prepared: Prepared, fitted: Optimised, init: Theta, spent: float
) -> Fitted | Failed:
    theta: Theta = fitted.theta.cpu().numpy()
    if not np.isfinite(theta).all():
        return Failed("the fit diverged (weights are not finite)", prepared.columns)
    spec, pool = network_of(job.config), prepared.pool
    some = some_near(pool)

    def error_of(weights: Theta) -> float:
        found = FieldFunction(weights, spec, job.field).values(pool.coords[some])
        return float(np.abs(found - pool.values[some]).mean())

    config = job.config
    kept = roundtrip(theta, init, spec.blocks, config.codec, config.bits)
    columns = prepared.columns | {
        "error": error_of(kept),
        "steps": fitted.steps,
        "seconds": prepared.seconds + spent,
    }
    study = codec_study(theta, init, spec.blocks, error_of) if job.study else None
    return Fitted(theta, pool.surface, columns, study)


def some_near(pool: Pool) -> NDArray[np.int64]:
    """Choose the points near the surface at which a field's error is measured."""
    near = np.flatnonzero(pool.near)
    # even steps through the Morton order: the whole shape
    even = np.linspace(0, len(near) - 1, min(MEASURED, len(near))).astype(int)
    chosen: NDArray[np.int64] = near[even]
    return chosen


def codec_study(
    theta: Theta, init: Theta, blocks: list[int], error_of: Callable[[Theta], float]
) -> dict[str, tuple[int, float]]:
    """Measure each way to keep a field's weights: bytes, and the error of what comes back."""
    study = {}
    for codec, bits in CODECS:
        size = codec_size(theta, init, blocks, codec, bits)
        error = error_of(roundtrip(theta, init, blocks, codec, bits))
        study[codec if codec == "exact" else f"{codec} {bits} bit"] = (size, error)
    return study
