"""Look for damage in a store; sweep leftovers and set damaged objects aside."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.errors import StoreError
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows, spans
from nf2vec_cli.store.codec import ARRAYS, decode, digests
from nf2vec_cli.store.create import ROW_TYPES, init_hash
from nf2vec_cli.store.damage import ERRORS, fit_config, small
from nf2vec_cli.store.durable import leftovers, sweep
from nf2vec_cli.store.lock import holder, store_lock
from nf2vec_cli.store.place import Place, place
from nf2vec_cli.store.products import ENCODERS, Embeddings, keys, own_digests
from nf2vec_cli.store.schema import (
    BESIDE,
    CAMERA_NUMBERS,
    CAMERAS,
    CAMERAS_KEPT,
    COLUMNS,
    GRID,
    LATER,
    SURFACE,
    Status,
)
from nf2vec_cli.store.store import Store, open_store

BASIC = ("array", "init", "length")  # faults with which no field can be read
READ = 16  # rows read at once: memory does not grow with the store


@dataclass(frozen=True)
class Finding:
    """One fault: its kind, the object or file, what is wrong, and whether it was mended."""

    kind: str
    where: str
    text: str
    repaired: bool = False


@dataclass(frozen=True)
class CheckReport:
    """What `check` looked at and found. sound: nothing is wrong, or all of it was mended."""

    store: str
    objects: int
    fields_read: int
    sound: bool
    findings: tuple[Finding, ...]


def check_store(
    where: str | Place,
    *,
    repair: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Compare a store with its format, and every field with its digest.

    Args:
        where: the store.
        repair: remove what a killed run left, cut arrays to one length, and set objects whose
            field is damaged aside (quarantined), to be fitted again. No sound object is touched.
        wait: seconds to wait for another run's lock (repair only).
        progress: told about each batch of fields.

    Raises:
        StoreError: the store cannot be opened at all.
        LockedError: repair, while another run is writing.
    """
    path = place(where)
    open_store(path, verify=False)  # refuse what is no store before anything is locked or swept
    with store_lock(path, wait=wait) if repair else nullcontext(), progress or Silent() as teller:
        findings = list(_files(path, repair=repair))
        store = open_store(path, mode="a" if repair else "r", verify=False)
        findings += _arrays(store, repair=repair)
        if any(f.kind in BASIC and not f.repaired for f in findings):
            return CheckReport(str(path), 0, 0, False, tuple(findings))
        findings += _objects(store)
        done = store.rows(Status.DONE)
        digest = store.column("digest")
        teller.start(len(done), "check")
        for start in range(0, len(done), READ):
            rows = done[start : start + READ]
            for row, text in _fields(store, rows, digest[rows]):
                if repair:
                    store.update([row], status=[Status.QUARANTINED], message=[f"damaged: {text}"])
                findings.append(Finding("field", store.column("id", [row])[0], text, repair))
            teller.advance(len(rows))
        for row, text in _embedded(store):
            if repair:
                store.update([row], status=[Status.QUARANTINED], message=[f"damaged: {text}"])
            findings.append(Finding("embedding", store.column("id", [row])[0], text, repair))
        objects = len(store.rows())
    sound = all(finding.repaired for finding in findings)
    return CheckReport(str(path), objects, len(done), sound, tuple(findings))


def _files(path: Place, *, repair: bool) -> Iterator[Finding]:
    found = leftovers(path)
    who = holder(path)
    writing = who and not who["stale"] and not repair  # what is under way is no leftover
    for file in found:
        if not writing and file.exists():
            name = str(file.relative_to(str(path)))
            yield Finding("leftover", name, "a killed run left it", repair)
    if repair:
        sweep(path)
    elif who and who["stale"]:
        yield Finding("lock", ".nf2vec.lock", f"left by process {who['pid']} on {who['host']}")
    for link in links_out(path):
        yield Finding("link", str(link.relative_to(str(path))), "it leads out of the store")


def column_faults(store: Store) -> Iterator[Finding]:
    """Compare arrays and columns with the format; no field is read."""
    yield from _arrays(store, repair=False)
    yield from _objects(store)


def links_out(path: Place) -> list[Path]:
    """Find the links that lead out of a store: they are read, but others may change them."""
    if not isinstance(path, Path):  # a bucket knows no links, and a zip with one is refused
        return []
    inside = path.resolve()
    found = [
        Path(where, name)
        for where, folders, names in os.walk(path)
        for name in (*folders, *names)
        if Path(where, name).is_symlink()
    ]
    return sorted(link for link in found if not _leads_inside(link, inside))


def _leads_inside(link: Path, folder: Path) -> bool:
    try:
        return link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a link to itself
        return False


def _arrays(store: Store, *, repair: bool) -> Iterator[Finding]:
    """Check the shared init, and the shape and type of each array."""
    found = init_hash(store.init, store.network)
    if found != store.init_hash:
        yield Finding("init", "init", f"its hash is {found[:12]}, not {store.init_hash[:12]}")
    if not np.isfinite(store.init).all():
        yield Finding("init", "init", "it has NaN or infinite values")
    if store.blocks.sum() != len(store.init):
        yield Finding("init", "blocks", f"they cover {store.blocks.sum()} of {len(store.init)}")
    slots = store.slots
    beside = BESIDE if store.field == "nerf" else (SURFACE,)
    for name in (*ARRAYS[store.codec], *beside, *COLUMNS):
        text = _array_fault(store, name, slots)
        if text == "length":
            array: Any = store.group[name]
            rows = array.shape[0]
            if repair:
                array.resize((slots, *array.shape[1:]))
            # objects that are added count when the status grows, which is last
            kind = "leftover" if rows > slots else "length"
            if kind == "length" or repair or not _being_written(store.path):
                yield Finding(kind, name, f"{rows} rows, not {slots}", repair)
        elif text:
            yield Finding("array", name, text)


def _being_written(path: Place) -> bool:
    who = holder(path)
    return who is not None and not who["stale"]


def _array_fault(store: Store, name: str, slots: int) -> str | None:
    try:
        if name in (*LATER, SURFACE) and name not in store.group:
            return None
        array: Any = store.group[name]
    except ERRORS as error:
        return f"it is missing or its metadata cannot be read: {error}"
    if not hasattr(array, "dtype"):
        return "it is a group, not an array"
    if name in COLUMNS:
        column = COLUMNS[name]
        shape: tuple[int, ...] = () if column.width == 1 else (column.width,)
        dtype = column.dtype
    else:
        widths = {
            "scale": len(store.blocks),
            SURFACE: 3 * SURFACE_POINTS,
            GRID: fit_config(store).grid ** 3 // 8 if name == GRID else 0,
            CAMERAS: CAMERAS_KEPT * CAMERA_NUMBERS,
        }
        width = widths.get(name, len(store.init))
        shape, dtype = (width,), ROW_TYPES[name]
    if array.shape[1:] != shape or array.dtype != np.dtype(dtype) or not small(array):
        return f"it is {array.dtype} {array.shape}, not {dtype} {(slots, *shape)}"
    if array.shape[0] != slots:
        return "length"
    try:
        if name in COLUMNS:
            for start, end in spans(slots, COLUMNS[name]):
                array[start:end]
    except (StoreError, *ERRORS) as error:
        return f"its bytes are damaged: {error}"
    return None


def _objects(store: Store) -> Iterator[Finding]:
    status, names = store.column("status"), store.column("id")  # another run may add rows
    for row in np.flatnonzero(status > max(Status)):
        yield Finding("status", names[row] or f"row {row}", f"{status[row]} is no status")
    there = compress(names, (status != Status.EMPTY).tolist())
    for name, count in Counter(there).items():
        if count > 1 or not name:
            yield Finding("id", name or "(empty)", f"{count} objects have this id")
    error, transform = (store.column(name)[: len(status)] for name in ("error", "transform"))
    # a field from elsewhere may have come without its shape: how far it is from it is not known
    sound = np.isfinite(error) | (np.isnan(error) & bool(store.imported))
    sound &= np.isfinite(transform).all(1) & (transform[:, 3] != 0)
    for row in np.flatnonzero((status == Status.DONE) & ~sound):
        yield Finding("record", names[row], "its error or transform is not a number")


def _fields(store: Store, rows: Rows, digest: NDArray[np.uint8]) -> Iterator[tuple[int, str]]:
    """Yield the rows whose field is damaged, with what is wrong; `digest`: of each row, [B, 16]."""
    together = _weights_fault(store, rows, digest)  # in one read: most batches are sound
    for row, name in zip(rows, digest, strict=True):
        text = _weights_fault(store, [row], name[None]) if together else None
        if text := text or _beside_fault(store, int(row)):
            yield int(row), text


def _weights_fault(store: Store, rows: Rows | list[int], digest: NDArray[np.uint8]) -> str | None:
    """Say what is wrong with the weights of any of these rows."""
    try:
        stored = store.stored(rows)
    except StoreError:
        return "its bytes cannot be read"
    if (digests(stored) != digest).any():
        return "its weights are not those that were written"
    if not np.isfinite(decode(stored, store.init, store.blocks)).all():
        return "its weights are not finite"
    return None


def _beside_fault(store: Store, row: int) -> str | None:
    """Say what is wrong with the grid and the cameras of a field of radiance."""
    if store.field != "nerf":
        return None
    try:
        grid = store.packed(GRID, [row])
        cameras = store.packed(CAMERAS, [row])
    except StoreError:
        return "its occupancy grid or its cameras cannot be read"
    if not grid.any():
        return "its occupancy grid is empty"
    return None if np.isfinite(cameras).all() else "its cameras are not finite"


def _embedded(store: Store) -> Iterator[tuple[int, str]]:
    """Yield the rows that hold an embedding alone, and whose embedding is damaged or gone."""
    alone = store.rows(Status.EMBEDDED)
    if not len(alone):
        return
    digest = store.column("digest")
    sound: set[int] = set()
    for key in keys(store, ENCODERS):
        try:
            kept = Embeddings(store, key)
            rows = np.intersect1d(kept.current(), alone)
            values = kept.read(rows)
        except (StoreError, *ERRORS):
            continue
        same = (own_digests(values) == digest[rows]).all(1) & np.isfinite(values).all(1)
        sound |= set(rows[same].tolist())
    for row in alone:
        if row not in sound:
            yield int(row), "its embedding is not the one that was written"
