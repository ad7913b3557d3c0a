"""A folder as a Zarr store that survives a power cut: what it has written is on the disk."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

PARTIAL = ".partial"  # suffix of files that a killed run may leave


class DurableStore(LocalStore):
    """zarr's local store, with every file synced before it takes its name.

    zarr writes a temporary file and renames it, which no reader can see half done; without the
    sync a power cut could still leave the name on an empty file.
    """

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self._check_writable()
        path = self.root / key
        await asyncio.to_thread(write_synced, path, value.as_buffer_like(), exclusive=exclusive)


def write_synced(path: Path, data: Any, *, exclusive: bool = False) -> None:
    """Write a file under another name, sync it, and rename it."""
    _make_folder(path.parent)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
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


def leftovers(folder: object) -> list[Path]:
    """Find the files that a killed run left half written; in a bucket there are none."""
    if not isinstance(folder, Path):
        return []
    found = [
        Path(where, name)
        for where, _, names in os.walk(folder)
        for name in names
        if name.endswith(PARTIAL)
    ]
    return sorted(found)
