"""Signed distance: negative inside, clipped to +-0.1, as a binary label (paper, section III-A)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.mlp import PointLoss
from nf2vec_cli.errors import InputError
from nf2vec_cli.fields.loss import cross_entropy
from nf2vec_cli.fields.pool import CLIP, NEAR, NEAR_AUTHORS, Pool, distance_pool, queries
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.inside import signed_distance, tell_inside
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.sample import surface_points


def prepare(shape: Shape, config: FitConfig, *, rng: np.random.Generator) -> Pool:
    """Measure signed distances to a mesh in unit space, at `config.pool` query points.

    Distances are exact (to the triangles), from libigl's bounding volume hierarchy: about 0.13 s
    for 50,000 points and 3,000 faces on one core. The recipe `paper` puts a sixth of the points on
    the surface itself, with value 0, as the authors do.

    Raises:
        InputError: inside and outside cannot be told apart.
    """
    assert isinstance(shape, Mesh)  # what `load_shape` gives for this field
    told = tell_inside(shape, sign=config.sign, rng=rng)
    if told.doubt > config.max_doubt:
        raise InputError(
            f"the surface is open: for {told.doubt:.0%} of the points near it inside and outside "
            f"cannot be told apart; {told.note or 'fit it with `--field udf`, or close it'}"
        )
    mesh, paper = told.mesh, config.recipe == "paper"
    on = config.pool // 6 if paper else 0
    rest = config.pool - on
    base = surface_points(mesh.vertices, mesh.faces, rest, rng=rng)
    points = queries(base, NEAR_AUTHORS if paper else NEAR, rest, rng=rng)
    distance = signed_distance(told, points)
    if on:
        surface = surface_points(mesh.vertices, mesh.faces, on, rng=rng)
        points, distance = np.r_[points, surface], np.r_[distance, np.zeros(on)]
    kept = surface_points(mesh.vertices, mesh.faces, SURFACE_POINTS, rng=rng)
    pool = distance_pool(points, distance, kept)
    return replace(
        pool,
        doubt=told.doubt,
        disagreement=told.disagreement,
        sign=told.way,
        note=told.note,
    )


def point_loss(config: FitConfig) -> PointLoss:  # noqa: ARG001
    """Give the loss: cross-entropy with soft labels."""
    return cross_entropy


def labels(values: Tensor) -> Tensor:
    """Map clipped distances to labels in [0, 1]: 0 deep inside, 0.5 surface, 1 outside."""
    return (values + CLIP) / (2 * CLIP)


def read_back(outputs: Tensor) -> Tensor:
    """Turn network outputs into clipped signed distances in unit space."""
    return (2 * CLIP) * torch.sigmoid(outputs) - CLIP
