"""The objects that two stores share: their embeddings side by side, with one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.tasks.embedded import labels_hint, splits_of

LEAST = 8  # training pairs


@dataclass(frozen=True)
class Pairs:
    """Objects by id: their rows in A and in B. Copies of other proportions only in train."""

    a: Embeddings
    b: Embeddings
    rows: dict[str, tuple[Rows, Rows]]  # by split

    def __len__(self) -> int:
        """Count the pairs of all splits."""
        return sum(len(a) for a, _ in self.rows.values())

    def read(self, split: str) -> tuple[Floats, Floats]:
        """Read the embeddings of a split's objects: A's [N, E] and B's [N, F]."""
        a, b = self.rows[split]
        return self.a.read(a), self.b.read(b)

    def digests(self, *splits: str) -> bytes:
        """Give what changes when a field or embedding of a pair does."""
        sides = [np.asarray(kept.store.column("digest")) for kept in (self.a, self.b)]
        parts = [
            digests[rows]
            for split in splits
            for digests, rows in zip(sides, self.rows[split], strict=True)
        ]
        return b"".join(part.tobytes() for part in parts)


def pairs_of(a: Embeddings, b: Embeddings) -> Pairs:
    """Pair the objects of two stores by id.

    An object is in test if either store has it there, then in val if either has: what one of them
    has held out, an encoder or a mapper trained on the other may not have seen.

    Raises:
        StoreError: no id is in both, or a split has too few.
    """
    ids_a, ids_b = a.store.column("id"), b.store.column("id")
    place = {ids_b[row]: int(row) for row in b.current()}
    rows = [(int(row), place[ids_a[row]]) for row in a.current() if ids_a[row] in place]
    if not rows:
        raise StoreError(
            f"{a.store.path} and {b.store.path} share no object: {_first(ids_a, a)} in the one, "
            f"{_first(ids_b, b)} in the other",
            hint="pairs have the same id, which --root sets: `nf2vec fit SHAPES "
            f"--field {b.store.field} --store NEW.zarr --root DIR`",
        )
    paired = np.array(rows, np.int64)
    splits = _strictest(splits_of(a.store)[paired[:, 0]], splits_of(b.store)[paired[:, 1]])
    is_copy = np.asarray(a.store.column("copy"))[paired[:, 0]] > 0
    found = {}
    for split in ("train", "val", "test"):
        chosen = paired[(splits == split) & ((split == "train") | ~is_copy)]
        found[split] = (chosen[:, 0], chosen[:, 1])
    _check(Pairs(a, b, found))
    return Pairs(a, b, found)


def _strictest(one: NDArray[np.str_], other: NDArray[np.str_]) -> NDArray[np.str_]:
    either = [(one == name) | (other == name) for name in ("test", "val")]
    found: NDArray[np.str_] = np.where(either[0], "test", np.where(either[1], "val", "train"))
    return found


def _check(pairs: Pairs) -> None:
    names = f"{pairs.a.store.path} and {pairs.b.store.path}"
    counts = {split: len(rows) for split, (rows, _) in pairs.rows.items()}
    if counts["train"] < LEAST:
        raise StoreError(
            f"{names} share {counts['train']} objects of split train, a mapper needs {LEAST}",
            hint="fit more of the same shapes into both, then "
            f"`nf2vec encode {pairs.a.store.path}` and `nf2vec encode {pairs.b.store.path}`",
        )
    for split, what in (("val", "choose the best step by"), ("test", "measure the result on")):
        if not counts[split]:
            raise StoreError(
                f"{names} share no object of split {split} to {what}",
                hint=labels_hint(pairs.a.store, "splits"),
            )


def _first(ids: list[str], kept: Embeddings) -> str:
    return repr(ids[int(kept.current()[0])])
