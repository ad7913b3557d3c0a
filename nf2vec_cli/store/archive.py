"""A store that was packed as a zip, read in place; names and sizes in it are not trusted."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from nf2vec_cli.errors import StoreError

ROOT = "zarr.json"
SWELL = 50  # times: Zarr's chunks are packed already, and a zip hardly shrinks them
SMALL = 64 << 20  # bytes that a member, or all of them, may have however well they are packed


class Packed(NamedTuple):
    """What a zip holds: the store's folder in it, and its files by their keys in the store."""

    root: str
    files: dict[str, ZipInfo]


class Archive:
    """A zip of a store, or a key in it. Speaks like a Path; is never written in place."""

    def __init__(self, file: Path, key: str = "") -> None:
        self.file, self.key = file, key

    def __str__(self) -> str:
        return f"{self.file}/{self.key}" if self.key else str(self.file)

    def __repr__(self) -> str:
        return f"Archive({str(self)!r})"

    @property
    def name(self) -> str:
        """Last part: ds.zarr.zip."""
        return PurePosixPath(self.key).name if self.key else self.file.name

    @property
    def stem(self) -> str:
        """Last part, without its suffix: ds.zarr."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Suffix of the last part."""
        return PurePosixPath(self.name).suffix

    def with_name(self, name: str, /) -> Archive:
        """Name what lies beside this."""
        if self.key:
            return Archive(self.file, str(PurePosixPath(self.key).with_name(name)))
        return Archive(self.file.with_name(name))

    def __truediv__(self, key: str, /) -> Archive:
        return Archive(self.file, f"{self.key}/{key}" if self.key else key)

    def exists(self) -> bool:
        """Tell whether the zip is there, or the key in it."""
        return self.is_dir() or self.is_file() if self.key else self.file.exists()

    def is_dir(self) -> bool:
        """Tell whether something lies in here."""
        if not self.key:
            return self.file.is_file()
        return any(key.startswith(f"{self.key}/") for key in self._packed().files)

    def is_file(self) -> bool:
        """Tell whether this is a file in the zip."""
        return bool(self.key) and self.key in self._packed().files

    def iterdir(self) -> Iterator[Archive]:
        """List what lies directly in here."""
        start = f"{self.key}/" if self.key else ""
        inner = (
            key[len(start) :].partition("/")[0]
            for key in self._packed().files
            if key.startswith(start)
        )
        return iter([self / name for name in sorted(set(inner))])

    def read_bytes(self) -> bytes:
        """Read a file of the zip; its checksum is compared.

        Raises:
            FileNotFoundError: it is not in there.
            StoreError: the zip is damaged, or not to be trusted.
        """
        found = self._packed().files.get(self.key)
        if found is None:
            raise FileNotFoundError(str(self))
        try:
            with ZipFile(self.file) as opened:
                return opened.read(found)
        except (BadZipFile, OSError, EOFError, ValueError, zlib.error) as error:
            raise StoreError(f"{self.file} is damaged: {found.filename!r}: {error}") from error

    def sizes(self) -> Iterator[tuple[str, int]]:
        """List the files and their bytes as they lie in the zip."""
        return ((key, info.compress_size) for key, info in self._packed().files.items())

    def marks(self) -> Iterator[tuple[str, tuple[int, str]]]:
        """List the files: their bytes when unpacked, and their checksums."""
        return (
            (k, (info.file_size, f"{info.CRC:08x}")) for k, info in self._packed().files.items()
        )

    def zarr(self) -> tuple[Any, str]:
        """Open the zip for Zarr: its store, and the path of the group in it."""
        from nf2vec_cli.store.zip_store import ArchiveStore

        root = self._packed().root
        return ArchiveStore(self.file, mode="r"), root

    def _packed(self) -> Packed:
        try:
            found = self.file.stat()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"{self.file} cannot be read: {error.strerror}") from error
        return _packed(self.file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _packed(file: Path, size: int, _changed: int) -> Packed:
    """Read the list of a zip, and see that nothing in it is odd."""
    try:
        with ZipFile(file) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise StoreError(f"{file} is damaged, or no zip: {error}") from error
    seen: set[str] = set()
    for info in members:
        reason = _oddity(info)
        if info.filename in seen:
            reason = "is in there twice"
        if reason:
            raise StoreError(f"{file} is refused: {info.filename!r} {reason}")
        seen.add(info.filename)
    total = sum(info.file_size for info in members)
    if total > max(SMALL, SWELL * size):
        raise StoreError(f"{file} is refused: its {size:,} bytes would swell to {total:,}")
    root = _root(seen)
    start = f"{root}/" if root else ""
    files = {
        info.filename[len(start) :]: info for info in members if info.filename.startswith(start)
    }
    return Packed(root, files)


def _root(names: set[str]) -> str:
    """Find the store's folder in the zip: none, or the one folder that holds all else."""
    if ROOT in names:
        return ""
    tops = {name.partition("/")[0] for name in names}
    only = next(iter(tops)) if len(tops) == 1 else ""
    return only if f"{only}/{ROOT}" in names else ""


def _oddity(info: ZipInfo) -> str | None:
    """Say why a file of a zip is not to be read; None: it may be."""
    if not safe_key(info.filename):
        return "would leave its folder"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return f"is packed by method {info.compress_type}, which is not read"
    if info.file_size > max(SMALL, SWELL * info.compress_size):
        return f"would swell from {info.compress_size:,} to {info.file_size:,} bytes"
    return None


def safe_key(key: str) -> bool:
    """Tell whether a name stays in its folder, wherever that is."""
    parts = key.split("/")
    odd = {"", ".", ".."} & set(parts)
    return not odd and "\\" not in key and all(c.isprintable() for c in key) and ":" not in parts[0]
