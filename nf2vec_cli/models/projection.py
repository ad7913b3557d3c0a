"""Projections on the directions in which the fields of a store differ."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

# the best four levels for numbers from a normal distribution (Max 1960), in standard deviations
LEVELS = (-1.510, -0.4528, 0.4528, 1.510)
SHIFTS = (0, 2, 4, 6)
SPREAD_FLOOR = 1e-6  # of the largest variance: a component that never varies is not blown up


class Projection(nn.Module):
    """Whitened principal components of features: [B, F] -> [B, K].

    The directions are kept in half precision. spread: of each component, 1 in the mean square.
    """

    centre: Tensor
    basis: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("basis", torch.zeros(components, features, dtype=torch.float16))
        self.register_buffer("scale", torch.zeros(components))
        self.register_buffer("spread", torch.zeros(components))

    def fit(self, features: Tensor) -> None:  # [N, F]
        """Take the principal directions of the training fields; those beyond N - 1 stay zero."""
        self.centre.copy_(features.mean(0))
        centred = features - self.centre
        count = min(len(self.basis), *(n - 1 for n in features.shape))
        found = principal_directions(centred, count)
        self.basis[:count] = found / found.norm(dim=1, keepdim=True).clamp_min(1e-30)
        variance = (centred @ self.basis[:count].float().T).square().mean(0)
        variance = variance.clamp_min(variance.max() * SPREAD_FLOOR).clamp_min(1e-30)
        self.scale[:count] = variance.rsqrt()
        self.spread[:count] = (variance / variance.mean()).sqrt()

    def forward(self, features: Tensor) -> Tensor:  # [B, F] -> [B, K]
        """Give the whitened components."""
        found: Tensor = (features - self.centre) @ self.basis.float().T * self.scale
        return found


def principal_directions(centred: Tensor, count: int) -> Tensor:  # [N, P] -> [count, P]
    """Give the directions in which centred rows differ most, largest first, of any length.

    By the N x N matrix of inner products: P may be large, N is what was fitted.
    """
    _, vectors = torch.linalg.eigh(centred.double() @ centred.double().T)
    found: Tensor = vectors[:, -count:].flip(1).T.float() @ centred
    return found


def packed_size(count: int) -> int:
    """Count the bytes that hold so many numbers of 2 bits."""
    return -(-count // 4)


def pack(values: Tensor) -> Tensor:  # [K, P] -> [K, P / 4], uint8
    """Round each number to one of LEVELS times its row's root mean square, four to a byte."""
    scaled = values / values.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)
    middles = torch.tensor([(a + b) / 2 for a, b in pairwise(LEVELS)], device=values.device)
    codes = torch.bucketize(scaled, middles)
    codes = pad(codes, (0, -codes.shape[1] % 4)).view(len(codes), -1, 4)
    shifts = torch.tensor(SHIFTS, device=values.device)
    return (codes << shifts).sum(-1).to(torch.uint8)


def unpack(packed: Tensor) -> Tensor:  # [K, P / 4] -> [K, P], float32
    """Give the levels back, four to a byte by a table: 5 to 10 times as fast as by shifts."""
    codes = torch.arange(256)[:, None] >> torch.tensor(SHIFTS) & 3
    table = torch.tensor(LEVELS)[codes].to(packed.device)
    return embedding(packed.int(), table).flatten(-2)
