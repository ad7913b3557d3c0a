import numpy as np

from nf2vec_cli.core.snapshot import RADIUS, snapshot


def plane(height, half, count=20_000):
    points = np.random.default_rng(0).uniform(-half, half, (count, 3))
    points[:, 2] = height
    return points


def test_a_ball_covers_the_area_of_a_disc():
    points = np.random.default_rng(0).normal(size=(60_000, 3))
    points *= 0.8 / np.linalg.norm(points, axis=1, keepdims=True)

    picture = snapshot(points, points / 0.8, size=160)

    covered = (picture[..., 0] < 255).mean()
    assert picture.shape == (160, 160, 3)
    assert picture.dtype == np.uint8
    assert abs(covered - np.pi * (0.8 / RADIUS / 2) ** 2) < 0.02


def test_what_is_nearer_hides_what_is_behind():
    up, side = np.tile([[0, 0, 1.0]], (20_000, 1)), np.tile([[1.0, 0, 0]], (20_000, 1))
    low, high = plane(-0.5, 0.5), plane(0.5, 0.5)

    for points, normals in (
        (np.r_[low, high], np.r_[side, up]),
        (np.r_[high, low], np.r_[up, side]),
    ):
        picture = snapshot(points, normals, size=64, elevation=90, azimuth=0)
        alone = snapshot(high, up, size=64, elevation=90, azimuth=0)
        assert np.array_equal(picture[24:40, 24:40], alone[24:40, 24:40])


def test_points_outside_of_the_picture_are_left_out():
    far = snapshot(np.array([[9.0, 9, 9], [-9, -9, -9]]), None, size=32)

    assert (far == 255).all()


def test_up_is_up():
    post = np.zeros((2_000, 3))
    post[:, 1] = np.linspace(0, 1, 2_000)

    picture = snapshot(post, None, size=64, up="y", elevation=0)[..., 0] < 255

    rows = np.flatnonzero(picture.any(axis=1))
    assert rows.min() < 5
    assert rows.max() < 36
