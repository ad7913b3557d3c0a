"""What an encoder is trained against: points near each surface, and the values wanted there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.core.ranks import ALONE, BatchShare, Ranks
from nf2vec_cli.errors import StoreError
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.probes import field_outputs
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.fit_object import Failed, Job, Prepared, prepare
from nf2vec_cli.tasks.held import HeldFields
from nf2vec_cli.tasks.sources import inside, roots_of
from nf2vec_cli.tasks.spread import available_cores, spread

# shares of an object's points, and the standard deviation of their offset from its surface; what is
# left is uniform in the cube
AROUND = ((0.25, 0.003), (0.25, 0.01), (0.25, 0.05), (0.19, 0.1))
KEPT_BYTES = 1 << 30  # of samples that are held in memory
SAMPLE_BYTES = 16  # three coordinates and a value


class Teacher(Protocol):
    """Gives points and the values wanted there."""

    def ask(
        self,
        rows: Rows,
        theta: Tensor,
        count: int,
        generator: torch.Generator,
        share: BatchShare | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw `count` points of each object: [B, count, 3], and the field's values, [B, count].

        rows: the objects. theta: [B, P], their weights, which say where the answer is computed.
        share: which objects of a batch they are, if not all: draws are those of the batch.
        """


class FieldTeacher:
    """The stored fields themselves, asked near their surfaces: nothing but the store is needed."""

    def __init__(self, store: Store, fields: HeldFields) -> None:
        self.store, self.fields, self.spec = store, fields, NetworkSpec(**store.network)
        self.read_back = field_of(store.field).read_back

    def ask(
        self,
        rows: Rows,
        theta: Tensor,
        count: int,
        generator: torch.Generator,
        share: BatchShare | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Ask the fields at fresh points around their surfaces."""
        surface = torch.from_numpy(self.fields.surface(rows))
        bare = ~surface.flatten(1).any(1)
        if bare.any():
            name = self.store.column("id")[rows[int(bare.nonzero()[0])]]
            raise StoreError(
                f"{self.store.path} knows no points on the surface of {name!r}: it was fitted "
                "before they were kept",
                hint="`nf2vec fit SHAPES --store STORE --force` fits it again",
            )
        coords = queries(surface, count, generator=generator, share=share).to(theta.device)
        with torch.no_grad():
            return coords, self.read_back(field_outputs(theta, coords, self.spec))


class SampleTeacher:
    """Values measured on the sources, as the authors do it: drawn from a pool for each object."""

    def __init__(
        self,
        store: Store,
        rows: Rows,
        *,
        sources: Path | None,
        progress: Progress,
        ranks: Ranks = ALONE,
    ) -> None:
        most = KEPT_BYTES // SAMPLE_BYTES // max(len(rows), 1)
        self.place = {int(row): number for number, row in enumerate(rows)}
        mine = rows[ranks.share(len(rows)).at]  # each process measures its share of the objects
        progress.start(len(mine), "samples")
        with ranks.together():
            pools = list(_sampled(store, mine, sources, most, progress))
        least = torch.tensor([min(len(pool) for pool in pools)])
        least = ranks.joined(least, ranks.size).min()
        known = ranks.joined(torch.stack([pool[:least] for pool in pools]), len(rows))
        self.coords, self.values = known[..., :3], known[..., 3]

    def ask(
        self,
        rows: Rows,
        theta: Tensor,
        count: int,
        generator: torch.Generator,
        share: BatchShare | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw from the pools, with replacement."""
        share = share or BatchShare.all(len(rows))
        at = torch.tensor([self.place[int(row)] for row in rows])[:, None]
        pool = self.coords.shape[1]
        drawn = share.of(torch.randint(pool, (share.whole, count), generator=generator))
        return self.coords[at, drawn].to(theta.device), self.values[at, drawn].to(theta.device)


WAYS = "`--sources DIR` where the shapes were moved, or `--supervise field`, which needs no shapes"


def _sampled(
    store: Store, rows: Rows, sources: Path | None, most: int, progress: Progress
) -> Iterator[Tensor]:
    """Measure each object's source: coordinates and value, [S, 4], at most `most` points."""
    jobs = list(_jobs(store, rows, sources))
    workers = max(1, min(available_cores(), len(jobs)))
    for row, job, made in zip(rows, jobs, spread(prepare, jobs, workers=workers), strict=True):
        progress.advance(1, job.id)
        if not isinstance(made, Prepared):
            reason = made.reason if isinstance(made, Failed) else str(made)
            raise StoreError(f"{job.id!r} cannot be sampled again: {reason}", hint=WAYS)
        if np.asarray(made.columns["hash"]).tobytes() != _hash(store, row):
            raise StoreError(f"{job.path} has changed since it was fitted", hint=WAYS)
        pool = made.pool
        rng = np.random.default_rng([made.seed, 3])
        chosen = rng.choice(len(pool.coords), min(most, len(pool.coords)), replace=False)
        values = pool.values[chosen, None]
        yield torch.from_numpy(np.concatenate([pool.coords[chosen], values], axis=1))


def _jobs(store: Store, rows: Rows, sources: Path | None) -> Iterator[Job]:
    config = fit_config(store)
    roots = (sources,) if sources else roots_of(store)
    names, places, copies = (store.column(n) for n in ("id", "source", "copy"))
    for row in rows:
        found = [path for root in roots if (path := inside(root, places[row])).is_file()]
        if not found:
            raise StoreError(f"{places[row]}, the source of {names[row]!r}, is gone", hint=WAYS)
        yield Job(names[row], found[0], store.field, config, store.init_hash, int(copies[row]))


def _hash(store: Store, row: int) -> bytes:
    return np.asarray(store.column("hash")[row]).tobytes()


def queries(
    surface: Tensor, count: int, *, generator: torch.Generator, share: BatchShare | None = None
) -> Tensor:
    """Draw points around surfaces, [B, S, 3] -> [B, count, 3], inside [-1, 1]^3.

    share: which objects of a batch these are, if not all; the numbers are drawn for the batch.
    """
    points = surface.shape[1]
    share = share or BatchShare.all(len(surface))
    size = share.whole
    parts = []
    for part, sigma in AROUND:
        some = round(part * count)
        at = share.of(torch.randint(points, (size, some, 1), generator=generator))
        base = surface.gather(1, at.expand(-1, -1, 3))
        parts.append(base + sigma * share.of(torch.randn(size, some, 3, generator=generator)))
    left = count - sum(part.shape[1] for part in parts)
    parts.append(share.of(torch.rand(size, left, 3, generator=generator)) * 2 - 1)
    return torch.cat(parts, dim=1).clamp_(-1, 1)


def generator_of(seed: int, step: int) -> torch.Generator:
    """Give the randomness of one step: a run that is resumed draws as if it had never stopped."""
    mixed = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))
