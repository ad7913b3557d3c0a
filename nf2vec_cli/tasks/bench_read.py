"""Measure how fast fields are read from a store, in random order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store

REPEATS = 7


@dataclass(frozen=True)
class ReadBench:
    """Medians of several reads of the same number of random fields.

    mb_per_second: float32 weights that a caller gets, 10^6 bytes a second; stored: the arrays on
    disk alone, before decoding; fancy: the same by zarr's own fancy indexing (`oindex`).
    """

    store: str
    codec: str
    parameters: int
    objects: int
    open_seconds: float
    mb_per_second: float
    stored_mb_per_second: float
    fancy_mb_per_second: float


def bench_read(path: Place, *, objects: int = 16) -> ReadBench:
    """Read random fields several times; the files are in the system's cache after the first."""
    started = time.perf_counter()
    store = open_store(path)
    opened = time.perf_counter() - started
    done = store.rows(Status.DONE)
    if not len(done):
        raise StoreError(f"{path} holds no fitted field")
    rng = np.random.default_rng(0)
    picks = [
        rng.choice(done, objects, replace=len(done) < objects).tolist() for _ in range(REPEATS + 1)
    ]
    group: Any = store.group
    names = list(store.stored(picks[0]).arrays)
    bytes_stored = sum(a.nbytes for a in store.stored(picks[0]).arrays.values())

    def fancy(rows: list[int]) -> None:
        for name in names:
            group[name].oindex[np.array(rows)]

    return ReadBench(
        store=str(path),
        codec=store.codec,
        parameters=len(store.init),
        objects=objects,
        open_seconds=opened,
        mb_per_second=objects * store.init.nbytes / 1e6 / _seconds(store.weights, picks),
        stored_mb_per_second=bytes_stored / 1e6 / _seconds(store.stored, picks),
        fancy_mb_per_second=bytes_stored / 1e6 / _seconds(fancy, picks),
    )


def _seconds(read: Callable[[list[int]], Any], picks: list[list[int]]) -> float:
    times = []
    for rows in picks:
        started = time.perf_counter()
        read(rows)
        times.append(time.perf_counter() - started)
    return median(times[1:])
