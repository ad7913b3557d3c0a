# ruff: noqa: ARG001 - every way to damage a file is called alike
"""Damage to files, drawn at random: bits, cuts, splices, lines, and numbers that promise much."""

import re
import struct

import numpy as np

NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
TEXTS = (
    b"0", b"-1", b"1", b"1000000000000", b"-9223372036854775808", b"4294967295", b"1e309",
    b"nan", b"inf", b"-inf", b"1e-320", b"99999999999999999999999999", b"0x10", b"",
)  # fmt: skip
BINARY = (
    struct.pack("<I", 0xFFFFFFFF), struct.pack("<I", 0x7FFFFFFF), struct.pack("<q", 10**12),
    struct.pack("<q", -1), struct.pack("<f", float("nan")), struct.pack("<f", 3e38),
    struct.pack("<d", float("inf")), b"\0\0\0\0", struct.pack(">I", 0x7FFFFFFF),
)  # fmt: skip
HEAD = 512  # bytes in which most formats say what follows


def flip(data, other, rng):
    found = bytearray(data)
    for at in rng.integers(0, len(data), rng.choice([1, 3, 64])):
        found[at] ^= 1 << int(rng.integers(8))
    return bytes(found)


def cut(data, other, rng):
    return data[: int(rng.integers(0, len(data)))]


def splice(data, other, rng):
    at = rng.uniform()
    return data[: int(at * len(data))] + other[int(at * len(other)) :]


def drop(data, other, rng):
    low, high = sorted(rng.integers(0, len(data), 2).tolist())
    return data[:low] + data[high:]


def repeat(data, other, rng):
    low = int(rng.integers(0, len(data)))
    high = min(len(data), low + int(rng.integers(1, 4096)))
    return data[:high] + data[low:]


def blank(data, other, rng):
    low = int(rng.integers(0, len(data)))
    length = int(rng.integers(1, 256))
    return data[:low] + bytes([rng.choice([0, 32, 255])]) * length + data[low + length :]


def numbers(data, other, rng):
    """Replace one number of the text, most often one of the head's."""
    head = data[: HEAD if rng.uniform() < 0.7 else len(data)]
    found = list(NUMBER.finditer(head))
    if not found:
        return words(data, other, rng)
    chosen = found[int(rng.integers(len(found)))]
    return data[: chosen.start()] + TEXTS[rng.integers(len(TEXTS))] + data[chosen.end() :]


def words(data, other, rng):
    """Overwrite a binary number, most often one of the head's."""
    limit = min(len(data), HEAD) if rng.uniform() < 0.7 else len(data)
    at = int(rng.integers(0, limit)) // 4 * 4
    word = BINARY[rng.integers(len(BINARY))]
    return data[:at] + word + data[at + len(word) :]


def lines(data, other, rng):
    """Delete a line, double it, or swap two."""
    rows = data.split(b"\n")
    first, second = rng.integers(0, len(rows), 2).tolist()
    how = rng.integers(3)
    if how == 0:
        del rows[first]
    elif how == 1:
        rows.insert(second, rows[first])
    else:
        rows[first], rows[second] = rows[second], rows[first]
    return b"\n".join(rows)


def empty(data, other, rng):
    return b"" if rng.uniform() < 0.5 else b" \n"


WAYS = (flip, cut, splice, drop, repeat, blank, numbers, numbers, words, words, lines, empty)


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to three ways; `other` is a file to splice with."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        if not data:
            break
        data = WAYS[rng.integers(len(WAYS))](data, other, rng)
    return data
