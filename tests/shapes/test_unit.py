import numpy as np
import pytest
import trimesh

from nf2vec_cli.shapes.augment import augment
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.unit import into_unit, onto_unit
from nf2vec_cli.shapes.voxels import Voxels


def ball(centre=(5.0, -3, 2), radius=4.0):
    shape = trimesh.creation.icosphere(3, radius)
    return Mesh(np.asarray(shape.vertices) + centre, np.asarray(shape.faces), True)


def cloud():
    return Cloud(ball().vertices, None, ())


def test_a_cloud_comes_into_the_unit_sphere_and_back():
    unit, centre, scale = into_unit(cloud())

    assert np.linalg.norm(unit.points, axis=1).max() == pytest.approx(1)
    np.testing.assert_allclose(unit.points * scale + centre, cloud().points)
    np.testing.assert_allclose(onto_unit(cloud(), centre, scale).points, unit.points)


def test_a_grid_is_padded_to_a_cube_that_fills_object_space():
    grid = np.ones((2, 4, 3), bool)
    voxels = Voxels(grid, np.array([10.0, 20, 30]), 0.5, ())

    unit, centre, scale = into_unit(voxels)

    assert unit.grid.shape == (4, 4, 4)
    assert unit.grid.sum() == 24
    # the corner of the first occupied cell is where the grid began
    first = np.argwhere(unit.grid).min(0)
    np.testing.assert_allclose((first * unit.pitch - 1) * scale + centre, [10, 20, 30])
    last = np.argwhere(unit.grid).max(0) + 1
    np.testing.assert_allclose((last * unit.pitch - 1) * scale + centre, [11, 22, 31.5])


@pytest.mark.parametrize("seed", range(5))
def test_a_mesh_copy_is_scaled_along_each_axis_within_the_papers_bounds(seed):
    copy = augment(ball(), rng=np.random.default_rng(seed))

    factors = np.ptp(copy.vertices, axis=0) / np.ptp(ball().vertices, axis=0)
    assert (factors > 2 / 3).all()
    assert (factors < 3 / 2).all()
    assert np.ptp(factors) > 0.01
    assert np.array_equal(copy.faces, ball().faces)


def test_a_cloud_copy_is_jittered_within_the_papers_bound():
    copy = augment(cloud(), rng=np.random.default_rng(0))

    unit, _, _ = into_unit(cloud())
    moved, target = copy.points, unit.points
    # undo the scale by least squares: what is left is the jitter
    slope = [np.polyfit(target[:, k], moved[:, k], 1) for k in range(3)]
    left = np.stack([moved[:, k] - np.polyval(slope[k], target[:, k]) for k in range(3)], 1) / 4
    assert 0.008 < left.std() < 0.012
    assert np.abs(left).max() < 0.055


@pytest.mark.parametrize("seed", range(5))
def test_a_grid_copy_has_no_holes_and_keeps_its_size(seed):
    index = np.indices((24, 24, 24)).reshape(3, -1).T - 11.5
    grid = (np.abs(np.linalg.norm(index, axis=1) - 9) < 0.9).reshape(24, 24, 24)
    voxels = Voxels(grid, np.zeros(3), 1.0, ())

    copy = augment(voxels, rng=np.random.default_rng(seed))

    from scipy.ndimage import binary_fill_holes

    assert copy.grid.shape == grid.shape
    assert (
        copy.grid.any(axis=(1, 2)).sum() >= 20
        or copy.grid.any(axis=(0, 2)).sum() >= 20
        or (copy.grid.any(axis=(0, 1)).sum() >= 20)
    )
    assert binary_fill_holes(copy.grid).sum() > 1.3 * copy.grid.sum()
    assert not np.array_equal(copy.grid, grid)


@pytest.mark.parametrize("shape", [ball(), cloud()])
def test_the_same_seed_makes_the_same_copy(shape):
    first, again, other = (augment(shape, rng=np.random.default_rng(s)) for s in (1, 1, 2))

    def points(found):
        return found.vertices if isinstance(found, Mesh) else found.points

    assert np.array_equal(points(first), points(again))
    assert not np.allclose(points(first), points(other))
