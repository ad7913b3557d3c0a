"""Columns that a store lacks because it was made before they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
            values = store.encoded(name, absent(store, COLUMNS[name]))
            add_column(store.group.store, COLUMNS[name])
            array: Any = store.group[name]
            array.resize((store.slots, *array.shape[1:]))
            array[:] = values
    if not has(store, SURFACE):
        add_surface(store.group.store, store.batch)
        points: Any = store.group[SURFACE]
        points.resize((store.slots, *points.shape[1:]))
