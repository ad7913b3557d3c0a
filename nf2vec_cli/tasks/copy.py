"""Copy a store to another place: what is there already is skipped, what was sent is compared."""

from __future__ import annotations

import fcntl
import json
import os
import time
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from nf2vec_cli.errors import LockedError, StoreError, UsageFault
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.archive import Archive
from nf2vec_cli.store.create import free_name, holds_store
from nf2vec_cli.store.durable import PARTIAL, sweep, sync_folder
from nf2vec_cli.store.lock import RETRY, holder, locked, store_lock
from nf2vec_cli.store.place import Place, place, same
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.store.transfer import Transfer, listing, plan_transfer, transfer, unfinished

# attributes of the root that make a store this one, whatever it holds by now
OWN = ("field", "network", "init_hash", "codec", "bits", "batch", "config")
THEN = (1980, 1, 1, 0, 0, 0)  # time of every file in a zip, so that two zips of a store are alike


@dataclass(frozen=True)
class CopyResult:
    """What a run of `copy` did, or would do.

    files, bytes: of the whole store; copied, skipped: files that were sent, and that were there
    already; removed: files of the copy that the store has no longer; verified: files whose content
    was compared after it was sent, or instead of being sent.
    """

    source: str
    target: str
    objects: int
    files: int
    bytes: int
    copied: int
    skipped: int
    removed: int
    verified: int
    written: bool


def copy_store(
    source: str | Place,
    target: str | Place,
    *,
    force: bool = False,
    wait: float | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> CopyResult:
    """Copy a store between folders, buckets and zips; a copy that was begun is gone on with.

    Args:
        source: the store.
        target: a folder, `s3://bucket/prefix`, or a .zip, which is written anew.
        force: give up another store that is there.
        wait: seconds to wait while another run writes to either.
        dry_run: compare, and write nothing.
        progress: told about each file.

    Raises:
        UsageFault: the two are one, or lie in each other.
        StoreError: there is no store, or the target holds something else.
        LockedError: another run is writing to either.
    """
    src, dst = place(source), place(target)
    store = open_store(src)
    _refuse_inside(src, dst)
    with progress or Silent() as teller:
        _await_writer(src, wait)
        _refuse_other(store, dst, force=force)
        if dry_run:
            return _result(store, dst, plan_transfer(src, dst, progress=teller), 0, written=False)
        if isinstance(dst, Archive):
            return _pack(store, dst, teller)
        with store_lock(dst, wait=wait, make=True):
            _refuse_other(store, dst, force=force)
            sweep(dst)  # halves of files that a killed copy left
            plan = plan_transfer(src, dst, progress=teller)
            checked = transfer(src, dst, plan, _identity(store), progress=teller)
        open_store(dst)
        return _result(store, dst, plan, checked, written=bool(plan.todo or plan.stale))


def _result(store: Store, dst: Place, plan: Transfer, checked: int, *, written: bool) -> CopyResult:
    return CopyResult(
        source=str(store.path),
        target=str(dst),
        objects=len(store.rows()),
        files=len(plan.before),
        bytes=plan.size,
        copied=len(plan.todo),
        skipped=len(plan.same),
        removed=len(plan.stale),
        verified=checked + len(plan.same),
        written=written,
    )


def _refuse_inside(src: Place, dst: Place) -> None:
    if same(src, dst):
        raise UsageFault(f"{dst} is the store itself", hint=f"`nf2vec copy {src} {free_name(src)}`")
    one, other = ((p.resolve().as_posix() if isinstance(p, Path) else str(p)) for p in (src, dst))
    if f"{other}/".startswith(f"{one}/") or f"{one}/".startswith(f"{other}/"):
        raise UsageFault(f"{src} and {dst} would lie in each other")


def _await_writer(src: Place, wait: float | None) -> None:
    """Wait while another run writes to the source: a copy of half a batch is of no use."""
    until = time.monotonic() + (wait or 0)
    while (who := holder(src)) is not None and not who["stale"]:
        if time.monotonic() >= until:
            raise locked(src)
        time.sleep(RETRY)


def _refuse_other(store: Store, dst: Place, *, force: bool) -> None:
    """See that nothing is lost at the target.

    Raises:
        StoreError: it holds another store, objects of this one that the source lacks, or no store.
    """
    again = f"`nf2vec copy {store.path} {dst} --force`"
    if holds_store(dst):
        there = open_store(dst)
        if force:
            return
        ran = {run["run"] for run in there.runs()}  # a copy has no run of its own
        if _identity(there) != _identity(store) or ran - {run["run"] for run in store.runs()}:
            raise StoreError(
                f"{dst} holds another store, or has been written to by itself",
                hint=f"`nf2vec copy {store.path} {free_name(dst)}`, or {again} to give it up",
            )
        ours = set(zip(store.column("id"), range(store.slots), strict=True))
        names = there.column("id")
        lost = [names[row] for row in there.rows() if (names[row], int(row)) not in ours]
        if lost:
            raise StoreError(
                f"{dst} has objects that {store.path} lacks, {lost[0]!r} first",
                hint=f"{again} gives them up",
            )
        return
    begun = unfinished(dst)
    if begun is not None:
        if begun.get("store") != _identity(store) and not force:
            raise StoreError(
                f"{dst} is an unfinished copy of another store, {begun.get('from')}",
                hint=f"{again} gives it up",
            )
        return
    if dst.exists() and (not dst.is_dir() or isinstance(dst, Archive) or listing(dst)):
        raise StoreError(
            f"{dst} is there already, and is no store",
            hint=f"`nf2vec copy {store.path} {free_name(dst)}`",
        )


def _identity(store: Store) -> str:
    facts: dict[str, Any] = {name: getattr(store, name) for name in OWN}
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _pack(store: Store, dst: Archive, teller: Progress) -> CopyResult:
    """Write a zip under another name, compare it with what went in, and rename it."""
    plan = plan_transfer(store.path, dst, progress=teller)
    if not plan.todo and not plan.stale:
        return _result(store, dst, plan, 0, written=False)
    keys = sorted(plan.before)
    plan = Transfer(plan.before, tuple(keys), (), plan.stale)
    teller.start(len(keys), "pack")
    dst.file.parent.mkdir(parents=True, exist_ok=True)
    part = dst.file.with_name(f".{dst.file.name}{PARTIAL}")
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockedError(f"{dst} is being written by another run") from error
        file.truncate(0)
        sums: dict[str, int] = {}
        with ZipFile(file, "w", ZIP_STORED) as made:
            for key in keys:
                data = (store.path / key).read_bytes()
                sums[key] = zlib.crc32(data)
                made.writestr(ZipInfo(key, THEN), data)
                teller.advance(1, key)
        file.flush()
        os.fsync(file.fileno())
        with ZipFile(file) as made:
            same_bytes = all(zlib.crc32(made.read(key)) == sums[key] for key in keys)
        if not same_bytes or listing(store.path) != plan.before:
            part.unlink()
            raise StoreError(
                f"{store.path} changed while it was packed", hint="run the same line again"
            )
        part.replace(dst.file)
    sync_folder(dst.file.parent)
    open_store(dst)
    return _result(store, dst, plan, len(keys), written=True)
