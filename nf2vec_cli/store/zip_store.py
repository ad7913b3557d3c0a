"""A zip as a Zarr store to read: a file that is damaged in it is an OSError, as it is on a disk."""

from __future__ import annotations

import zlib
from zipfile import BadZipFile

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ZipStore


class ArchiveStore(ZipStore):
    """zarr's store of a zip, whose names and sizes `Archive` has looked at."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a file, or a part of it."""
        try:
            return await super().get(key, prototype, byte_range)
        except (BadZipFile, EOFError, zlib.error) as error:
            raise OSError(f"{key} in {self.path}: {error}") from error
