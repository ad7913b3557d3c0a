"""Unsigned distance, clipped to 0.1, as a label that is 1 on the surface (paper, section III-A)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.mlp import PointLoss
from nf2vec_cli.fields.loss import cross_entropy
from nf2vec_cli.fields.pool import CLIP, NEAR, NEAR_AUTHORS, Pool, distance_pool, queries
from nf2vec_cli.metrics import surface_distance
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.sample import Points, surface_points


def prepare(shape: Shape, config: FitConfig, *, rng: np.random.Generator) -> Pool:
    """Measure distances to a mesh's triangles, or to a cloud's points, in unit space.

    The recipe `paper` puts a sixth of the points on the surface itself, as the authors do.
    """
    if config.recipe != "paper":
        points = queries(_base(shape, config.pool, rng), NEAR, config.pool, rng=rng)
        kept = _exactly(_base(shape, SURFACE_POINTS, rng), SURFACE_POINTS, rng)
        return distance_pool(points, distance(shape, points, bound=CLIP), kept)
    on = config.pool // 6
    rest = config.pool - on
    points = queries(_base(shape, rest, rng), NEAR_AUTHORS, rest, rng=rng)
    surface = _exactly(_base(shape, on, rng), on, rng)
    measured = np.concatenate([distance(shape, points, bound=CLIP), np.zeros(on)])
    kept = _exactly(surface, SURFACE_POINTS, rng)
    return distance_pool(np.concatenate([points, surface]), measured, kept)


def _base(shape: Shape, count: int, rng: np.random.Generator) -> Points:
    if isinstance(shape, Cloud):
        return shape.points
    assert isinstance(shape, Mesh)  # what `load_shape` gives for this field
    return surface_points(shape.vertices, shape.faces, count, rng=rng)


def _exactly(points: Points, count: int, rng: np.random.Generator) -> Points:
    """Choose `count` of the points: without repetition while there are enough."""
    if len(points) == count:
        return points
    if len(points) > count:
        return points[rng.choice(len(points), count, replace=False, shuffle=False)]
    return points[rng.integers(len(points), size=count)]


def distance(shape: Shape, points: Points, *, bound: float = np.inf) -> Points:  # [M, 3] -> [M]
    """Measure each point's distance to the shape: exact to triangles, or to the nearest point.

    Distances beyond `bound` may come as infinity. A tree that is not balanced takes 4 s for five
    million points and 200,000 queries within 0.1, a balanced one minutes.
    """
    if isinstance(shape, Cloud):
        tree = cKDTree(shape.points, balanced_tree=False, compact_nodes=False)
        found: Points = tree.query(points, distance_upper_bound=bound, workers=1)[0]
        return found
    assert isinstance(shape, Mesh)
    return surface_distance(points, shape.vertices, shape.faces)


def point_loss(config: FitConfig) -> PointLoss:  # noqa: ARG001
    """Give the loss: cross-entropy with soft labels."""
    return cross_entropy


def labels(values: Tensor) -> Tensor:
    """Map distances to labels in [0, 1]: 1 on the surface, 0 from the clip distance on."""
    return 1 - values / CLIP


def read_back(outputs: Tensor) -> Tensor:
    """Turn network outputs into clipped distances in unit space."""
    return CLIP * torch.sigmoid(-outputs)
