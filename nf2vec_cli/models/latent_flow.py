"""Flow matching on embeddings: a velocity that carries noise to embeddings (Lipman 2023)."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

OCTAVES = 6  # of the coding of time
SHRINKAGES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)


class LatentFlow(nn.Module):
    """The velocity that takes noise (time 0) to standardised embeddings (time 1).

    It is the exact velocity of a normal distribution, plus what a network adds to it. Of 65 chairs
    the network alone learns less than their covariance says: a mean squared error of 1.70 on val
    objects, 1.57 for independent numbers and 1.30 for the covariance, shrunk as below.
    """

    axes: Tensor
    variance: Tensor

    def __init__(self, size: int, *, width: int, blocks: int, dropout: float, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.register_buffer("axes", torch.eye(size))
        self.register_buffer("variance", torch.ones(size))
        self.enter = nn.Linear(size, width)
        self.time = nn.Sequential(nn.Linear(2 * OCTAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(width, width),
            )
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, size)
        # the network starts from adding nothing
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def fit_normal(self, real: Tensor, val: Tensor, *, first: int = 0) -> None:  # [N, E], [V, E]
        """Take the covariance of standardised embeddings, shrunk so that val is likeliest.

        The first numbers and the rest are shrunk by shares of their own: the components of an
        aligned encoder are nearly independent, what it learnt from them is not. Without val, half
        of the embeddings say it for the other half.
        """
        known, asked = (real, val) if len(val) else (real[::2], real[1::2])
        head = torch.arange(self.size, device=real.device) < first
        best, chosen = -torch.inf, (0.5, 0.5)
        for one, other in product(SHRINKAGES if first else (0.5,), SHRINKAGES):
            covariance = shrunk(known, torch.where(head, one, other))
            normal = MultivariateNormal(torch.zeros_like(covariance[0]), covariance)
            likelihood = float(normal.log_prob(asked.double()).mean())
            if likelihood > best:
                best, chosen = likelihood, (one, other)
        variance, axes = torch.linalg.eigh(shrunk(real, torch.where(head, *chosen)))
        self.variance.copy_(variance.clamp_min(0))
        self.axes.copy_(axes)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:  # [B, E], [B, 1] -> [B, E]
        """Give the velocity at points and times."""
        rest = 1 - time
        share = (time * self.variance - rest) / (rest**2 + time**2 * self.variance)
        normal = (x @ self.axes * share) @ self.axes.T
        angles = torch.pi * 2.0 ** torch.arange(OCTAVES, device=x.device) * time
        of_time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(h + of_time)
        found: Tensor = normal + self.last(h)
        return found

    def loss(self, real: Tensor, *, generator: torch.Generator) -> Tensor:  # [B, E]
        """Mean squared error of the velocity at a random time of each embedding's line."""
        noise = torch.randn(real.shape, generator=generator).to(real.device)
        time = torch.rand(len(real), 1, generator=generator).to(real.device)
        error: Tensor = self(noise + time * (real - noise), time) - (real - noise)
        return error.square().mean()

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:  # -> [count, E]
        """Draw embeddings: noise follows the velocity by `stride` midpoint steps.

        The noise is drawn on the CPU: the same numbers on any device.
        """
        x = torch.randn(count, self.size, generator=generator).to(self.last.weight.device)
        step = 1 / self.stride
        for number in range(self.stride):
            time = x.new_full((count, 1), number * step)
            half = x + step / 2 * self(x, time)
            x = x + step * self(half, time + step / 2)
        return x


def shrunk(real: Tensor, share: Tensor) -> Tensor:  # [N, E], [E] -> [E, E], float64
    """Covariance with correlations shrunk: independent noise takes a share of each number."""
    kept = (1 - share.double()).sqrt()
    covariance = torch.cov(real.double().T) * kept * kept[:, None]
    return covariance + torch.diag(share.double())
