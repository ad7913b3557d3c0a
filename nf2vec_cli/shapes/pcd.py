"""Point clouds of the Point Cloud Library: PCD 0.7, as text, binary or compressed binary."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError

TYPES = {"F": "f", "I": "i", "U": "u"}
Points = NDArray[np.float64]


def read_pcd(data: bytes) -> tuple[Points, Points | None]:
    """Read points [M, 3], and normals [M, 3] if there are any.

    Raises:
        InputError: the header is not understood, or the file is cut short.
    """
    header, body = _header(data)
    names = header["FIELDS"]
    counts = [int(n) for n in header.get("COUNT", ["1"] * len(names))]
    kinds = zip(header["TYPE"], header["SIZE"], strict=True)
    types = [f"<{TYPES[kind]}{size}" for kind, size in kinds]
    layout = np.dtype([(n, t, (c,)) for n, t, c in zip(names, types, counts, strict=True)])
    width, height = (int(header.get(key, ["1"])[0]) for key in ("WIDTH", "HEIGHT"))
    total = int(header.get("POINTS", [str(width * height)])[0])
    coded = header["DATA"][0].lower()
    if coded == "ascii":
        table = _text(body, total, sum(counts))
        starts = dict(zip(names, np.cumsum([0, *counts[:-1]]), strict=True))
        columns = {name: table[:, start] for name, start in starts.items()}
    elif coded in ("binary", "binary_compressed"):
        columns = _binary(body, total, layout, packed=coded == "binary_compressed")
    else:
        raise InputError(f"its data are {coded!r}: neither ascii nor binary")
    if not {"x", "y", "z"} <= set(columns):
        raise InputError(f"it has no x, y and z, but {' '.join(names)}")
    points = np.stack([columns[axis] for axis in "xyz"], axis=1)
    normal = [f"normal_{axis}" for axis in "xyz"]
    if set(normal) <= set(columns):
        return points, np.stack([columns[name] for name in normal], axis=1)
    return points, None


def _header(data: bytes) -> tuple[dict[str, list[str]], bytes]:
    header: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in header:
        end = data.find(b"\n", at)
        if end < 0 or end - at > 10_000:
            raise InputError("the file is cut short or no PCD: its header has no DATA line")
        words = data[at:end].decode("latin-1").split()
        at = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    missing = [key for key in ("FIELDS", "SIZE", "TYPE") if key not in header]
    if missing:
        raise InputError(f"the file is corrupt: its header has no {missing[0]}")
    return header, data[at:]


def _text(body: bytes, total: int, width: int) -> Points:
    numbers = np.array(body.split(), dtype=np.float64)
    if len(numbers) < total * width:
        found = len(numbers) // width
        raise InputError(f"the file is cut short: {total} points promised, {found} there")
    return numbers[: total * width].reshape(total, width)


def _binary(
    body: bytes, total: int, layout: np.dtype[np.void], *, packed: bool
) -> dict[str, Points]:
    wanted = total * layout.itemsize
    if not packed:
        if len(body) < wanted:
            raise InputError(f"the file is cut short: {wanted} bytes of points, {len(body)} there")
        rows = np.frombuffer(body, layout, total)
        return {name: rows[name][:, 0].astype(float) for name in layout.names or ()}
    if len(body) < 8:
        raise InputError("the file is cut short: its packed points are missing")
    size, whole = struct.unpack("<II", body[:8])
    if whole != wanted or len(body) < 8 + size:
        raise InputError("the file is corrupt or cut short: its packed points do not fit")
    plain = unpack_lzf(body[8 : 8 + size], whole)
    # packed data come field by field, not point by point
    columns, at = {}, 0
    for name in layout.names or ():
        kind = layout[name]
        block = np.frombuffer(plain, kind.base, total * kind.shape[0], at)
        columns[name] = block.reshape(total, -1)[:, 0].astype(float)
        at += total * kind.itemsize
    return columns


def unpack_lzf(data: bytes, size: int) -> bytes:
    """Undo LZF, the compression of PCD files.

    Raises:
        InputError: the data are corrupt.
    """
    out = bytearray()
    at = 0
    try:
        while at < len(data):
            control = data[at]
            at += 1
            if control < 32:  # a run of bytes as they are
                out += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            start = len(out) - ((control & 31) << 8) - data[at] - 1
            at += 1
            if start < 0 or len(out) > size:
                raise InputError("the file is corrupt: its packed points cannot be unpacked")
            length += 2
            piece = out[start : start + length]
            while len(piece) < length:  # the copy may reach into what it writes
                piece += piece[: length - len(piece)]
            out += piece
    except IndexError as error:
        raise InputError("the file is cut short: its packed points end too soon") from error
    if len(out) != size:
        raise InputError("the file is corrupt: its packed points cannot be unpacked")
    return bytes(out)
