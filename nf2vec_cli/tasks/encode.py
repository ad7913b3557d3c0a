"""Turn stored fields into embeddings: plan, do, record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import StoreError
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.place import Place, absolute
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.cluster import open_cluster
from nf2vec_cli.tasks.encode_shard import Embedded, ShardEncoder, encode_shard
from nf2vec_cli.tasks.encoders import keep_encoder, open_encoder, require_known_init
from nf2vec_cli.tasks.share import Share, Turns
from nf2vec_cli.tasks.spread import WorkerDied, one_thread, spread, workers_for

SHARED = 256  # embeddings of a write, where several processes wait for each other's
WORTH = 512  # objects for each worker process: embedding them takes longer than to start it


@dataclass(frozen=True)
class EncodeResult:
    """What `encode` did.

    strangers: ids of fields that are not aligned with the init. lost: of those whose worker died.
    """

    encoder: str
    encoded: int
    skipped: int
    failed: int
    strangers: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def encode_store(
    path: Place,
    *,
    encoder: str | None = None,
    device: str = "auto",
    jobs: int = 0,
    ray: str | None = None,
    share: Share | None = None,
    force: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> EncodeResult:
    """Embed the fields that have no embedding yet, or whose weights have changed since.

    A shard is always computed whole, by one thread, so that an embedding is the same bits whichever
    objects are asked for and however the work is spread. Workers read the weights themselves, by
    the store's path, so that this process, which alone writes, is not in their way.

    Args:
        path: the store.
        encoder: as `open_encoder` takes it. One from elsewhere is copied into the store.
        device: "cpu", "cuda", "cuda:N" or "auto"; on CUDA this process does all the work, or the
            cluster's GPUs.
        jobs: worker processes; 0: one for each WORTH objects, up to one a core.
        ray: cluster that works instead, as `open_cluster` takes it.
        share: what this process does of a store that several work at. They write in turn.
        force: embed all again.
        wait: seconds to wait for another run's lock; None: not at all, or as `Turns` has it.
        progress: told about each object.

    Raises:
        StoreError: no encoder fits, or nothing is fitted.
        InputError: a file is no encoder.
    """
    turns = Turns(path, share, wait)
    with open_cluster(ray, device=device, jobs=jobs) as cluster:
        target = cluster.device if cluster else open_device(device)
        with turns.run(), progress or Silent() as teller:
            with turns.write():
                store = open_store(path, mode="a")
                done = _fitted(store)
                trained = open_encoder(store, encoder)
                keep_encoder(store, trained)
                kept = Embeddings.open_or_make(store, trained.key, trained.module.decoder.embedding)
                # as fields are before they are read: an embedding of one that changes is stale
                digest = store.column("digest")
                todo = done if force else np.setdiff1d(done, kept.current())
            if share is not None:
                done, todo = (rows[share.owns(rows // store.batch)] for rows in (done, todo))
            shards = _shards(done, todo, store.batch)
            here = cluster is None and target.type == "cuda"
            # if nobody says how many: a process takes longer to start than to embed a few
            most = len(shards) if jobs else -(-len(todo) // WORTH)
            workers = 1 if here else workers_for(most, jobs, cluster)
            if workers == 1:
                found = ShardEncoder(store, trained, target).encode_all(shards)
            else:
                work = partial(encode_shard, path=absolute(path), key=trained.key, device=target)
                found = spread(work, shards, workers=workers)
            sieve = _Sieve(todo, teller)
            teller.start(len(todo), "encode")
            with one_thread():
                sifted = map(sieve.sift, shards, found)
                for rows, z in _gathered(sifted, SHARED if share else 1):
                    with turns.write():
                        kept.write(rows, z, digest[rows])
    names = store.column("id")
    return EncodeResult(
        trained.key,
        len(todo) - len(sieve.strangers) - len(sieve.lost),
        len(done) - len(todo),
        len(sieve.strangers) + len(sieve.lost),
        tuple(names[row] for row in sieve.strangers),
        tuple(names[row] for row in sieve.lost),
    )


class _Sieve:
    """Parts embeddings that are to be kept from what failed."""

    def __init__(self, todo: Rows, teller: Progress) -> None:
        self.todo, self.teller = todo, teller
        self.strangers, self.lost = list[int](), list[int]()

    def sift(self, rows: Rows, found: Embedded | WorkerDied) -> tuple[Rows, Floats]:
        """Give the rows of a shard that were asked for and are sound, and their embeddings."""
        wanted = np.isin(rows, self.todo)
        self.teller.advance(int(wanted.sum()))
        if isinstance(found, WorkerDied):
            self.lost += rows[wanted].tolist()
            return rows[:0], np.empty((0, 0), np.float32)
        self.strangers += rows[wanted & ~found.sound].tolist()
        good = wanted & found.sound
        return rows[good], found.z[good]


def _gathered(parts: Iterable[tuple[Rows, Floats]], least: int) -> Iterator[tuple[Rows, Floats]]:
    """Put parts together until they are `least` rows or more; what is interrupted comes too."""
    held: list[tuple[Rows, Floats]] = []
    try:
        for part in parts:
            held += [part] if len(part[0]) else []
            if sum(len(rows) for rows, _ in held) >= least:
                yield _joined(held)
                held = []
    except KeyboardInterrupt:
        if held:
            yield _joined(held)
        raise
    if held:
        yield _joined(held)


def _joined(parts: list[tuple[Rows, Floats]]) -> tuple[Rows, Floats]:
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([z for _, z in parts])


def _fitted(store: Store) -> Rows:
    done = store.rows(Status.DONE)
    if not len(done):
        raise StoreError(
            f"{store.path} holds no fitted field",
            hint=f"run `nf2vec fit SHAPES --field {store.field} --store {store.path}` first",
        )
    require_known_init(store)
    return done


def _shards(done: Rows, todo: Rows, batch: int) -> list[Rows]:
    """Give each shard that has something to do: its rows that are fitted."""
    places = done // batch
    wanted = np.flatnonzero(np.isin(places, todo // batch))
    cuts = np.flatnonzero(np.diff(places[wanted])) + 1
    return [part for part in np.split(done[wanted], cuts) if len(part)]
