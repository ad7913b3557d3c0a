"""One embedding as a function of points: what `rebuild` asks, through the decoder."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.fields.field import Field, field_of
from nf2vec_cli.fields.pool import CLIP
from nf2vec_cli.models.decoder import Decoder

Floats = NDArray[np.float32]
TILE = 4096  # points at once: their activations stay in the cache


class DecodedField:
    """A field that can be asked, as `FieldFunction` can: decoder and embedding [E] of a kind."""

    def __init__(self, decoder: Decoder, z: Tensor, kind: str) -> None:
        field: Field = field_of(kind)
        self.decoder, self.z, self.read_back = decoder, z[None], field.read_back
        self.reach = CLIP

    @torch.no_grad()
    def values(self, coords: Floats) -> Floats:  # [M, 3] -> [M]
        """Say what the decoded field is at points of object space."""
        parts = [self._at(part) for part in torch.from_numpy(coords).split(TILE)]
        found: Floats = torch.cat(parts).numpy() if parts else np.empty(0, np.float32)
        return found

    def slopes(self, coords: Floats) -> tuple[Floats, Floats]:  # [M, 3] -> [M], [M, 3]
        """Say what the decoded field is, and how it changes along each axis."""
        values, slopes = [], []
        for part in torch.from_numpy(coords).split(TILE):
            x = part.clone().requires_grad_()
            found = self._at(x)
            values.append(found.detach().numpy())
            slopes.append(torch.autograd.grad(found.sum(), x)[0].numpy())
        return np.concatenate(values), np.concatenate(slopes)

    def _at(self, coords: Tensor) -> Tensor:
        return self.read_back(self.decoder(self.z, coords[None])[0, :, 0])
