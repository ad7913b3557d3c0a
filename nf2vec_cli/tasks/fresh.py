"""Shapes that are in no store, embedded as a store's are: same start, same recipe, same encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import InputError
from nf2vec_cli.fields import FieldName
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.discover import ShapeRef, discover
from nf2vec_cli.shapes.load import READABLE, load_shape
from nf2vec_cli.store.codec import Floats, roundtrip
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.encode_shard import embedder
from nf2vec_cli.tasks.encoders import Trained
from nf2vec_cli.tasks.fit_object import Failed, Job
from nf2vec_cli.tasks.fit_radiance import fitter_of, read_views
from nf2vec_cli.tasks.spread import available_cores

SIZE = 64  # fields that a GPU fits at once


@dataclass(frozen=True)
class Fresh:
    """Shapes that were fitted, their weights [B, P] and embeddings [B, E]; `failed`: reasons.

    beside: of each, what a store of radiance keeps besides.
    """

    refs: tuple[ShapeRef, ...]
    theta: Floats
    z: Floats
    failed: tuple[tuple[str, str], ...]
    beside: tuple[dict[str, NDArray[Any]], ...] = ()


def find_shapes(store: Store, source: str | Path) -> list[ShapeRef]:
    """Find shapes, as `discover` does, that the fields of a store are fitted to.

    They are read up to the first that can be: a file of another kind is told before anything is
    trained or fitted.

    Raises:
        InputError: there are none, or none that can be read.
    """
    try:
        refs = discover(source, suffixes=READABLE[store.field])
    except InputError as error:
        raise InputError(error.message, hint=error.hint or _others(store)) from error
    first = ""
    for ref in refs:
        try:
            _read(ref, store)
        except (InputError, OSError) as error:
            first = first or f"{ref.id!r} cannot be fitted: {error}"
        else:
            return refs
    raise InputError(first, hint=_others(store))


def _read(ref: ShapeRef, store: Store) -> None:
    """Read a source as a fit would; of a mesh whose pictures are to be taken, a few small ones."""
    if store.field != FieldName.nerf:
        load_shape(ref.path, store.field)
        return
    config = fit_config(store)
    read_views(ref.path, config.model_copy(update={"views": 4, "size": 16}))


def _others(store: Store) -> str:
    line = "nf2vec fit SHAPES --field FIELD --store NEW.zarr"
    return f"shapes of other kinds than {store.field} fields take are for another store: `{line}`"


def embed_shapes(
    store: Store,
    refs: Sequence[ShapeRef],
    trained: Trained,
    *,
    device: str = "auto",
    jobs: int = 0,
    progress: Progress | None = None,
) -> Fresh:
    """Fit and embed shapes; nothing is written.

    An object that the store holds as well gets the same weights, bit for bit, from the same file:
    they pass through the store's codec, and the seed comes from the id.

    Raises:
        InputError: none could be fitted.
    """
    target = open_device(device)
    config = fit_config(store)
    work = [Job(ref.id, ref.path, store.field, config, store.init_hash) for ref in refs]
    kept: list[ShapeRef] = []
    theta: list[Floats] = []
    beside: list[dict[str, NDArray[Any]]] = []
    failed: list[tuple[str, str]] = []
    teller = progress or Silent()
    teller.start(len(work), "fit")
    workers = min(jobs or available_cores(), max(len(work), 1))
    fit = fitter_of(store.field)
    outcomes = fit(work, store.init, device=target, workers=workers, size=SIZE)
    blocks = store.blocks.tolist()
    for ref, outcome in zip(refs, outcomes, strict=True):
        teller.advance(1, ref.id)
        if isinstance(outcome, Failed):
            failed.append((ref.id, outcome.reason))
            continue
        kept.append(ref)
        beside.append(outcome.beside)
        theta.append(roundtrip(outcome.theta, store.init, blocks, store.codec, store.bits))
    if not kept:
        name, reason = failed[0] if failed else ("", "no shape is given")
        raise InputError(f"{name!r} cannot be fitted: {reason}", hint=_others(store))
    stacked = np.stack(theta)
    # one by one: an embedding is the same bits whatever else is asked for
    embed = embedder(trained.module, target)
    z = np.concatenate([embed(torch.from_numpy(one[None])).numpy() for one in stacked])
    return Fresh(tuple(kept), stacked, z, tuple(failed), tuple(beside))
