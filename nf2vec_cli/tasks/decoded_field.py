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
TILE = {"cpu": 1 << 12, "cuda": 1 << 16}  # points at once: on a CPU, what stays in its cache


class DecodedField:
    """A field that can be asked, as `FieldFunction` can: decoder and embedding [E] of a kind.

    It is asked from the CPU; decoder and embedding may be elsewhere.
    """

    def __init__(self, decoder: Decoder, z: Tensor, kind: str) -> None:
        field: Field = field_of(kind)
        self.decoder, self.z, self.read_back = decoder, z[None], field.read_back
        self.reach, self.tile = CLIP, TILE[z.device.type]

    def to(self, device: torch.device) -> None:
        """Compute on a device from now on."""
        self.decoder, self.z = self.decoder.to(device), self.z.to(device)
        self.tile = TILE[device.type]

    @torch.no_grad()
    def values(self, coords: Floats) -> Floats:  # [M, 3] -> [M]
        """Say what the decoded field is at points of object space."""
        parts = [self._at(part) for part in torch.from_numpy(coords).split(self.tile)]
        found: Floats = torch.cat(parts).numpy() if parts else np.empty(0, np.float32)
        return found

    def slopes(self, coords: Floats) -> tuple[Floats, Floats]:  # [M, 3] -> [M], [M, 3]
        """Say what the decoded field is, and how it changes along each axis."""
        values, slopes = [], []
        for part in torch.from_numpy(coords).split(self.tile):
            x = part.clone().requires_grad_()
            found = self._at(x)
            values.append(found.detach().numpy())
            slopes.append(torch.autograd.grad(found.sum(), x)[0].numpy())
        return np.concatenate(values), np.concatenate(slopes)

    def _at(self, coords: Tensor) -> Tensor:
        raw = self.decoder(self.z, coords[None].to(self.z.device))[0, :, 0]
        return self.read_back(raw).cpu()
