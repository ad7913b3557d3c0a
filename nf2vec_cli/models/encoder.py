"""Encoders: the weights of fields in, one embedding each out. Nothing is sampled or rendered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.fusion import fuse_linear_bn_eval

from nf2vec_cli.core.kernels import kernels_serve, precision_of
from nf2vec_cli.core.rows_pool import rows_pool
from nf2vec_cli.models.batch_norm import BatchNorm
from nf2vec_cli.models.network import NetworkSpec, weight_rows
from nf2vec_cli.models.probes import HISTOGRAM, coarse_values, read_field, slope_histogram
from nf2vec_cli.models.projection import (
    SPREAD_FLOOR,
    Projection,
    pack,
    packed_size,
    principal_directions,
    unpack,
)
from nf2vec_cli.models.radiance_probes import RADIANCE_CHANNELS, coarse_radiance, read_radiance

LEARNED = 0.5  # weight of what is learned: at 1 it hides some of what directions tell of classes
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
            linear = nn.Linear(into, width)
            # BatchNorm takes it out: its gradient is rounding, which AdamW scales up, and it would
            # drift away from the running mean that embeddings are made with
            linear.bias.requires_grad_(False)
            layers += [linear, BatchNorm(width), nn.ReLU()]
            into = width
        self.rows = nn.Sequential(*layers, nn.Linear(into, embedding))

    def forward(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, E]
        """Embed fields."""
        return pooled(self.rows, weight_rows(theta, self.spec))

    def folded(self) -> nn.Sequential:
        """Give the row network with each BatchNorm folded into its Linear, for encoding."""
        layers: list[nn.Module] = []
        for layer in self.rows:
            if isinstance(layer, nn.BatchNorm1d):
                layers[-1] = fuse_linear_bn_eval(layers[-1], layer)  # type: ignore[type-var]
            else:
                layers.append(layer)
        return nn.Sequential(*layers)


def pooled(network: nn.Sequential, rows: Tensor) -> Tensor:  # [B, R, H] -> [B, E]
    """Send all rows through a network whose last layer is linear, and keep each object's maxima."""
    batch, count, _ = rows.shape
    if kernels_serve(rows):
        last = network[-1]
        h = network[:-1](rows.flatten(0, 1)).view(batch, count, -1)
        maxima: Tensor = rows_pool(h, last.weight, last.bias, precision_of(h))[0]
        return maxima
    each: Tensor = network(rows.flatten(0, 1))
    return each.view(batch, count, -1).amax(1)


class AlignedEncoder(nn.Module):
    """Difference from the shared init, and what the field is at fixed points, both projected.

    Fields of one store start from one init and stay aligned with it, so a weight means the same in
    all of them, and the position of a row, which the paper's maximum forgets, is kept. What the
    weights say together is read as well, where `probes` is not 0: the field at a lattice of
    probes^3 points, and which way it rises in each part of space (`slope_histogram`).

    The projections come from the training fields (`fit_projection`) and stay as they are. Slopes
    that change when an object is moved a little count less than steady ones. An embedding begins
    with the K whitened components of the weights, the K of the slopes and, if `leading` is 3, the K
    of the values, at one length, which tell objects apart; the rest is learned by a network from
    all of them in their natural spread: the decoder reads it.

    The directions of weights are kept with 2 bits a number, P/4 bytes each: what is projected has
    so many parameters that the rounding averages out.
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
        probes: int = 0,
        leading: int = 2,
        dropout: float = 0,
        noise: float = 0,
    ) -> None:
        super().__init__()
        self.spec, self.probes, self.noise = spec, probes, noise
        self.register_buffer("init", torch.zeros(spec.parameters))
        self.register_buffer(
            "basis", torch.zeros(components, packed_size(spec.parameters), dtype=torch.uint8)
        )
        self.register_buffer("whiten", torch.zeros(components, components))
        self.register_buffer("mean", torch.zeros(components))
        self.register_buffer("spread", torch.ones(components))
        read, self.directions = components, components
        if probes:
            self.slopes = Projection(HISTOGRAM, components)
            channels = RADIANCE_CHANNELS if spec.radiance else 1
            self.values = Projection(channels * (probes // 2) ** 3, components)
            read, self.directions = 3 * components, leading * components
        self.reads = read  # numbers of an object's `components`
        self.learned = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(read, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, embedding - self.directions),
        )

    def fit_projection(
        self,
        theta: Tensor,  # [N, P]
        init: Tensor,  # [P]
        *,
        moves: int = 0,
    ) -> None:
        """Take the directions in which the training fields differ, from the init and as fields.

        Components beyond N - 1 stay zero.

        Args:
            theta: training fields.
            init: shared init of all fields.
            moves: times that each is read as if its object were moved a little; 0: slopes are
                projected on principal directions.
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

        if self.probes:
            slopes, values = self._probed(theta)
            self.values.fit(values)
            self.slopes.fit(slopes, self._changes(theta, slopes, moves) if moves else None)

    def components(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, K or 3 K]
        """Give the whitened components: of the weights, the slopes and the values."""
        found = (self._projected(theta) - self.mean) @ self.whiten
        if not self.probes:
            return found
        slopes, values = self._probed(theta)
        return torch.cat([found, self.slopes(slopes), self.values(values)], dim=1)

    def forward(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, E]
        """Embed fields."""
        return self.embed(self.components(theta))

    def embed(self, components: Tensor) -> Tensor:  # [B, K or 3 K] -> [B, E]
        """Map components to embeddings."""
        if self.training and self.noise:
            components = components + self.noise * torch.randn_like(components)
        direction = normalize(components[:, : self.directions], dim=-1) * self.directions**0.5
        spread = self.spread
        if self.probes:
            spread = torch.cat([spread, self.slopes.spread, self.values.spread])
        learned = self.learned(components * spread) * (LEARNED if self.probes else 1)
        return torch.cat([direction, learned.to(direction.dtype)], dim=-1)

    def _probed(
        self, theta: Tensor, moves: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:  # -> [B, F], [B, V]
        """Read fields at the lattice: how they rise, and what they are in large parts."""
        side = self.probes
        if self.spec.radiance:
            opacity, colours = read_radiance(theta, self.spec, side, moves)
            return slope_histogram(opacity, side), coarse_radiance(opacity, colours, side)
        values = read_field(theta, self.spec, side, moves)
        return slope_histogram(values, side), coarse_values(values, side)

    def _changes(self, theta: Tensor, slopes: Tensor, moves: int) -> Tensor:  # [moves N, F]
        """Tell how slopes change when objects are moved: the same moves whatever the seed."""
        draw = torch.Generator().manual_seed(0)
        return torch.cat([self._probed(theta, draw)[0] - slopes for _ in range(moves)])

    def _projected(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, K]
        difference = theta - self.init
        found = difference.new_zeros(len(theta), len(self.basis))
        for start in range(0, difference.shape[1], SLICE):
            part = difference[:, start : start + SLICE]
            packed = self.basis[:, start // 4 : packed_size(start + SLICE)]
            found += part @ unpack(packed)[:, : part.shape[1]].T
        return found
