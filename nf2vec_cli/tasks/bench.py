"""Measure the authors' recipe, as they run it, against ours: side by side on the same shapes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.config.fit import FitConfig, fit_defaults
from nf2vec_cli.core.mlp import siren_forward
from nf2vec_cli.fields import sdf
from nf2vec_cli.fields.pool import Pool
from nf2vec_cli.models.network import NetworkSpec, siren_init, split_theta
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.mesh import load_mesh, normalise
from nf2vec_cli.tasks.fit_object import field_values
from nf2vec_cli.tasks.optimise import network_of, object_seed, optimise
from nf2vec_cli.tasks.score import Truth, field_error, field_surface
from nf2vec_cli.tasks.spread import one_thread

CPU = torch.device("cpu")
TESTED = 50_000  # points, drawn by a seed of their own, on which both sides are measured
RESOLUTION = 128
Theta = NDArray[np.float32]


@dataclass(frozen=True)
class FitBench:
    """One row: a recipe at a width, means over the shapes.

    cpu_seconds: of one object, its query points included, one thread. gflop: of the fit alone.
    l1 and chamfer in thousandths of the unit sphere's radius; f1 and f025: F-score in percent at
    1 % and 0.25 % of it. midpoint: loss half way between two fits of one shape over the mean of
    their losses; midpoint_kl: the same above the labels' own entropy.
    """

    width: int
    recipe: str
    shapes: int
    cpu_seconds: float
    gflop: float
    l1: float
    chamfer: float
    f1: float
    f025: float
    midpoint: float | None
    midpoint_kl: float | None
    timed_steps: int


def bench_fit(
    refs: list[ShapeRef],
    preset: Preset,
    *,
    authors_steps: int = 500,
    overrides: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Iterator[FitBench]:
    """Fit the same shapes by both recipes, one thread, one process; ours first.

    Args:
        refs: the shapes; all must be readable and closed.
        preset: the architecture.
        authors_steps: how many of the authors' 500 steps run through their own engine (autograd
            over a batch of networks) and are timed. With fewer than 500, their cost is scaled
            from those, and the fit whose quality is measured runs all 500 steps of their recipe
            through our engine, in less time. Ours sums the loss over objects, theirs averages it,
            and their own engine's quality was found a little lower.
        overrides: settings that differ from our recipe's.
        progress: told about each fit.
    """
    progress = progress or Silent()
    ours = FitConfig(**{**fit_defaults(preset, Recipe.fast), **(overrides or {})})
    theirs = FitConfig(**fit_defaults(preset, Recipe.paper) | {"normalise": ours.normalise})
    shapes = [_Shape(ref, ours) for ref in refs]
    with one_thread(), progress:
        progress.start(len(shapes), f"{preset}, ours")
        yield _ours(shapes, ours, progress)
        yield _authors(shapes, theirs, authors_steps, progress)


class _Shape:
    """A shape in unit space, with what both sides are measured on."""

    def __init__(self, ref: ShapeRef, config: FitConfig) -> None:
        mesh = load_mesh(ref.path)
        unit, _, _ = normalise(mesh.vertices, how=config.normalise)
        self.id = ref.id
        self.mesh = Mesh(unit, mesh.faces, mesh.watertight, mesh.notes)
        self.truth = Truth.of(self.mesh)
        self.test = sdf.sample(self.mesh, TESTED, rng=np.random.default_rng(2**32))

    def quality(self, theta: Theta, spec: NetworkSpec) -> tuple[float, float, float, float]:
        """L1, Chamfer distance, F-score at 1 % and 0.25 %."""
        score = self.truth.score(field_surface(theta, spec, RESOLUTION))
        error = field_error(theta, spec, self.test)
        return (error, score.chamfer, score.f1, score.f025) if score else (error, np.inf, 0.0, 0.0)


def _ours(shapes: list[_Shape], config: FitConfig, progress: Progress) -> FitBench:
    spec = network_of(config)
    seconds, quality, middle = [], [], []
    _fit(shapes[0], config.model_copy(update={"steps": 2}), seed=0)  # libraries load and compile
    for shape in shapes:
        started = time.process_time()
        theta = _fit(shape, config, seed=0)
        seconds.append(time.process_time() - started)
        quality.append(shape.quality(theta, spec))
        middle.append(_midpoint(shape.test, spec, theta, _fit(shape, config, seed=1)))
        progress.advance(1, shape.id)
    return _row(config, float(np.mean(seconds)), quality, middle, timed=config.steps)


def _fit(shape: _Shape, config: FitConfig, *, seed: int) -> Theta:
    key = object_seed(shape.id, seed)
    sample = sdf.sample_as_paper if config.recipe is Recipe.paper else sdf.sample
    pool = sample(shape.mesh, config.pool, rng=np.random.default_rng([key, 0]))
    init = siren_init(network_of(config), seed=config.init_seed)
    fitted: Theta = optimise(init, [pool], [key], sdf, config, device=CPU)[0].numpy()
    return fitted


def _authors(shapes: list[_Shape], config: FitConfig, timed: int, progress: Progress) -> FitBench:
    spec = network_of(config)
    started = time.process_time()
    pools = [
        sdf.sample_as_paper(
            s.mesh, config.pool, rng=np.random.default_rng([object_seed(s.id, 0), 0])
        )
        for s in shapes
    ]
    prepared = time.process_time() - started
    started = time.process_time()
    progress.start(timed, f"{config.preset}, the authors' engine")
    init = siren_init(spec, seed=config.init_seed)
    thetas = authors_fit(init, pools, config, steps=timed, progress=progress)
    spent = (time.process_time() - started) * config.steps / timed
    progress.start(len(shapes), f"{config.preset}, the authors' quality")
    quality = []
    for shape, theta in zip(shapes, thetas.numpy(), strict=True):
        whole = theta if timed == config.steps else _fit(shape, config, seed=0)
        quality.append(shape.quality(whole, spec))
        progress.advance(1, shape.id)
    return _row(config, (prepared + spent) / len(shapes), quality, [], timed=timed)


def authors_fit(
    init: Tensor,
    pools: list[Pool],
    config: FitConfig,
    *,
    steps: int,
    progress: Progress | None = None,
) -> Tensor:
    """Fit as the authors' code does: autograd, Adam over stacked networks, mean over all points.

    init: [P]. Returns theta [B, P] after `steps` steps.
    """
    spec = network_of(config)
    weights, biases = split_theta(init.repeat(len(pools), 1), spec)
    stacked = [
        p.clone().requires_grad_() for pair in zip(weights, biases, strict=True) for p in pair
    ]
    coords = torch.from_numpy(np.stack([p.coords for p in pools]))
    labels = sdf.labels(torch.from_numpy(np.stack([p.values for p in pools])))
    uniform = torch.ones(labels.shape)
    optimiser = torch.optim.Adam(stacked, lr=config.learning_rate)
    for _ in range(steps):
        index = torch.multinomial(uniform, config.points)
        x = coords.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
        outputs = siren_forward(stacked[::2], stacked[1::2], x, spec.omega).squeeze(-1)
        y = labels.gather(1, index)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if progress:
            progress.advance(1)
    return torch.cat([p.detach().flatten(1) for p in stacked], dim=1)


def _midpoint(test: Pool, spec: NetworkSpec, a: Theta, b: Theta) -> tuple[float, float]:
    """Loss at (a + b) / 2 over the mean loss of a and b: raw, and above the labels' entropy."""
    targets = sdf.labels(torch.from_numpy(test.values))
    floor = torch.special.entr(targets) + torch.special.entr(1 - targets)

    def loss(theta: Theta) -> float:
        distance = torch.from_numpy(field_values(theta, spec, sdf, test.coords))
        outputs = torch.logit(sdf.labels(distance.double()), eps=1e-12)
        return float(sdf.loss(outputs, targets.double())[0].mean())

    ends, middle = (loss(a) + loss(b)) / 2, loss(((a + b) / 2).astype(np.float32))
    entropy = float(floor.double().mean())
    return middle / ends, (middle - entropy) / (ends - entropy)


def fit_flops(config: FitConfig) -> float:
    """Count the floating-point operations of one object's fit (2 for a multiply and add)."""
    spec = network_of(config)
    macs = sum(out * into for out, into in spec.shapes)
    first = spec.hidden * spec.inputs  # no gradient goes to the coordinates
    flops = config.steps * config.points * (6.0 * macs - 2 * first)
    if config.optimiser == "muon":
        products = 3 * config.newton_schulz * (spec.layers - 1)
        flops += config.steps * products * 2.0 * spec.hidden**3
    return flops


def _row(
    config: FitConfig,
    seconds: float,
    quality: list[tuple[float, float, float, float]],
    middle: list[tuple[float, float]],
    *,
    timed: int,
) -> FitBench:
    l1, chamfer, f1, f025 = np.mean(quality, axis=0)
    ratio, kl = np.mean(middle, axis=0) if middle else (None, None)
    return FitBench(
        width=config.hidden,
        recipe="authors" if config.recipe is Recipe.paper else "nf2vec",
        shapes=len(quality),
        cpu_seconds=float(seconds),
        gflop=fit_flops(config) / 1e9,
        l1=float(l1) * 1e3,
        chamfer=float(chamfer) * 1e3,
        f1=float(f1) * 100,
        f025=float(f025) * 100,
        midpoint=ratio,
        midpoint_kl=kl,
        timed_steps=timed,
    )
