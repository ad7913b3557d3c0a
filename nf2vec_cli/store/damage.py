"""What a store says of itself is believed only where it can be: the rest is told as damage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from pydantic import ValidationError
from safetensors import SafetensorError

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.codec import ARRAYS
from nf2vec_cli.store.create import ROW_TYPES, init_hash
from nf2vec_cli.store.schema import (
    CAMERA_NUMBERS,
    CAMERAS,
    CAMERAS_KEPT,
    COLUMNS,
    GRID,
    KINDS,
    SURFACE,
)

if TYPE_CHECKING:
    from nf2vec_cli.store.store import Store

ROWS = 1 << 24  # of a store; a column of more would be damage that fills the memory
PARAMETERS = 1 << 28  # of a field
CHUNK = 1 << 30  # bytes of a chunk; of a shard four times as many
BATCH = 1 << 16
GRIDS = {(side**3 // 8,) for side in range(2, 130, 2)}  # bytes of an occupancy grid
# whatever zarr, numpy and json raise of bytes that nobody wrote
ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    zarr.errors.BaseZarrError,
)
ATTRIBUTES: dict[str, Any] = {
    "field": str,
    "network": dict,
    "config": dict,
    "codec": str,
    "bits": int,
    "batch": int,
    "init_hash": str,
}


@contextmanager
def damage(path: Path, what: str, hint: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong inside into the StoreError that says what cannot be read."""
    try:
        yield
    except ERRORS as error:
        raise told(path, what, error, hint) from error


def told(path: Path, what: str, error: BaseException, hint: str | None = None) -> StoreError:
    """Say that something of a store cannot be read."""
    reason = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
    hint = hint or f"`nf2vec check {path}` tells of more"
    return StoreError(f"{path} is damaged: {what} cannot be read: {reason}", hint=hint)


def require_attributes(path: Path, attributes: dict[str, Any]) -> None:
    """See that the root says what every reader needs, in the types and bounds that it needs.

    Raises:
        StoreError: it does not.
    """
    for name, kind in ATTRIBUTES.items():
        value = attributes.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise StoreError(
                f"{path} is damaged: {name!r} of its zarr.json is {value!r:.80}"
                if name in attributes
                else f"{path} is damaged: {name!r} is missing"
            )
    if attributes["field"] not in KINDS:
        raise StoreError(
            f"{path} holds fields of a kind that is not known here, {attributes['field']!r:.80}",
            hint="`pip install -U nf2vec`",
        )
    imported = attributes.get("imported", {})
    sound = {
        "codec": attributes["codec"] in ARRAYS,
        "bits": 4 <= attributes["bits"] <= 8,
        "batch": 1 <= attributes["batch"] <= BATCH,
        "shard_length": _whole_batches(attributes),
        "imported": isinstance(imported, dict)
        and all(isinstance(value, str) for value in imported.values()),
    }
    for name, fine in sound.items():
        if not fine:
            raise StoreError(
                f"{path} is damaged: {name!r} of its zarr.json is {attributes[name]!r:.80}"
            )


def _whole_batches(attributes: dict[str, Any]) -> bool:
    rows, batch = attributes.get("shard_length", attributes["batch"]), attributes["batch"]
    return isinstance(rows, int) and 1 <= rows <= BATCH and batch > 0 and rows % batch == 0


def require_init(store: Store) -> None:
    """See that init, network and blocks are those that the store was made with.

    Raises:
        StoreError: they are not: no field can be read.
    """
    found = init_hash(store.init, store.network)
    if found != store.init_hash:
        raise StoreError(
            f"{store.path} is damaged: its init and network have the hash {found[:12]}, not "
            f"{store.init_hash[:12]}"
        )
    if not len(store.blocks) or store.blocks.min() < 1 or store.blocks.sum() != len(store.init):
        raise StoreError(
            f"{store.path} is damaged: its blocks cover {store.blocks.sum()} of {len(store.init)} "
            "parameters"
        )


def sound_array(store: Store, name: str) -> zarr.Array[Any]:
    """Open one of the arrays of the format; its metadata may promise no more than it can hold.

    Raises:
        StoreError: it is missing, or not as the format has it.
    """
    hint = f"`nf2vec check {store.path}` tells of more"
    # before the array is opened: another run may add rows, to the status last
    slots = 0 if name in ("status", "init", "blocks") else store.slots
    with damage(store.path, f"array {name!r}"):
        found = store.group.get(name)
    if not isinstance(found, zarr.Array):
        raise StoreError(f"{store.path} is damaged: {name!r} is missing", hint=hint)
    dtype, tail, most = _form(store, name)
    if name == GRID and found.shape[1:] in GRIDS:  # as fine as its store was made
        tail = found.shape[1:]
    fits = found.dtype == np.dtype(dtype) and found.shape[1:] == tail and found.shape[0] <= most
    if not (fits and small(found)):
        raise StoreError(
            f"{store.path} is damaged: {name!r} is {found.dtype} {found.shape} in chunks of "
            f"{found.chunks}",
            hint=hint,
        )
    if found.shape[0] < slots:
        raise StoreError(
            f"{store.path} is damaged: {name!r} has {found.shape[0]} of {slots} rows",
            hint=f"`nf2vec check {store.path} --repair`",
        )
    return found


def has(store: Store, name: str) -> bool:
    """Tell whether a store has an array of that name, sound or not.

    Raises:
        StoreError: its metadata cannot be read.
    """
    with damage(store.path, f"array {name!r}"):
        return name in store.group


def small(array: zarr.Array[Any], most: int = CHUNK) -> bool:
    """Tell whether an array's chunks, and shards, are such as fit into memory."""
    size = array.dtype.itemsize
    shard = array.shards or array.chunks
    return prod(array.chunks) * size <= most and prod(shard) * size <= 4 * most


def fit_config(store: Store) -> FitConfig:
    """Read the settings that a store was made with.

    Raises:
        StoreError: they are damaged, or of a newer program.
    """
    try:
        return FitConfig.model_validate(store.config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"{store.path} has settings that cannot be used: {where}: {first['msg']}",
            hint="`pip install -U nf2vec`, if a newer program made it",
        ) from error


def _form(store: Store, name: str) -> tuple[str, tuple[int, ...], int]:
    """Give an array's type, its shape after the first axis, and the most it has along that."""
    if name == "init":
        return "float32", (), PARAMETERS
    if name == "blocks":
        return "int32", (), PARAMETERS
    if name in COLUMNS:
        column = COLUMNS[name]
        return column.dtype, () if column.width == 1 else (column.width,), ROWS
    widths = {
        "scale": len(store.blocks),
        SURFACE: 3 * SURFACE_POINTS,
        CAMERAS: CAMERAS_KEPT * CAMERA_NUMBERS,
    }
    return ROW_TYPES[name], (widths.get(name, len(store.init)),), ROWS
