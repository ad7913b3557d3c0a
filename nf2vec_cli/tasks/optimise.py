"""The fit itself: prepared objects in, fields out, several at once in places of one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.capture import Repeated
from nf2vec_cli.core.device import quick_products
from nf2vec_cli.core.gradient import Gradient, siren_gradient
from nf2vec_cli.core.mlp import field_values
from nf2vec_cli.core.optimiser import Adam, Muon
from nf2vec_cli.fields.field import Field
from nf2vec_cli.fields.pool import Pool, draw_stratified, draw_uniform
from nf2vec_cli.models.network import NetworkSpec

# points of one tile of work: larger ones leave the cache of a CPU (measured at H = 128 and 512)
TILE = {"cpu": 1_250}
CHECK_EVERY = 10  # steps between two looks at the error of a fit that may stop early
CHECKED = 2_000  # points of such a look: 5 % of the cost of the steps between
CAPTURED = 50  # steps of one CUDA graph, at most


@dataclass(frozen=True)
class Optimised:
    """A fitted field: its place in the order of the pools, theta [P], and the steps it took."""

    index: int
    theta: Tensor
    steps: int


def object_seed(object_id: str, seed: int) -> int:
    """Derive an object's own seed: it never depends on which objects it is fitted with."""
    digest = sha256(f"{seed}/{object_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def network_of(config: FitConfig) -> NetworkSpec:
    """Name the architecture that a configuration asks for."""
    return NetworkSpec(hidden=config.hidden, layers=config.layers, omega=config.omega)


def optimise(
    init: Tensor,  # [P]
    pools: Iterable[tuple[Pool, int]],
    field: Field,
    config: FitConfig,
    *,
    device: torch.device,
    places: int = 1,
    graphs: bool = False,
) -> Iterator[Optimised]:
    """Fit one field to each (pool, seed), all from the same start; objects never influence another.

    At most `places` objects are under way at once. One that is finished, by `config.steps` or by
    `config.target_error`, gives its place to the next, so a hard one holds up no batch. Fields
    come in the order in which they are finished. With `graphs` several steps of the whole batch are
    one CUDA graph, which takes the launches off the host; elsewhere they are as many steps.
    """
    queue = enumerate(pools)
    first = list(islice(queue, places))
    if not first:
        return
    batch = _Batch(init.to(device), [pool for _, (pool, _) in first], field, config, graphs)
    under_way: dict[int, int] = {}  # place -> number of its object
    for place, (number, (pool, seed)) in enumerate(first):
        batch.seat(place, pool, seed)
        under_way[place] = number
    while under_way:
        for place in set(batch.step()) & set(under_way):
            number = under_way.pop(place)
            yield Optimised(number, batch.theta[place].clone(), int(batch.done[place]))
            for following, (pool, seed) in islice(queue, 1):
                batch.seat(place, pool, seed)
                under_way[place] = following


class _Batch:
    """Networks, optimiser and drawn points of the objects under way, one a place."""

    def __init__(
        self, init: Tensor, pools: list[Pool], field: Field, config: FitConfig, graphs: bool
    ) -> None:
        self.init, self.field, self.config = init, field, config
        self.spec = network_of(config)
        size, points = len(pools), len(pools[0].values)
        device = init.device
        self.theta = init.repeat(size, 1)
        self.coords = torch.empty(size, points, 3, device=device)
        self.targets = torch.empty(size, points, device=device)
        self.values = torch.empty(size, points, device=device)
        self.counts = points_of_steps(config)
        most = int(self.counts.max())
        self.counts_there = torch.from_numpy(self.counts).to(device)
        self.draws = torch.zeros(config.steps, size, most, dtype=torch.int64, device=device)
        self.column = torch.arange(most, device=device)
        self.checked: list[Tensor] = [torch.empty(0)] * size
        # steps taken: for the host, which never has to ask, and on the device
        self.done, self.taken = np.zeros(size, np.int64), torch.zeros_like(self.draws[0, :, 0])
        self.places = torch.arange(size, device=device)
        tile = TILE.get(device.type, config.points)
        self.engine = siren_gradient(
            self.spec, theta=self.theta, tile=tile, precision=config.precision
        )
        self.stepper = _Stepper(self.theta, self.engine, self.spec, config)
        self.loss = field.point_loss(config)
        self.stride = steps_of_a_graph(config) if graphs else 1
        self.many = Repeated(lambda: self._move(most), self.stride, device) if graphs else None

    def seat(self, place: int, pool: Pool, seed: int) -> None:
        """Begin a new object at a place."""
        self.theta[place] = self.init
        self.coords[place] = torch.from_numpy(pool.coords)
        self.values[place] = torch.from_numpy(pool.values)
        self.targets[place] = self.field.labels(self.values[place])
        drawn = np.zeros((self.config.steps, self.draws.shape[2]), np.int64)
        for step, chosen in enumerate(draw_points(pool, seed, self.counts, self.config)):
            drawn[step, : len(chosen)] = chosen
        self.draws[:, place] = torch.from_numpy(drawn)  # at once: a copy to a GPU takes its time
        if self.config.target_error:
            near = np.flatnonzero(pool.near)
            # even steps through the Morton order: the whole shape
            some = near[np.linspace(0, len(near) - 1, min(CHECKED, len(near))).astype(int)]
            self.checked[place] = torch.from_numpy(some).to(self.theta.device)
        self.done[place] = self.taken[place] = 0
        self.stepper.restart(place)

    def step(self) -> list[int]:
        """Move every object, by a step or a graph of them; return places of what is finished."""
        # a CPU's setting is that of the process
        on_gpu = self.theta.is_cuda and self.config.precision != "float32"
        with quick_products() if on_gpu else nullcontext():
            if self.many is not None:
                self.many()
            else:
                self._move(int(self.counts[np.minimum(self.done, self.config.steps - 1)].max()))
        self.done += self.stride
        return [p for p, done in enumerate(self.done) if done >= self.config.steps or self._good(p)]

    def _move(self, width: int) -> None:
        """Move every object by one step of at most `width` points; asks nothing of the host."""
        steps = self.config.steps
        at = self.taken.clamp_max(steps - 1)  # a place that nobody wants any more
        count = self.counts_there[at][:, None]
        index = self.draws[at, self.places][:, :width]
        x = self.coords.gather(1, index[..., None].expand(-1, -1, 3))
        # an object with fewer points than its neighbours gives the rest no weight
        share = (self.column[:width] < count) / count
        self.engine(x, self.targets.gather(1, index), self.loss, share)
        decay = 1 - at.double() / steps if self.config.decay == "linear" else torch.ones_like(at)
        self.stepper.step(decay.to(self.theta.dtype)[:, None])
        self.taken += 1

    def _good(self, place: int) -> bool:
        if not self.config.target_error or self.done[place] % CHECK_EVERY:
            return False
        some = self.checked[place]
        theta, points = self.theta[place : place + 1], self.coords[place, some][None]
        outputs = field_values(theta, points, self.spec, self.config.precision)
        found = self.field.read_back(outputs[0, :, 0])
        error = (found - self.values[place, some]).abs().mean()
        return bool(error <= self.config.target_error)


def steps_of_a_graph(config: FitConfig) -> int:
    """Give how many steps one graph holds: fits end, and are looked at, between two graphs."""
    whole = gcd(config.steps, CHECK_EVERY) if config.target_error else config.steps
    return max(n for n in range(1, min(whole, CAPTURED) + 1) if whole % n == 0)


def points_of_steps(config: FitConfig) -> NDArray[np.int64]:  # [steps]
    """Give the number of points of each step: it changes evenly, and is `points` on the mean."""
    first = 2 * config.points / (1 + config.growth)
    counts = np.linspace(first, first * config.growth, config.steps)
    return np.maximum(counts.round().astype(np.int64), 1)


def draw_points(
    pool: Pool, seed: int, counts: NDArray[np.int64], config: FitConfig
) -> list[NDArray[np.int64]]:
    """Choose the points of steps of so many, in the way that the configuration names."""
    draw = draw_uniform if config.draw == "uniform" else draw_stratified
    return draw(pool, counts, rng=np.random.default_rng([seed, 1]))


class _Stepper:
    """The optimiser that the configuration names, over flat parameters [B, P]."""

    def __init__(
        self, theta: Tensor, engine: Gradient, spec: NetworkSpec, config: FitConfig
    ) -> None:
        self.engine, self.config = engine, config
        self.muon: Muon | None = None
        slices = [slice(0, spec.parameters)]
        if config.optimiser == "muon":
            hidden = slice(1, spec.layers)
            self.muon = Muon(engine.weights[hidden], config.momentum, config.newton_schulz)
            slices = outside_hidden(spec)
        self.adam = Adam(theta, slices, config.momentum, config.beta2)

    def step(self, scale: Tensor) -> None:
        """Move by the gradient in the engine; scale: [B, 1], part of the first step's size."""
        self.adam.step(self.engine.grad, self.config.learning_rate * scale)
        if self.muon is not None:
            hidden = slice(1, len(self.engine.weights) - 1)
            self.muon.step(self.engine.grad_w[hidden], self.config.muon_rate * scale)

    def restart(self, place: int) -> None:
        """Forget the object that was at a place."""
        self.adam.restart(place)
        if self.muon is not None:
            self.muon.restart(place)


def outside_hidden(spec: NetworkSpec) -> list[slice]:
    """Slices of theta that are no hidden matrix: first layer, biases, last layer."""
    slices, at, start = [], 0, 0
    for layer, (out, into) in enumerate(spec.shapes):
        if 0 < layer < spec.layers:
            slices.append(slice(start, at))
            start = at + out * into
        at += out * (into + spec.biases)
    return [*slices, slice(start, at)]
