"""What training leaves in a store: encoders, checkpoints and embeddings, each under its key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from safetensors.numpy import load, save
from zarr.codecs import Crc32cCodec, ZstdCodec

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.blocks import Rows, ahead, grouped
from nf2vec_cli.store.codec import ZSTD_LEVEL, Floats
from nf2vec_cli.store.damage import ERRORS, ROWS, damage, small
from nf2vec_cli.store.durable import uninterrupted
from nf2vec_cli.store.runs import names
from nf2vec_cli.store.schema import COLUMN_CHUNK, Status
from nf2vec_cli.store.store import Store

ENCODERS, CHECKPOINTS, EMBEDDINGS, HEADS = "encoders", "checkpoints", "embeddings", "heads"
STATE = "state"
# what trains again what is kept in each place
TRAINERS = {
    f"{HEADS}/classify": "classify {store}",
    f"{HEADS}/segment": "segment {store} --parts DIR",
    f"{HEADS}/generate": "generate {store} --class CLASS --out NEW.zarr",
    f"{HEADS}/map": "map {store} B.zarr",
}
CHUNK = 8 << 20  # bytes of a chunk of a state
EMBEDDED = 1024  # rows of a chunk of embeddings
DIGEST = 16  # bytes of a field's digest
LARGEST, WIDEST = 8 << 30, 1 << 16  # bytes of a state; numbers of an embedding
BLOCK = 32 << 20  # bytes of embeddings that are read at once


@uninterrupted()
def save_state(
    store: Store, place: str, key: str, state: Mapping[str, NDArray[Any]], **facts: Any
) -> None:
    """Keep named arrays and facts as a group.

    The arrays are one array of bytes in the safetensors format: a checkpoint is written often, and
    a hundred small arrays would take seconds. The group's attributes come last, so half a group is
    none.
    """
    order = 1 + max((rank for rank, _ in _ranked(store, place)), default=(0, ""))[0]
    made = store.group.require_group(place).create_group(key, overwrite=True)
    blob = np.frombuffer(save({name: np.ascontiguousarray(a) for name, a in state.items()}), "u1")
    array = made.create_array(
        STATE,
        shape=blob.shape,
        dtype="uint8",
        chunks=(min(len(blob), CHUNK),),
        compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
        filters=(),
    )
    array[...] = blob
    made.update_attributes({**facts, "order": order, "complete": True})


def remade_by(store: Store, place: str) -> str:
    """Give the hint that tells how to train again what is kept in a place."""
    line = TRAINERS.get(place, "train {store}").format(store=store.path)
    return f"`nf2vec {line} --force` trains from the start"


def load_state(
    store: Store, place: str, key: str, *, owner: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_state` kept: arrays by name, and the facts.

    owner: the place that a checkpoint is to end in.

    Raises:
        StoreError: it is not there, or damaged.
    """
    try:
        group = store.group[f"{place}/{key}"]
        if not isinstance(group, zarr.Group) or not group.attrs.get("complete"):
            raise KeyError(key)
        arrays = load(_bytes(group))
    except KeyError as error:
        what = place.partition("/")[0].removesuffix("s")
        raise StoreError(f"{store.path} has no {what} {key!r}") from error
    except ERRORS as error:
        raise StoreError(
            f"{store.path} is damaged: {place}/{key} cannot be read: {error}",
            hint=remade_by(store, owner or place),
        ) from error
    facts = dict(group.attrs)
    facts.pop("order", None)  # its place in this store, and nobody else's
    return arrays, facts


def _bytes(group: zarr.Group) -> bytes:
    array: Any = group[STATE]
    if array.dtype != np.uint8 or array.ndim != 1 or array.size > LARGEST or not small(array):
        raise ValueError(f"{STATE} is {array.dtype} {array.shape} in chunks of {array.chunks}")
    return np.asarray(array[...]).tobytes()


def keys(store: Store, place: str) -> list[str]:
    """List what is kept whole, the oldest first."""
    return [name for _, name in sorted(_ranked(store, place))]


def _ranked(store: Store, place: str) -> list[tuple[tuple[int, str], str]]:
    """List what is kept whole, each with its rank: number, or time where it has none.

    Times alone would not do: a clock that was put back would make the newest encoder an old one.
    """
    with damage(store.path, place):
        group = store.group.get(place)
        made_here = names(group) if isinstance(group, zarr.Group) else []
    whole = []
    for name in made_here:
        with damage(store.path, f"{place}/{name}"):
            made = store.group.get(f"{place}/{name}")
            if isinstance(made, zarr.Group) and made.attrs.get("complete"):
                order: Any = made.attrs.get("order", 0)
                whole.append(((int(order), str(made.attrs.get("ended", ""))), name))
    return whole


def save_checkpoint(
    store: Store, key: str, state: Mapping[str, NDArray[Any]], *, step: int, **facts: Any
) -> None:
    """Keep a run's state, and forget its earlier ones when it is there: a kill leaves one whole."""
    name = f"{key}-{step}"
    save_state(store, CHECKPOINTS, name, state, step=step, **facts)
    remove_checkpoints(store, key, but=name)


def newest_checkpoint(store: Store, key: str) -> str | None:
    """Name the state that a run got furthest in, to `load_state` from `CHECKPOINTS`."""
    found = [name for name in keys(store, CHECKPOINTS) if name.startswith(f"{key}-")]
    return max(found, key=lambda name: int(name.rpartition("-")[2]), default=None)


def remove_checkpoints(store: Store, key: str, *, but: str = "") -> None:
    """Forget a run's states, whole or half written."""
    group = store.group.get(CHECKPOINTS)
    if isinstance(group, zarr.Group):
        with damage(store.path, CHECKPOINTS):
            found = names(group)
        for name in found:
            if name.startswith(f"{key}-") and name != but:
                del group[name]


class Embeddings:
    """Embeddings of a store's objects by one encoder: values [N, E], and what each was made of."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        remade = f"`nf2vec encode {store.path} --force` makes them again"
        with damage(store.path, f"{EMBEDDINGS}/{key}", remade):
            group = store.group.get(f"{EMBEDDINGS}/{key}")
            whole = isinstance(group, zarr.Group) and "values" in group and "digest" in group
        if not isinstance(group, zarr.Group) or not whole:
            by = f" --encoder {key}" if f"{ENCODERS}/{key}" in store.group else ""
            raise StoreError(
                f"{store.path} has no embeddings {key!r}",
                hint=f"run `nf2vec encode {store.path}{by}` first",
            )
        with damage(store.path, f"{EMBEDDINGS}/{key}", remade):
            # in this order: a run that adds rows lengthens the digests last
            self._digest: Any = group["digest"]
            self._values: Any = group["values"]
            _require_form(self._values, "float32", None)
            _require_form(self._digest, "uint8", DIGEST)

    @classmethod
    def open_or_make(cls, store: Store, key: str, size: int) -> Embeddings:
        """Open the embeddings of an encoder, with a slot for each row."""
        group = store.group.require_group(f"{EMBEDDINGS}/{key}")
        for name, rows, width, dtype in (
            ("values", max(store.batch, EMBEDDED), size, "float32"),
            ("digest", COLUMN_CHUNK, DIGEST, "uint8"),  # always read whole
        ):
            if name not in group:
                group.create_array(
                    name,
                    shape=(0, width),
                    dtype=dtype,
                    chunks=(rows, width),
                    compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
                    filters=(),
                    fill_value=0,
                )
        opened = cls(store, key)
        for array in (opened._values, opened._digest):
            if array.shape[0] < store.slots:
                array.resize((store.slots, array.shape[1]))
        return opened

    def current(self) -> Rows:
        """List the rows whose embedding is of the field that the store holds now, or is all."""
        return self.compared()[0]

    def stale(self) -> Rows:
        """List the rows whose embedding is of another field than the store holds now."""
        return self.compared()[1]

    def compared(self) -> tuple[Rows, Rows]:
        """Give the rows that are current and those that are stale, by their fields' digests."""
        status = self.store.column("status")
        whole = (status == Status.DONE) | (status == Status.EMBEDDED)
        held = np.zeros((len(status), DIGEST), np.uint8)
        with damage(self.store.path, f"{EMBEDDINGS}/{self.key}"):
            kept = np.asarray(self._digest[: len(status)])
        held[: len(kept)] = kept
        same = (held == self.store.column("digest")[: len(status)]).all(1)
        return np.flatnonzero(whole & same), np.flatnonzero(whole & ~same & held.any(1))

    @uninterrupted()
    def write(
        self, rows: Iterable[int], values: Floats, digest: NDArray[np.uint8] | None = None
    ) -> None:
        """Keep embeddings [B, E] of rows; they count when their fields' digests are written.

        digest: [B, 16] of the fields that were embedded; None: of those that the store holds now.
        """
        index = np.asarray(list(rows), np.int64)
        if digest is None:
            digest = self.store.column("digest", index)
        for array, part in ((self._values, values), (self._digest, digest)):
            for at in grouped(index, int(array.chunks[0])):
                low, high = int(index[at].min()), int(index[at].max()) + 1
                whole = np.asarray(array[low:high])
                whole[index[at] - low] = part[at]
                array[low:high] = whole

    def write_alone(self, rows: Iterable[int], values: Floats, **columns: Any) -> None:
        """Keep embeddings [B, E] of rows that have no field: the row's digest is the embedding's.

        They count when the status is written, last: none of these rows is ever taken for a field.
        """
        index = np.asarray(list(rows), np.int64)
        self.store.update(index, digest=own_digests(values), **columns)
        self.write(index, values)
        self.store.update(index, status=[Status.EMBEDDED] * len(index))

    @property
    def size(self) -> int:
        """E: numbers of an embedding."""
        return int(self._values.shape[1])

    def read(self, rows: Iterable[int]) -> Floats:
        """Read embeddings [B, E] of rows that are current, in their order; only their chunks."""
        index = np.asarray(list(rows), np.int64)
        found = np.empty((len(index), self.size), np.float32)
        for at in grouped(index, int(self._values.chunks[0])):
            low, high = int(index[at].min()), int(index[at].max()) + 1
            found[at] = self._part(low, high)[index[at] - low]
        return found

    def blocks(self, rows: Rows, *, size: int = BLOCK) -> Iterator[tuple[Rows, Floats]]:
        """Yield rows that are current, rising, and their embeddings, about `size` bytes at a time.

        The next block is read while the caller is at work on one.
        """
        rows = np.unique(np.asarray(rows, np.int64))
        chunk = int(self._values.chunks[0])
        span = max(1, size // (4 * self.size * chunk)) * chunk

        def read(place: int) -> tuple[Rows, Floats]:
            first = place * span
            here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + span)]
            low, high = int(here[0]), int(here[-1]) + 1
            part = self._part(low, high)
            return here, part if len(part) == len(here) else part[here - low]

        yield from ahead(read, np.unique(rows // span).tolist())

    def _part(self, low: int, high: int) -> Floats:
        try:
            return np.asarray(self._values[low:high])
        except ERRORS as error:
            raise StoreError(
                f"{self.store.path} is damaged: {EMBEDDINGS}/{self.key} cannot be read: {error}",
                hint=f"`nf2vec encode {self.store.path} --force` makes them again",
            ) from error


def _require_form(array: Any, dtype: str, width: int | None) -> None:
    """See that an array of embeddings or digests is one, and is no larger than it can be."""
    fits = array.ndim == 2 and array.dtype == dtype and 0 < array.shape[1] <= WIDEST
    if not fits or array.shape[0] > ROWS or width not in (None, array.shape[1]) or not small(array):
        raise ValueError(f"it is {array.dtype} {array.shape} in chunks of {array.chunks}")


def own_digests(values: Floats) -> NDArray[np.uint8]:  # [B, E] -> [B, 16]
    """Name embeddings by 16 bytes of the SHA-256 of their numbers, little endian."""
    names = [sha256(np.asarray(row, "<f4").tobytes()).digest()[:DIGEST] for row in values]
    return np.frombuffer(b"".join(names), np.uint8).reshape(-1, DIGEST)
