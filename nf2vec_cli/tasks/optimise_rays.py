"""The fit of radiance: rays of prepared objects in, fields out, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import log

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.composite import composite, sum_before
from nf2vec_cli.core.march import Rays, Samples, at_cells
from nf2vec_cli.core.mlp import field_values
from nf2vec_cli.core.optimiser import Adam, Muon
from nf2vec_cli.core.render import cell_densities
from nf2vec_cli.fields.nerf import FOREGROUND, RayPool, first_of, radiance_of
from nf2vec_cli.models.network import NetworkSpec, radiance_spec, split_theta
from nf2vec_cli.tasks.optimise import outside_hidden

PRUNED_AT = (0.1, 0.2, 0.3, 0.5, 0.7)  # of the steps: then samples that show nothing are left out
HIDDEN, CLEAR = 1e-3, 1e-3  # transmittance and opacity below which a sample shows nothing
OPAQUE = 0.01  # opacity of one sample from which a cell counts (the authors')


@dataclass(frozen=True)
class Lit:
    """A fitted field of radiance: its place in the order of the pools, theta [P], its grid.

    rays, samples: how many were drawn for it in all.
    """

    index: int
    theta: Tensor
    grid: Tensor
    rays: int
    samples: int


def radiance_network(config: FitConfig) -> NetworkSpec:
    """Name the architecture that a configuration asks for."""
    return radiance_spec(
        hidden=config.hidden, layers=config.layers, octaves=config.octaves, biases=config.biases
    )


def optimise_rays(
    init: Tensor,  # [P]
    pools: Iterable[tuple[RayPool, int]],
    config: FitConfig,
    *,
    device: torch.device,
    places: int = 1,
    pruned: bool = True,
) -> Iterator[Lit]:
    """Fit one field to each (pool, seed), all from the same start; objects never influence another.

    `places` objects are one batched network, each with rays, samples and a grid of its own.
    `pruned`: samples that show nothing are left out as they become known.
    """
    queue = iter(enumerate(pools))
    while batch := list(islice(queue, places)):
        under_way = [_Object(pool, seed, config, device) for _, (pool, seed) in batch]
        fitted = _Fit(init.to(device), under_way, config, PRUNED_AT if pruned else ())
        for step in range(config.steps):
            fitted.step(step)
        for (index, _), theta, one in zip(batch, fitted.theta, under_way, strict=True):
            flat = theta.detach().clone()
            yield Lit(index, flat, one.closed(flat), one.drawn, one.sampled)


class _Object:
    """The rays of one object under way, and which it draws."""

    def __init__(self, pool: RayPool, seed: int, config: FitConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.rng = np.random.default_rng([seed, 1])
        self.pool = _moved(pool, device)
        self.spec = radiance_network(config)
        self.drawn, self.sampled = 0, 0
        self._sort()

    def _sort(self) -> None:
        """Divide the rays into those that show the object and the others."""
        shown = (self.pool.colours[:, 3] > 0).cpu().numpy()
        self.shown, self.clear = np.flatnonzero(shown), np.flatnonzero(~shown)
        self.counts = np.diff(self.pool.first.cpu().numpy())

    def draw(self) -> tuple[np.ndarray, int]:
        """Choose rays until the samples of a step are used up; say how many show the object.

        The object's own come first, three of five; a ray is taken whole or not at all.
        """
        budget = self.config.step_samples
        chosen = []
        for rays, share in ((self.shown, 0.75), (self.clear, 0.25)):
            if not len(rays):
                chosen.append(rays)
                continue
            mean = max(1.0, self.counts[rays].mean())
            drawn = rays[self.rng.integers(len(rays), size=int(2 * share * budget / mean) + 1)]
            used = self.counts[drawn].cumsum()
            chosen.append(drawn[: max(1, int(np.searchsorted(used, share * budget, "right")))])
        rays = np.concatenate(chosen)
        self.drawn += len(rays)
        self.sampled += int(self.counts[rays].sum())
        return rays, len(chosen[0])

    def prune(self, theta: Tensor) -> None:
        """Leave out the samples that nothing can be seen of: in clear cells, and behind others.

        What a ray has passed is told by the lowest density of each cell, so that no more is left
        out than stays dark: at most HIDDEN of a ray's colour.
        """
        low, high = cell_densities(self._density(theta), self.pool.grid)
        pool, samples = self.pool, self.pool.samples
        points = samples.points(pool.rays)
        passed = sum_before(at_cells(points, low) * samples.step, samples.ray, len(pool.rays))
        clear = -torch.expm1(-at_cells(points, high) * samples.step) < CLEAR
        still = samples.near == 0  # points in empty cells stand for themselves
        kept = (~clear & (passed < -log(HIDDEN))) | still[samples.ray]
        samples = Samples(samples.ray[kept], samples.place[kept], samples.near, samples.step)
        self.pool = replace(pool, samples=samples, first=first_of(samples, len(pool.rays)))
        self._sort()

    def closed(self, theta: Tensor) -> Tensor:
        """Give the cells of the grid in which the field holds something."""
        _, high = cell_densities(self._density(theta), self.pool.grid)
        return -torch.expm1(-high * self.pool.samples.step) > OPAQUE

    def _density(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        def density(points: Tensor) -> Tensor:
            found = field_values(theta[None], points[None], self.spec, self.config.precision)
            return radiance_of(found[0])[1]

        return density


class _Fit:
    """Networks and optimiser of the objects under way."""

    def __init__(
        self,
        init: Tensor,
        objects: list[_Object],
        config: FitConfig,
        pruned_at: Iterable[float],
    ) -> None:
        self.objects, self.config = objects, config
        self.spec = radiance_network(config)
        self.theta = init.repeat(len(objects), 1).requires_grad_()
        flat = self.theta.detach()
        self.grad = torch.zeros_like(flat)
        self.muon: Muon | None = None
        slices = [slice(0, self.spec.parameters)]
        if config.optimiser == "muon":
            weights, _ = split_theta(flat, self.spec)
            self.muon = Muon(weights[1:-1], config.momentum, config.newton_schulz)
            slices = outside_hidden(self.spec)
        self.adam = Adam(flat, slices, config.momentum, config.beta2)
        self.pruned = {int(share * config.steps) for share in pruned_at}

    def step(self, step: int) -> None:
        """Move every object by one step."""
        if step in self.pruned:
            for one, theta in zip(self.objects, self.theta.detach(), strict=True):
                one.prune(theta)
        self._backward(*self._drawn())
        scale = 1 - step / self.config.steps if self.config.decay == "linear" else 1.0
        rate = self.theta.new_full((len(self.objects), 1), scale)
        self.adam.step(self.grad, self.config.learning_rate * rate)
        if self.muon is not None:
            hidden, _ = split_theta(self.grad, self.spec)
            self.muon.step(hidden[1:-1], self.config.muon_rate * rate)

    def _drawn(self) -> tuple[Tensor, ...]:
        """Gather the samples of a step as a rectangle [B, M], filled up with steps of length 0."""
        drawn = [one.draw() for one in self.objects]
        most = max(
            int(o.counts[rays].sum()) for o, (rays, _) in zip(self.objects, drawn, strict=True)
        )
        parts, colours, shares, base = [], [], [], 0
        owner: list[Tensor] = []
        for one, (rays, shown) in zip(self.objects, drawn, strict=True):
            parts.append(_gathered(one, rays, most, base))
            index = torch.from_numpy(rays).to(one.device)
            colours.append(one.pool.colours[index])
            share = torch.full((len(rays),), (1 - FOREGROUND) / max(len(rays) - shown, 1))
            share[:shown] = FOREGROUND / max(shown, 1)
            shares.append(share.to(one.device))
            owner.append(torch.full((len(rays),), len(owner), device=one.device))
            base += len(rays)
        points, depths, steps, ray = (torch.stack(part) for part in zip(*parts, strict=True))
        return points, depths, steps, ray, torch.cat(colours), torch.cat(shares), torch.cat(owner)

    def _backward(
        self,
        points: Tensor,
        depths: Tensor,
        steps: Tensor,
        ray: Tensor,
        colours: Tensor,
        shares: Tensor,
        owner: Tensor,
    ) -> None:
        found = field_values(self.theta, points, self.spec, self.config.precision)
        rgb, density = radiance_of(found)
        seen = composite(
            rgb.flatten(0, 1),
            density.flatten(),
            depths.flatten(),
            steps.flatten(),
            ray.flatten(),
            len(colours),
        )
        # a colour of its own for each object, so that none shows through
        drawn = np.stack([one.rng.random(3, np.float32) for one in self.objects])
        behind = torch.from_numpy(drawn).to(points.device)[owner]
        alpha = colours[:, 3:]
        wanted = colours[:, :3] * alpha + behind * (1 - alpha)
        found = seen.colour + behind * (1 - seen.opacity[:, None])
        # a sum over objects of their own means: none depends on the others
        loss = ((found - wanted).abs().mean(1) * shares).sum()
        (grad,) = torch.autograd.grad(loss, self.theta)
        self.grad.copy_(grad)
        self.loss = loss.detach()


def _gathered(one: _Object, rays: np.ndarray, most: int, base: int) -> tuple[Tensor, ...]:
    """Give points [M, 3], depths, steps and rays (from `base` on) of the drawn rays' samples."""
    pool = one.pool
    counts = one.counts[rays]
    total = int(counts.sum())
    starts = pool.first[torch.from_numpy(rays).to(one.device)]
    lengths = torch.from_numpy(counts).to(one.device)
    ray = torch.repeat_interleave(torch.arange(len(rays), device=one.device), lengths)
    inside = torch.arange(total, device=one.device) - (lengths.cumsum(0) - lengths)[ray]
    index = starts[ray] + inside
    jitter = torch.from_numpy(one.rng.random(total, np.float32)).to(one.device)
    picked = Samples(
        pool.samples.ray[index], pool.samples.place[index], pool.samples.near, pool.samples.step
    )
    points, depths = picked.points(pool.rays, jitter), picked.depths(jitter)
    left = most - total
    return (
        torch.cat([points, points.new_zeros(left, 3)]),
        torch.cat([depths, depths.new_zeros(left)]),
        torch.cat([torch.full_like(depths, pool.samples.step), depths.new_zeros(left)]),
        torch.cat([ray, ray.new_full((left,), len(rays) - 1)]) + base,
    )


def _moved(pool: RayPool, device: torch.device) -> RayPool:
    return RayPool(
        Rays(pool.rays.origins.to(device), pool.rays.directions.to(device)),
        pool.colours.to(device),
        Samples(
            pool.samples.ray.to(device),
            pool.samples.place.to(device),
            pool.samples.near.to(device),
            pool.samples.step,
        ),
        pool.first.to(device),
        pool.grid.to(device),
        pool.share,
    )
