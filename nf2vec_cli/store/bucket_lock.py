"""One writer at a time in a bucket: an object that is put on a condition, and renewed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from nf2vec_cli.errors import BucketError, LockedError
from nf2vec_cli.store import lock
from nf2vec_cli.store.bucket import Bucket, Stat

RETRY = 1.0  # seconds between looks at another's lock
PROBE = ".nf2vec.clock"  # an object that is put to learn what time it is for the bucket

_held: dict[Bucket, Held] = {}  # what this process writes to


@contextmanager
def bucket_lock(home: Bucket, *, wait: float | None = None) -> Iterator[None]:
    """Hold a folder of a bucket for writing.

    The lock is the object `.nf2vec.lock`: put where there is none, renewed every minute by a put on
    the condition that it is still ours, deleted at the end. One that was not renewed for ten
    minutes by the bucket's own clock, or whose process has ended on this machine, is replaced on
    the same condition, so that of two takers one gets it. A writer that was held up for so long
    that its lock is another's stops before it writes again (`guard`).

    Args:
        home: the store.
        wait: seconds to wait for another run; None: not at all.

    Raises:
        LockedError: another run holds it.
        BucketError: the bucket does not answer.
    """
    until = time.monotonic() + (wait or 0)
    while (held := _try(home)) is None:
        if time.monotonic() >= until:
            raise lock.locked(home)
        time.sleep(RETRY)
    stop = threading.Event()
    beat = threading.Thread(target=held.beat, args=(stop,), daemon=True)
    _held[home] = held
    beat.start()
    try:
        yield
    finally:
        stop.set()
        del _held[home]
        held.release()


def guard(home: Bucket) -> None:
    """See before a write that the lock of a store which this process holds is still its own.

    Raises:
        LockedError: another run has it now.
    """
    held = _held.get(home)
    if held is not None:
        held.check()


class Held:
    """A lock that this process has: its object's tag, and when it was last renewed."""

    def __init__(self, home: Bucket, facts: dict[str, Any], tag: str) -> None:
        self.home, self.facts, self.tag = home, facts, tag
        self.renewed, self.lost = _now(), False
        self._one = threading.Lock()

    def renew(self) -> None:
        """Put the lock again, on the condition that it is still ours.

        Raises:
            BucketError: the bucket does not answer, which says nothing of the lock.
        """
        with self._one:
            if self.lost:
                return
            self.facts["beat"] += 1
            began = _now()
            tag = (self.home / lock.NAME).write_if(_bytes(self.facts), self.tag)
            if tag is None:
                self.lost = True
            else:
                self.tag, self.renewed = tag, began

    def check(self) -> None:
        """See that the lock is ours, and ask the bucket if it was not renewed when it was due.

        Raises:
            LockedError: it is another's.
        """
        if not self.lost and _now() - self.renewed > 2 * lock.BEAT:
            self.renew()
        if self.lost:
            raise LockedError(
                f"{self.home} was taken over by another run while this one was held up: it stops "
                f"here, and what it committed is kept",
                hint="run the same line again, with `--wait SECONDS` if the other is at work",
            )

    def beat(self, stop: threading.Event) -> None:
        """Renew the lock every minute, until it is lost or given back."""
        while not stop.wait(lock.BEAT) and not self.lost:
            with suppress(BucketError):  # the next beat may come through
                self.renew()

    def release(self) -> None:
        """Delete the lock if it is ours; if the bucket does not answer, it will count as stale."""
        with suppress(BucketError):
            self.renew()
            if not self.lost:
                (self.home / lock.NAME).unlink()


def holder(home: Bucket) -> dict[str, Any] | None:
    """Tell who holds a store in a bucket, as `lock.holder` does."""
    found = _read(home)
    if found is None:
        return None
    who, stat = found
    silent = max(0.0, (datetime.now(UTC) - stat.changed).total_seconds())
    return lock.described(who, silent, stale=_gone(who) or silent >= lock.DEAD)


def _try(home: Bucket) -> Held | None:
    """Take the lock, or return None."""
    facts = lock.signature() | {"beat": 0, "token": uuid4().hex, "process": _process()}
    place = home / lock.NAME
    tag = place.write_if(_bytes(facts), None)
    if tag is None:
        found = _read(home)
        if found is None or not _stale(home, *found):
            return None
        tag = place.write_if(_bytes(facts), found[1].tag)
    return None if tag is None else Held(home, facts, tag)


def _read(home: Bucket) -> tuple[dict[str, Any], Stat] | None:
    try:
        data, stat = (home / lock.NAME).read()
    except FileNotFoundError:
        return None
    try:
        return dict(json.loads(data)), stat
    except (ValueError, TypeError):
        return {}, stat


def _stale(home: Bucket, who: dict[str, Any], stat: Stat) -> bool:
    if _gone(who):
        return True
    probe = home / PROBE
    probe.write(uuid4().bytes)
    now = probe.stat()
    probe.unlink()
    return now is not None and (now.changed - stat.changed).total_seconds() >= lock.DEAD


def _gone(who: dict[str, Any]) -> bool:
    """Tell whether the holder was a process of this very machine, and is no more."""
    pid = who.get("pid")
    if who.get("process") != _process() or not isinstance(pid, int):
        return False
    return bool(_process()) and not Path(f"/proc/{pid}").exists()


def _process() -> str:
    """Name what a process number counts in: this start of the system, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _now() -> float:
    """Count seconds, those in which the machine slept too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _bytes(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts).encode()
