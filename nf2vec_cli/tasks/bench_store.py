"""Measure what runs do with a store beside their work: seconds, files and memory by its rows."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.store.check import column_faults
from nf2vec_cli.store.create import create_store, shard_for
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.products import ENCODERS, Embeddings, save_state
from nf2vec_cli.store.schema import Entry, Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.info import store_info
from nf2vec_cli.tasks.memory import peak_memory
from nf2vec_cli.tasks.plan import plan_objects

ENCODER, NUMBERS = "random", 16
OF_A_CLASS = 10_000  # rows
PART = 65_536  # rows whose columns are written at once: whole shards and whole chunks
APPENDED = READ = 64
REPEATS = 3  # of each step; the quickest counts, other work on the machine only adds
HIDDEN, LAYERS = 16, 2
FIXED = {"rows", "shard", "idle_mb", "refs_mb"}  # what grows by itself, or not at all
SIZE, MTIME = 1_000, 1_700_000_000_000_000_000  # of every source


@dataclass(frozen=True)
class StoreBench:
    """Stores of rising size, a row each. Seconds are the least of three; megabytes 10^6 bytes.

    open: to read. info: all that `nf2vec info` tells. append: 64 new objects under the lock, from
    opening to the status on the disk. plan: of a run whose sources are all known, a look at each
    included. todo: what `encode` has to do. check: every column, without the fields. find: 8 ids.
    read: 64 random fields. cpu_seconds: of all threads, which other work on the machine stretches
    less. peak_mb: of a process that does all of it but the plan, of which idle_mb is Python with
    its libraries; plan_peak_mb: of one that plans, of which refs_mb are the shapes that it is
    given. growth: exponent between the last two sizes, of CPU seconds where it is time.
    """

    seconds: tuple[dict[str, float], ...]
    cpu_seconds: tuple[dict[str, float], ...]
    room: tuple[dict[str, float], ...]
    growth: dict[str, float]


def bench_store(
    rows: Sequence[int], *, folder: Path | None = None, progress: Progress | None = None
) -> StoreBench:
    """Make a store of each size, measure it in fresh processes, and remove it.

    Args:
        rows: sizes, rising.
        folder: where the stores are made; None: the system's folder for such things.
        progress: told about rows written.
    """
    tables: list[list[dict[str, float]]] = [[], [], []]
    with progress or Silent() as teller:
        teller.start(sum(rows), "write")
        for number in rows:
            with TemporaryDirectory(dir=folder, prefix="nf2vec-") as scratch:
                path = Path(scratch) / "synthetic.zarr"
                synthetic_store(path, number, teller)
                used, planned = _apart(_use, path), _apart(_plan, path, number)
            for table, one, other in zip(tables, used, planned, strict=True):
                table.append({"rows": number} | one | other)
    wall, cpu, room = map(tuple, tables)
    return StoreBench(wall, cpu, room, _growth(cpu) | _growth(room))


def synthetic_store(path: Path, rows: int, teller: Progress | None = None) -> Store:
    """Make a store of objects of a tiny network, all done and embedded.

    The columns are written as any run writes them, many rows at a time. The weights are those of
    one shard, which `commit` writes; the others are copies of its files.
    """
    from nf2vec_cli.models.network import NetworkSpec, siren_init

    spec, config = NetworkSpec(3, HIDDEN, LAYERS, 1, 30.0), FitConfig(hidden=HIDDEN, layers=LAYERS)
    create_store(
        path,
        field="sdf",
        network=spec.as_dict(),
        init=siren_init(spec, seed=0).numpy(),
        blocks=spec.blocks,
        codec=config.codec,
        bits=config.bits,
        batch=config.batch,
        shard_length=shard_for(rows, batch=config.batch, codec=config.codec),
        config=config.model_dump(mode="json"),
        versions={},
    )
    # without the syncs of `open_store`: nothing here need survive a power cut
    group = zarr.open_group(path, mode="r+")
    store = Store(path, group, dict(group.attrs))
    for start in range(0, rows, PART):
        number = min(PART, rows - start)
        added = store.register([_entry(row) for row in range(start, start + number)])
        store.update(added, **_record(number))
        store.update(added, status=np.full(number, Status.DONE))
        if teller:
            teller.advance(number)
    _fill_shards(store, path)
    save_state(store, ENCODERS, ENCODER, {"none": np.zeros(1, np.float32)})
    kept = Embeddings.open_or_make(store, ENCODER, NUMBERS)
    rng = np.random.default_rng(1)
    for start in range(0, store.slots, PART):
        part = np.arange(start, min(start + PART, store.slots))
        kept.write(part, rng.standard_normal((len(part), NUMBERS), np.float32))
    return store


def _entry(row: int) -> Entry:
    ref = shape_ref(row)
    return Entry(ref.id, ref.source, ref.class_name, ref.split)


def shape_ref(row: int, place: str = "") -> ShapeRef:
    """Name the shape that a row of a synthetic store was made of."""
    # in the order of rows, as the shapes that a run finds are in that of the store it made
    group, at = divmod(row, OF_A_CLASS)
    class_name, split = f"class {group:03}", ("test", "train", "val")[3 * at // OF_A_CLASS]
    name = f"{class_name}/{split}/part {row:07}"
    return ShapeRef(name, place, f"{name}.ply", class_name, split)


def _record(count: int) -> dict[str, Any]:
    """Give the columns of `count` objects that a fit fills."""
    return {
        "hash": np.zeros((count, 32), np.uint8),
        "key": np.zeros((count, 16), np.uint8),
        "size": np.full(count, SIZE),
        "mtime": np.full(count, MTIME),
        "transform": np.ones((count, 4)),
        "error": np.linspace(1e-3, 2e-3, count),
        "steps": np.full(count, 150),
        "seconds": np.ones(count),
        "seed": np.arange(count),
        "watertight": np.ones(count),
        "doubt": np.zeros(count),
        "disagreement": np.zeros(count),
        "sign": ["winding"] * count,
        "faces": np.full(count, 3_000),
    }


def _weights(store: Store, count: int) -> dict[str, Any]:
    """Give fields near the init, with surface points that take little room."""
    rng = np.random.default_rng(0)
    theta = store.init + 0.01 * rng.standard_normal((count, len(store.init)), np.float32)
    return {"weights": theta, "surface": np.full((count, SURFACE_POINTS, 3), 0.5, np.float32)}


def _fill_shards(store: Store, path: Path) -> None:
    """Commit the first shard, copy its files for each other, and name the copies by its digests."""
    shard = min(store.shard_length, store.slots)
    for start in range(0, shard, store.batch):
        part = np.arange(start, start + store.batch)
        store.commit(part, **_weights(store, store.batch))
    status = store.column("status")
    shards = -(-store.slots // store.shard_length)
    for name in ("quantised", "scale", "surface"):
        places = path / name / "c"
        for place in range(1, shards):
            (places / str(place)).mkdir()
            shutil.copyfile(places / "0" / "0", places / str(place) / "0")
    digest = np.tile(store.column("digest")[:shard], (shards, 1))[: store.slots]
    for start in range(0, store.slots, PART):
        part = np.arange(start, min(start + PART, store.slots))
        store.update(part, digest=digest[part], status=status[part])


def _apart(work: Callable[..., Figures], *arguments: Any) -> Figures:
    """Work in a process of its own, whose memory is the work's."""
    with get_context("spawn").Pool(1) as pool:
        found = pool.apply(work, arguments)
        pool.close()  # it is to end by itself: one that is stopped leaves a semaphore behind
        pool.join()
    return found


Figures = tuple[dict[str, float], dict[str, float], dict[str, float]]  # wall, CPU, room


def _use(path: Path) -> Figures:
    """Time what runs do with a store."""
    idle = peak_memory()
    store = open_store(path)
    done = store.rows(Status.DONE)
    rng = np.random.default_rng(2)
    asked = [shape_ref(int(row)).id for row in rng.choice(len(done), 8)]
    picks = rng.choice(done, READ)
    turn = count()
    steps: dict[str, Callable[[], object]] = {
        "open": lambda: open_store(path),
        "info": lambda: store_info(path),
        "append": lambda: _append(path, next(turn)),
        "todo": lambda: np.setdiff1d(done, Embeddings(store, ENCODER).current()),
        "check": lambda: _sound(store),
        "find": lambda: store.find(asked),
        "read": lambda: store.weights(picks),
    }
    times = {name: _least(step) for name, step in steps.items()}
    sizes = [size for _, size in store.files()]
    room = {
        "shard": store.shard_length,
        "files": len(sizes),
        "mb": sum(sizes) / 1e6,
        "peak_mb": peak_memory(),
        "idle_mb": idle,
    }
    return *_parted(times), room


def _sound(store: Store) -> None:
    faults = list(column_faults(store))
    if faults:
        raise RuntimeError(f"{store.path}: {faults[0]}")


def _append(path: Path, turn: int) -> None:
    with store_lock(path):
        store = open_store(path, mode="a")
        entries = [Entry(f"new {turn}/{n}", f"new {turn}/{n}.ply") for n in range(APPENDED)]
        rows = store.register(entries)
        store.commit(rows, **_weights(store, APPENDED), **_record(APPENDED))


def _plan(path: Path, rows: int) -> Figures:
    """Time the plan of a run whose sources are all done: each one is looked at."""
    source = path.with_name("source.ply")
    source.write_bytes(bytes(SIZE))
    os.utime(source, ns=(MTIME, MTIME))
    refs = [shape_ref(row, str(source)) for row in range(rows)]
    given = peak_memory()
    store = open_store(path)
    plan = plan_objects(refs, store)
    if plan.skipped != rows or plan.relabelled:
        raise RuntimeError(f"{path}: the plan skips {plan.skipped} of {rows}")
    times = {"plan": _least(lambda: plan_objects(refs, store))}
    return *_parted(times), {"plan_peak_mb": peak_memory(), "refs_mb": given}


def _least(work: Callable[[], object]) -> tuple[float, float]:
    """Do something three times; give the least seconds, and the least CPU seconds."""
    times = []
    for _ in range(REPEATS):
        started, began = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - started, time.process_time() - began))
    wall, cpu = zip(*times, strict=True)
    return min(wall), min(cpu)


def _parted(times: dict[str, tuple[float, float]]) -> tuple[dict[str, float], dict[str, float]]:
    return {k: wall for k, (wall, _) in times.items()}, {k: cpu for k, (_, cpu) in times.items()}


def _growth(sizes: Sequence[dict[str, float]]) -> dict[str, float]:
    """Give the exponent of each figure's growth with the rows, between the last two sizes."""
    if len(sizes) < 2:
        return {}
    before, after = sizes[-2:]
    ratio = math.log(after["rows"] / before["rows"])
    names = [name for name in after if name not in FIXED]
    return {name: round(math.log(after[name] / before[name]) / ratio, 2) for name in names}
