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
from nf2vec_cli.core import optimiser
from nf2vec_cli.core.mlp import siren_forward, tiled_values
from nf2vec_cli.fields import FieldName
from nf2vec_cli.fields.field import Field, field_of
from nf2vec_cli.fields.pool import Pool
from nf2vec_cli.models.network import NetworkSpec, siren_init, split_theta
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.load import load_shape
from nf2vec_cli.shapes.unit import into_unit
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.optimise import network_of, object_seed, optimise
from nf2vec_cli.tasks.rebuild import NATURAL, Form, build, same_form
from nf2vec_cli.tasks.score import compare, field_error
from nf2vec_cli.tasks.spread import one_thread

CPU = torch.device("cpu")
TESTED = 50_000  # points, drawn by a seed of their own, on which both sides are measured
RESOLUTION = 128  # of meshes that are compared
POINTS = 20_000  # of clouds
Theta = NDArray[np.float32]


@dataclass(frozen=True)
class FitBench:
    """One row: a recipe at a width, means over the shapes.

    cpu_seconds: of one object, its query points included, one thread. gflop: of the fit alone.
    error: mean error of the field near the surface, and chamfer, both in thousandths; f1 and f025:
    F-score in percent at 1 % and 0.25 % of the unit sphere's radius; iou: of voxels, in percent.
    midpoint: loss half way between two fits of one shape over the mean of their losses;
    midpoint_kl: the same above the labels' own entropy.
    """

    field: str
    width: int
    recipe: str
    shapes: int
    cpu_seconds: float
    gflop: float
    error: float
    chamfer: float | None
    f1: float | None
    f025: float | None
    iou: float | None
    midpoint: float | None
    midpoint_kl: float | None
    timed_steps: int


def bench_fit(
    refs: list[ShapeRef],
    preset: Preset,
    *,
    field: FieldName = FieldName.sdf,
    authors_steps: int = 500,
    authors_midpoint: bool = False,
    overrides: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Iterator[FitBench]:
    """Fit the same shapes by both recipes, one thread, one process; ours first.

    Args:
        refs: the shapes; all must be readable, and closed for signed distances.
        preset: the architecture.
        field: the kind of field.
        authors_steps: how many of the authors' 500 steps run through their own engine (autograd
            over a batch of networks) and are timed. With fewer than 500, their cost is scaled
            from those, and the fit whose quality is measured runs all 500 steps of their recipe
            through our engine, in less time. Ours sums the loss over objects, theirs averages it,
            and their own engine's quality was found a little lower.
        authors_midpoint: fit each shape twice by their recipe too, in our engine.
        overrides: settings that differ from our recipe's.
        progress: told about each fit.
    """
    progress = progress or Silent()
    ours = FitConfig(**{**fit_defaults(preset, Recipe.fast, field), **(overrides or {})})
    theirs = FitConfig(
        **fit_defaults(preset, Recipe.paper, field)
        | {"normalise": ours.normalise, "voxels": ours.voxels, "occupancy": ours.occupancy}
    )
    shapes = [_Shape(ref, field, ours) for ref in refs]
    with one_thread(), progress:
        progress.start(len(shapes), f"{preset} {field}, ours")
        yield _ours(shapes, ours, progress)
        yield _authors(shapes, theirs, authors_steps, progress, authors_midpoint)


class _Shape:
    """A shape in unit space, with what both sides are measured on."""

    def __init__(self, ref: ShapeRef, kind: FieldName, config: FitConfig) -> None:
        self.id, self.kind, self.config = ref.id, kind, config
        self.field = field_of(kind)
        self.shape, _, _ = into_unit(load_shape(ref.path, kind), how=config.normalise)
        size = config.voxels**3 if kind is FieldName.occ else TESTED
        self.test = self.pool(
            config.model_copy(update={"pool": size, "recipe": Recipe.fast}), seed=2**32
        )
        self.form = NATURAL[kind]
        self.resolution = config.voxels if self.form is Form.voxels else RESOLUTION
        self.truth = same_form(self.shape, kind, self.form, self.resolution, config)

    def pool(self, config: FitConfig, *, seed: int) -> Pool:
        """Prepare query points."""
        return self.field.prepare(self.shape, config, rng=np.random.default_rng(seed))

    def quality(self, theta: Theta, spec: NetworkSpec) -> list[float]:
        """Error near the surface, Chamfer distance, F-score at 1 % and 0.25 %, IoU; NaN: none."""
        field = FieldFunction(theta, spec, self.kind)
        found = build(field, self.kind, self.form, resolution=self.resolution, points=POINTS)
        score = compare(found.shape, self.truth)
        numbers = (field_error(field, self.test), score.chamfer, score.f1, score.f025, score.iou)
        return [np.nan if number is None else number for number in numbers]

    def midpoint(self, a: Theta, b: Theta, config: FitConfig) -> tuple[float, float]:
        """Loss at (a + b) / 2 over the mean loss of a and b: raw, and above the labels' entropy."""
        spec, loss_of = network_of(config), self.field.point_loss(config)
        targets = self.field.labels(torch.from_numpy(self.test.values))
        entropy = torch.special.entr(targets) + torch.special.entr(1 - targets)
        coords = torch.from_numpy(self.test.coords)

        def loss(theta: Theta) -> float:
            outputs = tiled_values(torch.from_numpy(theta), coords, spec)
            return float(loss_of(outputs[:, 0].double(), targets.double())[0].mean())

        ends, middle = (loss(a) + loss(b)) / 2, loss(((a + b) / 2).astype(np.float32))
        floor = float(entropy.double().mean())
        return middle / ends, (middle - floor) / (ends - floor)


def _ours(shapes: list[_Shape], config: FitConfig, progress: Progress) -> FitBench:
    spec = network_of(config)
    seconds, quality, middle = [], [], []
    _fit(shapes[0], config.model_copy(update={"steps": 2}), seed=0)  # libraries load and compile
    for shape in shapes:
        started = time.process_time()
        theta = _fit(shape, config, seed=0)
        seconds.append(time.process_time() - started)
        quality.append(shape.quality(theta, spec))
        middle.append(shape.midpoint(theta, _fit(shape, config, seed=1), config))
        progress.advance(1, shape.id)
    return _row(shapes, config, float(np.mean(seconds)), quality, middle, timed=config.steps)


def _fit(shape: _Shape, config: FitConfig, *, seed: int) -> Theta:
    key = object_seed(shape.id, seed)
    pool = shape.field.prepare(shape.shape, config, rng=np.random.default_rng([key, 0]))
    init = siren_init(network_of(config), seed=config.init_seed)
    fitted = next(optimise(init, [(pool, key)], shape.field, config, device=CPU))
    theta: Theta = fitted.theta.numpy()
    return theta


def _authors(
    shapes: list[_Shape], config: FitConfig, timed: int, progress: Progress, midpoint: bool
) -> FitBench:
    spec = network_of(config)
    started = time.process_time()
    pools = [
        s.field.prepare(s.shape, config, rng=np.random.default_rng([object_seed(s.id, 0), 0]))
        for s in shapes
    ]
    prepared = time.process_time() - started
    started = time.process_time()
    progress.start(timed, f"{config.preset}, the authors' engine")
    init = siren_init(spec, seed=config.init_seed)
    thetas = authors_fit(init, pools, shapes[0].field, config, steps=timed, progress=progress)
    spent = (time.process_time() - started) * config.steps / timed
    progress.start(len(shapes), f"{config.preset}, the authors' quality")
    quality, middle = [], []
    for shape, theta in zip(shapes, thetas.numpy(), strict=True):
        whole = theta if timed == config.steps else _fit(shape, config, seed=0)
        quality.append(shape.quality(whole, spec))
        if midpoint:
            middle.append(shape.midpoint(whole, _fit(shape, config, seed=1), config))
        progress.advance(1, shape.id)
    return _row(shapes, config, (prepared + spent) / len(shapes), quality, middle, timed=timed)


def authors_fit(
    init: Tensor,
    pools: list[Pool],
    field: Field,
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
    labels = field.labels(torch.from_numpy(np.stack([p.values for p in pools])))
    loss_of = field.point_loss(config)
    uniform = torch.ones(labels.shape)
    adam = torch.optim.Adam(stacked, lr=config.learning_rate)
    for _ in range(steps):
        index = torch.multinomial(uniform, config.points)
        x = coords.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
        outputs = siren_forward(stacked[::2], stacked[1::2], x, spec.omega).squeeze(-1)
        y = labels.gather(1, index)
        loss = loss_of(outputs, y)[0].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if progress:
            progress.advance(1)
    return torch.cat([p.detach().flatten(1) for p in stacked], dim=1)


def fit_flops(config: FitConfig) -> float:
    """Count the floating-point operations of one object's fit (2 for a multiply and add)."""
    spec = network_of(config)
    macs = sum(out * into for out, into in spec.shapes)
    first = spec.hidden * spec.inputs  # no gradient goes to the coordinates
    flops = config.steps * config.points * (6.0 * macs - 2 * first)
    if config.optimiser == "muon":
        # two of an iteration's three products are symmetric: half of them, and the diagonal's tiles
        tiles = max(1, -(-spec.hidden // optimiser.TILE))
        products = config.newton_schulz * (spec.layers - 1) * (1 + 2 * (tiles + 1) / (2 * tiles))
        flops += config.steps * products * 2.0 * spec.hidden**3
    return flops


def _row(
    shapes: list[_Shape],
    config: FitConfig,
    seconds: float,
    quality: list[list[float]],
    middle: list[tuple[float, float]],
    *,
    timed: int,
) -> FitBench:
    error, chamfer, *shares = np.mean(quality, axis=0)
    ratio, kl = np.mean(middle, axis=0) if middle else (None, None)
    f1, f025, iou = (None if np.isnan(share) else float(share) * 100 for share in shares)
    return FitBench(
        field=shapes[0].kind,
        width=config.hidden,
        recipe="authors" if config.recipe is Recipe.paper else "nf2vec",
        shapes=len(shapes),
        cpu_seconds=seconds,
        gflop=fit_flops(config) / 1e9,
        error=float(error) * 1e3,
        chamfer=None if np.isnan(chamfer) else float(chamfer) * 1e3,
        f1=f1,
        f025=f025,
        iou=iou,
        midpoint=ratio,
        midpoint_kl=kl,
        timed_steps=timed,
    )
