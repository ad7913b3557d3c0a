"""The format of a store as one table; `docs/store-format.md` says the same in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

FORMAT = "nf2vec"
FORMAT_VERSION = 1
COLUMN_CHUNK = 4096  # rows; a column of chunk 1 takes seconds to read at 20,000 rows
SURFACE = "surface"  # points of each object's surface, beside its weights
SURFACE_UNIT = 32767  # of int16: 1 in unit space
GRID = "grid"  # occupied cells of each field of radiance, 8 to a byte
CAMERAS = "cameras"  # of the pictures that it was fitted to, and of those held out
CAMERAS_KEPT, CAMERA_NUMBERS = 64, 16  # at most, of each object; numbers of a camera
KINDS = ("sdf", "udf", "occ", "nerf")  # of fields, as `fields.FieldName` has them
BESIDE = (SURFACE, GRID, CAMERAS)  # arrays of a row an object that are written with its weights


class Status(IntEnum):
    """What became of a row. A row is one object, or an empty slot at the end of a shard."""

    EMPTY = 0
    PENDING = 1
    DONE = 2
    FAILED = 3
    QUARANTINED = 4
    EMBEDDED = 5  # an embedding alone: there is no field, and there are no weights


@dataclass(frozen=True)
class Column:
    """One array of length N. `width` > 1: [N, width]; text: UTF-8, padded with zero bytes."""

    name: str
    dtype: str
    width: int
    text: bool
    meaning: str


def _text(name: str, width: int, meaning: str) -> Column:
    return Column(name, "uint8", width, True, meaning)


def _number(name: str, dtype: str, meaning: str, width: int = 1) -> Column:
    return Column(name, dtype, width, False, meaning)


COLUMNS = {
    column.name: column
    for column in (
        _text("id", 256, "stable name of the object, unique in the store"),
        _text("source", 1024, "path of its source below the folder it was found in"),
        _text("class", 64, "class name, empty if it has none"),
        _text("split", 16, "train, val, test, or empty"),
        _text("parent", 256, "id of the object that an augmented copy was made of, else its own"),
        _number("copy", "int32", "0: the object itself; from 1 on: an augmented copy"),
        _text("message", 512, "why it failed, or what cleaning changed"),
        _number("hash", "uint8", "SHA-256 of the source's content", 32),
        _number("key", "uint8", "name of the product: source, settings and init", 16),
        _number(
            "digest",
            "uint8",
            "first 16 bytes of the SHA-256 of the stored weights or embedding",
            16,
        ),
        _number("size", "int64", "bytes of the source file"),
        _number("mtime", "int64", "source's time of change, nanoseconds since 1970"),
        _number(
            "transform", "float64", "centre x, y, z and scale: user = unit * scale + centre", 4
        ),
        _number("error", "float32", "mean field error near the surface, of the stored field"),
        _number("psnr", "float32", "of the views held out, decibels, on white (nerf)"),
        _number("steps", "int32", "optimiser steps that the fit took"),
        _number("seconds", "float32", "CPU seconds of the fit, its query points included"),
        _number("seed", "int64", "seed of the object's fit"),
        _number("watertight", "uint8", "1: closed surface, 0: open, 255: unknown"),
        _number("doubt", "float32", "share of points near the surface whose sign is doubtful"),
        _number("disagreement", "float32", "share where rays contradict the winding number"),
        _text("sign", 8, "how inside was told: normal, winding, parity or wrap; empty: no sign"),
        _number("faces", "int64", "triangles of the cleaned source; 0 if it is no mesh"),
        _number("cells", "int32", "cells along each axis of the grid that was fitted; 0: no grid"),
        _number(
            "status", "uint8", "0 empty, 1 pending, 2 done, 3 failed, 4 quarantined, 5 embedding"
        ),
    )
}
FILL = {"watertight": 255, "disagreement": float("nan"), "psnr": float("nan")}
# columns that the first stores of format 1 lack
LATER = {"parent", "copy", "steps", "sign", "disagreement", "cells", "psnr"}


@dataclass(frozen=True)
class Entry:
    """An object as it is registered, before anything is known but its name."""

    id: str
    source: str
    class_name: str = ""
    split: str = ""
    parent: str = ""
    copy: int = 0
