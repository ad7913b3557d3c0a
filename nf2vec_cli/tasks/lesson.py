"""What a kind of field is learnt by: what is asked in a step, the loss, and what val is told by."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from nf2vec_cli.core.ranks import BatchShare
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.store.blocks import Rows


class Asked(Protocol):
    """What a decoder is asked: points of B objects, [B, M, 3], and whatever the answers need."""

    @property
    def coords(self) -> Tensor: ...


class Lesson(Protocol):
    """One kind of field as a subject; `tasks/point_lesson.py` and `tasks/ray_lesson.py` are."""

    def draw(
        self, rows: Rows, theta: Tensor, generator: torch.Generator, share: BatchShare | None = None
    ) -> Any:
        """Draw what a step asks of some objects: an `Asked`. theta: [B, P], their weights.

        share: which objects of the step's batch they are, if not all; the generator is used as for
        all of them, so that nobody's draws depend on how a batch is shared out.
        """

    def loss(self, outputs: Tensor, asked: Any) -> Tensor:
        """Give the loss of a decoder's raw outputs [B, M, V] at the points that were drawn."""

    def look(self, module: AutoEncoder, z: Tensor, rows: Rows, theta: Tensor) -> dict[str, float]:
        """Compare what is decoded from embeddings [B, E] with the stored fields, always alike.

        `error` among the numbers is what the best step is chosen by: the less, the better.
        """

    def rebuilt(self, module: AutoEncoder, rows: Rows, theta: Tensor) -> dict[str, float]:
        """Measure whole objects that are made from their embeddings; empty: none could be."""
