"""A model that new embeddings of one class are drawn from, with the statistics it was taught in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nf2vec_cli.config.generate import GenerateConfig
from nf2vec_cli.models.latent_flow import LatentFlow
from nf2vec_cli.models.latent_gan import LatentGan

BLOCK = 64  # embeddings drawn at once
STILL = 1e-6  # of the largest spread: below, a number is taken for one that never varies


class Latent(nn.Module):
    """A flow or a GAN of standardised embeddings; what is drawn has the embeddings' own scale.

    size: E. directions: how many first numbers of an embedding have the length sqrt(directions),
    as `AlignedEncoder` makes them; what is drawn is brought to that length. 0: none.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: GenerateConfig, size: int, *, directions: int = 0) -> None:
        super().__init__()
        self.directions = directions
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.net: LatentFlow | LatentGan
        if config.model == "flow":
            self.net = LatentFlow(
                size,
                width=config.width,
                blocks=config.blocks,
                dropout=config.dropout,
                stride=config.stride,
            )
        else:
            self.net = LatentGan(
                size,
                noise=config.noise,
                spread=config.spread,
                width=config.generator,
                critic=config.critic,
            )

    def fit_statistics(self, real: Tensor) -> None:  # [N, E]
        """Take mean and spread of the training embeddings; a number that never varies has 0."""
        self.mean.copy_(real.mean(0))
        std = real.std(0)
        self.std.copy_(torch.where(std > STILL * std.max(), std, 0))

    def standardise(self, z: Tensor) -> Tensor:  # [B, E] -> [B, E]
        """Bring embeddings to mean 0 and spread 1."""
        return (z - self.mean) / torch.where(self.std > 0, self.std, 1)

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:  # -> [count, E]
        """Draw new embeddings, BLOCK at once: each is the same bits however many are drawn."""
        net = self.net.eval()
        drawn = [net.sample(BLOCK, generator=generator) for _ in range(0, count, BLOCK)]
        z = torch.cat(drawn)[:count] * self.std + self.mean
        if self.directions:
            first = z[:, : self.directions]
            length = first.norm(dim=1, keepdim=True) / self.directions**0.5
            z[:, : self.directions] = first / length
        return z
