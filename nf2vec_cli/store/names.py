"""Which rows of a store a name means."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.text import decode_text

if TYPE_CHECKING:
    from nf2vec_cli.store.store import Store

NEAR = 20_000  # ids that a name which is not there is compared with


def find(store: Store, ids: Sequence[str]) -> Rows:
    """Find rows by id, or by the last part of an id where only one object has it.

    Raises:
        StoreError: there is no such object, or several.
    """
    there = store.column("status") != Status.EMPTY
    exact = _named(store, set(ids), there)
    missing = set(ids) - set(exact)
    short = _named(store, missing, there, key=_last_part) if missing else {}
    found = []
    for wanted in ids:
        same = exact.get(wanted) or short.get(wanted, [])
        hint = f"`nf2vec info {store.path} --objects` lists all ids"
        names = store.column("id", same[:3]) if len(same) > 1 and wanted in short else []
        if names:
            raise StoreError(f"{wanted!r} may be {' or '.join(sorted(names))}", hint=hint)
        if not same:
            known = store.column("id", np.flatnonzero(there)[:NEAR])
            known = dict.fromkeys([*known, *map(_last_part, known)])
            near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}? {hint}" if near else hint
            raise StoreError(f"{store.path} has no object {wanted!r}", hint=hint)
        found.append(same[-1])
    return np.array(found, np.int64)


def _named(
    store: Store, names: set[str], there: NDArray[np.bool_], key: Callable[[str], str] = str
) -> dict[str, list[int]]:
    """Find the rows of names, all of a name, without keeping the names of all rows."""
    found: dict[str, list[int]] = {}
    for start, (part,) in store.sections("id"):
        for row, name in enumerate(map(key, decode_text(part)), start):
            if name in names and there[row]:
                found.setdefault(name, []).append(row)
    return found


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
