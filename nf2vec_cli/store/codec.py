"""Weights as they are stored: a difference from the shared init, quantised or bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

Floats = NDArray[np.float32]
CODECS = (("exact", 8), ("compact", 8), ("compact", 7), ("compact", 6), ("compact", 5))
ARRAYS = {"exact": ("bits",), "compact": ("quantised", "scale")}  # of each codec
ZSTD_LEVEL = 3  # levels 1 to 19 give the same size on quantised differences, within 0.1 %


@dataclass(frozen=True)
class Encoded:
    """Rows as stored: `exact` has `bits` [B, P]; `compact` has `quantised` and `scale`."""

    arrays: dict[str, NDArray[np.generic]]


def encode(
    theta: Floats, init: Floats, blocks: NDArray[np.int64], codec: str, bits: int
) -> Encoded:
    """Encode weights [B, P].

    exact: the bits of each float, XOR those of the init's: restores any float. compact: the
    difference from the init, divided by a scale for each block (a matrix row or a bias) so that
    the block's largest becomes 2^(bits-1) - 1, rounded to int8. The int8 are then entropy coded,
    so that fewer bits are fewer bytes.
    """
    if codec == "exact":
        return Encoded({"bits": theta.view(np.uint32) ^ init.view(np.uint32)})
    levels = np.float32(2 ** (bits - 1) - 1)
    difference = theta - init
    starts = np.concatenate([[0], np.cumsum(blocks)[:-1]])
    scale = np.maximum.reduceat(np.abs(difference), starts, axis=1) / levels
    # a block that did not move has scale 0, and zeros
    divisor = np.repeat(np.where(scale > 0, scale, 1), blocks, axis=1)
    quantised = np.rint(difference / divisor).astype(np.int8)
    return Encoded({"quantised": quantised, "scale": scale.astype(np.float32)})


def decode(stored: Encoded, init: Floats, blocks: NDArray[np.int64]) -> Floats:
    """Restore weights [B, P] float32."""
    arrays = stored.arrays
    if "bits" in arrays:
        bits = np.asarray(arrays["bits"], np.uint32)
        return np.asarray((bits ^ init.view(np.uint32)).view(np.float32))
    weights = np.repeat(np.asarray(arrays["scale"], np.float32), blocks, axis=1)
    weights *= np.asarray(arrays["quantised"], np.int8)
    weights += init
    return weights


def digests(stored: Encoded) -> NDArray[np.uint8]:  # [B, 16]
    """Name each row's stored numbers by 16 bytes of SHA-256, arrays in the order of their names."""
    rows = len(next(iter(stored.arrays.values())))
    found = np.empty((rows, 16), np.uint8)
    for row in range(rows):
        digest = sha256()
        for name in sorted(stored.arrays):
            digest.update(np.ascontiguousarray(stored.arrays[name][row]).tobytes())
        found[row] = np.frombuffer(digest.digest()[:16], np.uint8)
    return found


def roundtrip(theta: Floats, init: Floats, blocks: list[int], codec: str, bits: int) -> Floats:
    """Give one field's weights [P] as a reader of the store would get them."""
    lengths = np.asarray(blocks)
    back = decode(encode(theta[None], init, lengths, codec, bits), init, lengths)
    return np.asarray(back[0])


def codec_size(theta: Floats, init: Floats, blocks: list[int], codec: str, bits: int) -> int:
    """Count the compressed bytes of one field's weights [P]."""
    stored = encode(theta[None], init, np.asarray(blocks), codec, bits).arrays
    zstd = Zstd(level=ZSTD_LEVEL)
    if "bits" in stored:
        planes = np.unpackbits(stored["bits"].view(np.uint8).reshape(-1, 4), axis=1)
        return len(zstd.encode(np.packbits(planes.T.copy())))
    return sum(len(zstd.encode(np.ascontiguousarray(a))) for a in stored.values())
