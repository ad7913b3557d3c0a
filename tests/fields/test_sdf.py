import numpy as np
import pytest
import torch
import trimesh

from nf2vec_cli.fields import sdf
from nf2vec_cli.shapes.mesh import Mesh


def mesh_of(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(np.asarray(shape.vertices, float), np.asarray(shape.faces), shape.is_watertight, ())


def box(size: float, centre=(0, 0, 0)) -> trimesh.Trimesh:
    shape = trimesh.creation.box([2 * size] * 3)
    shape.apply_translation(centre)
    return shape


def true_box_distance(points, size):
    q = np.abs(points) - size
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)


def test_distances_to_a_box_are_exact_with_the_right_sign():
    pool = sdf.sample(mesh_of(box(0.5)), 5_000, rng=np.random.default_rng(0))

    expected = np.clip(true_box_distance(pool.coords.astype(float), 0.5), -0.1, 0.1)
    np.testing.assert_allclose(pool.values, expected, atol=2e-6)
    assert pool.doubt == 0
    assert (pool.values < 0).mean() > 0.3


def test_most_points_are_near_the_surface_and_all_are_in_the_box():
    pool = sdf.sample(mesh_of(box(0.6)), 10_000, rng=np.random.default_rng(0))

    assert pool.coords.shape == (10_000, 3)
    assert np.abs(pool.coords).max() <= 1
    assert (np.abs(pool.values) < 0.02).mean() > 0.6
    assert (np.abs(pool.values) >= 0.1).mean() > 0.03


def test_bodies_that_overlap_are_inside_where_any_is():
    two = trimesh.util.concatenate([box(0.4, (-0.2, 0, 0)), box(0.4, (0.2, 0.05, 0.02))])
    points = np.random.default_rng(1).uniform(-0.9, 0.9, (20_000, 3))

    distance, doubt = sdf.signed_distance(mesh_of(two), points, rng=np.random.default_rng(0))

    inside = (true_box_distance(points - [-0.2, 0, 0], 0.4) < 0) | (
        true_box_distance(points - [0.2, 0.05, 0.02], 0.4) < 0
    )
    assert ((distance < 0) == inside).mean() > 0.9995
    assert doubt < 0.001


def test_an_open_surface_is_doubtful():
    shape = trimesh.creation.icosphere(3, 0.6)
    shape.update_faces(np.asarray(shape.triangles_center)[:, 2] < 0.1)

    pool = sdf.sample(mesh_of(shape), 5_000, rng=np.random.default_rng(0))

    assert pool.doubt > 0.1


def test_the_authors_pool_has_a_sixth_on_the_surface():
    pool = sdf.sample_as_paper(mesh_of(box(0.5)), 6_000, rng=np.random.default_rng(0))

    assert len(pool.values) == 6_000
    assert (pool.values[-1000:] == 0).all()
    assert (pool.values[:-1000] != 0).mean() > 0.99


def test_labels_and_read_back_are_inverse():
    values = torch.linspace(-0.0999, 0.0999, 50)

    back = sdf.read_back(torch.logit(sdf.labels(values)))

    torch.testing.assert_close(back, values, atol=1e-6, rtol=0)
    assert sdf.labels(torch.tensor([-0.1, 0.0, 0.1])).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("value", [-60.0, -1.0, 0.0, 2.5, 60.0])
def test_loss_and_slope_are_those_of_cross_entropy(value):
    outputs = torch.tensor([value], requires_grad=True)
    targets = torch.tensor([0.3])

    each, slope = sdf.loss(outputs.detach(), targets)

    expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets)
    expected.backward()
    torch.testing.assert_close(each[0], expected.detach())
    torch.testing.assert_close(slope, outputs.grad)
