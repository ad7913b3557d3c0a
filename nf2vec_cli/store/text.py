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
    rows = []
    for text in texts:
        data = text.replace("\0", " ").encode("utf-8", "replace")
        if len(data) > width:
            if name in MUST_FIT:
                raise InputError(f"{name} {text!r} is longer than {width} bytes")
            data = data[-width:] if name in CUT_AT_START else data[:width]
            data = data.decode("utf-8", "ignore").encode()
        rows.append(np.frombuffer(data.ljust(width, b"\0"), np.uint8))
    return np.stack(rows) if rows else np.empty((0, width), np.uint8)


def decode_text(column: NDArray[np.uint8]) -> list[str]:
    """Decode bytes [N, width] to N texts."""
    width = column.shape[1]
    fixed = np.ascontiguousarray(column).view(f"S{width}")[:, 0]
    return [text.decode("utf-8", "replace") for text in fixed.tolist()]
