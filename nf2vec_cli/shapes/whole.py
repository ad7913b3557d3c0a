"""A file's bytes, unless it is no file, empty, or too big to be one shape."""

from __future__ import annotations

from pathlib import Path

from nf2vec_cli.errors import InputError

LARGEST = 4 << 30  # bytes of a file


def whole(path: Path) -> bytes:
    """Read a file.

    Raises:
        InputError: it is empty, or larger than 4 GiB.
        OSError: it cannot be opened.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise InputError(f"the file is too big: {size / 2**30:,.0f} GiB, and 4 are the most")
    data = path.read_bytes()
    if not data or data.isspace():
        raise InputError("the file is empty")
    return data
