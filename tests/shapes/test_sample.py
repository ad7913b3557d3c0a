import numpy as np
import pytest
import trimesh

from nf2vec_cli.shapes.sample import morton_order, surface_points


def test_points_lie_on_the_surface():
    ball = trimesh.creation.icosphere(2)

    points = surface_points(ball.vertices, ball.faces, 2000, rng=np.random.default_rng(0))

    _, distance, _ = trimesh.proximity.closest_point_naive(ball, points[:100])
    assert points.shape == (2000, 3)
    assert distance.max() < 1e-9


def test_each_face_gets_its_share_of_points_by_area():
    vertices = np.array(
        [[0, 0, 0], [3, 0, 0], [0, 2, 0], [10, 0, 0], [11, 0, 0], [10, 2, 0]], float
    )
    faces = np.array([[0, 1, 2], [3, 4, 5], [0, 0, 1]])

    points = surface_points(vertices, faces, 1000, rng=np.random.default_rng(0))

    assert abs(int((points[:, 0] < 5).sum()) - 750) <= 1


def test_points_fill_a_triangle_evenly():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)

    points = surface_points(vertices, np.array([[0, 1, 2]]), 40_000, rng=np.random.default_rng(0))

    np.testing.assert_allclose(points.mean(0), [1 / 3, 1 / 3, 0], atol=0.005)
    assert (points[:, :2].sum(axis=1) <= 1).all()
    corner = (points[:, 0] < 0.5) & (points[:, 1] < 0.5)
    assert corner.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("count", [0, 1])
def test_few_points_are_no_special_case(count):
    box = trimesh.creation.box()

    points = surface_points(box.vertices, box.faces, count, rng=np.random.default_rng(0))

    assert points.shape == (count, 3)


def test_one_seed_gives_the_same_points():
    box = trimesh.creation.box()

    first, second = (
        surface_points(box.vertices, box.faces, 50, rng=np.random.default_rng(4)) for _ in range(2)
    )

    assert np.array_equal(first, second)


def test_morton_order_visits_each_point_once_and_keeps_neighbours_close():
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3))

    order = morton_order(points)

    assert np.array_equal(np.sort(order), np.arange(5000))
    steps = np.linalg.norm(np.diff(points[order], axis=0), axis=1)
    assert steps.mean() < 0.2 * np.linalg.norm(np.diff(points, axis=0), axis=1).mean()


def test_morton_order_goes_octant_by_octant():
    corners = np.array([[x, y, z] for z in (-0.5, 0.5) for y in (-0.5, 0.5) for x in (-0.5, 0.5)])
    shuffled = np.random.default_rng(0).permutation(8)

    assert np.array_equal(corners[shuffled][morton_order(corners[shuffled])], corners)


def test_morton_order_takes_points_on_and_beyond_the_cube():
    assert morton_order(np.array([[1.0, 1, 1], [-1, -1, -1], [5, 5, 5]])).tolist() == [1, 0, 2]
