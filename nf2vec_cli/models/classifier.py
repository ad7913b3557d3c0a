"""The classifier of embeddings, and the mixtures it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Fully connected layers on an embedding (paper, section V-B): one logit a class.

    BatchNorm, ReLU and dropout after each hidden layer. `centre` and `scale` standardise the
    embedding first; they start as 0 and 1, which change nothing.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self, embedding: int, classes: int, *, widths: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(embedding))
        self.register_buffer("scale", torch.ones(embedding))
        layers: list[nn.Module] = []
        for before, after in pairwise((embedding, *widths)):
            layers += [
                nn.Linear(before, after),
                nn.BatchNorm1d(after),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
        last = widths[-1] if widths else embedding
        self.layers = nn.Sequential(*layers, nn.Linear(last, classes))

    def standardise(self, z: Tensor) -> None:  # [N, E]
        """Take centre and scale of each number from these embeddings."""
        self.centre.copy_(z.mean(0))
        self.scale.copy_(z.std(0).clamp_min(1e-6))

    def forward(self, z: Tensor) -> Tensor:  # [B, E] -> [B, C]
        """Give each class's logit."""
        found: Tensor = self.layers((z - self.centre) / self.scale)
        return found


def stitchup(
    z: Tensor,  # [B, E]
    labels: Tensor,  # [B]
    *,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # [K, E], [K]
    """Mix embeddings of one class number by number (E-Stitchup; paper, section V-B).

    Each embedding whose class has more than two in the batch gets a random partner of its class,
    perhaps itself, and a threshold t; each number is the partner's with probability 1 - t. As the
    authors' code has it, but without a loop.
    """
    same = labels[:, None] == labels
    several = same.sum(1) > 2
    if not several.any():
        return z[:0], labels[:0]
    partner = torch.multinomial(same[several].double(), 1, generator=generator)[:, 0]
    threshold = torch.rand(len(partner), 1, generator=generator)
    swap = torch.rand(len(partner), z.shape[1], generator=generator) >= threshold
    return torch.where(swap, z[partner], z[several]), labels[several]
