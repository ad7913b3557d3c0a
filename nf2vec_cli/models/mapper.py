"""The mapping from one embedding to another (paper, section on mapping between neural fields)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nf2vec_cli.config.map import MapConfig

SPREAD_FLOOR = 1e-3  # of the largest spread: what hardly varies is not blown up


class Mapper(nn.Module):
    """Embeddings of one encoder in, embeddings of another out.

    The paper's network is linear layers with batch normalisation and ReLU between them. It learns
    from tens of thousands of pairs; of a few hundred a single wide layer with noise on its inputs
    makes more (docs/paper.md).

    The means and spreads of both spaces are part of it: `forward` takes and gives plain embeddings.
    """

    source_mean: Tensor
    source_spread: Tensor
    target_mean: Tensor
    target_spread: Tensor

    def __init__(self, inputs: int, outputs: int, config: MapConfig) -> None:
        super().__init__()
        self.noise = config.noise
        for side, size in (("source", inputs), ("target", outputs)):
            self.register_buffer(f"{side}_mean", torch.zeros(size))
            self.register_buffer(f"{side}_spread", torch.ones(size))
        layers: list[nn.Module] = []
        width = inputs
        for _ in range(config.layers):
            if config.mapper == "paper":
                layers += [nn.Linear(width, config.hidden), nn.BatchNorm1d(config.hidden)]
                layers += [nn.ReLU()]
            else:
                layers += [nn.Dropout(config.dropout), nn.Linear(width, config.hidden), nn.GELU()]
            width = config.hidden
        if config.mapper == "mlp":
            layers.append(nn.Dropout(config.dropout))
        self.net = nn.Sequential(*layers, nn.Linear(width, outputs))

    def fit_statistics(self, source: Tensor, target: Tensor) -> None:  # [N, E], [N, F]
        """Take mean and spread of each number from the training pairs."""
        for side, z in (("source", source), ("target", target)):
            spread = z.std(0)
            getattr(self, f"{side}_mean").copy_(z.mean(0))
            floor = (spread.max() * SPREAD_FLOOR).clamp_min(1e-12)
            getattr(self, f"{side}_spread").copy_(spread.clamp_min(floor))

    def known(self, source: Tensor) -> Tensor:  # [B, E] -> [B, E]
        """Give standardised inputs."""
        return (source - self.source_mean) / self.source_spread

    def wanted(self, target: Tensor) -> Tensor:  # [B, F] -> [B, F]
        """Give standardised targets: what `standardised` is to be."""
        return (target - self.target_mean) / self.target_spread

    def standardised(self, source: Tensor) -> Tensor:  # [B, E] -> [B, F]
        """Map embeddings to standardised targets; in training their inputs are noisy."""
        x = self.known(source)
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        found: Tensor = self.net(x)
        return found

    def forward(self, source: Tensor) -> Tensor:  # [B, E] -> [B, F]
        """Map embeddings."""
        return self.standardised(source) * self.target_spread + self.target_mean
