import numpy as np
import pytest
import torch
import trimesh

from nf2vec_cli.config import Recipe
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.fields import udf
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud

CONFIG = FitConfig(pool=6_000, points=100)


def open_sheet():
    corners = np.array([[-0.6, -0.6, 0], [0.6, -0.6, 0], [0.6, 0.6, 0], [-0.6, 0.6, 0]])
    return Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]), False)


def test_distance_to_an_open_sheet_is_to_its_surface_on_both_sides():
    pool = udf.prepare(open_sheet(), CONFIG, rng=np.random.default_rng(0))

    outside = np.maximum(np.abs(pool.coords[:, :2]) - 0.6, 0)
    expected = np.sqrt((outside**2).sum(1) + pool.coords[:, 2] ** 2)
    np.testing.assert_allclose(pool.values, np.minimum(expected, 0.1), atol=1e-6)
    assert pool.doubt == 0


def test_distance_to_a_cloud_is_to_its_nearest_point():
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (50, 3))

    pool = udf.prepare(Cloud(points, None, ()), CONFIG, rng=np.random.default_rng(0))

    every = np.linalg.norm(pool.coords[:, None].astype(float) - points, axis=2).min(1)
    np.testing.assert_allclose(pool.values, np.minimum(every, 0.1), atol=1e-6)
    assert (pool.values < 0.02).mean() > 0.5


@pytest.mark.parametrize("cloud", [False, True])
def test_the_authors_pool_has_a_sixth_on_the_surface(cloud):
    sphere = trimesh.creation.icosphere(2, 0.7)
    shape = Mesh(np.asarray(sphere.vertices), np.asarray(sphere.faces), True)
    if cloud:
        shape = Cloud(np.asarray(sphere.vertices), None, ())
    config = CONFIG.model_copy(update={"recipe": Recipe.paper})

    pool = udf.prepare(shape, config, rng=np.random.default_rng(0))

    assert len(pool.values) == 6_000
    assert (pool.values[-1000:] == 0).all()
    assert udf.distance(shape, pool.coords[-1000:].astype(float)).max() < 1e-6
    assert (pool.values[:-1000] > 0).mean() > 0.99


def test_a_label_is_1_on_the_surface_and_0_far_from_it():
    assert udf.labels(torch.tensor([0.0, 0.05, 0.1])).tolist() == [1, 0.5, 0]
