"""One fitted field of radiance as a function: colours and densities at points, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.core.march import Rays
from nf2vec_cli.core.mlp import field_values
from nf2vec_cli.core.render import Rendered, render
from nf2vec_cli.fields.nerf import radiance_of
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.store.codec import Floats


@runtime_checkable
class Renderable(Protocol):
    """Radiance that can be asked and rendered, from weights or from an embedding.

    grid: [G, G, G] bool, cells that may hold something. `at` does not look at it.
    """

    @property
    def grid(self) -> Tensor: ...

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]: ...

    def render(self, rays: Rays, *, background: Sequence[float]) -> Rendered: ...
    def to(self, device: torch.device) -> None: ...


class RadianceField:
    """A field that can be asked and rendered: theta [P], with its occupancy grid [G, G, G]."""

    def __init__(
        self,
        theta: Floats | Tensor,
        spec: NetworkSpec,
        grid: NDArray[np.bool_] | Tensor,
        samples: int,
        backend: str = "auto",
    ) -> None:
        self.spec, self.samples, self.backend = spec, samples, backend
        self.grid = torch.as_tensor(grid)
        self.theta = torch.as_tensor(theta)[None]

    def to(self, device: torch.device) -> None:
        """Compute on a device from now on."""
        self.grid, self.theta = self.grid.to(device), self.theta.to(device)

    @torch.no_grad()
    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:  # [M, 3] -> [M, 3], [M]
        """Give colours in [0, 1] and densities per unit of object space, whatever the grid says.

        They come on the points' device, whatever the field computes on.
        """
        here = points.to(self.grid.device)
        outputs = field_values(self.theta, here[None], self.spec)[0]
        colour, density = radiance_of(outputs, self.spec.density)
        return colour.to(points.device), density.to(points.device)

    def render(self, rays: Rays, *, background: Sequence[float] = (1.0, 1.0, 1.0)) -> Rendered:
        """Give what rays see."""
        return render(
            self.at,
            rays,
            self.grid,
            samples=self.samples,
            background=torch.tensor(background, device=self.grid.device),
            backend=self.backend,
        )
