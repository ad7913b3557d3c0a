"""What a run has to do: which objects are done, missing, changed or failed. The one skip rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import count

import numpy as np

from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.fingerprint import fingerprint, glance
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store
from nf2vec_cli.store.text import decode_text
from nf2vec_cli.tasks.share import Share

NEW = -1
DONE, FAILED = int(Status.DONE), int(Status.FAILED)
# to be fitted whether or not the source changed
UNDONE = (int(Status.PENDING), int(Status.QUARANTINED))


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
    known = _Matcher(refs, store)
    if known.moved:
        refs = _keep_ids(refs, _held_sources(store))
        known = _Matcher(refs, store)
    seen, status = _Seen(store), memoryview(store.column("status"))
    todo, skipped, failed = [], 0, 0
    for ref, row in zip(refs, known.rows, strict=True):
        if row == NEW:
            todo.append(Item(ref, Why.new))
            continue
        if share is not None and not share.owns(row // store.batch):
            continue
        state = status[row]
        changed = not force and state not in UNDONE and seen.changed(ref, row)
        if state == DONE and not changed and not force:  # nearly all of a million
            skipped += 1
            continue
        why = _why(state, changed, retry=retry, force=force)
        if why is not None:
            todo.append(Item(ref, why, row))
        elif state == FAILED:
            failed += 1
        else:
            skipped += 1
    return Plan(tuple(todo), skipped, failed, tuple(known.relabelled))


class _Matcher:
    """Finds the rows of shapes by id, in one pass over a store's names, which are not kept.

    moved: a source that the store knows has another id there, and shapes are to be renamed first.
    """

    def __init__(self, refs: list[ShapeRef], store: Store) -> None:
        self.refs = refs
        self.rows = [NEW] * len(refs)
        self.relabelled: list[Item] = []
        self._loose: set[str] = set()  # sources that no shape has under the store's id
        self._next = 0  # the shape after the last that was found: a store mostly has their order
        for section in _sections(store):
            if not self._whole(section):
                self._each(section)
        self.moved = bool(self._loose) and any(ref.source in self._loose for ref in refs)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {ref.id: place for place, ref in enumerate(self.refs)}

    def _whole(self, section: _Section) -> bool:
        """Compare a section with as many shapes at once: ten times quicker than one by one."""
        first, many = self._next, len(section.ids)
        refs = self.refs[first : first + many]
        same = (
            not any(section.copies)
            and section.ids == [ref.id for ref in refs]
            and section.sources == [ref.source for ref in refs]
            and section.classes == [ref.class_name for ref in refs]
            and section.splits == [ref.split for ref in refs]
        )
        if same:
            self.rows[first : first + many] = section.rows
            self._next += many
        return same

    def _each(self, section: _Section) -> None:
        for row, copy, name, parent, source, class_name, split in section.records():
            place = self._places.get(name)
            if place is not None:
                self.rows[place], self._next = row, place + 1
            if not copy and (place is None or self.refs[place].source != source):
                self._loose.add(source)
            # a copy has the labels of its shape, named in the run or not
            ref = self.refs[place] if place is not None else None
            if copy:
                ref = self.refs[self._places[parent]] if parent in self._places else None
            if ref and not ref.copy and (class_name, split) != (ref.class_name, ref.split):
                self.relabelled.append(Item(ref, Why.changed, row))


@dataclass(frozen=True)
class _Section:
    """Names and labels of objects that follow each other, the empty rows between them left out."""

    rows: Sequence[int]
    copies: list[int]
    ids: list[str]
    parents: list[str]
    sources: list[str]
    classes: list[str]
    splits: list[str]

    def records(self) -> Iterator[tuple[int, int, str, str, str, str, str]]:
        """Yield each object's row, copy, id, parent, source, class and split."""
        names = (self.ids, self.parents, self.sources, self.classes, self.splits)
        return zip(self.rows, self.copies, *names, strict=True)


def _sections(store: Store) -> Iterator[_Section]:
    status, copies = store.column("status"), store.column("copy")
    # only a copy has another parent than itself
    parents = store.column("parent") if copies.any() else None
    there = status != Status.EMPTY
    for first, columns in store.sections("id", "source", "class", "split"):
        here = there[first : first + len(columns[0])]  # not what another run adds meanwhile
        rows = first + np.flatnonzero(here)
        whole = len(rows) == len(columns[0])
        names = [decode_text(c if whole else c[: len(here)][here]) for c in columns]
        of = [parents[row] for row in rows] if parents else names[0]
        yield _Section(rows.tolist(), copies[rows].tolist(), names[0], of, *names[1:])


def _held_sources(store: Store) -> dict[str, str]:
    """Give the id of each source in a store."""
    records = (record for section in _sections(store) for record in section.records())
    return {source: name for _, copy, name, _, source, _, _ in records if not copy}


def placed(plan: Plan, first: int) -> list[Item]:
    """Give new objects the rows from `first` on; sorted, so that a shard's come together."""
    rows = count(first)
    items = [replace(i, row=next(rows)) if i.row == NEW else i for i in plan.todo]
    return sorted(items, key=lambda item: item.row)


def _keep_ids(refs: list[ShapeRef], held: dict[str, str]) -> list[ShapeRef]:
    """Give a source that the store knows its id there, though a namesake has come since."""
    known = {ref.source: held[ref.source] for ref in refs if ref.source in held}
    taken = set(known.values())
    kept = []
    for ref in refs:
        name = ref.parent or ref.id
        name = known.get(ref.source) or (ref.source if name in taken else name)
        if ref.copy:
            kept.append(ref._replace(id=f"{name}+{ref.copy}", parent=name))
        else:
            kept.append(ref._replace(id=name))
    return kept


class _Seen:
    """The sources as they were when they were fitted."""

    def __init__(self, store: Store) -> None:
        # views of memory: numpy takes longer for one number
        self.size, self.mtime = (
            memoryview(store.column(name).view(np.int64)) for name in ("size", "mtime")
        )
        self.store, self.kind = store, store.field

    def changed(self, ref: ShapeRef, row: int) -> bool:
        """Tell whether the source's content differs; it is read only if size or time do."""
        try:
            if glance(ref.place, kind=self.kind) == (self.size[row], self.mtime[row]):
                return False
            digest, _, _ = fingerprint(ref.path, kind=self.kind)
        except OSError:
            return False  # a field outlives its source
        kept: bytes = self.store.column("hash", [row]).tobytes()
        return digest != kept


def _why(status: int, changed: bool, *, retry: bool, force: bool) -> Why | None:
    if force:
        return Why.forced
    if status == Status.PENDING:
        return Why.unfinished
    if status == Status.QUARANTINED:
        return Why.damaged
    if changed:
        return Why.changed
    return Why.retried if retry and status == Status.FAILED else None
