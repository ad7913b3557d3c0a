"""The implicit decoder: an embedding and points of space in, raw field values out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nf2vec_cli.core.mlp import frequencies

LAYERS = 2  # hidden layers before the skip, and after it (paper, section III-C)


def fourier(coords: Tensor, octaves: int) -> Tensor:  # [.., 3] -> [.., 3 + 6 octaves]
    """Code coordinates as x, sin(2^k x), cos(2^k x), k < octaves, without a factor of pi."""
    parts = [coords]
    for octave in range(octaves):
        scaled = coords * 2.0**octave
        parts += [scaled.sin(), scaled.cos()]
    return torch.cat(parts, dim=-1)


class Decoder(nn.Module):
    """Paper, section III-C: five hidden ReLU layers with a projected skip to the third.

    What the embedding adds to the first layer and to the skip is the same for all points of an
    object and is computed once: the same maths as on concatenated inputs, with 48 % fewer
    multiplications at the paper's size.

    embedding: E. reads: how many of its last numbers are read; None: all. coding: of coordinates,
    "radians" (`fourier`) or "turns" (`core.mlp.frequencies`, as the authors have it for radiance).
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
        inputs = self.reads + 6 * octaves + (3 if coding == "radians" else 0)
        self.enter = nn.Linear(inputs, hidden)
        self.before = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(LAYERS))
        self.skip = nn.Linear(inputs, hidden)
        self.after = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(LAYERS))
        self.last = nn.Linear(hidden, outputs)

    def forward(self, z: Tensor, coords: Tensor) -> Tensor:  # [B, E], [B, M, 3] -> [B, M, V]
        """Give the raw outputs of each object at its own points."""
        code = fourier if self.coding == "radians" else frequencies
        coded = code(coords, self.octaves)
        h = self._joined(self.enter, z, coded).relu_()
        for layer in self.before:
            h = layer(h).relu_()
        h = h + self._joined(self.skip, z, coded).relu_()
        for layer in self.after:
            h = layer(h).relu_()
        found: Tensor = self.last(h)
        return found

    def _joined(self, layer: nn.Linear, z: Tensor, coded: Tensor) -> Tensor:
        """Apply a layer to (z, coded), the part of z once an object."""
        reads = layer.in_features - coded.shape[-1]
        of_object = linear(z[..., -reads:], layer.weight[:, :reads], layer.bias)
        return linear(coded, layer.weight[:, reads:]) + of_object.unsqueeze(-2)
