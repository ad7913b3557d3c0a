import numpy as np
import pytest
from scipy.spatial import cKDTree

from nf2vec_cli.core.project import zero_cloud

REACH = 0.1


def spacing(points):
    return cKDTree(points).query(points, k=2)[0][:, 1]


@pytest.mark.parametrize("shape", ["ball", "bowl", "torus"])
@pytest.mark.parametrize("rounding", [0, 0.003])
@pytest.mark.parametrize("factor", [0.8, 1, 1.5])
def test_the_cloud_lies_on_the_surface(unsigned, shape, rounding, factor):
    field = unsigned(shape, rounding, factor)

    cloud = zero_cloud(
        field.evaluate, field.slopes, 2000, reach=REACH, rng=np.random.default_rng(0)
    )

    assert cloud.points.shape == (2000, 3)
    assert field.shape(cloud.points)[0].max() < 0.009
    # rounded and steeper than a distance: seeds overshoot by about the rounding
    bound = 0.004 if rounding and factor > 1 else 0.0015
    assert np.quantile(field.shape(cloud.points)[0], 0.95) < bound
    assert cloud.evaluated == field.evaluated


def test_the_cloud_is_even_and_covers_the_surface(unsigned):
    field = unsigned("ball")
    rng = np.random.default_rng(0)
    random = rng.standard_normal((3000, 3))
    random *= 0.8 / np.linalg.norm(random, axis=1, keepdims=True)

    cloud = zero_cloud(field.evaluate, field.slopes, 3000, reach=REACH, rng=rng)

    found, chance = spacing(cloud.points), spacing(random)
    assert found.std() / found.mean() < 0.7 * chance.std() / chance.mean()
    area = 4 * np.pi * 0.8**2 / 3000  # of each point
    assert cKDTree(cloud.points).query(random)[0].max() < 2 * np.sqrt(area)


def test_the_generator_decides_the_cloud(unsigned):
    field = unsigned("bowl")
    one, same, other = (
        zero_cloud(field.evaluate, field.slopes, 500, reach=REACH, rng=np.random.default_rng(s))
        for s in (1, 1, 2)
    )

    assert np.array_equal(one.points, same.points)
    assert not np.array_equal(one.points, other.points)


@pytest.mark.parametrize("value", [0.0, 0.02, 0.05, 0.1])
def test_a_field_without_zero_set_ends_with_the_numbers(value):
    def slopes(coords):
        return np.full(len(coords), value, np.float32), np.zeros_like(coords)

    cloud = zero_cloud(
        lambda c: slopes(c)[0], slopes, 1000, reach=REACH, rng=np.random.default_rng(0)
    )

    assert cloud.wanted == 1000
    assert len(cloud.points) == (1000 if value == 0 else 0)
    assert cloud.rounds <= 4
    assert cloud.evaluated > 0


def test_a_field_that_is_nan_gives_no_points():
    def slopes(coords):
        return np.full(len(coords), np.nan, np.float32), np.full_like(coords, np.nan)

    cloud = zero_cloud(
        lambda c: slopes(c)[0], slopes, 10, reach=REACH, rng=np.random.default_rng(0)
    )

    assert len(cloud.points) == 0


def test_no_points_are_asked_for(unsigned):
    field = unsigned("ball")
    cloud = zero_cloud(field.evaluate, field.slopes, 0, reach=REACH, rng=np.random.default_rng(0))

    assert cloud.points.shape == (0, 3)


@pytest.mark.slow
def test_a_million_points(unsigned):
    field = unsigned("torus", 0.003)

    cloud = zero_cloud(
        field.evaluate, field.slopes, 1_000_000, reach=REACH, rng=np.random.default_rng(0)
    )

    assert len(cloud.points) == 1_000_000
    assert field.shape(cloud.points)[0].max() < 0.009
