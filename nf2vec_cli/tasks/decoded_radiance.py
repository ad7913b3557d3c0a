"""One embedding as radiance: colours, densities and pictures, through the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d

from nf2vec_cli.core.march import DIAGONAL, Rays
from nf2vec_cli.core.render import Rendered, render
from nf2vec_cli.fields.nerf import radiance_of
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.models.probes import lattice
from nf2vec_cli.tasks.optimise_rays import OPAQUE

TILE = {"cpu": 1 << 12, "cuda": 1 << 16}  # points at once: on a CPU, what stays in its cache


class DecodedRadiance:
    """Radiance that can be asked and rendered, as `RadianceField` can: decoder and embedding [E].

    samples: of the cube's diagonal. cells: of the grid along an axis. No grid is kept for an
    embedding: it is found by asking the decoder once in the middle of every cell, when it is first
    needed, and grown by one cell, as what is thin may pass beside the middles. After that a picture
    asks along few samples only.
    """

    def __init__(
        self, decoder: Decoder, z: Tensor, *, samples: int, cells: int, backend: str = "auto"
    ) -> None:
        self.decoder, self.z, self.samples, self.cells = decoder, z[None], samples, cells
        self.backend = backend

    def to(self, device: torch.device) -> None:
        """Compute on a device from now on."""
        self.decoder, self.z = self.decoder.to(device), self.z.to(device)
        self.__dict__.pop("grid", None)  # found anew where it is needed

    @torch.no_grad()
    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:  # [M, 3] -> [M, 3], [M]
        """Give colours in [0, 1] and densities per unit of object space, whatever the grid says."""
        here = points.to(self.z.device)
        parts = [self.decoder(self.z, part[None])[0] for part in here.split(TILE[here.device.type])]
        raw = torch.cat(parts) if parts else here.new_empty(0, 4)
        colour, density = radiance_of(raw)
        return colour.to(points.device), density.to(points.device)

    @cached_property
    def grid(self) -> Tensor:
        """Give the cells that may hold something: [cells, cells, cells] bool."""
        points = lattice(self.cells).to(self.z.device)
        opacity = -torch.expm1(-self.at(points)[1] * (DIAGONAL / self.samples))
        taken = (opacity > OPAQUE).view(1, 1, *(self.cells,) * 3)
        return max_pool3d(taken.float(), 3, stride=1, padding=1)[0, 0] > 0

    def render(self, rays: Rays, *, background: Sequence[float] = (1.0, 1.0, 1.0)) -> Rendered:
        """Give what rays see."""
        return render(
            self.at,
            rays,
            self.grid,
            samples=self.samples,
            background=torch.tensor(background, device=self.z.device),
            backend=self.backend,
        )
