"""Measure whether fits can be repeated, and whether two fits are linearly connected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.fields import FieldName
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.models.network import siren_init
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.store.create import init_hash
from nf2vec_cli.tasks.alignment import (
    PAIRS,
    POSITIONS,
    Alignment,
    AlignmentStudy,
    Batch,
    Connectivity,
    Line,
    connectivity,
    distances_between,
    mean_row,
    repeatability,
)
from nf2vec_cli.tasks.encode_shard import embedder
from nf2vec_cli.tasks.encoders import find_encoder
from nf2vec_cli.tasks.fit_object import Failed, Job, Prepared, fit_jobs, prepare
from nf2vec_cli.tasks.optimise import draw_points, network_of, object_seed
from nf2vec_cli.tasks.spread import available_cores, one_thread, spread

CPU = torch.device("cpu")
BATCH = 10_000  # query points on which the loss is measured


def bench_alignment(
    refs: Sequence[ShapeRef],
    config: FitConfig,
    *,
    field: FieldName = FieldName.sdf,
    refits: int = 3,
    encoder: str | None = None,
    jobs: int = 0,
    progress: Progress | None = None,
) -> AlignmentStudy:
    """Fit each shape several times, and compare the fits (paper, section VIII, Figs. 24 and 25).

    A refit has query points of its own, and starts where all fits start. One fit more of each shape
    starts from the next init seed: it and the first fit are the pair of different inits.

    Args:
        refs: two shapes or more; all must be readable.
        config: how to fit; `seed` is that of the first fit, the next ones count up.
        field: the kind of field.
        refits: fits of each shape from one init, two or more.
        encoder: whose embeddings to compare: name of one that ships, another store (its newest) or
            a .safetensors file. None: the one that ships for these fields, else the weights.
        jobs: worker processes; 0 for one a core. They change no number.
        progress: told about each fit.

    Raises:
        InputError: fewer than two shapes, one that cannot be fitted, or no encoder of these fields.
    """
    if len(refs) < 2:
        raise InputError(
            f"there is one shape, {refs[0].id!r}: distances between objects need two"
            if refs
            else "there is no shape",
            hint="name a folder or list of two shapes or more, such as examples/shapes",
        )
    spec = network_of(config)
    start = init_hash(siren_init(spec, seed=config.init_seed).numpy(), spec.as_dict())
    trained = find_encoder(encoder, kind=field, start=start)
    workers = jobs or available_cores()
    with one_thread(), progress or Silent() as teller:
        teller.start(len(refs) * (refits + 1), "fit")
        seeds = [config.seed + k for k in range(refits)]
        fits = _fitted(refs, config, field, seeds, workers, teller)  # [K, N, P]
        away = config.model_copy(update={"init_seed": config.init_seed + 1})
        others = _fitted(refs, away, field, seeds[1:2], workers, teller)[0]  # [N, P]
        points = embedder(trained.module, CPU)(fits.flatten(0, 1)) if trained else fits
        points = points.reshape(refits, len(refs), -1).transpose(0, 1)  # a shape's fits together
        distances = distances_between(points.flatten(0, 1))
        teller.start(len(refs), "compare")
        found: list[tuple[Connectivity, Line]] = []
        batches = _batches(refs, config, field, config.seed + refits, workers)
        for at, (ref, batch) in enumerate(zip(refs, batches, strict=True)):
            found += connectivity(ref.id, fits[0, at], fits[1, at], others[at], batch, spec)
            teller.advance(1, ref.id)
    names = [ref.id for ref in refs]
    return AlignmentStudy(
        Alignment(
            field,
            spec.hidden,
            refits,
            f"embeddings of {trained.key}" if trained else "weights",
            tuple(repeatability(names, distances, refits)),
            tuple(_by_pair([row for row, _ in found])),
        ),
        tuple(np.linspace(0, 1, POSITIONS).round(9).tolist()),
        tuple(line for _, line in found),
        tuple(f"{name}#{k}" for name in names for k in range(refits)),
        distances,
    )


def _fitted(
    refs: Sequence[ShapeRef],
    config: FitConfig,
    field: FieldName,
    seeds: Sequence[int],
    workers: int,
    teller: Progress,
) -> Tensor:  # [seeds, N, P]
    spec = network_of(config)
    init = siren_init(spec, seed=config.init_seed).numpy()
    jobs = list(_jobs(refs, config, field, seeds, init_hash(init, spec.as_dict())))
    found = []
    for job, outcome in zip(
        jobs, fit_jobs(jobs, init, device=CPU, workers=workers, size=1), strict=True
    ):
        if isinstance(outcome, Failed):
            raise _unusable(job, outcome.reason)
        teller.advance(1, job.id)
        found.append(torch.from_numpy(outcome.theta))
    return torch.stack(found).view(len(seeds), len(refs), -1)


def _jobs(
    refs: Sequence[ShapeRef], config: FitConfig, field: FieldName, seeds: Sequence[int], init: str
) -> Iterator[Job]:
    for seed in seeds:
        for ref in refs:
            yield Job(ref.id, ref.path, field, config.model_copy(update={"seed": seed}), init)


def _batches(
    refs: Sequence[ShapeRef], config: FitConfig, field: FieldName, seed: int, workers: int
) -> Iterator[Batch]:
    """Draw points as a step of the fit does, from a pool that no fit has seen."""
    kind = field_of(field)
    jobs = list(_jobs(refs, config, field, [seed], ""))
    for job, made in zip(jobs, spread(prepare, jobs, workers=workers), strict=True):
        if not isinstance(made, Prepared):
            reason = made.reason if isinstance(made, Failed) else "its worker process died"
            raise _unusable(job, reason)
        count = np.array([min(BATCH, len(made.pool.values))])
        (chosen,) = draw_points(made.pool, object_seed(job.id, seed), count, config)
        values = torch.from_numpy(made.pool.values[chosen])
        coords = torch.from_numpy(made.pool.coords[chosen])
        yield Batch(coords, kind.labels(values).double(), kind.point_loss(config))


def _unusable(job: Job, reason: str) -> InputError:
    return InputError(
        f"{job.id!r} cannot be fitted: {reason}",
        hint="leave it out: a list of paths in a .txt file names the shapes to take",
    )


def _by_pair(rows: Sequence[Connectivity]) -> Iterator[Connectivity]:
    """Sort rows by pair, and then add the means of each pair."""
    pairs = [[row for row in rows if row.pair == pair] for pair in PAIRS]
    for pair in pairs:
        yield from pair
    for pair in pairs:
        yield mean_row(pair)
