"""What a parser would take for something else: refused, or put right, before it is parsed."""

from __future__ import annotations

import json
import re
import struct

from nf2vec_cli.errors import InputError

TRIANGLES, FAN = 4, 6  # modes of a glTF primitive


def prechecked(data: bytes, suffix: str) -> bytes:
    """Give a mesh file's bytes as the parser wants them.

    Text becomes UTF-8, and what follows the last triangle of a binary STL is left out.

    Raises:
        InputError: the file is cut short, of another kind, or compressed.
    """
    if suffix == ".stl":
        return _stl(data)
    if suffix == ".ply":
        _check_ascii_ply(data)
        return _as_utf8(data, data.find(b"end_header"))
    if suffix == ".glb":
        _check_glb(data)
    elif suffix == ".gltf":
        _check_gltf(data)
    elif data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise InputError("the file is cut short, or no UTF-16 text") from error
    else:
        return _as_utf8(data, len(data))
    return data


def _as_utf8(data: bytes, end: int) -> bytes:
    """Recode names and comments before `end` that are in an old code page."""
    text = data[: max(end, 0)]
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1").encode() + data[len(text) :]
    return data


def _check_ascii_ply(data: bytes) -> None:
    """Refuse text that ends before all lines are there: it would read as a smaller shape."""
    head, found, body = data.partition(b"end_header")
    if not found or b"format ascii" not in head:
        return
    counts = re.findall(rb"^\s*element\s+\S+\s+(\d+)", head, re.MULTILINE)
    promised, there = sum(map(int, counts)), len(body.splitlines()) - 1
    if promised > there:
        raise InputError(f"the file is cut short: {promised} lines promised, {there} there")


def _stl(data: bytes) -> bytes:
    wanted = 84
    if len(data) >= wanted:
        wanted += 50 * int(struct.unpack("<I", data[80:84])[0])
    if len(data) == wanted:
        return data
    ends = b"endsolid" in data[-400:].lower()
    if data.lstrip()[:5].lower() == b"solid" and (ends or b"facet" in data[:1024].lower()):
        # an ASCII file that was cut in two would read as an empty scene
        if not ends:
            raise InputError("the file is cut short: its last solid does not end")
        return _as_utf8(data, len(data))
    if len(data) < wanted:
        raise InputError(
            f"the file is cut short or no STL: it needs {wanted} bytes, it has {len(data)}"
        )
    return data[:wanted]


def _check_glb(data: bytes) -> None:
    if len(data) < 20 or data[:4] != b"glTF":
        raise InputError("the file is no GLB, or cut short")
    (length,) = struct.unpack("<I", data[8:12])
    if length > len(data):
        raise InputError(f"the file is cut short: it promises {length} bytes and has {len(data)}")
    (size,) = struct.unpack("<I", data[12:16])
    _check_gltf(data[20 : 20 + size])


def _check_gltf(data: bytes) -> None:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError("the file is corrupt: its JSON cannot be read") from error
    # without a decoder a compressed mesh would load as zeros
    packed = [name for name in tree.get("extensionsRequired", []) if "compression" in name.lower()]
    if packed:
        kind = "draco" if "draco" in packed[0].lower() else packed[0]
        raise InputError(f"its geometry is compressed ({kind}): save it without compression")
    parts = [part for mesh in tree.get("meshes", []) for part in mesh["primitives"]]
    if any(part.get("mode", TRIANGLES) == FAN for part in parts):
        raise InputError("it has triangle fans, which we do not read: save it as triangles")
    accessors = tree.get("accessors", [])
    named = [part.get("attributes", {}).get("POSITION") for part in parts]
    named += [part.get("indices") for part in parts]
    for accessor in [accessors[number] for number in named if number is not None]:
        if "sparse" in accessor or "bufferView" not in accessor:
            raise InputError("its geometry is compressed or sparse: save it as plain triangles")
