"""The fields of a store as functions: from their own weights, or from embeddings and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.config import Origin
from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import StoreError, UsageFault
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.transform import Affine
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.radiance import read_grids, unpack_grids
from nf2vec_cli.store.schema import GRID, Status
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.decoded_radiance import DecodedRadiance
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.field_function import CPU, FieldFunction
from nf2vec_cli.tasks.radiance_field import RadianceField
from nf2vec_cli.tasks.rebuild import Shown
from nf2vec_cli.tasks.reconstruct_object import frame_of


class Fields(Protocol):
    """Fields by row, and between rows. `rows`: those that are there."""

    rows: Rows

    def require(self, rows: Rows) -> None:
        """See that all rows are there.

        Raises:
            StoreError: one is not, or there is none at all.
        """

    def at(self, row: int) -> Shown:
        """Give the field of a row."""

    def between(self, a: int, b: int, share: float) -> Shown:
        """Give the field on the straight line from row a (share 0) to row b (1)."""


def open_fields(
    store: Store,
    origin: Origin,
    *,
    encoder: str | None = None,
    move: Affine | None = None,
    renderer: str = "auto",
    device: str = "cpu",
) -> Fields:
    """Open the fields of a store.

    Args:
        store: the store.
        origin: what they are read from.
        encoder: whose embeddings, as `open_encoder` takes it; None: the newest.
        move: applied to each field; weights of a shape's field only.
        renderer: of radiance, as `core.composite` names them.
        device: "cpu", "cuda", "cuda:N" or "auto"; they are asked from the CPU all the same.

    Raises:
        StoreError: there are no embeddings.
        DeviceError: the device is not there.
        UsageFault: embeddings, or fields on coded coordinates, are to be moved.
    """
    if move is not None and store.network.get("octaves"):  # radiance has no other
        what = "of radiance" if store.field == "nerf" else "on coded coordinates"
        raise UsageFault(
            f"a field {what} cannot be moved by its weights", hint="leave out `--transform`"
        )
    target = open_device(device)
    if origin is Origin.weights:
        if encoder is not None:
            raise UsageFault("an encoder has no part in this", hint="`--from embeddings`")
        return _Weights(store, move, renderer, target)
    if move is not None:
        raise UsageFault(
            "a move edits the weights of a field; an embedding has none",
            hint="leave out `--transform`, or `--from embeddings`",
        )
    return _Embedded(store, encoder, renderer, target)


def open_each(store: Store, encoder: str) -> Callable[[int], Shown]:
    """Give the function from a row to its field: of its weights, or decoded where it has none."""
    weights, alone = _Weights(store), store.column("status") == Status.EMBEDDED
    decoded = _Embedded(store, encoder) if alone.any() else weights
    return lambda row: (decoded if alone[row] else weights).at(row)


def fitted(store: Store, theta: Floats, beside: Mapping[str, NDArray[Any]]) -> Shown:
    """Give a field of a store's kind by its weights [P], and what is kept beside them."""
    spec = NetworkSpec(**store.network)
    if store.field != "nerf":
        return FieldFunction(theta, spec, store.field)
    grid = unpack_grids(beside[GRID][None])[0]
    return RadianceField(theta, spec, grid, fit_config(store).samples)


def decoded(
    store: Store,
    decoder: Decoder,
    z: Floats,
    *,
    renderer: str = "auto",
    device: torch.device = CPU,
) -> Shown:
    """Give the field of a store's kind that a decoder, on a device, makes of an embedding [E]."""
    one = torch.from_numpy(z).to(device)
    if store.field != "nerf":
        return DecodedField(decoder, one, store.field)
    config = fit_config(store)
    samples, cells = config.samples, config.grid
    return DecodedRadiance(decoder, one, samples=samples, cells=cells, backend=renderer)


class _Weights:
    def __init__(
        self,
        store: Store,
        move: Affine | None = None,
        renderer: str = "auto",
        device: torch.device = CPU,
    ) -> None:
        self.device, self.store, self.spec = device, store, NetworkSpec(**store.network)
        self.move, self.renderer = frame_of(move, store.field), renderer
        self.rows = store.rows(Status.DONE)
        self.samples = fit_config(store).samples

    def require(self, rows: Rows) -> None:
        require_fitted(self.store, rows)

    def at(self, row: int) -> Shown:
        return self._function(self.store.weights([row])[0], [row])

    def between(self, a: int, b: int, share: float) -> Shown:
        theta = _line(self.store.weights([a, b]), share)
        # on the way something may be wherever one of the two has something
        return self._function(theta, [a] if share == 0 else [b] if share == 1 else [a, b])

    def _function(self, theta: Floats, rows: list[int]) -> Shown:
        if self.store.field != "nerf":
            return FieldFunction(theta, self.spec, self.store.field, self.move, self.device)
        grid: NDArray[np.bool_] = np.asarray(read_grids(self.store, rows).any(0))
        lit = torch.from_numpy(theta).to(self.device)
        cells = torch.from_numpy(grid).to(self.device)
        return RadianceField(lit, self.spec, cells, self.samples, self.renderer)


class _Embedded:
    def __init__(
        self,
        store: Store,
        encoder: str | None,
        renderer: str = "auto",
        device: torch.device = CPU,
    ) -> None:
        self.store, self.renderer, self.device = store, renderer, device
        trained = open_encoder(store, encoder)
        self.kept = Embeddings(store, trained.key)
        self.decoder: Decoder = trained.module.decoder.to(device)
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

    def at(self, row: int) -> Shown:
        return self._decoded(self.kept.read([row])[0])

    def between(self, a: int, b: int, share: float) -> Shown:
        return self._decoded(_line(self.kept.read([a, b]), share))

    def _decoded(self, z: Floats) -> Shown:
        return decoded(self.store, self.decoder, z, device=self.device, renderer=self.renderer)


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
