"""What a retrieval asks: objects of the store, or shapes of no store that are embedded for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.errors import InputError, StoreError
from nf2vec_cli.progress import Progress
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.fingerprint import fingerprint
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.fresh import Fresh, embed_shapes, find_shapes
from nf2vec_cli.tasks.open_fields import require_fitted


@dataclass(frozen=True)
class Queries:
    """Q queries: those of the store first, then those of `fresh`.

    names: ids, or paths of files. classes: empty text where there is none. rows: of the store's
    objects, fewer than Q where there are fresh ones. barred: for each query, the rows that must
    not answer, such as its own.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    rows: Rows
    barred: tuple[Rows, ...]
    fresh: Fresh | None = None

    def __len__(self) -> int:
        return len(self.names)

    def embeddings(self, kept: Embeddings, start: int, stop: int) -> Floats:
        """Read the embeddings [B, E] of some of the queries."""
        own = kept.read(self.rows[start:stop])
        if self.fresh is None:
            return own
        first, last = max(start - len(self.rows), 0), max(stop - len(self.rows), 0)
        return np.concatenate([own, self.fresh.z[first:last]])


def of_rows(store: Store, rows: Rows) -> Queries:
    """Ask by objects of the store; an object and what was made of it or with it cannot answer."""
    names, classes = store.column("id"), store.column("class")
    return Queries(
        names=tuple(names[row] for row in rows),
        classes=tuple(classes[row] for row in rows),
        rows=rows,
        barred=_families(store, rows),
    )


def asked(
    store: Store,
    kept: Embeddings,
    texts: Sequence[str],
    *,
    current: Rows,
    bar_sources: bool = False,
    device: str = "auto",
    jobs: int = 0,
    progress: Progress | None = None,
) -> Queries:
    """Sort out what is asked by ids, files and folders, and embed what is in no store.

    An id as the store has it goes before a path, a path before the last part of an id.

    Args:
        store: the store.
        kept: its embeddings; shapes are embedded by the same encoder.
        texts: ids, files, folders or lists of files.
        current: rows whose embedding is of the field that the store holds.
        bar_sources: a file cannot be answered by the object that was fitted to the same content.
        device, jobs, progress: as `embed_shapes`.

    Raises:
        StoreError: an id is unknown, not fitted, or not embedded.
        InputError: a path holds no shape that this kind of field is fitted to.
    """
    files = dict.fromkeys(text for text in texts if Path(text).exists())
    for name in store.column("id") if files else ():
        files.pop(name, None)
    rows = _found(store, [text for text in dict.fromkeys(texts) if text not in files])
    require_embedded(store, kept, rows, current)
    own = of_rows(store, rows)
    found = [pair for text in files for pair in _shapes(store, text)]
    if not found:
        return own
    trained = open_encoder(store, kept.key)
    fresh = embed_shapes(
        store, [ref for _, ref in found], trained, device=device, jobs=jobs, progress=progress
    )
    called = {ref.path: name for name, ref in found}
    barred = (
        _same_sources(store, fresh.refs)
        if bar_sources
        else [np.empty(0, np.int64)] * len(fresh.refs)
    )
    return Queries(
        names=(*own.names, *(called[ref.path] for ref in fresh.refs)),
        classes=(*own.classes, *(ref.class_name for ref in fresh.refs)),
        rows=own.rows,
        barred=(*own.barred, *barred),
        fresh=fresh,
    )


def require_embedded(store: Store, kept: Embeddings, rows: Rows, current: Rows) -> None:
    """See that rows hold fields and their embeddings are of these, or that they are alone.

    Raises:
        StoreError: one does not, or has none.
    """
    if len(rows):
        require_fitted(store, rows, or_embedded=True)
    there = np.zeros(store.slots, bool)
    there[current] = True
    missing = rows[~there[rows]]
    if len(missing):
        raise StoreError(
            f"{store.column('id')[missing[0]]!r} has no embedding by encoder {kept.key!r}",
            hint=f"run `nf2vec encode {store.path} --encoder {kept.key}` first",
        )


def _found(store: Store, ids: Sequence[str]) -> Rows:
    try:
        return np.array(list(dict.fromkeys(store.find(ids).tolist())), np.int64)
    except StoreError as error:
        for text in ids:
            if Path(text).suffix and repr(text) in error.message:
                raise StoreError(
                    f"{error.message}, and there is no such file", hint=error.hint
                ) from error
        raise


def _shapes(store: Store, text: str) -> list[tuple[str, ShapeRef]]:
    """Find the shapes of a file or folder, each with the path to it as the user would type it."""
    place = Path(text)
    if (place / "zarr.json").is_file():
        raise InputError(
            f"{text!r} is a store, not a shape",
            hint=f"`nf2vec info {text} --objects` lists its objects: ask by their files",
        )
    found = find_shapes(store, place)
    # a folder of pictures is one shape, as a file is
    one = not place.is_dir() or (found[0].path.is_dir() and found[0].path.samefile(place))
    root = place.parent if one else place
    return [(str(root / ref.source), ref) for ref in found]


def _families(store: Store, rows: Rows) -> tuple[Rows, ...]:
    parents = store.column("parent")
    return tuple(_rows_with(parents, store.rows().tolist(), [parents[row] for row in rows]))


def _same_sources(store: Store, refs: Sequence[ShapeRef]) -> list[Rows]:
    digests = [row.tobytes() for row in store.column("hash")]
    prints = [fingerprint(ref.path, kind=store.field)[0] for ref in refs]
    return _rows_with(digests, store.rows().tolist(), prints)


def _rows_with(values: Sequence[Any], rows: Iterable[int], wanted: Sequence[Any]) -> list[Rows]:
    """List the rows that have each wanted value."""
    found: dict[Any, list[int]] = {value: [] for value in wanted}
    for row in rows:
        place = found.get(values[row])
        if place is not None:
            place.append(row)
    return [np.array(found[value], np.int64) for value in wanted]
