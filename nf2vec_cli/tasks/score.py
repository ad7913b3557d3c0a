"""How good a field is: its error near the surface, and its zero surface against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.core.surface import Surface, zero_surface
from nf2vec_cli.fields import sdf
from nf2vec_cli.fields.pool import Pool
from nf2vec_cli.metrics import SurfaceScore, surface_distance, surface_score
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.sample import surface_points
from nf2vec_cli.tasks.fit_object import field_values

SAMPLES = 20_000  # surface points on each side of a comparison
Theta = NDArray[np.float32]


def field_error(theta: Theta, spec: NetworkSpec, pool: Pool) -> float:
    """Mean absolute error, in unit space, at the pool's points nearer than the clip distance."""
    near = np.abs(pool.values) < sdf.CLIP
    found = field_values(theta, spec, sdf, pool.coords[near])
    return float(np.abs(found - pool.values[near]).mean())


def field_surface(theta: Theta, spec: NetworkSpec, resolution: int) -> Surface:
    """Extract the zero surface of one signed distance field, in unit space."""
    return zero_surface(
        lambda coords: field_values(theta, spec, sdf, coords), resolution, reach=sdf.CLIP
    )


@dataclass(frozen=True)
class Truth:
    """A mesh in unit space and a fixed sample of its surface."""

    mesh: Mesh
    points: NDArray[np.float64]

    @classmethod
    def of(cls, mesh: Mesh) -> Truth:
        """Sample a mesh once, always the same way."""
        rng = np.random.default_rng(0)
        return cls(mesh, surface_points(mesh.vertices, mesh.faces, SAMPLES, rng=rng))

    def score(self, surface: Surface) -> SurfaceScore | None:
        """Compare a surface with the truth; None if the surface is empty."""
        if not len(surface.faces):
            return None
        rng = np.random.default_rng(1)
        found = surface_points(surface.vertices, surface.faces, SAMPLES, rng=rng)
        return surface_score(
            surface_distance(found, self.mesh.vertices, self.mesh.faces),
            surface_distance(self.points, surface.vertices, surface.faces),
        )
