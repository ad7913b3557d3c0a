"""Text columns: UTF-8 in fixed widths, which any Zarr reader can decode."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError

CUT_AT_START = {"source"}  # the end of a path says more than its beginning
MUST_FIT = {"id", "class", "split"}


def encode_text(name: str, texts: Iterable[str], width: int) -> NDArray[np.uint8]:
    """Encode texts [B] as zero-padded bytes [B, width].

    Raises:
        InputError: an id, class or split is longer than the column.
    """
    rows = [_encoded(name, text, width) for text in texts]
    return np.array(rows, f"S{width}").view(np.uint8).reshape(len(rows), width)


def refuse_long(name: str, texts: Iterable[str], width: int) -> None:
    """Raise InputError where a text has to fit in its column, and does not."""
    if name in MUST_FIT:
        for text in texts:
            if len(text) * 4 > width:  # a character is four bytes at most
                _encoded(name, text, width)


def _encoded(name: str, text: str, width: int) -> bytes:
    data = text.replace("\0", " ").encode("utf-8", "replace")
    if len(data) <= width:
        return data
    if name in MUST_FIT:
        raise InputError(f"{name} {text!r} is longer than {width} bytes")
    data = data[-width:] if name in CUT_AT_START else data[:width]
    return data.decode("utf-8", "ignore").encode()


def decode_text(column: NDArray[np.uint8]) -> list[str]:
    """Decode bytes [N, width] to N texts."""
    if not len(column):
        return []
    width = _width(column)  # padding takes longer to strip than texts
    fixed = np.ascontiguousarray(column[:, :width]).view(f"S{width}")[:, 0].tolist()
    texts = b"\0".join(fixed).decode("utf-8", "replace").split("\0")
    if len(texts) == len(fixed):
        return texts
    return [text.decode("utf-8", "replace") for text in fixed]  # of others: zeros inside a text


def _width(column: NDArray[np.uint8]) -> int:
    """Give the bytes that the longest text takes, at least 1; eight at a time."""
    words = np.ascontiguousarray(column)
    if column.shape[1] % 8 == 0:
        words = words.view(np.uint64)
    used = np.flatnonzero(np.bitwise_or.reduce(words, 0).view(np.uint8))
    return int(used[-1]) + 1 if len(used) else 1
