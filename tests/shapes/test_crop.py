"""Crops: the share is kept, on one side, in place."""

import numpy as np
import pytest
import trimesh

from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.crop import crop
from nf2vec_cli.shapes.voxels import Voxels


def rng(seed=0):
    return np.random.default_rng(seed)


def direction_of(seed=0):
    found = rng(seed).standard_normal(3)
    return found / np.linalg.norm(found)


def area(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).area


@pytest.fixture
def ball():
    made = trimesh.creation.icosphere(3)
    return Mesh(np.array(made.vertices), np.array(made.faces), True, ("a note",))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mesh_keeps_just_the_share_of_its_area_on_one_side_and_in_place(ball, share, seed):
    part = crop(ball, share, rng=rng(seed))

    assert area(part) == pytest.approx(share * area(ball), rel=1e-6)
    # an even ball's cap of this share begins at this height
    heights = part.vertices @ direction_of(seed)
    assert heights.min() == pytest.approx(1 - 2 * share, abs=0.02)
    assert heights.max() == pytest.approx((ball.vertices @ direction_of(seed)).max())
    assert not part.watertight
    assert part.notes == ("a note", f"cut: {share:.0%} of the surface kept")
    assert len(part.vertices) == len(np.unique(part.faces))


def test_big_triangles_are_cut_through():
    made = trimesh.creation.box()
    box = Mesh(np.array(made.vertices), np.array(made.faces), True)

    part = crop(box, 0.37, rng=rng(3))

    assert area(part) == pytest.approx(0.37 * area(box), rel=1e-6)


def test_a_cloud_keeps_the_share_of_its_points_with_their_normals():
    points = rng(5).normal(size=(1001, 3))
    part = crop(Cloud(points, points.copy(), ()), 0.3, rng=rng(2))

    assert len(part.points) == 300
    np.testing.assert_array_equal(part.points, part.normals)
    kept = (part.points @ direction_of(2)).min()
    assert ((points @ direction_of(2)) >= kept).sum() == 300


def test_a_cloud_of_few_points_keeps_four():
    assert len(crop(Cloud(rng().normal(size=(6, 3))), 0.1, rng=rng()).points) == 4


def test_a_grid_keeps_the_share_of_its_cells_and_its_place():
    whole = Voxels(np.ones((8, 8, 8), bool), np.array([1.0, 2, 3]), 0.5)
    part = crop(whole, 0.25, rng=rng())

    assert part.grid.sum() == 128
    assert (part.pitch, part.origin.tolist()) == (0.5, [1, 2, 3])


def test_all_of_it_is_the_shape_itself(ball):
    assert crop(ball, 1, rng=rng()) is ball


def test_moved_and_scaled_shapes_are_cut_at_the_same_place(ball):
    """`reconstruct` cuts the source in the user's units, `fit` in unit space."""
    moved = Mesh(ball.vertices * 7 + [10, -4, 2], ball.faces, True)
    a, b = crop(ball, 0.4, rng=rng(9)), crop(moved, 0.4, rng=rng(9))

    np.testing.assert_allclose(a.vertices * 7 + [10, -4, 2], b.vertices, atol=1e-6)
