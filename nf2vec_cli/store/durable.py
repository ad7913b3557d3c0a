"""A folder as a Zarr store that survives a power cut: what it has written is on the disk."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from nf2vec_cli.errors import StoreError

PARTIAL = ".partial"  # suffix of files that a killed run may leave
STOPS = (signal.SIGINT, signal.SIGTERM)
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class DurableStore(LocalStore):
    """zarr's local store, with every file synced before it takes its name.

    zarr writes a temporary file and renames it, which no reader can see half done; without the
    sync a power cut could still leave the name on an empty file. What the disk refuses is an error
    of the store.
    """

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file, or a part of it."""
        with disk_faults(self.root / key, "read"):
            return await super().get(key, prototype, byte_range)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List a folder."""
        with disk_faults(self.root / prefix, "read"):
            found = [name async for name in super().list_dir(prefix)]
        for name in found:
            yield name

    async def delete(self, key: str) -> None:
        """Remove a file."""
        with disk_faults(self.root / key, "removed"):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove a folder, under another name first: half of it would still look whole."""
        self._check_writable()
        folder = self.root / prefix
        with disk_faults(folder, "removed"):
            if folder.is_dir():
                part = partial_name(folder)
                folder.replace(part)
                sync_folder(folder.parent)
                await asyncio.to_thread(shutil.rmtree, part)

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self._check_writable()
        path = self.root / key
        with disk_faults(path, "written"):
            await asyncio.to_thread(write_synced, path, value.as_buffer_like(), exclusive=exclusive)


@contextmanager
def disk_faults(path: Path, verb: str) -> Iterator[None]:
    """Turn what the system refuses inside the block into a StoreError.

    verb: what was to be done with the path: "read", "written", ...
    """
    try:
        yield
    except FileExistsError:
        raise  # so zarr is told that a key is taken
    except OSError as error:
        again = "run the same line again: what was committed is kept"
        hint = f"see to the disk, then {again}"
        if error.errno in FULL:
            hint = f"make room (`df -h` shows what there is), then {again}"
        elif error.errno in FORBIDDEN:
            hint = f"`ls -ld {path.parent}` shows whose it is"
        told = error.strerror or str(error)
        raise StoreError(f"{path} cannot be {verb}: {told}", hint=hint) from error


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM to the end of the block: what has been begun is written whole.

    Without it zarr goes on writing in its own thread while the lock is being given back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # a handler that is None is none of Python's, and stays
    before = {number: signal.getsignal(number) for number in STOPS}
    ours = {number: handler for number, handler in before.items() if handler is not None}
    for number in ours:
        signal.signal(number, lambda got, _: came.append(got))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def partial_name(path: Path) -> Path:
    """Name what is not whole yet, or not any more, beside what it is of."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")


def write_synced(path: Path, data: Any, *, exclusive: bool = False) -> None:
    """Write a file under another name, sync it, and rename it."""
    _make_folder(path.parent)
    part = partial_name(path)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(part, path)
            part.unlink()
        else:
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's own entries on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
