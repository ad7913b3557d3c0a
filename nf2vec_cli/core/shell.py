"""The zero set of an unsigned distance field as triangles: a thin closed shell around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.core.lattice import BATCH, Evaluate
from nf2vec_cli.core.project import Points, Slopes, settle, zero_cloud
from nf2vec_cli.core.surface import zero_surface

# Where the shell is cut, in grid steps. From 0.87 on (half a cell's diagonal) each cell that the
# zero set enters has a corner inside, so that no hole can open between the points of the grid.
LEVEL = 1.0
FLOOR = 2.0  # and at least this many times what the field leaves at its zero set
HIGHEST = 0.9  # share of the reach that the level must not exceed
PROBE = 2000  # points of the zero set on which that is measured
PULLS = 5  # moves of each vertex toward the zero set
OFFSET = 0.05  # what remains between the zero set and each sheet, in grid steps


@dataclass(frozen=True)
class Shell:
    """Triangles of a closed shell: vertices [V, 3] in [-1, 1]^3, faces [F, 3], normals outward.

    level: distance, by the field, at which it was cut. thickness: from sheet to sheet after the
    pull, in unit space. evaluated: points that were evaluated, as a share of the dense grid's.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    level: float
    thickness: float
    evaluated: float


def shell_surface(evaluate: Evaluate, slopes: Slopes, resolution: int, *, reach: float) -> Shell:
    """Mesh the zero set of an unsigned distance field as a thin closed shell.

    Without a sign there is nothing to cross at the zero set, and methods that guess one leave
    holes where they guess wrong. Here marching cubes cuts the field a little above zero, which
    gives a closed surface all around the zero set; then each vertex is moved to its foot on the
    zero set, but for a rest. What comes back has two sheets a tenth of a grid step apart, which
    meet at the rims of an open surface: it is closed, its faces are about twice those of a single
    surface, its volume means nothing. Parts closer together than two grid steps are joined.

    Args:
        evaluate: unsigned distances in unit space, clipped to `reach`.
        slopes: the same distances and their gradients.
        resolution: points along each axis; their spacing should be well below `reach`.
        reach: where the field is clipped.

    Returns:
        The shell; without vertices if the field comes nowhere near zero.
    """
    step = 2 / (resolution - 1)
    probe = zero_cloud(evaluate, slopes, PROBE, reach=reach, rng=np.random.default_rng(0))
    floor = float(np.quantile(evaluate(probe.points), 0.99)) if len(probe.points) else 0.0
    level = min(max(LEVEL * step, FLOOR * floor), HIGHEST * reach)

    def beyond(coords: Points) -> NDArray[np.float32]:
        return evaluate(coords) - np.float32(level)

    sheets = zero_surface(beyond, resolution, reach=reach - level)
    vertices = sheets.vertices.astype(np.float32)
    for start in range(0, len(vertices), BATCH):
        part = slice(start, start + BATCH)
        vertices[part] = _pulled(slopes, vertices[part], OFFSET * step)
    spent = probe.evaluated + len(probe.points) + PULLS * len(vertices)
    return Shell(
        vertices=np.clip(vertices.astype(np.float64), -1, 1),
        faces=sheets.faces,
        level=level,
        thickness=2 * OFFSET * step,
        evaluated=sheets.evaluated + spent / resolution**3,
    )


def _pulled(slopes: Slopes, points: Points, offset: float) -> Points:
    """Move points to `offset` before their feet on the zero set, on the side they came from."""
    foot = settle(slopes, points, steps=PULLS)
    away = points - foot
    length = np.linalg.norm(away, axis=1, keepdims=True)
    pulled: Points = foot + away * (offset / np.maximum(length, offset))
    return pulled
