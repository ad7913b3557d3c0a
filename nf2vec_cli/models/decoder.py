"""The implicit decoder: an embedding and points of space in, raw field values out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nf2vec_cli.core.decode import OCTAVES, code, code_width, decode
from nf2vec_cli.core.kernels import kernels_serve, precision_of

LAYERS = 2  # hidden layers before the skip, and after it (paper, section III-C)


class Decoder(nn.Module):
    """Paper, section III-C: five hidden ReLU layers with a projected skip to the third.

    What the embedding adds to the first layer and to the skip is the same for all points of an
    object and is computed once: the same maths as on concatenated inputs, with 48 % fewer
    multiplications at the paper's size.

    embedding: E. reads: how many of its last numbers are read; None: all. coding: of coordinates,
    "radians" (`core.decode.fourier`) or "turns" (`core.mlp.frequencies`, as the authors have it for
    radiance).
    """

    def __init__(
        self,
        embedding: int,
        *,
        hidden: int,
        octaves: int,
        outputs: int = 1,
        reads: int | None = None,
        coding: str = "radians",
    ) -> None:
        super().__init__()
        self.embedding, self.reads, self.octaves = embedding, reads or embedding, octaves
        self.coding = coding
        inputs = self.reads + code_width(octaves, coding)
        self.enter = nn.Linear(inputs, hidden)
        self.before = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(LAYERS))
        self.skip = nn.Linear(inputs, hidden)
        self.after = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(LAYERS))
        self.last = nn.Linear(hidden, outputs)

    def forward(self, z: Tensor, coords: Tensor) -> Tensor:  # [B, E], [B, M, 3] -> [B, M, V]
        """Give the raw outputs of each object at its own points.

        Without gradient they come from one kernel where it can run.
        """
        if self._fused(coords):
            return self._by_kernel(z, coords)
        coded = code(coords, self.octaves, self.coding)
        h = self._joined(self.enter, z, coded).relu_()
        for layer in self.before:
            h = layer(h).relu_()
        h = h + self._joined(self.skip, z, coded).relu_()
        for layer in self.after:
            h = layer(h).relu_()
        found: Tensor = self.last(h)
        return found

    def _fused(self, coords: Tensor) -> bool:
        known = coords.dtype == torch.float32 and self.octaves <= OCTAVES[self.coding]
        return known and not torch.is_grad_enabled() and kernels_serve(coords)

    def _by_kernel(self, z: Tensor, coords: Tensor) -> Tensor:
        layers, joined = [*self.before, *self.after], (self.enter, self.skip)
        reads = self.enter.in_features - code_width(self.octaves, self.coding)
        read = z[..., -reads:]
        found: Tensor = decode(
            torch.stack([linear(read, layer.weight[:, :reads], layer.bias) for layer in joined]),
            torch.stack([layer.weight[:, reads:] for layer in joined]),
            torch.stack([layer.weight for layer in layers]),
            torch.stack([layer.bias for layer in layers]),
            self.last.weight,
            self.last.bias,
            coords,
            self.octaves,
            self.coding,
            precision_of(coords),
        )
        return found

    def _joined(self, layer: nn.Linear, z: Tensor, coded: Tensor) -> Tensor:
        """Apply a layer to (z, coded), the part of z once an object."""
        reads = layer.in_features - coded.shape[-1]
        of_object = linear(z[..., -reads:], layer.weight[:, :reads], layer.bias)
        return linear(coded, layer.weight[:, reads:]) + of_object.unsqueeze(-2)
