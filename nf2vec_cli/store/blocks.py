"""Rows by the blocks that they are kept in: chunks of columns, shards of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from nf2vec_cli.store.schema import COLUMN_CHUNK, Column

Rows = NDArray[np.int64]
T = TypeVar("T")
Part = TypeVar("Part")
PART = 16 << 20  # bytes of a column that are read at once
WRITERS = 8  # arrays that are written at once: most of it is waiting for the disk


def rows_of(array: zarr.Array[Any], rows: list[int]) -> NDArray[Any]:
    """Read rows: a run of them in one go, others one by one, never by zarr's fancy indexing."""
    if len(rows) > 1 and rows == list(range(rows[0], rows[0] + len(rows))):
        return np.asarray(array[rows[0] : rows[-1] + 1])
    return np.stack([np.asarray(array[row]) for row in rows])


def spans(slots: int, column: Column) -> Iterator[tuple[int, int]]:
    """Give the runs of whole chunks in which a column is read, some megabytes each."""
    row = np.dtype(column.dtype).itemsize * column.width
    step = max(1, PART // (row * COLUMN_CHUNK)) * COLUMN_CHUNK
    return ((start, min(start + step, slots)) for start in range(0, slots, step))


def ahead(read: Callable[[Part], T], parts: Iterable[Part]) -> Iterator[T]:
    """Read parts in their order, each while the one before is worked on: two are in memory."""
    with ThreadPoolExecutor(1) as reader:
        before: Future[T] | None = None
        for part in parts:
            following = reader.submit(read, part)
            if before is not None:
                yield before.result()
            before = following
        if before is not None:
            yield before.result()


def grouped(index: Rows, length: int) -> list[Rows]:
    """Split rows [B] by the block of `length` rows that they lie in: places in `index`, in order.

    One pass: to look for each block's rows among all takes minutes for a million.
    """
    blocks = index // length
    order = np.argsort(blocks, kind="stable")
    cuts = np.flatnonzero(np.diff(blocks[order])) + 1
    return np.split(order, cuts) if len(index) else []


def taken(values: Any, places: Rows) -> Any:
    """Pick some of the values of rows, which may be a list."""
    return values[places] if isinstance(values, np.ndarray) else [values[at] for at in places]


def together(work: Callable[[Any], None], things: Iterable[Any]) -> None:
    """Do work on several things at once; the first error is raised when all have ended."""
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(work, thing) for thing in things]:
            done.result()
