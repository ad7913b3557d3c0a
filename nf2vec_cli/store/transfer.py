"""Bring the files of a store to another place: weights first, then `status`, the root's attributes.

What is copied halfway is no store: its root is missing, and `.nf2vec.copy` says what it is to be.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from nf2vec_cli.errors import StoreError
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.archive import Archive, safe_key
from nf2vec_cli.store.bucket import PART, Bucket
from nf2vec_cli.store.bucket_lock import guard
from nf2vec_cli.store.durable import PARTIAL, disk_faults, write_synced
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import Place, folder
from nf2vec_cli.store.schema import COPYING

ROOT, STATUS = "zarr.json", "status/"
REMADE = "indexes/"  # graphs, which any search makes anew
AT_ONCE = 8  # files under way to or from a bucket

T = TypeVar("T")
Mark = tuple[int, str]  # bytes of a file, and what changes when it is written again


@dataclass(frozen=True)
class Transfer:
    """What is to be done. todo, same, stale: keys to write, there already, to remove."""

    before: dict[str, Mark]
    todo: tuple[str, ...]
    same: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.before.values())


def listing(where: Place) -> dict[str, Mark]:
    """List the files of a store; not what runs leave for themselves, nor what searches make.

    Raises:
        StoreError: a file would leave its folder when it is copied, or is a link out of this one.
    """
    if isinstance(where, Bucket):
        found = {key: (at.size, at.tag) for key, at in where.walk().items()}
    elif isinstance(where, Archive):
        found = dict(where.marks())
    else:
        found = dict(_files(folder(where)))
    kept = {key: mark for key, mark in found.items() if _belongs(key)}
    odd = [key for key in kept if not safe_key(key)]
    if odd:
        raise StoreError(f"{where} is refused: {odd[0]!r} would leave its folder")
    return kept


def plan_transfer(source: Place, target: Place, *, progress: Progress | None = None) -> Transfer:
    """Compare two places, content with content; nothing is written.

    Args:
        source: a store.
        target: where it is to be; nothing need be there.
        progress: told about each file that is compared.
    """
    before = listing(source)
    there = listing(target) if target.exists() else {}
    alike = [key for key in before if there.get(key, (-1, ""))[0] == before[key][0]]
    teller = progress or Silent()
    teller.start(len(alike), "compare")

    def compare(key: str) -> bool:
        return _is(_read(source, key, before[key]), target, key, there[key][1])

    equal = dict(zip(alike, _each(compare, alike, teller, source, target), strict=True))
    todo = sorted((key for key in before if not equal.get(key)), key=_rank)
    return Transfer(
        before,
        tuple(todo),
        tuple(key for key in before if equal.get(key)),
        tuple(sorted(set(there) - set(before))),
    )


def transfer(
    source: Place,
    target: Place,
    plan: Transfer,
    identity: str,
    *,
    progress: Progress | None = None,
) -> int:
    """Do what is planned; who calls holds the target's lock. Gives the files that were verified.

    Args:
        source: a store.
        target: a folder, or one in a bucket.
        plan: of these two.
        identity: names the store, for a run that goes on with this.
        progress: told about each file.

    Raises:
        StoreError: the source changed meanwhile, or a file came out other than it was sent.
    """
    if not plan.todo and not plan.stale:
        _remove(target, COPYING)
        return 0
    teller = progress or Silent()
    teller.start(len(plan.todo), "copy")
    note = {"from": str(source), "store": identity}
    _write(target, COPYING, json.dumps(note).encode())
    _remove(target, ROOT)

    def copy(key: str) -> None:
        data = _read(source, key, plan.before[key])
        _write(target, key, data)
        _verify(target, key, data)

    early = [key for key in plan.todo if _rank(key)[0] == 0]
    for _ in _each(copy, early, teller, source, target):
        pass
    for key in plan.stale:
        _remove(target, key)
    for _ in _each(copy, [k for k in plan.todo if _rank(k)[0] == 1], teller, source, target):
        pass
    if listing(source) != plan.before:
        raise StoreError(
            f"{source} changed while it was copied, and {target} is no store yet",
            hint=f"`nf2vec copy {source} {target}` goes on from here",
        )
    wrong = {key: size for key, (size, _) in listing(target).items() if key != ROOT}
    if wrong != {key: size for key, (size, _) in plan.before.items() if key != ROOT}:
        raise StoreError(f"{target} was written by another at the same time: it is no store yet")
    if ROOT in plan.before:
        copy(ROOT)
        teller.advance(int(ROOT in plan.todo))
    _remove(target, COPYING)
    return len(set(plan.todo) | {ROOT})


def unfinished(target: Place) -> dict[str, Any] | None:
    """Tell what an unfinished copy is of: `from` and `store`; None: this is none."""
    try:
        return dict(json.loads((target / COPYING).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def replacing(out: Place) -> Iterator[Path]:
    """Give a folder to make a store in; it takes the place of `out` when the block ends well.

    On a disk it lies beside `out` and is renamed. To a bucket it is copied, the root's attributes
    last.
    """
    if isinstance(out, Bucket):
        with TemporaryDirectory(prefix="nf2vec-") as scratch:
            part = Path(scratch) / out.name
            yield part
            with store_lock(out, make=True):
                transfer(part, out, plan_transfer(part, out), str(out))
        return
    home = folder(out)
    home.parent.mkdir(parents=True, exist_ok=True)
    part = home.with_name(f".{home.name}.part")
    rmtree(part, ignore_errors=True)
    yield part
    if home.exists():
        with store_lock(home):  # not while another run writes there
            pass
        rmtree(home)
    part.rename(home)


def tag_of(data: bytes) -> str:
    """Give the ETag that a bucket has for what `Bucket.write` sends, unless it encrypts."""
    if len(data) <= PART:
        return f'"{md5(data, usedforsecurity=False).hexdigest()}"'
    parts = [data[at : at + PART] for at in range(0, len(data), PART)]
    whole = b"".join(md5(part, usedforsecurity=False).digest() for part in parts)
    return f'"{md5(whole, usedforsecurity=False).hexdigest()}-{len(parts)}"'


def _belongs(key: str) -> bool:
    parts = key.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    half = any(part.endswith(PARTIAL) for part in parts)  # a folder too, while it is removed
    return not (hidden or half or key.startswith(REMADE))


def _files(home: Path) -> Iterator[tuple[str, Mark]]:
    """List the files of a folder, following no link."""
    for where, folders, names in os.walk(home):
        for name in (*folders, *names):
            path = Path(where, name)
            key, at = path.relative_to(home).as_posix(), path.lstat()
            if not _belongs(key):
                continue
            if not stat.S_ISDIR(at.st_mode) and not stat.S_ISREG(at.st_mode):
                kind = "a symbolic link" if stat.S_ISLNK(at.st_mode) else "no file"
                raise StoreError(f"{home} is not copied: {key!r} is {kind}")
            if stat.S_ISREG(at.st_mode):
                yield key, (at.st_size, f"{at.st_mtime_ns} {at.st_ino}")


def _rank(key: str) -> tuple[int, str]:
    return (2 if key == ROOT else int(key.startswith(STATUS)), key)


def _read(source: Place, key: str, mark: Mark) -> bytes:
    try:
        data = (source / key).read_bytes()
    except FileNotFoundError:
        data = b""
    if len(data) != mark[0]:
        raise StoreError(
            f"{source} changed while it was copied: {key!r} is another now",
            hint="run the same line again",
        )
    return data


def _is(data: bytes, target: Place, key: str, tag: str) -> bool:
    """Tell whether a file of the same size holds these bytes."""
    if isinstance(target, Bucket) and tag == tag_of(data):
        return True
    return (target / key).read_bytes() == data


def _write(target: Place, key: str, data: bytes) -> None:
    if isinstance(target, Bucket):
        guard(target)
        (target / key).write(data)
    else:
        file = folder(target) / key
        with disk_faults(file, "written"):
            write_synced(file, data)


def _verify(target: Place, key: str, data: bytes) -> None:
    at = (target / key).stat() if isinstance(target, Bucket) else None
    if not _is(data, target, key, at.tag if at else ""):
        raise StoreError(f"{target} is damaged: {key!r} came out other than it was sent")


def _remove(target: Place, key: str) -> None:
    if isinstance(target, Bucket):
        guard(target)
        (target / key).unlink()
    else:
        file = folder(target) / key
        with disk_faults(file, "removed"):
            file.unlink(missing_ok=True)


def _each(
    work: Callable[[str], T], keys: Sequence[str], teller: Progress, *places: Place
) -> Iterable[T]:
    """Do some work for each key, several at once where a bucket has to answer."""
    several = AT_ONCE if any(isinstance(place, Bucket) for place in places) else 1
    pool = ThreadPoolExecutor(several)
    try:
        for key, done in zip(keys, pool.map(work, keys), strict=True):
            teller.advance(1, key)
            yield done
    finally:
        pool.shutdown(cancel_futures=True)
