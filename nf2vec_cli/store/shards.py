"""Write a batch of rows into the shards that it lies in; what a shard holds besides stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.blocks import Rows, together
from nf2vec_cli.store.damage import ERRORS
from nf2vec_cli.store.schema import Status

if TYPE_CHECKING:
    from nf2vec_cli.store.store import Store


def write_batch(store: Store, rows: Rows, arrays: dict[str, NDArray[Any]]) -> None:
    """Write rows of one batch; other batches of its shard are copied as they are."""
    first = int(rows[0]) // store.batch * store.batch

    def write(name: str) -> None:
        array = store.array(name)
        whole = np.zeros((store.batch, array.shape[1]), array.dtype)
        if len(rows) < store.batch:
            whole[:] = _kept(store, array, first, store.batch)
        whole[rows - first] = arrays[name]
        try:
            array[first : first + store.batch] = whole
        except (ValueError, RuntimeError):
            _remake_shard(store, array, first, whole)

    together(write, arrays)


def _remake_shard(store: Store, array: zarr.Array[Any], first: int, batch: NDArray[Any]) -> None:
    """Write a batch into a shard whose index is damaged: zarr would read it to add to it."""
    shard = first // store.shard_length
    start = shard * store.shard_length
    whole = _kept(store, array, start, store.shard_length)
    whole[first - start : first - start + len(batch)] = batch
    sync((array.store_path / array.metadata.encode_chunk_key((shard, 0))).delete())
    array[start : start + store.shard_length] = whole


def _kept(store: Store, array: zarr.Array[Any], first: int, count: int) -> NDArray[Any]:
    """Read rows that are to be written again; those that are not done need not be readable."""
    try:
        return np.asarray(array[first : first + count])
    except (StoreError, *ERRORS):
        done = store.column("status", range(first, first + count)) == Status.DONE
        kept = np.zeros((count, array.shape[1]), array.dtype)
        for slot in np.flatnonzero(done).tolist():
            try:
                kept[slot] = array[first + slot]
            except ERRORS as error:
                raise store.damaged(array.basename, error) from error
        return kept
