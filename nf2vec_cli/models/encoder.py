"""Encoders: the weights of fields in, one embedding each out. Nothing is sampled or rendered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize, pad
from torch.nn.utils.fusion import fuse_linear_bn_eval

from nf2vec_cli.models.network import NetworkSpec, weight_rows

# the best four levels for numbers from a normal distribution (Max 1960), in standard deviations
LEVELS = (-1.510, -0.4528, 0.4528, 1.510)
SHIFTS = (0, 2, 4, 6)
SPREAD_FLOOR = 1e-6  # of the largest variance: a component that never varies is not blown up
SLICE = 8192  # parameters whose directions are unpacked at once


class RowsEncoder(nn.Module):
    """The paper's encoder (section III-B): each weight row through one network, then the maximum.

    Rows are those of the hidden matrices and their biases, [R, H]; widths lead to the embedding by
    Linear, BatchNorm and ReLU, the last layer is linear alone.
    """

    def __init__(self, spec: NetworkSpec, *, widths: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        into = spec.hidden
        for width in widths:
            layers += [nn.Linear(into, width), nn.BatchNorm1d(width), nn.ReLU()]
            into = width
        self.rows = nn.Sequential(*layers, nn.Linear(into, embedding))

    def forward(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, E]
        """Embed fields."""
        rows = weight_rows(theta, self.spec)
        each: Tensor = self.rows(rows.flatten(0, 1))
        return each.view(*rows.shape[:2], -1).amax(1)

    def folded(self) -> nn.Sequential:
        """Give the row network with each BatchNorm folded into its Linear, for encoding."""
        layers: list[nn.Module] = []
        for layer in self.rows:
            if isinstance(layer, nn.BatchNorm1d):
                layers[-1] = fuse_linear_bn_eval(layers[-1], layer)  # type: ignore[type-var]
            else:
                layers.append(layer)
        return nn.Sequential(*layers)


class AlignedEncoder(nn.Module):
    """Difference from the shared init, projected on the directions in which fields differ.

    Fields of one store start from one init and stay aligned with it, so a weight means the same in
    all of them, and the position of a row, which the paper's maximum forgets, is kept. The
    projection comes from the training fields (`fit_projection`) and stays as it is. An embedding is
    the K whitened components at a length of sqrt(K), which tell objects apart, and E - K numbers
    that a network learns from the components in their natural spread: the decoder reads these.

    The directions are kept with 2 bits a number, P/4 bytes each: what is projected has so many
    parameters that the rounding averages out.
    """

    init: Tensor
    basis: Tensor
    whiten: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        components: int,
        width: int,
        embedding: int,
        dropout: float = 0,
        noise: float = 0,
    ) -> None:
        super().__init__()
        self.spec, self.noise = spec, noise
        self.register_buffer("init", torch.zeros(spec.parameters))
        self.register_buffer(
            "basis", torch.zeros(components, packed_size(spec.parameters), dtype=torch.uint8)
        )
        self.register_buffer("whiten", torch.zeros(components, components))
        self.register_buffer("mean", torch.zeros(components))
        self.register_buffer("spread", torch.ones(components))
        self.learned = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(components, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, embedding - components),
        )

    def fit_projection(self, theta: Tensor, init: Tensor) -> None:  # [N, P], [P]
        """Take the principal directions of the training fields' differences from the init.

        Components beyond N - 1 stay zero.
        """
        self.init.copy_(init)
        difference = theta - init
        centred = difference - difference.mean(0)
        count = min(len(self.basis), len(theta) - 1)
        self.basis[:count] = pack(principal_directions(centred, count))
        # rounding has turned the directions a little: the components are decorrelated again
        found = self._projected(theta)[:, :count].double()
        self.mean[:count] = found.mean(0).float()
        covariance = torch.cov(found.T, correction=0).view(count, count)
        values, turn = torch.linalg.eigh(covariance)
        values, turn = values.flip(0), turn.flip(1)
        values = values.clamp_min(values[0] * SPREAD_FLOOR)
        self.spread[:] = 0
        self.spread[:count] = (values / values.mean()).sqrt().float()
        self.whiten[:count, :count] = (turn / values.sqrt()).float()

    def components(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, K]
        """Give the whitened components."""
        return (self._projected(theta) - self.mean) @ self.whiten

    def forward(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, E]
        """Embed fields."""
        return self.embed(self.components(theta))

    def embed(self, components: Tensor) -> Tensor:  # [B, K] -> [B, E]
        """Map components to embeddings."""
        if self.training and self.noise:
            components = components + self.noise * torch.randn_like(components)
        direction = normalize(components, dim=-1) * components.shape[-1] ** 0.5
        learned = self.learned(components * self.spread)
        return torch.cat([direction, learned.to(direction.dtype)], dim=-1)

    def _projected(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, K]
        difference = theta - self.init
        found = difference.new_zeros(len(theta), len(self.basis))
        for start in range(0, difference.shape[1], SLICE):
            part = difference[:, start : start + SLICE]
            packed = self.basis[:, start // 4 : packed_size(start + SLICE)]
            found += part @ unpack(packed)[:, : part.shape[1]].T
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
