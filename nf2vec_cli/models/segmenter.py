"""The head that tells parts: the implicit decoder, with the object's class beside its embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from nf2vec_cli.models.decoder import Decoder

FLAT = 1e-6  # deviation of an embedding's number below which it is left as it is


class Segmenter(nn.Module):
    """Paper, section IV: decoder of (embedding, class, point), one output for each part.

    What embedding and class add is computed once an object. Its standardisation is part of the
    head, so that it reads embeddings as they are stored.

    embedding: E. classes: C. parts: of all classes together.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, embedding: int, classes: int, parts: int, *, hidden: int, octaves: int
    ) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("centre", torch.zeros(embedding))
        self.register_buffer("spread", torch.ones(embedding))
        self.decoder = Decoder(embedding + classes, hidden=hidden, octaves=octaves, outputs=parts)

    def standardise_by(self, z: Tensor) -> None:  # [N, E]
        """Take mean and deviation of each number from the training objects' embeddings."""
        deviation = z.std(0, correction=0)
        self.centre.copy_(z.mean(0))
        self.spread.copy_(torch.where(deviation > FLAT, deviation, 1.0))

    def forward(
        self,
        z: Tensor,  # [B, E]
        labels: Tensor,  # [B] int64, classes
        coords: Tensor,  # [B, M, 3]
        noise: Tensor | None = None,  # [B, E], in deviations
    ) -> Tensor:  # [B, M, parts]
        """Score every part at each object's own points, in unit space."""
        known = (z - self.centre) / self.spread
        if noise is not None:
            known = known + noise
        told = one_hot(labels, self.classes).to(known.dtype)
        found: Tensor = self.decoder(torch.cat([known, told], dim=-1), coords)
        return found
