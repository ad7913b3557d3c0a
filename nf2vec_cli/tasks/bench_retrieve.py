"""Measure a search: seconds, memory and time to open, on embeddings that are random numbers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np
import torch
import zarr

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.models.network import NetworkSpec, siren_init
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.create import create_store
from nf2vec_cli.store.products import DIGEST, ENCODERS, Embeddings, save_state
from nf2vec_cli.store.schema import Entry, Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.memory import peak_memory
from nf2vec_cli.tasks.retrieve import Search, ask, hits

ENCODER = "random"
PART = 16_384  # rows written at once
ROOM = 1.25  # of the numbers' bytes, free on the disk before anything is written
SPREAD = 0.5  # of the numbers about their class's centre, so that there are neighbours to find
CLASSES = 100


@dataclass(frozen=True)
class RetrieveBench:
    """A search in a process of its own, one thread. megabytes: 10^6 bytes.

    open_seconds: from the path to a search that can begin, ids looked up. seconds: of the search
    for all queries, with embeddings read from files that the system may hold in its cache. CPU
    seconds tell more where a machine has other work. peak_mb: of the process, of which idle_mb is
    Python with its libraries. index_seconds: to make the graph. recall: share of the exact
    neighbours that the graph found, in percent.
    """

    index: str
    rows: int
    numbers: int
    queries: int
    k: int
    stored_mb: float
    open_seconds: float
    open_cpu_seconds: float
    seconds: float
    cpu_seconds: float
    peak_mb: float
    idle_mb: float
    index_seconds: float | None = None
    recall: float | None = None


def bench_retrieve(
    *,
    rows: int = 1_000_000,
    numbers: int = 1024,
    queries: int = 100,
    k: int = 10,
    approximate: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> list[RetrieveBench]:
    """Make a store of random embeddings, search it, and remove it.

    Args:
        rows: objects.
        numbers: of an embedding.
        queries: objects that ask.
        k: neighbours of each.
        approximate: search by a graph too, and compare.
        folder: where the store is made; None: the system's folder for such things.
        progress: told about rows written.

    Raises:
        UsageFault: the disk has not enough room.
    """
    home = folder or Path(gettempdir())
    needed = int(rows * numbers * 4 * ROOM * (2 if approximate else 1))
    free = shutil.disk_usage(home).free
    if free < needed:
        raise UsageFault(
            f"{home} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed",
            hint="`--folder DIR` on another disk, or fewer `--rows`",
        )
    with TemporaryDirectory(dir=home, prefix="nf2vec-") as scratch, progress or Silent() as teller:
        path = Path(scratch) / "random.zarr"
        store = _random_store(path, rows, numbers, teller)
        rng = np.random.default_rng(1)
        asking = [f"object/{row}" for row in rng.choice(rows, queries, replace=rows < queries)]
        stored = store.storage()["embeddings"] / 1e6
        told: dict[str, Any] = {
            "rows": rows,
            "numbers": numbers,
            "queries": queries,
            "k": k,
            "stored_mb": stored,
        }
        figures, exact = _measured(path, asking, k, approximate=False)
        found = [RetrieveBench(index="exact", **told, **figures)]
        if approximate:
            making, _ = _measured(path, asking, k, approximate=True)
            figures, near = _measured(path, asking, k, approximate=True)
            shares = [len(set(a) & set(b)) / len(a) for a, b in zip(exact, near, strict=True) if a]
            found.append(
                RetrieveBench(
                    index="ann",
                    **told,
                    **figures,
                    index_seconds=making["seconds"] - figures["seconds"],
                    recall=100 * float(np.mean(shares)) if shares else None,
                )
            )
    return found


def _measured(
    path: Path, asking: Sequence[str], k: int, *, approximate: bool
) -> tuple[dict[str, Any], list[list[str]]]:
    """Search in a process of its own, whose memory is the search's."""
    with get_context("spawn").Pool(1) as pool:
        figures, found = pool.apply(_search, (path, list(asking), k, approximate))
    return figures, found


def _search(
    path: Path, asking: list[str], k: int, approximate: bool
) -> tuple[dict[str, Any], list[list[str]]]:
    """Search; give the figures, and for each query the ids that it found."""
    torch.set_num_threads(1)
    idle = peak_memory()
    started, began = time.perf_counter(), time.process_time()
    question = ask(path, asking, Search(k=k, approximate=approximate, device="cpu"))
    opened = time.perf_counter()
    opening = time.process_time() - began
    found: dict[str, list[str]] = {name: [] for name in question.queries.names}
    for hit in hits(question):
        found[hit.query].append(hit.id)
    figures = {
        "open_seconds": opened - started,
        "open_cpu_seconds": opening,
        "seconds": time.perf_counter() - opened,
        "cpu_seconds": time.process_time() - began - opening,
        "peak_mb": peak_memory(),
        "idle_mb": idle,
    }
    return figures, [found[name] for name in asking]


def _random_store(path: Path, rows: int, numbers: int, teller: Progress) -> Store:
    """Make a store of objects without fields, whose embeddings lie about the centres of classes."""
    spec, config = NetworkSpec(3, 16, 2, 1, 30.0), FitConfig()
    create_store(
        path,
        field="sdf",
        network=spec.as_dict(),
        init=siren_init(spec, seed=0).numpy(),
        blocks=spec.blocks,
        codec="exact",
        bits=8,
        batch=config.batch,
        config=config.model_dump(mode="json"),
        versions={},
    )
    # without the syncs of `open_store`: nothing here need survive a power cut
    group = zarr.open_group(path, mode="r+")
    store = Store(path, group, dict(group.attrs))
    save_state(store, ENCODERS, ENCODER, {"none": np.zeros(1, np.float32)})
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, numbers), np.float32)
    teller.start(rows, "write")
    for start in range(0, rows, PART):
        names = range(start, min(start + PART, rows))
        added = store.register(
            [Entry(f"object/{n}", f"{n}.ply", f"class {n % CLASSES}", "test") for n in names]
        )
        digests = rng.integers(0, 256, (len(added), DIGEST), np.uint8)
        store.update(added, digest=digests, status=[Status.DONE] * len(added))
        values = SPREAD * rng.standard_normal((len(added), numbers), np.float32)
        values += centres[np.array(names) % CLASSES]
        Embeddings.open_or_make(store, ENCODER, numbers).write(added, values)
        teller.advance(len(added))
    return open_store(path)
