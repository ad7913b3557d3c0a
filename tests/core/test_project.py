import numpy as np
import pytest

from nf2vec_cli.core.project import shell_surface, zero_cloud

REACH = 0.1


def sphere(coords):
    return np.abs(np.linalg.norm(coords, axis=1) - 0.7)


def bowl(coords):
    """Lower half of a sphere: an open surface."""
    rim = np.stack([np.hypot(coords[:, 0], coords[:, 1]) - 0.7, coords[:, 2]], 1)
    return np.where(coords[:, 2] < 0, sphere(coords), np.linalg.norm(rim, axis=1))


def field_of(distance, floor=0.0):
    """Values and slopes as of a fitted field: clipped, and not quite zero at the surface."""

    def values(coords):
        smooth = np.sqrt(distance(coords.astype(float)) ** 2 + floor**2)
        return np.minimum(smooth, REACH).astype(np.float32)

    def slopes(coords):
        step = 1e-3
        moved = [
            values(coords + step * axis) - values(coords - step * axis)
            for axis in np.eye(3, dtype=np.float32)
        ]
        return np.stack(moved, 1) / (2 * step)

    return values, slopes


@pytest.mark.parametrize("floor", [0.0, 0.003])
@pytest.mark.parametrize("shape", [sphere, bowl])
def test_a_cloud_lies_on_the_surface_and_covers_it(shape, floor):
    values, slopes = field_of(shape, floor)

    cloud = zero_cloud(values, slopes, 3_000, reach=REACH, rng=np.random.default_rng(0))

    assert cloud.points.shape == (3_000, 3)
    assert shape(cloud.points).mean() < 0.003
    # no part without points: around each of 8 (sphere) or 4 (bowl) octants about as many
    octant = (cloud.points > 0) @ [1, 2, 4]
    counts = np.bincount(octant[cloud.points[:, 2] < -0.01], minlength=4)[:4]
    assert counts.min() > 0.8 * counts.mean()


@pytest.mark.parametrize("value", [0.1, 0.05])
def test_a_field_without_a_surface_gives_no_points_and_ends(value):
    def flat(coords):
        return np.full(len(coords), value, np.float32)

    cloud = zero_cloud(flat, np.zeros_like, 1_000, reach=REACH, rng=np.random.default_rng(0))

    assert len(cloud.points) == 0


def test_the_same_seed_gives_the_same_cloud():
    values, slopes = field_of(sphere)
    first, again, other = (
        zero_cloud(values, slopes, 100, reach=REACH, rng=np.random.default_rng(seed)).points
        for seed in (1, 1, 2)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_points_are_found_at_a_small_part_of_the_cost_of_blind_draws():
    values, slopes = field_of(sphere)

    cloud = zero_cloud(values, slopes, 8_192, reach=REACH, rng=np.random.default_rng(0))

    # of points drawn blindly, less than 1 % come to lie on the surface: 6 evaluations each
    assert cloud.evaluated < 0.5 * 6 * 8_192 / 0.01


@pytest.mark.parametrize("floor", [0.0, 0.003])
@pytest.mark.parametrize("shape", [sphere, bowl])
def test_a_shell_is_closed_and_thin(shape, floor):
    values, slopes = field_of(shape, floor)

    shell = shell_surface(values, slopes, 64, reach=REACH)

    cell = 2 / 63
    edges = np.sort(shell.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert np.median(shape(shell.vertices)) < 0.3 * cell
    assert shape(shell.vertices).max() < 1.6 * cell
