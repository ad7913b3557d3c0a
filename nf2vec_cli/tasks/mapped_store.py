"""The store that a mapping makes: A's objects as embeddings in B's space, and nothing else."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.create import free_name, holds_store
from nf2vec_cli.store.place import Place, writable
from nf2vec_cli.store.schema import Entry, Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.embedding_store import write_embedding_store
from nf2vec_cli.tasks.encoders import Trained
from nf2vec_cli.tasks.pairs import Pairs
from nf2vec_cli.tasks.sources import roots_of


def check_replaceable(out: Place, line: str) -> None:
    """See that a store can be made at `out`: there is nothing, or embeddings alone.

    Args:
        out: the store to make.
        line: the command without --out, for the hints.

    Raises:
        StoreError: something is there that stays.
    """
    writable(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    other = f"`{line} --out {free_name(out)}`"
    if not holds_store(out):
        raise StoreError(f"{out} is there already, and is no store", hint=other)
    there = open_store(out)
    if len(there.rows()) != len(there.rows(Status.EMBEDDED)):
        raise StoreError(
            f"{out} holds fields, not only mapped embeddings: it is never replaced",
            hint=other,
        )


def write_mapped(
    out: Place,
    pairs: Pairs,
    known: Trained,
    rows: Rows,
    z: Floats,
    *,
    mapper: str,
    force: bool,
    summary: dict[str, Any],
    **run: Any,
) -> bool:
    """Make the store, under another name first; False: it is there, with these very embeddings.

    Network, init, settings and encoder are B's. Ids, classes and splits are A's. An object that
    B holds too has B's source and transform, so that what is rebuilt is compared with the truth;
    one that is in A alone has A's transform and no source.

    Args:
        out: path of the store.
        pairs: the mapper's.
        known: B's encoder, which is copied so that its decoder reads the embeddings.
        rows: of A.
        z: their embeddings in B's space, [N, F].
        mapper: key of the mapper.
        force: replace other embeddings that are there.
        summary: what is said of the run.
        run: its settings and versions.

    Raises:
        StoreError: embeddings by another mapper, or of other objects, are there.
    """
    like = pairs.b.store
    line = f"nf2vec map {pairs.a.store.path} {like.path} --out {out} --force"
    product = sha256(f"{mapper}/{known.key}".encode() + z.astype("<f4").tobytes()).hexdigest()
    if holds_store(out):
        runs = open_store(out).runs()
        if runs and runs[-1].get("summary", {}).get("product") == product and not force:
            return False
        if not force:
            raise StoreError(
                f"{out} is there already, with other embeddings",
                hint=f"`{line}` replaces it",
            )
    entries, columns = _labels(pairs.a.store, like, rows)
    told = summary | {"product": product, "roots": [str(root) for root in roots_of(like)]}
    write_embedding_store(out, like, known, entries, z, columns, kind="map", summary=told, **run)
    return True


def _labels(a: Store, b: Store, rows: Rows) -> tuple[list[Entry], dict[str, Any]]:
    """Give A's names and labels, and what a source in B says of the same objects."""
    ids, classes, splits, parents, copies = (
        a.column(name) for name in ("id", "class", "split", "parent", "copy")
    )
    ids_b = b.column("id")
    place = {ids_b[row]: int(row) for row in b.rows(Status.DONE)}
    sources, transforms, hashes, seeds = (
        b.column(name) for name in ("source", "transform", "hash", "seed")
    )
    own = a.column("transform")
    entries, transform, content, seed = [], [], [], []
    for row in rows:
        twin = place.get(ids[row])
        source = "" if twin is None else sources[twin]
        entries.append(
            Entry(ids[row], source, classes[row], splits[row], parents[row], int(copies[row]))
        )
        transform.append(own[row] if twin is None else transforms[twin])
        content.append(np.zeros(32, np.uint8) if twin is None else hashes[twin])
        seed.append(0 if twin is None else seeds[twin])
    columns = {"transform": transform, "hash": content, "seed": seed}
    return entries, columns | {"error": [np.nan] * len(rows)}
