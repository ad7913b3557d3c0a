"""A store of neural fields: Zarr arrays with one row an object. Format: docs/store-format.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.errors import StoreError
from nf2vec_cli.store import later, lock, names, runs
from nf2vec_cli.store.blocks import Rows, ahead, grouped, rows_of, spans, taken, together
from nf2vec_cli.store.codec import ARRAYS, Encoded, Floats, decode, digests, encode
from nf2vec_cli.store.create import refuse_unfinished
from nf2vec_cli.store.damage import (
    ERRORS,
    damage,
    has,
    require_attributes,
    require_init,
    sound_array,
    told,
)
from nf2vec_cli.store.durable import sweep
from nf2vec_cli.store.place import Place, open_zarr, place, sizes
from nf2vec_cli.store.schema import (
    BESIDE,
    COLUMN_CHUNK,
    COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    LATER,
    SURFACE,
    SURFACE_UNIT,
    Entry,
    Status,
)
from nf2vec_cli.store.shards import write_batch
from nf2vec_cli.store.text import decode_text, encode_text, refuse_long

UNKNOWN_INIT = "unknown"  # what `imported` says of an init that nobody has: zeros stand for it


def open_store(where: str | Place, mode: str = "r", *, verify: bool = True) -> Store:
    """Open a store to read ("r"), or to write as well ("a": hold `store_lock` for that).

    Args:
        where: a folder, `file:///path`, `s3://bucket/prefix`, or a .zip, which is only read.
        mode: "r" or "a".
        verify: whether init and network are compared with their hash, without which no field can
            be read; `check` looks for itself.

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
        refuse_unfinished(path)
        raise StoreError(f"{path} is not a store: it has no zarr.json")
    zarrs, root = open_zarr(path, read_only=mode == "r")
    try:
        group = zarr.open_group(zarrs, path=root, mode="r+" if mode == "a" else "r", zarr_format=3)
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

    def __init__(self, path: Place, group: zarr.Group, attributes: dict[str, Any]) -> None:
        self.path = path
        self.group = group
        self._looked_at: set[str] = set()
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
            self.init: Floats = np.asarray(self.array("init")[:])
            self.blocks: NDArray[np.int64] = np.asarray(self.array("blocks")[:], np.int64)
        except KeyError as error:
            raise StoreError(f"{path} is damaged: {error} is missing") from error
        except ERRORS as error:
            raise told(path, "its init", error) from error
        self._weights = {name: self.array(name) for name in ARRAYS[self.codec]}

    @property
    def slots(self) -> int:
        """N: length of every column, empty slots included."""
        return int(self.array("status").shape[0])

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
                found = self._picked(self.array(name), index)
                return decode_text(found) if column.text else found
            if not column.text:
                slots = self.slots  # before the array: see `sections`
                return np.asarray(self.array(name)[:slots])
            # texts are padded: a million of them whole would be a gigabyte
            return [text for _, (part,) in self.sections(name) for text in decode_text(part)]
        except ERRORS as error:
            raise self.damaged(f"column {name!r}", error) from error

    def sections(self, *names: str) -> Iterator[tuple[int, list[NDArray[Any]]]]:
        """Yield columns as they are stored, some megabytes at a time, and the first row of each.

        The next part is read while one is worked on.
        """
        slots = self.slots  # first: a run that adds rows lengthens `status` last
        arrays = [self.array(name) for name in names]
        wide = max((COLUMNS[name] for name in names), key=lambda column: column.width)

        def read(span: tuple[int, int]) -> tuple[int, list[NDArray[Any]]]:
            start, end = span
            try:
                return start, [np.asarray(array[start:end]) for array in arrays]
            except ERRORS as error:
                raise self.damaged(f"column {' or '.join(names)}", error) from error

        yield from ahead(read, spans(slots, wide))

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
        return names.find(self, ids)

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
        held = (*(name for name in BESIDE if has(self, name)), *COLUMNS)
        others = [self.array(name) for name in held if name != "status"]
        together(
            lambda array: array.resize((first + count, *array.shape[1:])),
            [*self._weights.values(), *others],
        )
        self.update(rows, **{name: [of(entry) for entry in entries] for name, of in KNOWN.items()})
        self.array("status").resize((first + count,))
        self.update(rows, status=np.full(len(rows), Status.PENDING))
        return rows

    def update(self, rows: Iterable[int], **columns: Any) -> None:
        """Set columns of some rows: one value a row, under each column's name.

        Chunk by chunk: what is read and written follows the rows, not where they lie.
        """
        index = np.asarray(list(rows), np.int64)
        parts = grouped(index, COLUMN_CHUNK)

        def write(name: str) -> None:
            array, values = self.array(name), columns[name]
            for at in parts:
                new = self.encoded(name, taken(values, at))
                low, high = int(index[at].min()), int(index[at].max()) + 1
                if not np.array_equal(index[at], np.arange(low, high)):
                    part = np.asarray(array[low:high])
                    part[index[at] - low] = new
                    new = part
                array[low:high] = new

        together(write, columns)

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
            write_batch(self, index[at], {name: part[at] for name, part in arrays.items()})
        self.update(index, digest=digests(stored), **columns)
        self.update(index, status=[Status.DONE] * len(index))

    def reopen(self, rows: Iterable[int]) -> None:
        """Count rows as pending while they are written anew: half of it must not count as done."""
        index = np.asarray(list(rows), np.int64)
        if not len(index):
            return
        low, high = int(index.min()), int(index.max()) + 1
        status = np.asarray(self.array("status")[low:high])
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
            self._weights = {name: self.array(name) for name in self._weights}
        try:
            return Encoded({name: rows_of(a, index) for name, a in self._weights.items()})
        except ERRORS as error:
            raise self.damaged("weights", error) from error

    def surface(self, rows: Iterable[int]) -> Floats:
        """Read points on the objects' surfaces: [B, SURFACE_POINTS, 3] in unit space, float32.

        A row of zeros: none are known, as in stores that were made before they were kept.
        """
        index = [int(row) for row in rows]
        if not has(self, SURFACE) or not index:
            return np.zeros((len(index), SURFACE_POINTS, 3), np.float32)
        try:
            points = rows_of(self.array(SURFACE), index)
        except ERRORS as error:
            raise self.damaged(SURFACE, error) from error
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
        array = self.array(name)
        if not index:
            return np.empty((0, array.shape[1]), array.dtype)
        try:
            return rows_of(array, index)
        except ERRORS as error:
            raise self.damaged(name, error) from error

    def record_run(self, kind: str, **facts: Any) -> str:
        """Keep a run's config, summary and versions; returns its name."""
        return runs.record(self.group, kind, **facts)

    def runs(self) -> list[dict[str, Any]]:
        """Read all runs, the oldest first."""
        with damage(self.path, "its record of runs"):
            return runs.listed(self.group)

    def storage(self) -> dict[str, int]:
        """Count the bytes on disk of each array, and of the rest as "metadata"."""
        counted: dict[str, int] = {}
        for name, size in self.files():
            array, _, inside = name.partition("/")
            key = "metadata" if not inside or inside.endswith("zarr.json") else array
            counted[key] = counted.get(key, 0) + size
        return counted

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield the files or objects, by their path in the store, and their bytes."""
        return sizes(self.path)

    def array(self, name: str) -> zarr.Array[Any]:
        """Open an array anew, since other runs may lengthen it; its form is looked at once."""
        if name not in self._looked_at:
            found = sound_array(self, name)
            self._looked_at.add(name)
            return found
        with damage(self.path, f"array {name!r}"):
            again = self.group[name]
        if not isinstance(again, zarr.Array):
            raise StoreError(f"{self.path} is damaged: {name!r} is no array")
        return again

    def encoded(self, name: str, values: Any) -> NDArray[Any]:
        """Turn a column's values into what its array holds."""
        column = COLUMNS[name]
        if column.text:
            return encode_text(name, values, column.width)
        if column.dtype == "uint8" and column.width > 1 and not isinstance(values, np.ndarray):
            rows = [np.frombuffer(v, np.uint8) if isinstance(v, bytes) else v for v in values]
            return np.asarray(rows, np.uint8)
        return np.asarray(values).astype(column.dtype)

    def damaged(self, what: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self.path} is damaged: {what} cannot be read: {error}",
            hint=f"`nf2vec check {self.path} --repair`",
        )
