"""The fields of a store as functions: from their own weights, or from embeddings and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from nf2vec_cli.config import Origin
from nf2vec_cli.errors import StoreError, UsageFault
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.transform import Affine
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Rows, Store
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.field_function import Askable, FieldFunction
from nf2vec_cli.tasks.reconstruct_object import frame_of


class Fields(Protocol):
    """Fields by row, and between rows. `rows`: those that are there."""

    rows: Rows

    def require(self, rows: Rows) -> None:
        """See that all rows are there.

        Raises:
            StoreError: one is not, or there is none at all.
        """

    def at(self, row: int) -> Askable:
        """Give the field of a row."""

    def between(self, a: int, b: int, share: float) -> Askable:
        """Give the field on the straight line from row a (share 0) to row b (1)."""


def open_fields(
    store: Store, origin: Origin, *, encoder: str | None = None, move: Affine | None = None
) -> Fields:
    """Open the fields of a store.

    Args:
        store: the store.
        origin: what they are read from.
        encoder: whose embeddings, as `open_encoder` takes it; None: the newest.
        move: applied to each field; weights only.

    Raises:
        StoreError: there are no embeddings.
        UsageFault: embeddings are to be moved.
    """
    if origin is Origin.weights:
        if encoder is not None:
            raise UsageFault("an encoder has no part in this", hint="`--from embeddings`")
        return _Weights(store, move)
    if move is not None:
        raise UsageFault(
            "a move edits the weights of a field; an embedding has none",
            hint="leave out `--transform`, or `--from embeddings`",
        )
    return _Embedded(store, encoder)


def open_each(store: Store, encoder: str) -> Callable[[int], Askable]:
    """Give the function from a row to its field: of its weights, or decoded where it has none."""
    weights, alone = _Weights(store, None), store.column("status") == Status.EMBEDDED
    decoded = _Embedded(store, encoder) if alone.any() else weights
    return lambda row: (decoded if alone[row] else weights).at(row)


class _Weights:
    def __init__(self, store: Store, move: Affine | None) -> None:
        self.store, self.spec = store, NetworkSpec(**store.network)
        self.move = frame_of(move, store.field)
        self.rows = store.rows(Status.DONE)

    def require(self, rows: Rows) -> None:
        require_fitted(self.store, rows)

    def at(self, row: int) -> Askable:
        return self._function(self.store.weights([row])[0])

    def between(self, a: int, b: int, share: float) -> Askable:
        return self._function(_line(self.store.weights([a, b]), share))

    def _function(self, theta: Floats) -> FieldFunction:
        return FieldFunction(theta, self.spec, self.store.field, self.move)


class _Embedded:
    def __init__(self, store: Store, encoder: str | None) -> None:
        self.store = store
        trained = open_encoder(store, encoder)
        self.kept = Embeddings(store, trained.key)
        self.decoder: Decoder = trained.module.decoder
        self.rows = self.kept.current()

    def require(self, rows: Rows) -> None:
        require_fitted(self.store, rows, or_embedded=True)
        missing = np.setdiff1d(rows, self.rows)
        if len(missing):
            name = self.store.column("id")[missing[0]]
            raise StoreError(
                f"{name!r} has no embedding by encoder {self.kept.key!r}",
                hint=f"run `nf2vec encode {self.store.path} --encoder {self.kept.key}` first",
            )

    def at(self, row: int) -> Askable:
        return self._function(self.kept.read([row])[0])

    def between(self, a: int, b: int, share: float) -> Askable:
        return self._function(_line(self.kept.read([a, b]), share))

    def _function(self, z: Floats) -> DecodedField:
        return DecodedField(self.decoder, torch.from_numpy(z), self.store.field)


def require_fitted(store: Store, rows: Sequence[int] | Rows, *, or_embedded: bool = False) -> None:
    """See that rows are there and hold fitted fields; `or_embedded`: or an embedding alone.

    Raises:
        StoreError: one does not, or there is none.
    """
    status = store.column("status")
    held = {Status.DONE, Status.EMBEDDED} if or_embedded else {Status.DONE}
    missing = [row for row in rows if status[row] not in held]
    if missing:
        name = store.column("id")[missing[0]]
        if status[missing[0]] == Status.EMBEDDED:
            raise _no_weights(repr(name))
        raise StoreError(
            f"{name!r} has no field: it is {Status(int(status[missing[0]])).name.lower()}",
            hint=f"`nf2vec info {store.path} --failed` lists what failed, with the reason",
        )
    if not len(rows):
        alone = len(store.rows(Status.EMBEDDED))
        if alone:
            raise _no_weights(f"{store.path}: each of its {alone} objects")
        raise StoreError(
            f"{store.path} holds no fitted field",
            hint=f"run `nf2vec fit SHAPES --field {store.field} --store {store.path}` first",
        )


def _no_weights(subject: str) -> StoreError:
    return StoreError(
        f"{subject} is an embedding alone: it has no weights", hint="add `--from embeddings`"
    )


def _line(ends: Floats, share: float) -> Floats:
    found: Floats = ends[0] + np.float32(share) * (ends[1] - ends[0])
    return found
