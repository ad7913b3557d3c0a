"""The fit itself: B prepared objects in, B fields out."""

from __future__ import annotations

from hashlib import sha256
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.mlp import SirenGradient
from nf2vec_cli.core.optimiser import Adam, Muon
from nf2vec_cli.fields.pool import Pool, draw_stratified, draw_uniform
from nf2vec_cli.models.network import NetworkSpec

# points of one tile of work: larger ones leave the cache of a CPU (measured at H = 128 and 512)
TILE = {"cpu": 1_250}


def object_seed(object_id: str, seed: int) -> int:
    """Derive an object's own seed: it never depends on which objects it is fitted with."""
    digest = sha256(f"{seed}/{object_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def network_of(config: FitConfig) -> NetworkSpec:
    """Name the architecture that a configuration asks for."""
    return NetworkSpec(hidden=config.hidden, layers=config.layers, omega=config.omega)


def optimise(
    init: Tensor,  # [P]
    pools: list[Pool],
    seeds: list[int],
    field: ModuleType,
    config: FitConfig,
    *,
    device: torch.device,
) -> Tensor:  # [B, P]
    """Fit one field to each pool, all from the same start; objects never influence each other."""
    spec = network_of(config)
    theta = init.to(device).repeat(len(pools), 1)
    coords = torch.from_numpy(np.stack([p.coords for p in pools])).to(device)
    values = torch.from_numpy(np.stack([p.values for p in pools])).to(device)
    targets = field.labels(values)
    draws = np.stack([_draw(p, s, config) for p, s in zip(pools, seeds, strict=True)], axis=1)
    chosen = torch.from_numpy(draws.astype(np.int64)).to(device)  # [steps, B, points]
    engine = SirenGradient(spec, theta=theta, tile=TILE.get(device.type, config.points))
    stepper = _Stepper(theta, engine, spec, config)
    for step in range(config.steps):
        index = chosen[step]
        x = coords.gather(1, index[..., None].expand(-1, -1, 3))
        engine(x, targets.gather(1, index), field.loss)
        stepper.step(1 - step / config.steps if config.decay == "linear" else 1.0)
    return theta


def _draw(pool: Pool, seed: int, config: FitConfig) -> NDArray[np.int32]:
    rng = np.random.default_rng([seed, 1])
    if config.draw == "uniform":
        return draw_uniform(len(pool.values), config.steps, config.points, rng=rng)
    return draw_stratified(pool.values, config.steps, config.points, rng=rng)


class _Stepper:
    """The optimiser that the configuration names, over flat parameters [B, P]."""

    def __init__(
        self, theta: Tensor, engine: SirenGradient, spec: NetworkSpec, config: FitConfig
    ) -> None:
        self.engine, self.config = engine, config
        self.muon: Muon | None = None
        slices = [slice(0, spec.parameters)]
        if config.optimiser == "muon":
            hidden = slice(1, spec.layers)
            self.muon = Muon(engine.weights[hidden], config.momentum, config.newton_schulz)
            slices = _outside_hidden(spec)
        self.adam = Adam(theta, slices, config.momentum, config.beta2)

    def step(self, scale: float) -> None:
        self.adam.step(self.engine.grad, self.config.learning_rate * scale)
        if self.muon is not None:
            hidden = slice(1, len(self.engine.weights) - 1)
            self.muon.step(self.engine.grad_w[hidden], self.config.muon_rate * scale)


def _outside_hidden(spec: NetworkSpec) -> list[slice]:
    """Slices of theta that are no hidden matrix: first layer, biases, last layer."""
    slices, at, start = [], 0, 0
    for layer, (out, into) in enumerate(spec.shapes):
        if 0 < layer < spec.layers:
            slices.append(slice(start, at))
            start = at + out * into
        at += out * (into + 1)
    return [*slices, slice(start, at)]
