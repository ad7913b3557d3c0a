import numpy as np
import pytest
import torch
import trimesh

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.fields import sdf
from nf2vec_cli.shapes.inside import signed_distance, tell_inside
from nf2vec_cli.shapes.mesh import Mesh


def mesh_of(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(np.asarray(shape.vertices, float), np.asarray(shape.faces), shape.is_watertight, ())


def box(size: float, centre=(0, 0, 0)) -> trimesh.Trimesh:
    shape = trimesh.creation.box([2 * size] * 3)
    shape.apply_translation(centre)
    return shape


def pool_of(shape, count, **settings):
    config = FitConfig(pool=count, points=100, **settings)
    return sdf.prepare(mesh_of(shape), config, rng=np.random.default_rng(0))


def true_box_distance(points, size):
    q = np.abs(points) - size
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)


def test_distances_to_a_box_are_exact_with_the_right_sign():
    pool = pool_of(box(0.5), 5_000)

    expected = np.clip(true_box_distance(pool.coords.astype(float), 0.5), -0.1, 0.1)
    np.testing.assert_allclose(pool.values, expected, atol=2e-6)
    assert pool.doubt == 0
    assert (pool.values < 0).mean() > 0.3


def test_most_points_are_near_the_surface_and_all_are_in_the_box():
    pool = pool_of(box(0.6), 10_000)

    assert pool.coords.shape == (10_000, 3)
    assert np.abs(pool.coords).max() <= 1
    assert (np.abs(pool.values) < 0.02).mean() > 0.6
    assert (np.abs(pool.values) >= 0.1).mean() > 0.03


def test_bodies_that_overlap_are_inside_where_any_is():
    two = trimesh.util.concatenate([box(0.4, (-0.2, 0, 0)), box(0.4, (0.2, 0.05, 0.02))])
    points = np.random.default_rng(1).uniform(-0.9, 0.9, (20_000, 3))

    rng = np.random.default_rng(0)
    told = tell_inside(mesh_of(two), rng=rng)
    distance = signed_distance(told, points)

    inside = (true_box_distance(points - [-0.2, 0, 0], 0.4) < 0) | (
        true_box_distance(points - [0.2, 0.05, 0.02], 0.4) < 0
    )
    assert ((distance < 0) == inside).mean() > 0.9995
    assert told.doubt < 0.001
    assert told.way == "winding"


def test_an_open_surface_is_refused():
    shape = trimesh.creation.icosphere(3, 0.6)
    shape.update_faces(np.asarray(shape.triangles_center)[:, 2] < 0.1)

    with pytest.raises(InputError, match=r"the surface is open.*--field udf"):
        pool_of(shape, 5_000)


def test_the_authors_pool_has_a_sixth_on_the_surface():
    pool = pool_of(box(0.5), 6_000, recipe="paper")

    assert len(pool.values) == 6_000
    assert (pool.values[-1000:] == 0).all()
    assert (pool.values[:-1000] != 0).mean() > 0.99


def test_labels_and_read_back_are_inverse():
    values = torch.linspace(-0.0999, 0.0999, 50)

    back = sdf.read_back(torch.logit(sdf.labels(values)))

    torch.testing.assert_close(back, values, atol=1e-6, rtol=0)
    assert sdf.labels(torch.tensor([-0.1, 0.0, 0.1])).tolist() == [0, 0.5, 1]
