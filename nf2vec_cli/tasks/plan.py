"""What a run has to do: which objects are done, missing, changed or failed. The one skip rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.fingerprint import fingerprint, glance
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.share import Share

NEW = -1


class Why(StrEnum):
    """Why an object is to be fitted."""

    new = "new"
    unfinished = "unfinished"
    changed = "changed"
    damaged = "damaged"
    retried = "retried"
    forced = "forced"


@dataclass(frozen=True)
class Item:
    """One object to fit; `row` is NEW until it is registered in the store."""

    ref: ShapeRef
    why: Why
    row: int = NEW


@dataclass(frozen=True)
class Plan:
    """What to fit, what to leave, and which labels differ from the store's."""

    todo: tuple[Item, ...]
    skipped: int = 0
    failed_before: int = 0
    relabelled: tuple[Item, ...] = field(default=(), repr=False)

    @property
    def reasons(self) -> dict[str, int]:
        """How many objects are to be fitted for which reason."""
        return dict(Counter(item.why.value for item in self.todo))


def plan_objects(
    refs: list[ShapeRef],
    store: Store | None,
    *,
    retry: bool = False,
    force: bool = False,
    share: Share | None = None,
) -> Plan:
    """Compare shapes with what the store holds.

    An object is done when its row is, and its source has the size and time, or else the content,
    that were fitted. A failed one is tried again when its source has changed, or on request. With
    a share, rows of other shares are left out; objects that have no row yet are not.
    """
    if store is None:
        return Plan(tuple(Item(ref, Why.new) for ref in refs))
    rows = store.rows()
    ids, status = store.column("id"), store.column("status")
    known = {ids[row]: int(row) for row in rows}
    sources, copies = store.column("source"), store.column("copy")
    refs = _keep_ids(refs, {sources[row]: ids[row] for row in rows if not copies[row]})
    seen = _Seen(store)
    todo, skipped, failed = [], 0, 0
    for ref in refs:
        row = known.get(ref.id)
        if row is None:
            todo.append(Item(ref, Why.new))
            continue
        if share is not None and not share.owns(row // store.batch):
            continue
        why = _why(Status(int(status[row])), seen.changed(ref, row), retry=retry, force=force)
        if why is not None:
            todo.append(Item(ref, why, row))
        elif status[row] == Status.FAILED:
            failed += 1
        else:
            skipped += 1
    return Plan(tuple(todo), skipped, failed, _relabelled(refs, store, rows))


def placed(plan: Plan, first: int) -> list[Item]:
    """Give new objects the rows from `first` on; sorted, so that a shard's come together."""
    rows = count(first)
    items = [replace(i, row=next(rows)) if i.row == NEW else i for i in plan.todo]
    return sorted(items, key=lambda item: item.row)


def _relabelled(refs: list[ShapeRef], store: Store, rows: NDArray[np.int64]) -> tuple[Item, ...]:
    """Find the rows whose labels differ; a copy has those of its shape, named in the run or not."""
    wanted = {ref.id: ref for ref in refs if not ref.copy}
    parents, classes, splits = (store.column(name) for name in ("parent", "class", "split"))
    found = []
    for row in rows:
        ref = wanted.get(parents[row])
        if ref and (classes[row], splits[row]) != (ref.class_name, ref.split):
            found.append(Item(ref, Why.changed, int(row)))
    return tuple(found)


def _keep_ids(refs: list[ShapeRef], held: dict[str, str]) -> list[ShapeRef]:
    """Give a source that the store knows its id there, though a namesake has come since."""
    known = {ref.source: held[ref.source] for ref in refs if ref.source in held}
    taken = set(known.values())
    kept = []
    for ref in refs:
        name = ref.parent or ref.id
        name = known.get(ref.source) or (ref.source if name in taken else name)
        if ref.copy:
            kept.append(replace(ref, id=f"{name}+{ref.copy}", parent=name))
        else:
            kept.append(replace(ref, id=name))
    return kept


class _Seen:
    """The sources as they were when they were fitted."""

    def __init__(self, store: Store) -> None:
        self.size, self.mtime, self.hash = (store.column(c) for c in ("size", "mtime", "hash"))
        self.kind = store.field

    def changed(self, ref: ShapeRef, row: int) -> bool:
        """Tell whether the source's content differs; it is read only if size or time do."""
        try:
            if glance(ref.path, kind=self.kind) == (self.size[row], self.mtime[row]):
                return False
            digest, _, _ = fingerprint(ref.path, kind=self.kind)
        except OSError:
            return False  # a field outlives its source
        return digest != np.asarray(self.hash[row]).tobytes()


def _why(status: Status, changed: bool, *, retry: bool, force: bool) -> Why | None:
    if force:
        return Why.forced
    if status is Status.PENDING:
        return Why.unfinished
    if status is Status.QUARANTINED:
        return Why.damaged
    if changed:
        return Why.changed
    return Why.retried if retry and status is Status.FAILED else None
