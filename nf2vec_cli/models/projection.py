"""Projections on the directions in which the fields of a store differ."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

# the best four levels for numbers from a normal distribution (Max 1960), in standard deviations
LEVELS = (-1.510, -0.4528, 0.4528, 1.510)
SHIFTS = (0, 2, 4, 6)
READ = 256  # components between which steady directions are looked for
SHARE = 0.3  # of the variance of all objects beside that within one
SPREAD_FLOOR = 1e-6  # of the largest variance: a component that never varies is not blown up


class Projection(nn.Module):
    """Components of features by which objects differ, each uncorrelated to the others: B x F to K.

    The directions are kept in half precision. spread: brings components to the lengths that they
    have in the features; 1 in the mean square for principal components.
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

    def fit(self, features: Tensor, changes: Tensor | None = None) -> None:  # [N, F], [C, F]
        """Take the directions in which the training fields differ; those beyond N - 1 stay zero.

        Without `changes`: the principal ones, whitened. With how features of one object changed
        when it was moved: the `steady_directions`, a component as long as it is steady.
        """
        self.centre.copy_(features.mean(0))
        centred = features - self.centre
        count = min(len(self.basis), *(n - 1 for n in features.shape))
        length = features.new_ones(count)
        if changes is None:
            found = principal_directions(centred, count)
        else:
            found = steady_directions(centred, changes, count)
            length = (centred @ found.T).square().mean(0).sqrt()
            length = length / length.square().mean().sqrt().clamp_min(1e-30)
        self.basis[:count] = found / found.norm(dim=1, keepdim=True).clamp_min(1e-30)
        variance = (centred @ self.basis[:count].float().T).square().mean(0)
        variance = variance.clamp_min(variance.max() * SPREAD_FLOOR).clamp_min(1e-30)
        self.scale[:count] = variance.rsqrt() * length
        self.spread[:count] = (variance / variance.mean()).sqrt() / length.clamp_min(1e-3)

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


def steady_directions(centred: Tensor, changes: Tensor, count: int) -> Tensor:
    """Give the directions in which centred rows differ most beside how one object changes.

    Within-class covariance normalisation (Hatch and Stolcke 2006), each object a class: READ
    whitened principal components, each direction of them divided by what changes have along it, and
    a share SHARE of what all rows have; then the principal directions of what that gives.

    Args:
        centred: rows of N objects, [N, F].
        changes: differences between two rows of one object, [C, F].
        count: directions, at most N - 1.

    Returns:
        [count, F], largest first; rows times these are as long as they are steady.
    """
    first = principal_directions(centred, min(READ, *(n - 1 for n in centred.shape)))
    first = first / first.norm(dim=1, keepdim=True).clamp_min(1e-30)
    spread = (centred @ first.T).square().mean(0).sqrt()
    first = first / spread.clamp_min(spread.max() * SPREAD_FLOOR**0.5).clamp_min(1e-30)[:, None]
    within = (changes @ first.T).double()
    values, turn = torch.linalg.eigh(within.T @ within / (2 * len(within)))
    steady = (turn / (values + SHARE).sqrt()).T.float() @ first
    _, turn = torch.linalg.eigh((centred @ steady.T).T.double() @ (centred @ steady.T).double())
    found: Tensor = turn[:, -count:].flip(1).T.float() @ steady
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
