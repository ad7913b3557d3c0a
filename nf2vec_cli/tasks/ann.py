"""An approximate index of embeddings (extra `ann`): a graph by usearch, kept inside the store."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.errors import UsageFault
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.place import beside
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.tasks.spread import available_cores

INDEXES, SUFFIX = "indexes", ".usearch"
# neighbours of a node, and nodes looked at while building and searching
CONNECTIVITY, BUILDING, SEARCHING = 16, 128, 256
KEPT = 6  # graphs of a store: those of changed embeddings go when newer ones come


class ApproximateIndex:
    """A graph over rows of a store by the HNSW method (Malkov and Yashunin, 2018).

    It is made once, in half precision, and kept as STORE/indexes/*.usearch (of a bucket or a zip:
    in the user's cache), which may be deleted at any time; searches map the file instead of reading
    it. Several threads make a graph, so two of the same rows may differ in a few links.
    """

    def __init__(
        self, kept: Embeddings, rows: Rows, *, cosine: bool, progress: Progress | None = None
    ) -> None:
        """Open the graph of these rows, or make it.

        Raises:
            UsageFault: usearch is not installed.
        """
        self._threads = available_cores()
        usearch = _usearch()
        name, key = f"{kept.key}-{'cosine' if cosine else 'euclidean'}", _key(kept, rows)
        home = kept.store.path
        folder = home / INDEXES if isinstance(home, Path) else beside(home, f".{INDEXES}")
        file = folder / f"{name}-{key}{SUFFIX}"
        if not file.is_file():
            graph = usearch.Index(
                ndim=kept.size,
                metric="cos" if cosine else "l2sq",
                dtype="f16",
                connectivity=CONNECTIVITY,
                expansion_add=BUILDING,
            )
            teller = progress or Silent()
            teller.start(len(rows), "index")
            for places, values in kept.blocks(rows):
                graph.add(places.astype(np.uint64), values, threads=self._threads)
                teller.advance(len(places))
            _save(graph, file)
        self._graph = usearch.Index.restore(str(file), view=True)
        self._graph.expansion_search = SEARCHING

    def search(self, queries: Floats, k: int) -> list[Rows]:  # [Q, E]
        """List rows near each query: k, or fewer if the graph yields no more."""
        found = self._graph.search(queries, k, threads=self._threads)
        keys = np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)
        counts = getattr(found, "counts", [keys.shape[1]])  # of one query there are none
        return [row[:count] for row, count in zip(keys, counts, strict=True)]


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError as error:
        raise UsageFault(
            "`--index ann` needs the extra `ann`, which is not installed",
            hint="`pip install 'nf2vec[ann]'`, or leave it out: the exact search needs nothing",
        ) from error
    return usearch.index


def _key(kept: Embeddings, rows: Rows) -> str:
    """Name what goes into the graph: rows, and the fields that were embedded."""
    facts = sha256(f"{kept.key} {CONNECTIVITY} {BUILDING}".encode())
    facts.update(rows.astype("<i8").tobytes())
    facts.update(np.ascontiguousarray(kept.store.column("digest")[rows]).tobytes())
    return facts.hexdigest()[:16]


def _save(graph: Any, file: Path) -> None:
    """Write a graph under another name first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        graph.save(str(part))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    graphs = sorted(file.parent.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
    for old in graphs[:-KEPT]:
        old.unlink(missing_ok=True)
