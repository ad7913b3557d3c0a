"""A store of neural fields: Zarr arrays with one row an object. Format: docs/store-format.md."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.errors import StoreError
from nf2vec_cli.store import later, lock, runs
from nf2vec_cli.store.codec import ARRAYS, Encoded, Floats, decode, digests, encode
from nf2vec_cli.store.damage import (
    ERRORS,
    damage,
    has,
    require_attributes,
    require_init,
    sound_array,
    told,
)
from nf2vec_cli.store.durable import PARTIAL, DurableStore, disk_faults
from nf2vec_cli.store.schema import (
    BESIDE,
    COLUMN_CHUNK,
    COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    LATER,
    SURFACE,
    SURFACE_UNIT,
    Column,
    Entry,
    Status,
)
from nf2vec_cli.store.text import decode_text, encode_text, refuse_long

Rows = NDArray[np.int64]
UNKNOWN_INIT = "unknown"  # what `imported` says of an init that nobody has: zeros stand for it
PART = 16 << 20  # bytes of a column that are read at once
WRITERS = 8  # arrays that are written at once: most of it is waiting for the disk
NEAR = 20_000  # ids that a name which is not there is compared with


def open_store(path: str | Path, mode: str = "r", *, verify: bool = True) -> Store:
    """Open a store to read ("r"), or to write as well ("a": hold `store_lock` for that).

    verify: whether init and network are compared with their hash, without which no field can be
    read; `check` looks for itself.

    Raises:
        StoreError: it is not there, not a store, damaged, or of a newer format.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(
            f"{path} is not there", hint=f"`nf2vec fit SHAPES --field sdf --store {path}` makes it"
        )
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} is not a store: it has no zarr.json")
    try:
        group = zarr.open_group(
            DurableStore(path, read_only=mode == "r"),
            mode="r+" if mode == "a" else "r",
            zarr_format=3,
        )
        attributes = dict(group.attrs)
    except ERRORS as error:
        raise told(path, "its metadata", error) from error
    if attributes.get("format") != FORMAT:
        raise StoreError(f"{path} is a Zarr folder, but not a store of neural fields")
    version = attributes.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise StoreError(
            f"{path} has format {version}, this program reads up to {FORMAT_VERSION}",
            hint="`pip install -U nf2vec`",
        )
    require_attributes(path, attributes)
    store = Store(path, group, attributes)
    if verify:
        require_init(store)
    if mode == "a":
        if lock.after_crash(path):  # a walk over all files, which no append to a large store needs
            sweep(path)
        later.complete(store)
    return store


def leftovers(path: Path) -> list[Path]:
    """Find the files that a killed run left half written, and the folders half removed."""
    found: list[Path] = []
    for where, folders, names in os.walk(path):
        found += [Path(where, name) for name in (*folders, *names) if name.endswith(PARTIAL)]
        folders[:] = [name for name in folders if not name.endswith(PARTIAL)]
    return sorted(found)


def sweep(path: Path) -> None:
    """Remove what a killed run left half written or half removed."""
    for part in leftovers(path):
        with disk_faults(part, "removed"):
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)


# what is known of an object when it is registered
KNOWN: dict[str, Callable[[Entry], Any]] = {
    "id": lambda entry: entry.id,
    "source": lambda entry: entry.source,
    "class": lambda entry: entry.class_name,
    "split": lambda entry: entry.split,
    "parent": lambda entry: entry.parent or entry.id,
    "copy": lambda entry: entry.copy,
}


class Store:
    """A store that is open. Rows are int64 arrays; columns come whole, in one read."""

    def __init__(self, path: Path, group: zarr.Group, attributes: dict[str, Any]) -> None:
        self.path = path
        self.group = group
        try:
            self.field: str = attributes["field"]
            self.network: dict[str, Any] = attributes["network"]
            self.config: dict[str, Any] = attributes["config"]
            self.codec: str = attributes["codec"]
            self.bits: int = attributes["bits"]
            self.batch: int = attributes["batch"]
            self.shard_length: int = attributes.get("shard_length", self.batch)
            self.init_hash: str = attributes["init_hash"]
            self.format_version: int = attributes["format_version"]
            self.imported: dict[str, str] = attributes.get("imported", {})
            self.init: Floats = np.asarray(self._array("init")[:])
            self.blocks: NDArray[np.int64] = np.asarray(self._array("blocks")[:], np.int64)
        except KeyError as error:
            raise StoreError(f"{path} is damaged: {error} is missing") from error
        except ERRORS as error:
            raise told(path, "its init", error) from error
        self._weights = {name: self._array(name) for name in ARRAYS[self.codec]}

    @property
    def slots(self) -> int:
        """N: length of every column, empty slots included."""
        return int(self._array("status").shape[0])

    @property
    def next_row(self) -> int:
        """The row of the next new object: new ones begin a shard."""
        return -(-self.slots // self.shard_length) * self.shard_length

    def column(self, name: str, rows: Iterable[int] | None = None) -> Any:
        """Read a column: [N] or [N, width]; a text column as a list of N texts.

        rows: of these rows only, in their order; only their chunks are read.
        """
        column = COLUMNS[name]
        index = None if rows is None else np.asarray(list(rows), np.int64)
        if name in LATER and not has(self, name):
            whole = later.absent(self, column)
            if index is None:
                return whole
            return [whole[row] for row in index] if column.text else whole[index]
        try:
            if index is not None:
                found = self._picked(self._array(name), index)
                return decode_text(found) if column.text else found
            if not column.text:
                return np.asarray(self._array(name)[: self.slots])
            # texts are padded: a million of them whole would be a gigabyte
            return [text for _, (part,) in self.sections(name) for text in decode_text(part)]
        except ERRORS as error:
            raise self._damaged(f"column {name!r}", error) from error

    def sections(self, *names: str) -> Iterator[tuple[int, list[NDArray[Any]]]]:
        """Yield columns as they are stored, some megabytes at a time, and the first row of each."""
        arrays = [self._array(name) for name in names]
        wide = max((COLUMNS[name] for name in names), key=lambda column: column.width)
        for start, end in spans(self.slots, wide):
            try:
                yield start, [np.asarray(array[start:end]) for array in arrays]
            except ERRORS as error:
                raise self._damaged(f"column {' or '.join(names)}", error) from error

    def _picked(self, array: zarr.Array[Any], index: Rows) -> NDArray[Any]:
        found = np.empty((len(index), *array.shape[1:]), array.dtype)
        for at in grouped(index, COLUMN_CHUNK):
            low, high = int(index[at].min()), int(index[at].max()) + 1
            found[at] = np.asarray(array[low:high])[index[at] - low]
        return found

    def rows(self, status: int | None = None) -> Rows:
        """List the rows of objects: all, or those of one status."""
        found = self.column("status")
        return np.flatnonzero(found == status if status is not None else found != Status.EMPTY)

    def find(self, ids: Sequence[str]) -> Rows:
        """Find rows by id, or by the last part of an id where only one object has it.

        Raises:
            StoreError: there is no such object, or several.
        """
        there = self.column("status") != Status.EMPTY
        exact = self._named(set(ids), there)
        missing = set(ids) - set(exact)
        short = self._named(missing, there, key=_last_part) if missing else {}
        found = []
        for wanted in ids:
            same = exact.get(wanted) or short.get(wanted, [])
            hint = f"`nf2vec info {self.path} --objects` lists all ids"
            names = self.column("id", same[:3]) if len(same) > 1 and wanted in short else []
            if names:
                raise StoreError(f"{wanted!r} may be {' or '.join(sorted(names))}", hint=hint)
            if not same:
                known = self.column("id", np.flatnonzero(there)[:NEAR])
                known = dict.fromkeys([*known, *map(_last_part, known)])
                near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
                hint = f"did you mean {', '.join(near)}? {hint}" if near else hint
                raise StoreError(f"{self.path} has no object {wanted!r}", hint=hint)
            found.append(same[-1])
        return np.array(found, np.int64)

    def _named(
        self, names: set[str], there: NDArray[np.bool_], key: Callable[[str], str] = str
    ) -> dict[str, list[int]]:
        """Find the rows of names, all of a name, without keeping the names of all rows."""
        found: dict[str, list[int]] = {}
        for start, (part,) in self.sections("id"):
            for row, name in enumerate(map(key, decode_text(part)), start):
                if name in names and there[row]:
                    found.setdefault(name, []).append(row)
        return found

    def register(self, entries: Sequence[Entry]) -> Rows:
        """Give new objects a row each, as pending, from the next shard on.

        Whole shards are used, so that adding objects never rewrites a shard of weights.
        """
        if not entries:
            return np.empty(0, np.int64)
        first = self.next_row
        count = -(-len(entries) // self.shard_length) * self.shard_length
        rows = np.arange(first, first + len(entries))
        # before anything grows: a name that does not fit must change nothing
        for name, of in KNOWN.items():
            refuse_long(name, (of(entry) for entry in entries), COLUMNS[name].width)
        names = (*(name for name in BESIDE if has(self, name)), *COLUMNS)
        others = [self._array(name) for name in names if name != "status"]
        _together(
            lambda array: array.resize((first + count, *array.shape[1:])),
            [*self._weights.values(), *others],
        )
        self.update(rows, **{name: [of(entry) for entry in entries] for name, of in KNOWN.items()})
        self._array("status").resize((first + count,))
        self.update(rows, status=np.full(len(rows), Status.PENDING))
        return rows

    def update(self, rows: Iterable[int], **columns: Any) -> None:
        """Set columns of some rows: one value a row, under each column's name.

        Chunk by chunk: what is read and written follows the rows, not where they lie.
        """
        index = np.asarray(list(rows), np.int64)
        parts = grouped(index, COLUMN_CHUNK)

        def write(name: str) -> None:
            array, values = self._array(name), columns[name]
            for at in parts:
                new = self.encoded(name, _taken(values, at))
                low, high = int(index[at].min()), int(index[at].max()) + 1
                if not np.array_equal(index[at], np.arange(low, high)):
                    part = np.asarray(array[low:high])
                    part[index[at] - low] = new
                    new = part
                array[low:high] = new

        _together(write, columns)

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
        self.reopen(index)
        for at in grouped(index, self.batch):
            self._write_batch(index[at], {name: values[at] for name, values in arrays.items()})
        self.update(index, digest=digests(stored), **columns)
        self.update(index, status=[Status.DONE] * len(index))

    def reopen(self, rows: Iterable[int]) -> None:
        """Count rows as pending while they are written anew: half of it must not count as done."""
        index = np.asarray(list(rows), np.int64)
        if not len(index):
            return
        low, high = int(index.min()), int(index.max()) + 1
        status = np.asarray(self._array("status")[low:high])
        over = index[status[index - low] != Status.PENDING]
        self.update(over, status=[Status.PENDING] * len(over))

    def fail(self, rows: Iterable[int], messages: Sequence[str]) -> None:
        """Mark objects as failed, each with its reason."""
        index = list(rows)
        self.reopen(index)
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
        if max(index, default=-1) >= next(iter(self._weights.values())).shape[0]:
            # another run has added rows since this store was opened
            self._weights = {name: self._array(name) for name in self._weights}
        try:
            return Encoded({name: _rows_of(a, index) for name, a in self._weights.items()})
        except ERRORS as error:
            raise self._damaged("weights", error) from error

    def surface(self, rows: Iterable[int]) -> Floats:
        """Read points on the objects' surfaces: [B, SURFACE_POINTS, 3] in unit space, float32.

        A row of zeros: none are known, as in stores that were made before they were kept.
        """
        index = [int(row) for row in rows]
        if not has(self, SURFACE) or not index:
            return np.zeros((len(index), SURFACE_POINTS, 3), np.float32)
        try:
            points = _rows_of(self._array(SURFACE), index)
        except ERRORS as error:
            raise self._damaged(SURFACE, error) from error
        scaled: Floats = points.astype(np.float32) / np.float32(SURFACE_UNIT)
        return scaled.reshape(-1, SURFACE_POINTS, 3)

    def packed(self, name: str, rows: Iterable[int]) -> NDArray[Any]:
        """Read rows of an array that is kept beside the weights, as it is stored: [B, width].

        Raises:
            StoreError: the store has no such array, or it is damaged.
        """
        index = [int(row) for row in rows]
        if not has(self, name):
            raise StoreError(f"{self.path} keeps no {name}: it holds {self.field} fields")
        array = self._array(name)
        if not index:
            return np.empty((0, array.shape[1]), array.dtype)
        try:
            return _rows_of(array, index)
        except ERRORS as error:
            raise self._damaged(name, error) from error

    def record_run(self, kind: str, **facts: Any) -> str:
        """Keep a run's config, summary and versions; returns its name."""
        return runs.record(self.group, kind, **facts)

    def runs(self) -> list[dict[str, Any]]:
        """Read all runs, the oldest first."""
        with damage(self.path, "its record of runs"):
            return runs.listed(self.group)

    def storage(self) -> dict[str, int]:
        """Count the bytes on disk of each array, and of the rest as "metadata"."""
        sizes: dict[str, int] = {}
        for name, size in self.files():
            array, _, inside = name.partition("/")
            key = "metadata" if not inside or inside.endswith("zarr.json") else array
            sizes[key] = sizes.get(key, 0) + size
        return sizes

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield the files on disk, by their path in the store, and their bytes."""
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(self.path / folder) as inside:
                for entry in inside:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{folder}{entry.name}/")
                    else:
                        yield f"{folder}{entry.name}", entry.stat().st_size

    def _write_batch(self, rows: Rows, arrays: dict[str, NDArray[Any]]) -> None:
        """Write rows of one batch; other batches of its shard are copied as they are."""
        first = int(rows[0]) // self.batch * self.batch

        def write(name: str) -> None:
            array = self._array(name)
            whole = np.zeros((self.batch, array.shape[1]), array.dtype)
            if len(rows) < self.batch:
                whole[:] = self._kept(array, first, self.batch)
            whole[rows - first] = arrays[name]
            try:
                array[first : first + self.batch] = whole
            except (ValueError, RuntimeError):
                self._remake_shard(array, first, whole)

        _together(write, arrays)

    def _remake_shard(self, array: zarr.Array[Any], first: int, batch: NDArray[Any]) -> None:
        """Write a batch into a shard whose index is damaged: zarr would read it to add to it."""
        shard = first // self.shard_length
        start = shard * self.shard_length
        whole = self._kept(array, start, self.shard_length)
        whole[first - start : first - start + len(batch)] = batch
        sync((array.store_path / array.metadata.encode_chunk_key((shard, 0))).delete())
        array[start : start + self.shard_length] = whole

    def _kept(self, array: zarr.Array[Any], first: int, count: int) -> NDArray[Any]:
        """Read rows that are to be written again; those that are not done need not be readable."""
        try:
            return np.asarray(array[first : first + count])
        except (StoreError, *ERRORS):
            done = self.column("status", range(first, first + count)) == Status.DONE
            kept = np.zeros((count, array.shape[1]), array.dtype)
            for slot in np.flatnonzero(done).tolist():
                try:
                    kept[slot] = array[first + slot]
                except ERRORS as error:
                    raise self._damaged(array.basename, error) from error
            return kept

    def _array(self, name: str) -> zarr.Array[Any]:
        return sound_array(self, name)

    def encoded(self, name: str, values: Any) -> NDArray[Any]:
        """Turn a column's values into what its array holds."""
        column = COLUMNS[name]
        if column.text:
            return encode_text(name, values, column.width)
        if column.dtype == "uint8" and column.width > 1 and not isinstance(values, np.ndarray):
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


def spans(slots: int, column: Column) -> Iterator[tuple[int, int]]:
    """Give the runs of whole chunks in which a column is read, some megabytes each."""
    row = np.dtype(column.dtype).itemsize * column.width
    step = max(1, PART // (row * COLUMN_CHUNK)) * COLUMN_CHUNK
    return ((start, min(start + step, slots)) for start in range(0, slots, step))


def grouped(index: Rows, length: int) -> list[Rows]:
    """Split rows [B] by the block of `length` rows that they lie in: places in `index`, in order.

    One pass: to look for each block's rows among all takes minutes for a million.
    """
    blocks = index // length
    order = np.argsort(blocks, kind="stable")
    cuts = np.flatnonzero(np.diff(blocks[order])) + 1
    return np.split(order, cuts) if len(index) else []


def _taken(values: Any, places: Rows) -> Any:
    return values[places] if isinstance(values, np.ndarray) else [values[at] for at in places]


def _together(work: Callable[[Any], None], things: Iterable[Any]) -> None:
    """Do work on several things at once; the first error is raised when all have ended."""
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(work, thing) for thing in things]:
            done.result()


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
