"""What a task reads: embeddings of one encoder, with the classes and splits of their objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.products import EMBEDDINGS, ENCODERS, Embeddings, keys
from nf2vec_cli.store.store import Store

HELD_OUT = 10  # of objects without a split, one in so many is val and one is test
SPLITS = ("train", "val", "test")


def open_embeddings(store: Store, encoder: str | None = None) -> Embeddings:
    """Open a store's embeddings by one encoder.

    Args:
        store: the store.
        encoder: its key; None: the newest encoder that has embedded the store.

    Raises:
        StoreError: there are none, or there is no such encoder.
    """
    known = [key for key in keys(store, ENCODERS) if f"{EMBEDDINGS}/{key}" in store.group]
    if not known:
        raise StoreError(
            f"{store.path} holds no embeddings", hint=f"run `nf2vec encode {store.path}` first"
        )
    if encoder is not None and encoder not in known:
        raise StoreError(
            f"{store.path} has no embeddings by encoder {encoder!r}",
            hint=f"there are {', '.join(known)}: `nf2vec info {store.path}` tells of each",
        )
    kept = Embeddings(store, encoder or known[-1])
    if not len(kept.current()):
        raise StoreError(
            f"the embeddings of {store.path} are of other fields than it holds now",
            hint=f"run `nf2vec encode {store.path}` again",
        )
    return kept


@dataclass(frozen=True)
class Labelled:
    """Objects with a class. labels: each row's place in `classes`; splits: train, val or test."""

    rows: Rows
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: NDArray[np.str_]
    is_copy: NDArray[np.bool_]

    def of(self, split: str) -> NDArray[np.int64]:
        """List the places of a split's objects; copies of other proportions only in train."""
        wanted = self.splits == split
        return np.flatnonzero(wanted if split == "train" else wanted & ~self.is_copy)

    def without(self, classes: Sequence[str]) -> Labelled:
        """Leave classes out, with their objects."""
        left = tuple(name for name in self.classes if name not in classes)
        place = np.array([left.index(name) if name in left else -1 for name in self.classes])
        labels = place[self.labels]
        kept = labels >= 0
        return Labelled(self.rows[kept], labels[kept], left, self.splits[kept], self.is_copy[kept])


def labelled(store: Store, rows: Rows, *, least: int = 2) -> Labelled:
    """Give the rows that have a class, with classes in alphabetical order.

    Raises:
        StoreError: there are less than `least` classes.
    """
    names, copies = store.column("class"), store.column("copy")
    kept = np.array([row for row in rows if names[row]], np.int64)
    classes = tuple(sorted({names[row] for row in kept}))
    if len(classes) < least:
        found = f"one class, {classes[0]!r}: two are needed" if classes else "no classes"
        raise StoreError(
            f"{store.path} has {found}",
            hint=labels_hint(store, "classes and splits"),
        )
    place = {name: number for number, name in enumerate(classes)}
    return Labelled(
        rows=kept,
        labels=np.array([place[names[row]] for row in kept], np.int64),
        classes=classes,
        splits=splits_of(store)[kept],
        is_copy=np.asarray(copies)[kept] > 0,
    )


def labels_hint(store: Store, what: str) -> str:
    """Give the hint that tells how objects of a store get labels; what is fitted stays."""
    line = f"nf2vec fit SHAPES --field {store.field} --store {store.path} --labels labels.csv"
    return f"`{line}` gives objects their {what}"


def splits_of(store: Store) -> NDArray[np.str_]:
    """Give each row's split; objects without one are split by the name of the object.

    By the parent's name, so that a copy of other proportions stays with its object.
    """
    splits, parents = store.column("split"), store.column("parent")
    return np.array([s or _drawn(p) for s, p in zip(splits, parents, strict=True)], str)


def _drawn(name: str) -> str:
    drawn = int.from_bytes(sha256(name.encode()).digest()[:4], "little") % HELD_OUT
    return {0: "val", 1: "test"}.get(drawn, "train")
