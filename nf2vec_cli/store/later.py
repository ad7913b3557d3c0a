"""Columns that a store lacks because it was made before they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.core.buffer import Buffer
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from nf2vec_cli.store.create import add_column, add_surface
from nf2vec_cli.store.damage import has
from nf2vec_cli.store.schema import COLUMNS, FILL, LATER, SURFACE, Column

if TYPE_CHECKING:
    from nf2vec_cli.store.store import Store


def absent(store: Store, column: Column) -> Any:
    """Give what a column that is not there is taken for: [N], or a list of N texts."""
    if column.name == "parent":
        return store.column("id")
    if column.text:
        return [""] * store.slots
    shape = (store.slots,) if column.width == 1 else (store.slots, column.width)
    return np.full(shape, FILL.get(column.name, 0), column.dtype)


def complete(store: Store) -> None:
    """Add the columns of today that a store lacks, with what they are taken for."""
    for name in sorted(LATER):
        if not has(store, name):
            made: dict[str, Buffer] = {}
            add_column(MemoryStore(made), COLUMNS[name])
            array = zarr.open_array(MemoryStore(made), path=name, mode="r+")
            array.resize((store.slots, *array.shape[1:]))
            array[:] = store.encoded(name, absent(store, COLUMNS[name]))
            _keep(store, name, made)
    if not has(store, SURFACE):
        made = {}
        add_surface(MemoryStore(made), store.shard_length)
        points = zarr.open_array(MemoryStore(made), path=SURFACE, mode="r+")
        points.resize((store.slots, *points.shape[1:]))
        _keep(store, SURFACE, made)


def _keep(store: Store, name: str, made: dict[str, Buffer]) -> None:
    """Write an array that was made in memory, its metadata last: a kill leaves all or nothing."""
    keys = [key for key in made if key.startswith(f"{name}/")]
    for key in sorted(keys, key=lambda key: key.endswith("/zarr.json")):
        sync(store.group.store.set(key, made[key]))
