"""Make an empty store: the shared init, the arrays of the format, and at last the attributes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.codec import ARRAYS, ZSTD_LEVEL, Floats
from nf2vec_cli.store.durable import PARTIAL, disk_faults
from nf2vec_cli.store.place import Place, open_zarr, place
from nf2vec_cli.store.schema import (
    BESIDE,
    CAMERA_NUMBERS,
    CAMERAS,
    CAMERAS_KEPT,
    COLUMN_CHUNK,
    COLUMNS,
    COPYING,
    FILL,
    FORMAT,
    FORMAT_VERSION,
    GRID,
    SURFACE,
    Column,
)

MOST_FILES = 12_000  # of weights; columns and embeddings of a million rows are 7,400 more


def named(path: Path) -> Path:
    """Give the same path by a name, which `.` and `..` are not."""
    return path.resolve() if path.name in ("", "..") else path


def with_ending(path: Place, ending: str) -> Place:
    """Name what belongs beside a store: NAME-ending.zarr beside NAME.zarr."""
    path = named(path) if isinstance(path, Path) else path
    return path.with_name(f"{path.stem}{ending}{path.suffix}")


def free_name(path: Place) -> Place:
    """Name what is not there yet: NAME-2.zarr beside NAME.zarr, and so on."""
    names = (with_ending(path, f"-{n}") for n in count(2))
    return next(name for name in names if not name.exists())


def holds_store(path: str | Place) -> bool:
    """Tell whether a place holds a finished store: its root's attributes are written last."""
    try:
        root = json.loads((place(path) / "zarr.json").read_bytes())
        return bool(root["attributes"]["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def create_store(
    path: str | Place,
    *,
    field: str,
    network: dict[str, Any],
    init: Floats,
    blocks: Sequence[int],
    codec: str,
    bits: int,
    batch: int,
    config: dict[str, Any],
    versions: dict[str, str],
    shard_length: int = 0,
    cells: int = 0,
    imported: dict[str, str] | None = None,
) -> None:
    """Make an empty store, in a place that is empty or not there.

    Args:
        path: folder, or address in a bucket.
        field: kind of field.
        network: the architecture, plain values.
        init: shared start of all fields, [P].
        blocks: lengths of the runs of theta that share a scale; they add up to P.
        codec: "exact" or "compact".
        bits: of a quantised difference, 4 to 8.
        batch: rows that are written together.
        shard_length: rows of a shard, a multiple of `batch`; 0: as many.
        config: settings of the fit, plain values.
        versions: what made it.
        cells: of the occupancy grid that is kept of each object, along an axis; 0: no grid and no
            cameras.
        imported: of fields that were fitted elsewhere, where they and `init` come from.

    Raises:
        StoreError: the folder holds something else.
    """
    home = place(path)
    _refuse_foreign(home)
    init = np.ascontiguousarray(init, np.float32)
    lengths = np.asarray(blocks, np.int32)
    if lengths.sum() != len(init):
        raise ValueError(f"blocks cover {lengths.sum()} of {len(init)} parameters")
    shard = shard_length or batch
    if shard % batch:
        raise ValueError(f"a shard of {shard} rows is no multiple of {batch}")
    zarrs, _ = open_zarr(home, read_only=False)
    _array(zarrs, "init", init, chunks=init.shape, compressors=[ZstdCodec(level=ZSTD_LEVEL)])
    _array(zarrs, "blocks", lengths, chunks=lengths.shape)
    for name in ARRAYS[codec]:
        _row_array(zarrs, name, len(lengths) if name == "scale" else len(init), shard)
    add_surface(zarrs, shard)
    if cells:
        _row_array(zarrs, GRID, cells**3 // 8, shard)
        _row_array(zarrs, CAMERAS, CAMERAS_KEPT * CAMERA_NUMBERS, shard)
    for column in COLUMNS.values():
        add_column(zarrs, column)
    root = zarr.open_group(zarrs, mode="a")
    root.update_attributes(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "field": field,
            "network": network,
            "init_hash": init_hash(init, network),
            "codec": codec,
            "bits": bits,
            "batch": batch,
            "shard_length": shard,
            "config": config,
            "versions": versions,
        }
        | ({"imported": imported} if imported else {})
    )


def shard_for(objects: int, *, batch: int, codec: str, radiance: bool = False) -> int:
    """Choose how many rows share a file of weights, so that many objects are not many files.

    Twice `batch`, and twice that again, until the files are at most MOST_FILES; a batch is written
    into a longer shard as it comes, so that what a killed run loses stays one batch.
    """
    arrays = len(ARRAYS[codec]) + (len(BESIDE) if radiance else 1)
    shard = batch
    while arrays * objects / shard > MOST_FILES:
        shard *= 2
    return shard


def init_hash(init: Floats, network: dict[str, Any]) -> str:
    """Name a start: SHA-256 of its bytes, little endian, and of the architecture as JSON."""
    digest = sha256(init.astype("<f4").tobytes())
    digest.update(json.dumps(network, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


def _refuse_foreign(path: Place) -> None:
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file")
    ours = {"init", "blocks", *BESIDE, *COLUMNS, "bits", "quantised", "scale", "runs"}
    if path.is_dir():
        if holds_store(path):
            raise StoreError(f"{path} holds a store already")
        if not _may_be_group(path / "zarr.json"):
            raise StoreError(f"{path} is not empty: its zarr.json is of no store")
        refuse_unfinished(path)
        # a run that was killed while it made a store leaves no object, and nothing is lost then
        if (path / "status" / "c").is_dir():
            raise StoreError(
                f"{path} is damaged: it holds objects, and its zarr.json does not say of what kind",
                hint=f"put {path / 'zarr.json'} back from a copy, or choose another folder",
            )
        with disk_faults(path, "read") if isinstance(path, Path) else nullcontext():
            names = [entry.name for entry in path.iterdir()]
        for name in names:
            if name not in (*ours, "zarr.json") and name[:1] != "." and PARTIAL not in name:
                raise StoreError(f"{path} is not empty: it holds {name!r}")


def refuse_unfinished(path: Place) -> None:
    """See that a folder is no copy under way, which is no store yet.

    Raises:
        StoreError: it is.
    """
    if (path / COPYING).is_file():
        raise StoreError(
            f"{path} is a copy that was not finished",
            hint=f"`nf2vec copy SOURCE {path}` goes on with it",
        )


def _may_be_group(file: Place) -> bool:
    """Tell whether a run that was killed while it made a store may have left this, or nothing."""
    if not file.exists():
        return not (isinstance(file, Path) and file.is_symlink())
    try:
        return bool(json.loads(file.read_bytes())["node_type"] == "group")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _array(
    store: Any,
    name: str,
    data: NDArray[Any],
    *,
    chunks: tuple[int, ...],
    compressors: Any = (),
) -> None:
    array = zarr.create_array(
        store,
        name=name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks,
        compressors=compressors,
        filters=(),
        overwrite=True,
    )
    array[:] = data


def add_surface(store: Any, shard: int) -> None:
    """Make the array of surface points, without rows; `store`: the Zarr store of the group."""
    _row_array(store, SURFACE, 3 * SURFACE_POINTS, shard)


ROW_TYPES = {
    "bits": "uint32",
    "quantised": "int8",
    "scale": "float32",
    SURFACE: "int16",
    GRID: "uint8",
    CAMERAS: "float32",
}


def _row_array(store: Any, name: str, width: int, shard: int) -> None:
    dtype = ROW_TYPES[name]
    size = {"bits": 4, SURFACE: 2}.get(name)
    packed = (
        BloscCodec(cname="zstd", clevel=ZSTD_LEVEL, shuffle="bitshuffle", typesize=size)
        if size
        else ZstdCodec(level=ZSTD_LEVEL)
    )
    zarr.create_array(
        store,
        name=name,
        shape=(0, width),
        dtype=dtype,
        chunks=(1, width),
        shards=(shard, width),
        compressors=[packed, Crc32cCodec()],
        filters=(),
        fill_value=0,
        overwrite=True,
    )


def add_column(store: Any, column: Column) -> None:
    """Make the array of a column, without rows; `store`: the Zarr store of the group."""
    wide = () if column.width == 1 else (column.width,)
    zarr.create_array(
        store,
        name=column.name,
        shape=(0, *wide),
        dtype=column.dtype,
        chunks=(COLUMN_CHUNK, *wide),
        compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
        filters=(),
        fill_value=FILL.get(column.name, 0),
        overwrite=True,
    )
