"""What it costs to fit and to render radiance, each way beside the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.device import open_device, quick_products
from nf2vec_cli.core.march import Rays, march
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.errors import DeviceError, InputError, UsageFault
from nf2vec_cli.fields.nerf import RayPool, in_unit, prepare
from nf2vec_cli.models.network import radiance_init
from nf2vec_cli.progress import Progress
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.views import Views
from nf2vec_cli.tasks.fit_radiance import read_views
from nf2vec_cli.tasks.optimise import object_seed
from nf2vec_cli.tasks.optimise_rays import Lit, optimise_rays, radiance_network
from nf2vec_cli.tasks.radiance_field import RadianceField
from nf2vec_cli.tasks.spread import one_thread

REPEATS = 3
# its name, the objects, the settings, and what fits them
Way = tuple[str, list[tuple[RayPool, int]], FitConfig, Callable[..., Iterator[Lit]]]


@dataclass(frozen=True)
class RadianceBench:
    """One way to do something. seconds: by the clock, of an object; rays: that were cast for it.

    samples: of a ray, on the mean. difference: largest of the fitted weights (fit), or of colours
    in [0, 1] (render), from the first way of its kind; None: it is not to be compared.
    """

    work: str
    way: str
    objects: int
    seconds: float
    rays: int
    samples: float
    rays_per_second: float
    difference: float | None


def bench_radiance(
    refs: Sequence[ShapeRef], config: FitConfig, *, steps: int, device: str, progress: Progress
) -> Iterator[RadianceBench]:
    """Fit the same objects one by one, together, and without their grids; then render one.

    In turn, three times each, of which the middle one counts. Without a grid a step has as many
    rays, and each has all the samples of the cube.

    Raises:
        InputError: there is no object, or one cannot be used.
    """
    if not refs:
        raise InputError("there is no object to fit")
    target = open_device(device)
    config = config.model_copy(update={"steps": steps})
    with one_thread(), quick_products(), progress:
        progress.start(len(refs), "read")
        views, pools, bare = [], [], []
        for ref in refs:
            seed = object_seed(ref.id, config.seed)
            views.append(read_views(ref.path, config))
            pools.append((_pool(views[-1], config, seed, carved=True), seed))
            bare.append((_pool(views[-1], config, seed, carved=False), seed))
            progress.advance(1, ref.id)
        more = _mean_samples(bare) / _mean_samples(pools)
        wide = config.model_copy(update={"step_samples": int(more * config.step_samples)})
        ways: list[Way] = [
            ("one by one", pools, config, optimise_rays),
            ("together", pools, config, partial(optimise_rays, places=len(pools))),
            ("without a grid", bare, wide, partial(optimise_rays, pruned=False)),
        ]
        yield from _fits(ways, target, progress)
        yield from _renders(views[0], pools[0], config, target)


def _pool(views: Views, config: FitConfig, seed: int, *, carved: bool) -> RayPool:
    return prepare(views, config, rng=np.random.default_rng([seed, 0]), carved=carved)


def _mean_samples(pools: Sequence[tuple[RayPool, int]]) -> float:
    return float(np.mean([len(pool.samples.ray) / len(pool.rays) for pool, _ in pools]))


def _fits(ways: Sequence[Way], device: torch.device, progress: Progress) -> Iterator[RadianceBench]:
    spent: dict[str, list[float]] = {}
    fitted: dict[str, list[Lit]] = {}
    progress.start(REPEATS * len(ways), "fit")
    for _ in range(REPEATS):
        for way, pools, config, fit in ways:
            init = radiance_init(radiance_network(config), seed=config.init_seed)
            started = time.perf_counter()
            fitted[way] = list(fit(init, pools, config, device=device))
            _wait(device)
            spent.setdefault(way, []).append((time.perf_counter() - started) / len(pools))
            progress.advance(1, way)
    first = fitted[ways[0][0]]
    for way, pools, _, _ in ways:
        lit, seconds = fitted[way], median(spent[way])
        rays, samples = sum(one.rays for one in lit), sum(one.samples for one in lit)
        apart = [float((a.theta - b.theta).abs().max()) for a, b in zip(lit, first, strict=True)]
        yield RadianceBench(
            "fit",
            way,
            len(pools),
            seconds,
            rays // len(pools),
            samples / rays,
            rays / len(pools) / seconds,
            max(apart) if pools is ways[0][1] else None,
        )


def _renders(
    views: Views, prepared: tuple[RayPool, int], config: FitConfig, device: torch.device
) -> Iterator[RadianceBench]:
    spec = radiance_network(config)
    init = radiance_init(spec, seed=config.init_seed)
    (lit,) = optimise_rays(init, [prepared], config, device=device)
    poses, focal = in_unit(views, views.held)
    rays = camera_rays(poses, focal, views.pixels.shape[2], views.pixels.shape[1])
    rays = Rays(rays.origins.to(device), rays.directions.to(device))
    samples = len(march(rays, lit.grid, config.samples).ray) / len(rays)
    first: Tensor | None = None
    for backend in ("torch", "nerfacc"):
        field = RadianceField(lit.theta, spec, lit.grid, config.samples, backend)
        spent = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            try:
                colour = field.render(rays).colour
            except (UsageFault, DeviceError):
                break  # nerfacc is not there
            _wait(device)
            spent.append(time.perf_counter() - started)
        if not spent:
            continue
        first = colour if first is None else first
        seconds = median(spent)
        yield RadianceBench(
            "render",
            backend,
            1,
            seconds,
            len(rays),
            samples,
            len(rays) / seconds,
            float((colour - first).abs().max()),
        )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
