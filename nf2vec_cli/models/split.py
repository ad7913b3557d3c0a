"""Geometry and appearance of radiance apart: an embedding of two halves, and its decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.probes import HISTOGRAM, coarse_values, slope_histogram
from nf2vec_cli.models.projection import Projection
from nf2vec_cli.models.radiance_probes import HUES, hue_histogram, read_radiance, tint

LEARNED = 0.5  # weight of what is learned beside what directions tell, as in AlignedEncoder


class SplitEncoder(nn.Module):
    """Two halves that know nothing of each other: z_g of densities, z_a of colours.

    z_g is made of the densities at a lattice alone (their slopes, and their averages over blocks):
    an object that is painted anew has the same. z_a is made of colours where something is: how
    often which occur, and which are where. Each half begins with K whitened directions, of slopes
    and of how often colours occur, at one length; the rest is learned. The decoder
    (`SplitDecoder`) takes density from z_g alone, so that z_a can change no shape.

    What weights say by their difference from the init is of both at once, and is not used.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        components: int,
        width: int,
        embedding: int,
        probes: int,
        noise: float = 0,
    ) -> None:
        super().__init__()
        self.spec, self.probes, self.noise, self.kept = spec, probes, noise, components
        self.reads = 4 * components  # numbers of an object's `components`
        coarse = (probes // 2) ** 3
        self.slopes = Projection(HISTOGRAM, components)
        self.values = Projection(coarse, components)
        self.hues = Projection(HUES, components)
        self.tints = Projection(3 * coarse, components)
        self.geometry, self.appearance = (
            nn.Sequential(
                nn.Linear(2 * components, width),
                nn.GELU(),
                nn.Linear(width, width),
                nn.GELU(),
                nn.Linear(width, embedding // 2 - components),
            )
            for _ in range(2)
        )

    @property
    def _projections(self) -> list[Projection]:
        return [self.slopes, self.values, self.hues, self.tints]

    def fit_projection(
        self,
        theta: Tensor,  # [N, P]
        _init: Tensor,  # [P]
        *,
        moves: int = 0,
    ) -> None:
        """Take the directions in which the training fields differ, of each thing that is read.

        moves: times that slopes are read as if each object were moved a little, as
        `AlignedEncoder.fit_projection` does.
        """
        slopes, *others = self._read(theta)
        draw = torch.Generator().manual_seed(0)
        changes = [self._slopes(theta, draw) - slopes for _ in range(moves)]
        self.slopes.fit(slopes, torch.cat(changes) if changes else None)
        for projection, features in zip(self._projections[1:], others, strict=True):
            projection.fit(features)

    def components(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, 4 K]
        """Give the whitened components of slopes, values, hues and tints."""
        pairs = zip(self._projections, self._read(theta), strict=True)
        return torch.cat([projection(features) for projection, features in pairs], dim=1)

    def forward(self, theta: Tensor) -> Tensor:  # [B, P] -> [B, E]
        """Embed fields."""
        return self.embed(self.components(theta))

    def embed(self, components: Tensor) -> Tensor:  # [B, 4 K] -> [B, E]
        """Map components to embeddings: z_g, then z_a."""
        if self.training and self.noise:
            components = components + self.noise * torch.randn_like(components)
        spread = torch.cat([projection.spread for projection in self._projections])
        natural = components * spread
        found = []
        for half, learned in enumerate((self.geometry, self.appearance)):
            part = slice(2 * half * self.kept, 2 * (half + 1) * self.kept)
            directions = components[:, part][:, : self.kept]
            found += [
                normalize(directions, dim=-1) * self.kept**0.5,
                (learned(natural[:, part]) * LEARNED).to(directions.dtype),
            ]
        return torch.cat(found, dim=-1)

    def _slopes(self, theta: Tensor, moves: torch.Generator) -> Tensor:
        opacity, _ = read_radiance(theta, self.spec, self.probes, moves)
        return slope_histogram(opacity, self.probes)

    def _read(self, theta: Tensor) -> list[Tensor]:
        opacity, colours = read_radiance(theta, self.spec, self.probes)
        return [
            slope_histogram(opacity, self.probes),
            coarse_values(opacity, self.probes),
            hue_histogram(opacity, colours, self.probes),
            tint(opacity, colours, self.probes),
        ]


class SplitDecoder(Decoder):
    """Density from the first half of an embedding, colours from both.

    A decoder of z_g gives density and features of each point; colours are a small network of these
    features and z_a.
    """

    def __init__(self, embedding: int, *, hidden: int, octaves: int, coding: str) -> None:
        features, shape = hidden // 2, embedding // 2
        super().__init__(shape, hidden=hidden, octaves=octaves, outputs=1 + features, coding=coding)
        self.embedding = self.reads = embedding
        self.shape = shape
        self.paint = nn.Linear(features + embedding - shape, features)
        self.shade = nn.Linear(features, features)
        self.colour = nn.Linear(features, 3)

    def forward(self, z: Tensor, coords: Tensor) -> Tensor:  # [B, E], [B, M, 3] -> [B, M, 4]
        """Give raw colours and density of each object at its own points."""
        raw = super().forward(z[..., : self.shape], coords)
        density, features = raw[..., :1], raw[..., 1:].relu()
        painted = self._joined(self.paint, z[..., self.shape :], features).relu_()
        return torch.cat([self.colour(self.shade(painted).relu()), density], -1)
