"""What a source's content is named by, so that a change is noticed."""

from __future__ import annotations

import os
from errno import EINVAL, EISDIR
from hashlib import sha256
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from nf2vec_cli.shapes.side_files import NAMING, named_files
from nf2vec_cli.shapes.transforms import PATTERN, named_pictures

BLOCK = 1 << 22  # bytes read at once


def fingerprint(path: Path, *, kind: str = "") -> tuple[bytes, int, int]:
    """Give a source's SHA-256, size and time of change [ns].

    A .gltf's buffers count as content; for the kind nerf, an .obj's materials and a mesh's
    textures too. Of a folder of pictures, its JSON files and the pictures that they name count:
    the size is their sum, the time that of the latest change.

    Raises:
        OSError: it cannot be read, or is neither a file nor a folder.
    """
    stat = path.stat()
    if S_ISDIR(stat.st_mode):
        return _of_views(path)
    if not S_ISREG(stat.st_mode):  # reading a pipe would wait for ever
        raise OSError(EINVAL, "it is no regular file")
    digest = sha256()
    for file in (path, *named_files(path, colours=kind == "nerf")):
        _add(digest, file)
    return digest.digest(), stat.st_size, stat.st_mtime_ns


def glance(place: str | Path, *, kind: str = "") -> tuple[int, int] | None:
    """Give a source's size and time of change, if they tell that its content is the same.

    None: it has, or may have, side files, and only its fingerprint tells.

    Raises:
        OSError: it cannot be read.
    """
    stat = os.stat(place)  # noqa: PTH116 (a plan asks a million times, of text: Path takes longer)
    if S_ISDIR(stat.st_mode):
        return _sum([file.stat() for file in _pictures(Path(place))])
    if str(place).lower().endswith(NAMING if kind == "nerf" else (".gltf",)):
        return None
    return stat.st_size, stat.st_mtime_ns


def _add(digest: Any, file: Path) -> None:
    """Add a file's bytes, block by block: it may be larger than the memory."""
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)


def _of_views(folder: Path) -> tuple[bytes, int, int]:
    digest = sha256()
    files = _pictures(folder)
    for file in files:
        name = file.relative_to(folder).as_posix()
        digest.update(sha256(name.encode("utf-8", "surrogateescape")).digest())
        inner = sha256()
        _add(inner, file)
        digest.update(inner.digest())
    return digest.digest(), *_sum([file.stat() for file in files])


def _pictures(folder: Path) -> list[Path]:
    files = named_pictures(folder)
    if not files:
        raise IsADirectoryError(EISDIR, f"it is a folder without {PATTERN}")
    return files


def _sum(stats: list[os.stat_result]) -> tuple[int, int]:
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)
