"""A store of neural fields: Zarr arrays with one row an object. Format: docs/store-format.md."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.errors import StoreError
from nf2vec_cli.store import later, runs
from nf2vec_cli.store.codec import ARRAYS, Encoded, Floats, decode, digests, encode
from nf2vec_cli.store.durable import leftovers
from nf2vec_cli.store.place import Place, open_zarr, place, sizes
from nf2vec_cli.store.schema import (
    BESIDE,
    COLUMN_CHUNK,
    COLUMNS,
    COPYING,
    FORMAT,
    FORMAT_VERSION,
    LATER,
    SURFACE,
    SURFACE_UNIT,
    Entry,
    Status,
)
from nf2vec_cli.store.text import decode_text, encode_text

Rows = NDArray[np.int64]
UNKNOWN_INIT = "unknown"  # what `imported` says of an init that nobody has: zeros stand for it
TEXTS = 16 * COLUMN_CHUNK  # texts that are decoded at once


def open_store(where: str | Place, mode: str = "r") -> Store:
    """Open a store to read ("r"), or to write as well ("a": hold `store_lock` for that).

    Args:
        where: a folder, `file:///path`, `s3://bucket/prefix`, or a .zip, which is only read.
        mode: "r" or "a".

    Raises:
        StoreError: it is not there, not a store, damaged, only read, or of a newer format.
        BucketError: the bucket does not answer, or refuses.
    """
    path = place(where)
    if not path.exists():
        raise StoreError(
            f"{path} is not there", hint=f"`nf2vec fit SHAPES --field sdf --store {path}` makes it"
        )
    if not (path / "zarr.json").is_file():
        if (path / COPYING).is_file():
            raise StoreError(
                f"{path} is a copy that was not finished",
                hint=f"`nf2vec copy SOURCE {path}` goes on with it",
            )
        raise StoreError(f"{path} is not a store: it has no zarr.json")
    zarrs, root = open_zarr(path, read_only=mode == "r")
    try:
        group = zarr.open_group(zarrs, path=root, mode="r+" if mode == "a" else "r")
        attributes = dict(group.attrs)
    except (ValueError, KeyError, TypeError, OSError, zarr.errors.BaseZarrError) as error:
        raise StoreError(f"{path} is damaged: its metadata cannot be read: {error}") from error
    if attributes.get("format") != FORMAT:
        raise StoreError(f"{path} is a Zarr folder, but not a store of neural fields")
    version = attributes.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format {version}, this program reads up to {FORMAT_VERSION}",
            hint="`pip install -U nf2vec`",
        )
    store = Store(path, group, attributes)
    if mode == "a":
        sweep(path)
        later.complete(store)
    return store


def sweep(path: Place) -> None:
    """Remove the files that a killed run left half written."""
    for file in leftovers(path):
        file.unlink(missing_ok=True)


class Store:
    """A store that is open. Rows are int64 arrays; columns come whole, in one read."""

    def __init__(self, path: Place, group: zarr.Group, attributes: dict[str, Any]) -> None:
        self.path = path
        self.group = group
        try:
            self.field: str = attributes["field"]
            self.network: dict[str, Any] = attributes["network"]
            self.config: dict[str, Any] = attributes["config"]
            self.codec: str = attributes["codec"]
            self.bits: int = attributes["bits"]
            self.batch: int = attributes["batch"]
            self.init_hash: str = attributes["init_hash"]
            self.format_version: int = attributes["format_version"]
            self.imported: dict[str, str] = attributes.get("imported", {})
            self.init: Floats = np.asarray(self._array("init")[:])
            self.blocks: NDArray[np.int64] = np.asarray(self._array("blocks")[:], np.int64)
        except KeyError as error:
            raise StoreError(f"{path} is damaged: {error} is missing") from error
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        self._weights = {name: self._array(name) for name in ARRAYS[self.codec]}

    @property
    def slots(self) -> int:
        """N: length of every column, empty slots included."""
        return int(self._array("status").shape[0])

    def column(self, name: str) -> Any:
        """Read a column: [N] or [N, width]; a text column as a list of N texts."""
        column = COLUMNS[name]
        if name in LATER and name not in self.group:
            return later.absent(self, column)
        array, slots = self._array(name), self.slots
        try:
            if not column.text:
                return np.asarray(array[:slots])
            # texts are padded: a million of them whole would be a gigabyte
            parts = (
                np.asarray(array[start : min(start + TEXTS, slots)])
                for start in range(0, slots, TEXTS)
            )
            return [text for part in parts for text in decode_text(part)]
        except (OSError, ValueError, RuntimeError) as error:
            raise self._damaged(f"column {name!r}", error) from error

    def rows(self, status: int | None = None) -> Rows:
        """List the rows of objects: all, or those of one status."""
        found = self.column("status")
        return np.flatnonzero(found == status if status is not None else found != Status.EMPTY)

    def find(self, ids: Sequence[str]) -> Rows:
        """Find rows by id, or by the last part of an id where only one object has it.

        Raises:
            StoreError: there is no such object, or several.
        """
        names, wanted_ids = self.column("id"), set(ids)
        exact = {names[row]: int(row) for row in self.rows() if names[row] in wanted_ids}
        if len(exact) == len(wanted_ids):
            return np.array([exact[name] for name in ids], np.int64)
        rows = {names[row]: int(row) for row in self.rows()}
        short: dict[str, list[str]] = {}
        for name in rows:
            short.setdefault(name.rpartition("/")[2], []).append(name)
        found = []
        for wanted in ids:
            same = [wanted] if wanted in rows else short.get(wanted, [])
            hint = f"`nf2vec info {self.path} --objects` lists all ids"
            if len(same) > 1:
                raise StoreError(f"{wanted!r} may be {' or '.join(sorted(same)[:3])}", hint=hint)
            if not same:
                near = difflib.get_close_matches(wanted, [*rows, *short], n=3, cutoff=0.5)
                hint = f"did you mean {', '.join(near)}? {hint}" if near else hint
                raise StoreError(f"{self.path} has no object {wanted!r}", hint=hint)
            found.append(rows[same[0]])
        return np.array(found, np.int64)

    def register(self, entries: Sequence[Entry]) -> Rows:
        """Give new objects a row each, as pending, from the next shard on.

        Whole shards are used, so that adding objects never rewrites a shard of weights.
        """
        if not entries:
            return np.empty(0, np.int64)
        first = -(-self.slots // self.batch) * self.batch
        count = -(-len(entries) // self.batch) * self.batch
        rows = np.arange(first, first + len(entries))
        known = {
            "id": [entry.id for entry in entries],
            "source": [entry.source for entry in entries],
            "class": [entry.class_name for entry in entries],
            "split": [entry.split for entry in entries],
            "parent": [entry.parent or entry.id for entry in entries],
            "copy": [entry.copy for entry in entries],
        }
        # encoded before anything grows: a name that does not fit must change nothing
        encoded = {name: self.encoded(name, values) for name, values in known.items()}
        names = (*(name for name in BESIDE if name in self.group), *COLUMNS)
        others = [self._array(name) for name in names if name != "status"]
        for array in (*self._weights.values(), *others):
            array.resize((first + count, *array.shape[1:]))
        for name, values in encoded.items():
            self._array(name)[first : first + len(entries)] = values
        status = self._array("status")
        status.resize((first + count,))
        status[first : first + len(entries)] = np.uint8(Status.PENDING)
        return rows

    def update(self, rows: Iterable[int], **columns: Any) -> None:
        """Set columns of some rows: one value a row, under each column's name."""
        index = np.asarray(list(rows), np.int64)
        if not len(index):
            return
        low, high = int(index.min()), int(index.max()) + 1
        for name, values in columns.items():
            array = self._array(name)
            part = np.asarray(array[low:high])
            part[index - low] = self.encoded(name, values)
            array[low:high] = part

    def commit(
        self,
        rows: Iterable[int],
        weights: Floats,
        *,
        surface: Floats | None = None,
        beside: Mapping[str, NDArray[Any]] | None = None,
        **columns: Any,
    ) -> None:
        """Store fields [B, P] with their columns; they count as done when all of it is on the disk.

        The weights go first and the status last, each synced, so that a run that is killed at any
        instant leaves a row either done and whole, or to be done again. `surface`: points on each
        object's surface in unit space, [B, SURFACE_POINTS, 3]. `beside`: rows of the arrays that a
        store of radiance has besides, as `store.radiance` packs them.
        """
        index = np.asarray(list(rows), np.int64)
        stored = encode(
            np.asarray(weights, np.float32), self.init, self.blocks, self.codec, self.bits
        )
        arrays = dict(stored.arrays) | dict(beside or {})
        if surface is not None:
            arrays[SURFACE] = np.rint(surface.reshape(len(index), -1) * SURFACE_UNIT).astype("i2")
        for shard in np.unique(index // self.batch):
            part = np.flatnonzero(index // self.batch == shard)
            self._write_shard(int(shard), index[part], {k: a[part] for k, a in arrays.items()})
        self.update(index, digest=digests(stored), **columns)
        self.update(index, status=[Status.DONE] * len(index))

    def fail(self, rows: Iterable[int], messages: Sequence[str]) -> None:
        """Mark objects as failed, each with its reason."""
        index = list(rows)
        self.update(index, message=messages)
        self.update(index, status=[Status.FAILED] * len(index))

    def weights(self, rows: Iterable[int]) -> Floats:
        """Read fields [B, P], float32.

        Raises:
            StoreError: a row's bytes are damaged.
        """
        index = list(rows)
        if not index:
            return np.empty((0, len(self.init)), np.float32)
        return decode(self.stored(index), self.init, self.blocks)

    def stored(self, rows: Iterable[int]) -> Encoded:
        """Read rows as they are stored."""
        index = [int(row) for row in rows]
        try:
            return Encoded({name: _rows_of(a, index) for name, a in self._weights.items()})
        except (OSError, ValueError, RuntimeError) as error:
            raise self._damaged("weights", error) from error

    def surface(self, rows: Iterable[int]) -> Floats:
        """Read points on the objects' surfaces: [B, SURFACE_POINTS, 3] in unit space, float32.

        A row of zeros: none are known, as in stores that were made before they were kept.
        """
        index = [int(row) for row in rows]
        if SURFACE not in self.group or not index:
            return np.zeros((len(index), SURFACE_POINTS, 3), np.float32)
        try:
            points = _rows_of(self._array(SURFACE), index)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._damaged(SURFACE, error) from error
        scaled: Floats = points.astype(np.float32) / np.float32(SURFACE_UNIT)
        return scaled.reshape(-1, SURFACE_POINTS, 3)

    def packed(self, name: str, rows: Iterable[int]) -> NDArray[Any]:
        """Read rows of an array that is kept beside the weights, as it is stored: [B, width].

        Raises:
            StoreError: the store has no such array, or it is damaged.
        """
        index = [int(row) for row in rows]
        if name not in self.group:
            raise StoreError(f"{self.path} keeps no {name}: it holds {self.field} fields")
        array = self._array(name)
        if not index:
            return np.empty((0, array.shape[1]), array.dtype)
        try:
            return _rows_of(array, index)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._damaged(name, error) from error

    def record_run(self, kind: str, **facts: Any) -> str:
        """Keep a run's config, summary and versions; returns its name."""
        return runs.record(self.group, kind, **facts)

    def runs(self) -> list[dict[str, Any]]:
        """Read all runs, the oldest first."""
        return runs.listed(self.group)

    def storage(self) -> dict[str, int]:
        """Count the bytes on disk of each array, and of the rest as "metadata"."""
        counted: dict[str, int] = {}
        for key, size in sizes(self.path):
            place, _, name = key.rpartition("/")
            kind = place.partition("/")[0] if place and name != "zarr.json" else "metadata"
            counted[kind] = counted.get(kind, 0) + size
        return counted

    def _write_shard(self, shard: int, rows: Rows, arrays: dict[str, NDArray[Any]]) -> None:
        first = shard * self.batch
        for name, values in arrays.items():
            array = self._array(name)
            whole = np.zeros((self.batch, array.shape[1]), array.dtype)
            if len(rows) < self.batch:
                whole[:] = self._kept(array, first)
            whole[rows - first] = values
            array[first : first + self.batch] = whole

    def _kept(self, array: zarr.Array[Any], first: int) -> NDArray[Any]:
        """Read a shard that is to be written again; rows that are not done need not be readable."""
        try:
            return np.asarray(array[first : first + self.batch])
        except (OSError, ValueError, RuntimeError):
            done = set(self.rows(Status.DONE).tolist())
            kept = np.zeros((self.batch, array.shape[1]), array.dtype)
            for slot in range(self.batch):
                if first + slot in done:
                    kept[slot] = array[first + slot]
            return kept

    def _array(self, name: str) -> zarr.Array[Any]:
        found = self.group[name]
        if not isinstance(found, zarr.Array):
            raise KeyError(name)
        return found

    def encoded(self, name: str, values: Any) -> NDArray[Any]:
        """Turn a column's values into what its array holds."""
        column = COLUMNS[name]
        if column.text:
            return encode_text(name, values, column.width)
        if column.dtype == "uint8" and column.width > 1:
            rows = [np.frombuffer(v, np.uint8) if isinstance(v, bytes) else v for v in values]
            return np.asarray(rows, np.uint8)
        return np.asarray(values).astype(column.dtype)

    def _damaged(self, what: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self.path} is damaged: {what} cannot be read: {error}",
            hint=f"`nf2vec check {self.path} --repair`",
        )


def _rows_of(array: zarr.Array[Any], rows: list[int]) -> NDArray[Any]:
    """Read rows: a run of them in one go, others one by one, never by zarr's fancy indexing."""
    if len(rows) > 1 and rows == list(range(rows[0], rows[0] + len(rows))):
        return np.asarray(array[rows[0] : rows[-1] + 1])
    return np.stack([np.asarray(array[row]) for row in rows])
