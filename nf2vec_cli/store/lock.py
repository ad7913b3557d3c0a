"""One writer at a time: a lock file inside the store, which a dead run cannot keep."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nf2vec_cli.errors import LockedError, StoreError
from nf2vec_cli.store.durable import disk_faults

NAME = ".nf2vec.lock"
BEAT = 60.0  # seconds between signs of life
DEAD = 600.0  # seconds without one, after which another host's lock is stale
WATCHED = 90.0  # seconds without one while we look on: clocks of two hosts differ, and jump
RETRY = 0.2


@contextmanager
def store_lock(store: Path, *, wait: float | None = None, make: bool = False) -> Iterator[None]:
    """Hold the store for writing.

    The lock is the kernel's (flock) and ends with its process. The file's text tells people, and
    other hosts, whose it is: where a file system keeps flock to one host, another host's lock
    counts as live while its file was touched in the last ten minutes, or is while we look on.

    Args:
        store: the store's folder.
        wait: seconds to wait for another run; None: not at all.
        make: make the folder if it is not there.

    Raises:
        LockedError: another run holds it.
        StoreError: the path is a file, not there, or cannot be written.
    """
    store = Path(store)
    if not store.exists() and not make:
        raise StoreError(
            f"{store} is not there",
            hint=f"`nf2vec fit SHAPES --field sdf --store {store}` makes it",
        )
    if store.exists() and not store.is_dir():
        raise StoreError(f"{store} is a file, not a store")
    path = store / NAME
    with disk_faults(path, "written"):
        store.mkdir(parents=True, exist_ok=True)
        handle = _taken(path, time.monotonic() + (wait or 0))
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    try:
        with disk_faults(path, "written"):
            _sign(handle)
        beat.start()
        yield
    finally:
        stop.set()
        with suppress(OSError):  # nothing that the disk does keeps a lock, or hides an error
            path.unlink(missing_ok=True)
        os.close(handle)


def holder(store: Path) -> dict[str, Any] | None:
    """Tell who holds the store: owner, host, pid, age [s], stale; None if nobody signed."""
    path = Path(store) / NAME
    try:
        text = path.read_text(encoding="utf-8")
        age = max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None
    try:
        who = dict(json.loads(text))
    except (ValueError, TypeError):
        who = {}
    started = who.get("started")
    held = max(0.0, time.time() - started) if isinstance(started, int | float) else age
    return {
        "owner": who.get("owner", "?"),
        "host": who.get("host", "?"),
        "pid": who.get("pid", "?"),
        "age": held,
        "stale": _stale(path, who, age),
    }


def after_crash(store: Path) -> bool:
    """Tell whether the run before this one, which holds the store, may have been killed."""
    try:
        return bool(json.loads((store / NAME).read_text(encoding="utf-8"))["after_crash"])
    except (OSError, ValueError, TypeError, KeyError):
        return True


def _stale(path: Path, who: dict[str, Any], silent: float) -> bool:
    if _foreign(who) and silent < DEAD:
        return False
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _taken(path: Path, until: float) -> int:
    """Take the lock; a first refusal may be of one who is just leaving, or only looking."""
    handle = _try(path)
    while handle is None:
        time.sleep(RETRY)
        handle = _try(path)
        if handle is None and time.monotonic() >= until:
            raise _locked(path.parent)
    return handle


def _try(path: Path) -> int | None:
    """Take the lock, or return None. A file that was removed meanwhile does not count."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.fstat(handle).st_ino == path.stat().st_ino
        if same and not _alive_elsewhere(path):
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _alive_elsewhere(path: Path) -> bool:
    """Tell whether another host's process has the lock: its file is touched.

    A time that is long ago, or to come, may be that of another clock, so the file is watched too.
    """
    try:
        if not _foreign(json.loads(path.read_text(encoding="utf-8") or "{}")):
            return False
        touched = path.stat().st_mtime
        if abs(time.time() - touched) < DEAD:
            return True
        until = time.monotonic() + WATCHED
        while time.monotonic() < until and path.stat().st_mtime == touched:
            time.sleep(RETRY)
        return path.stat().st_mtime != touched
    except (OSError, ValueError, AttributeError):
        return False


def _foreign(who: dict[str, Any]) -> bool:
    return bool(who) and who.get("host") != socket.gethostname()


def _sign(handle: int) -> None:
    try:
        owner = getpass.getuser()
    except (KeyError, OSError):
        owner = str(os.getuid())
    text = {
        "owner": owner,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.time(),
        "after_crash": os.fstat(handle).st_size > 0,  # who ends well takes the file away
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(text).encode(), 0)
    os.fsync(handle)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        try:
            os.utime(path)
        except OSError:
            return


def _locked(store: Path) -> LockedError:
    who = holder(store) or {"owner": "?", "host": "?", "pid": "?", "age": 0.0}
    return LockedError(
        f"{store} is being written by {who['owner']} on {who['host']}, process {who['pid']}, "
        f"since {_ago(who['age'])}",
        hint="wait for it with `--wait SECONDS`",
    )


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
