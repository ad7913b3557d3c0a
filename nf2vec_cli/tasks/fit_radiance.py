"""Radiance from pictures to weights: read or render, carve, fit, measure on views held out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.device import quick_products
from nf2vec_cli.core.march import Rays
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.errors import Nf2vecError
from nf2vec_cli.fields import FieldName
from nf2vec_cli.fields.nerf import RayPool, in_unit
from nf2vec_cli.fields.nerf import prepare as prepare_rays
from nf2vec_cli.fields.pool import in_order
from nf2vec_cli.shapes.fingerprint import fingerprint
from nf2vec_cli.shapes.pictures import colour_of
from nf2vec_cli.shapes.view_cache import views_of
from nf2vec_cli.shapes.views import Views
from nf2vec_cli.store.codec import Floats, roundtrip
from nf2vec_cli.store.radiance import Cameras, pack_cameras, pack_grid
from nf2vec_cli.store.schema import CAMERAS, GRID
from nf2vec_cli.tasks.fit_object import (
    UNKNOWN,
    Failed,
    Fitted,
    Job,
    batches,
    codec_study,
    fit_batches,
    fit_jobs,
    listed,
    lost,
    product_key,
    reason_of,
)
from nf2vec_cli.tasks.optimise import object_seed
from nf2vec_cli.tasks.optimise_rays import Lit, optimise_rays, radiance_network
from nf2vec_cli.tasks.radiance_field import RadianceField
from nf2vec_cli.tasks.spread import Engine, WorkerDied, spread

log = logging.getLogger(__name__)
SEEN = 0.5  # opacity from which a ray ends on a surface
MEASURED_PIXELS = 80_000  # of the views held out on which codecs are measured, at most


@dataclass(frozen=True)
class PreparedViews:
    """Pictures ready to be fitted, and what the store will know about them."""

    views: Views
    pool: RayPool
    seed: int
    columns: dict[str, Any]
    seconds: float


def fitter_of(field: str) -> Callable[..., Iterator[Fitted | Failed]]:
    """Give what fits a kind of field: `fit_radiance` or `fit_jobs`, with the same arguments."""
    return fit_radiance if field == FieldName.nerf else fit_jobs


def fit_radiance(
    jobs: Iterable[Job],
    init: Floats,
    *,
    device: torch.device,
    workers: int | Engine,
    size: int,
    limit: float | None = None,
) -> Iterator[Fitted | Failed]:
    """Fit each job's object, in order: one a worker on a CPU, `size` at once on a GPU.

    limit: seconds that a worker may take for an object.
    """
    if device.type == "cpu":
        work = partial(fit_views, init=init)
        for outcome in spread(work, jobs, workers=workers, limit=limit):
            yield lost(outcome) if isinstance(outcome, WorkerDied) else outcome
        return
    together = partial(_fit_prepared, init=init, device=device)
    if not isinstance(workers, int):
        yield from fit_batches(prepare_views, partial(listed, together), jobs, workers, size)
        return
    for batch in batches(jobs, size):
        prepared = list(spread(prepare_views, batch, workers=workers, limit=limit))
        yield from together(batch, prepared)


def _fit_prepared(
    batch: list[Job],
    prepared: list[PreparedViews | Failed | WorkerDied],
    *,
    init: Floats,
    device: torch.device,
) -> Iterator[Fitted | Failed]:
    """Fit objects that workers have prepared as one batched network on the GPU."""
    sound = [p for p in prepared if isinstance(p, PreparedViews)]
    began = time.process_time()
    lit = iter(_optimised(sound, batch[0], init, device))
    for job, one in zip(batch, prepared, strict=True):
        if isinstance(one, PreparedViews):
            found = next(lit)
            spent = (time.process_time() - began) / len(sound)
            yield _measured(job, one, found, init, spent)
        else:
            yield lost(one) if isinstance(one, WorkerDied) else one


def fit_views(job: Job, init: Floats) -> Fitted | Failed:
    """Fit one object on this process's CPU, with one thread."""
    prepared = prepare_views(job)
    if isinstance(prepared, Failed):
        return prepared
    started = time.process_time()
    with quick_products():
        lit = next(_optimised([prepared], job, init, torch.device("cpu")))
        return _measured(job, prepared, lit, init, time.process_time() - started)


def prepare_views(job: Job) -> PreparedViews | Failed:
    """Read an object's pictures, or make them of its mesh, and find the rays that see it."""
    started = time.process_time()
    columns: dict[str, Any] = {}
    try:
        digest, size, mtime = fingerprint(job.path, kind=job.field)
        columns |= {"hash": digest, "size": size, "mtime": mtime}
        seed = object_seed(job.id, job.config.seed)
        views = read_views(job.path, job.config, cache=job.cache, digest=digest)
        columns["transform"] = views.box
        pool = prepare_rays(views, job.config, rng=np.random.default_rng([seed, 0]))
        columns |= {
            "seed": seed,
            "message": "; ".join(views.notes),
            "watertight": UNKNOWN,
            "faces": 0,
            "doubt": 0.0,
            "disagreement": 0.0,
            "sign": "",
            "cells": 0,
        }
    except Exception as error:  # one object, however odd, must not end a run of thousands
        if not isinstance(error, Nf2vecError | OSError | MemoryError):
            log.exception("%r", str(job.path))
        return Failed(reason_of(error), columns)
    columns["key"] = product_key(digest, job)
    return PreparedViews(views, pool, seed, columns, time.process_time() - started)


def read_views(
    path: Path, config: FitConfig, *, cache: Path | None = None, digest: bytes = b""
) -> Views:
    """Read a folder of pictures, or take some of a mesh, as the settings have it (`views_of`)."""
    return views_of(
        path,
        views=config.views,
        size=config.size,
        seed=config.seed,
        how=config.normalise,
        background=colour_of(config.background) if config.background else None,
        cache=cache,
        digest=digest,
    )


def _optimised(
    prepared: list[PreparedViews], job: Job, init: Floats, device: torch.device
) -> Iterator[Lit]:
    pools = [(one.pool, one.seed) for one in prepared]
    start = torch.from_numpy(init)
    return optimise_rays(start, pools, job.config, device=device, places=max(1, len(pools)))


def _measured(
    job: Job, prepared: PreparedViews, lit: Lit, init: Floats, spent: float
) -> Fitted | Failed:
    theta: Floats = lit.theta.cpu().numpy()
    if not np.isfinite(theta).all():
        return Failed("the fit diverged (weights are not finite)", prepared.columns)
    config, spec, views = job.config, radiance_network(job.config), prepared.views
    grid: NDArray[np.bool_] = lit.grid.cpu().numpy()
    held = _Pixels(views, views.held)

    def field_of(weights: Floats) -> RadianceField:
        return RadianceField(weights, spec, grid, config.samples)

    kept = field_of(roundtrip(theta, init, spec.blocks, config.codec, config.bits))
    error, psnr = held.compare(kept, None)
    columns = prepared.columns | {
        "error": error,
        "psnr": psnr,
        "steps": config.steps,
        "seconds": prepared.seconds + spent,
    }
    study = None
    if job.study:

        def error_of(weights: Floats) -> float:
            return held.compare(field_of(weights), MEASURED_PIXELS)[0]

        study = codec_study(theta, init, spec.blocks, error_of)
    poses, focal = in_unit(views, np.ones(len(views.held), bool))
    size = np.tile(views.pixels.shape[2:0:-1], (len(focal), 1))
    cameras = Cameras(poses.numpy(), focal.numpy(), size, views.held)
    beside: dict[str, NDArray[Any]] = {GRID: pack_grid(grid), CAMERAS: pack_cameras(cameras)}
    return Fitted(theta, _surface(kept, prepared), columns, study, beside)


class _Pixels:
    """Pixels of some views, on white, and the rays that see them."""

    def __init__(self, views: Views, taken: NDArray[np.bool_]) -> None:
        poses, focal = in_unit(views, taken)
        pixels = torch.from_numpy(views.pixels[taken]).float() / 255
        self.colours = (pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]).view(-1, 3)
        self.rays = camera_rays(poses, focal, pixels.shape[2], pixels.shape[1])

    def compare(self, field: RadianceField, most: int | None) -> tuple[float, float]:
        """Give the mean difference of colours and the PSNR in decibels, of `most` even pixels."""
        count = len(self.rays)
        some = torch.linspace(0, count - 1, min(count, most or count)).long()
        seen = field.render(self.rays[some], background=(1.0, 1.0, 1.0)).colour
        away = seen - self.colours[some]
        return float(away.abs().mean()), float(-10 * away.square().mean().clamp_min(1e-10).log10())


def _surface(field: RadianceField, prepared: PreparedViews) -> Floats:
    """Find where the rays that show the object end: [SURFACE_POINTS, 3]; zeros if none does."""
    pool = prepared.pool
    shown = (pool.colours[:, 3] > SEEN).nonzero()[:, 0]
    some = shown[torch.linspace(0, len(shown) - 1, min(len(shown), 8 * SURFACE_POINTS)).long()]
    rays = Rays(pool.rays.origins[some], pool.rays.directions[some])
    seen = field.render(rays, background=(0.0, 0.0, 0.0))
    ends = (rays.origins + rays.directions * seen.depth[:, None])[seen.opacity > SEEN]
    if not len(ends):
        return np.zeros((SURFACE_POINTS, 3), np.float32)
    rng = np.random.default_rng([prepared.seed, 2])
    drawn = rng.choice(len(ends), SURFACE_POINTS, replace=len(ends) < SURFACE_POINTS)
    return in_order(ends.numpy()[drawn].clip(-1, 1).astype(np.float64))
