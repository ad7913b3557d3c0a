"""What training leaves in a store: encoders, checkpoints and embeddings, each under its key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from zarr.codecs import Crc32cCodec, ZstdCodec

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.codec import ZSTD_LEVEL, Floats
from nf2vec_cli.store.durable import uninterrupted
from nf2vec_cli.store.runs import names
from nf2vec_cli.store.schema import COLUMN_CHUNK, Status
from nf2vec_cli.store.store import Rows, Store

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
DIGEST = 16  # bytes of a field's digest
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
        arrays = load(np.asarray(group[STATE][...]).tobytes())  # type: ignore[index]
    except KeyError as error:
        what = place.partition("/")[0].removesuffix("s")
        raise StoreError(f"{store.path} has no {what} {key!r}") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise StoreError(
            f"{store.path} is damaged: {place}/{key} cannot be read: {error}",
            hint=remade_by(store, owner or place),
        ) from error
    facts = dict(group.attrs)
    facts.pop("order", None)  # its place in this store, and nobody else's
    return arrays, facts


def keys(store: Store, place: str) -> list[str]:
    """List what is kept whole, the oldest first."""
    return [name for _, name in sorted(_ranked(store, place))]


def _ranked(store: Store, place: str) -> list[tuple[tuple[int, str], str]]:
    """List what is kept whole, each with its rank: number, or time where it has none.

    Times alone would not do: a clock that was put back would make the newest encoder an old one.
    """
    group = store.group.get(place)
    if not isinstance(group, zarr.Group):
        return []
    whole = []
    for name in names(group):
        facts = group[name].attrs
        if facts.get("complete"):
            rank = (int(facts.get("order", 0)), str(facts.get("ended", "")))  # type: ignore[arg-type]
            whole.append((rank, name))
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
        for name in names(group):
            if name.startswith(f"{key}-") and name != but:
                del group[name]


class Embeddings:
    """Embeddings of a store's objects by one encoder: values [N, E], and what each was made of."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        group = store.group.get(f"{EMBEDDINGS}/{key}")
        if not isinstance(group, zarr.Group) or "values" not in group or "digest" not in group:
            by = f" --encoder {key}" if f"{ENCODERS}/{key}" in store.group else ""
            raise StoreError(
                f"{store.path} has no embeddings {key!r}",
                hint=f"run `nf2vec encode {store.path}{by}` first",
            )
        # in this order: a run that adds rows lengthens the digests last
        self._digest: Any = group["digest"]
        self._values: Any = group["values"]

    @classmethod
    def open_or_make(cls, store: Store, key: str, size: int) -> Embeddings:
        """Open the embeddings of an encoder, with a slot for each row."""
        group = store.group.require_group(f"{EMBEDDINGS}/{key}")
        length = max(store.batch, 64)
        for name, rows, width, dtype in (
            ("values", length, size, "float32"),
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
        whole, held, wanted = self._digests()
        found: Rows = whole[(held == wanted).all(1)]
        return found

    def stale(self) -> Rows:
        """List the rows whose embedding is of another field than the store holds now."""
        whole, held, wanted = self._digests()
        found: Rows = whole[held.any(1) & (held != wanted).any(1)]
        return found

    def _digests(self) -> tuple[Rows, NDArray[np.uint8], NDArray[np.uint8]]:
        """Give the rows that count, what each was embedded from [N, 16] and what it is now."""
        status = self.store.column("status")
        whole = np.flatnonzero((status == Status.DONE) | (status == Status.EMBEDDED))
        held = np.zeros((self.store.slots, DIGEST), np.uint8)
        kept = np.asarray(self._digest[: self.store.slots])
        held[: len(kept)] = kept
        return whole, held[whole], self.store.column("digest")[whole]

    @uninterrupted()
    def write(self, rows: Iterable[int], values: Floats) -> None:
        """Keep embeddings [B, E] of rows; they count when their fields' digests are written."""
        index = np.asarray(list(rows), np.int64)
        digest = self.store.column("digest")[index]
        for array, part in ((self._values, values), (self._digest, digest)):
            low, high = int(index.min()), int(index.max()) + 1
            whole = np.asarray(array[low:high])
            whole[index - low] = part
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
        chunk = int(self._values.chunks[0])
        for place in np.unique(index // chunk):
            here = np.flatnonzero(index // chunk == place)
            part = self._part(int(place) * chunk, (int(place) + 1) * chunk)
            found[here] = part[index[here] - place * chunk]
        return found

    def blocks(self, rows: Rows, *, size: int = BLOCK) -> Iterator[tuple[Rows, Floats]]:
        """Yield rows that are current, rising, and their embeddings, about `size` bytes at a time.

        The next block is read while the caller is at work on one, so that two are in memory.
        """
        rows = np.unique(np.asarray(rows, np.int64))
        chunk = int(self._values.chunks[0])
        span = max(1, size // (4 * self.size * chunk)) * chunk

        def read(first: int) -> tuple[Rows, Floats]:
            here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + span)]
            low, high = int(here[0]), int(here[-1]) + 1
            part = self._part(low, high)
            return here, part if len(part) == len(here) else part[here - low]

        with ThreadPoolExecutor(1) as reader:
            ahead: Future[tuple[Rows, Floats]] | None = None
            for place in np.unique(rows // span):
                current, ahead = ahead, reader.submit(read, int(place) * span)
                if current is not None:
                    yield current.result()
            if ahead is not None:
                yield ahead.result()

    def _part(self, low: int, high: int) -> Floats:
        try:
            return np.asarray(self._values[low:high])
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self.store.path} is damaged: {EMBEDDINGS}/{self.key} cannot be read: {error}",
                hint=f"`nf2vec encode {self.store.path} --force` makes them again",
            ) from error


def own_digests(values: Floats) -> NDArray[np.uint8]:  # [B, E] -> [B, 16]
    """Name embeddings by 16 bytes of the SHA-256 of their numbers, little endian."""
    names = [sha256(np.asarray(row, "<f4").tobytes()).digest()[:DIGEST] for row in values]
    return np.frombuffer(b"".join(names), np.uint8).reshape(-1, DIGEST)
