"""Make a store of embeddings alone, which is read like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.create import create_store
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.store.transfer import replacing
from nf2vec_cli.tasks.encoders import Trained, keep_encoder
from nf2vec_cli.tasks.look import UP, up_axis


def write_embedding_store(
    out: Place,
    like: Store,
    known: Trained,
    entries: Sequence[Entry],
    z: Floats,
    columns: Mapping[str, Any],
    *,
    kind: str,
    **run: Any,
) -> None:
    """Write embeddings [N, E] as a store: under another name, then in the place of what is there.

    Args:
        out: the store to make; who calls has seen that what is there may be replaced.
        like: the store whose field, network, init and settings it has.
        known: the encoder whose decoder reads the embeddings; it is copied.
        entries: the objects.
        z: their embeddings.
        columns: what else is known of each.
        kind: of the run that is recorded.
        run: its settings, summary and versions.
    """
    with replacing(out) as part:
        _write(part, like, known, entries, z, columns, kind, run)


def _write(
    part: Path,
    like: Store,
    known: Trained,
    entries: Sequence[Entry],
    z: Floats,
    columns: Mapping[str, Any],
    kind: str,
    run: dict[str, Any],
) -> None:
    create_store(
        part,
        field=like.field,
        network=like.network,
        init=like.init,
        blocks=like.blocks.tolist(),
        codec=like.codec,
        bits=like.bits,
        batch=like.batch,
        config=like.config,
        versions=run["versions"],
        cells=like.config["grid"] if like.field == "nerf" else 0,
        imported=like.imported or None,
    )
    made = open_store(part, mode="a")
    if like.field == "nerf":  # no cameras are kept that could tell it
        made.group.update_attributes({UP: up_axis(like)})
    keep_encoder(made, known)
    rows = made.register(entries)
    Embeddings.open_or_make(made, known.key, z.shape[1]).write_alone(rows, z, **columns)
    made.record_run(kind, **run)
