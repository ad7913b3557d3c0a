import numpy as np
import pytest
import trimesh

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.parity import parity

BOX = trimesh.creation.box([1, 1, 1])
TUBE = trimesh.creation.annulus(0.3, 0.5, 0.4, sections=24)
RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-0.7, 0.7, (4000, 3))


def joined(*parts):
    starts = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
    return (
        np.concatenate([vertices for vertices, _ in parts]),
        np.concatenate([f + start for (_, f), start in zip(parts, starts, strict=False)]),
    )


def raw(shape):
    return np.asarray(shape.vertices, float), np.asarray(shape.faces, np.int64)


def test_a_box_is_told_exactly():
    found = parity(*raw(BOX), POINTS)

    assert np.array_equal(found.inside, (np.abs(POINTS) < 0.5).all(axis=1))
    assert found.sure.all()


def test_no_line_falls_between_two_faces():
    """Points below the vertices and edges of a finely divided box."""
    shape = BOX.subdivide().subdivide()
    vertices, faces = raw(shape)
    middles = vertices[faces][:, :2].mean(axis=1)
    points = np.concatenate([0.9 * vertices, 1.1 * vertices, 0.9 * middles, 1.1 * middles])

    found = parity(vertices, faces, points)

    assert found.sure.all()
    assert np.array_equal(found.inside, (np.abs(points) < 0.5).all(axis=1))


def test_windings_do_not_matter():
    vertices, faces = raw(TUBE)
    turned = np.where(RNG.random((len(faces), 1)) < 0.5, faces[:, ::-1], faces)

    one, other = parity(vertices, faces, POINTS), parity(vertices, turned, POINTS)

    radius = np.linalg.norm(POINTS[:, :2], axis=1)
    hollow = (radius < 0.29) & (np.abs(POINTS[:, 2]) < 0.19)
    wall = (radius > 0.31) & (radius < 0.49) & (np.abs(POINTS[:, 2]) < 0.19)
    assert np.array_equal(one.inside, other.inside)
    assert not one.inside[hollow].any()
    assert one.inside[wall].all()


def test_a_body_that_is_there_twice_is_counted_once():
    """The copies have other triangles, so that no cleaning finds the faces the same."""
    twice = joined(raw(BOX), raw(BOX.subdivide()))

    assert np.array_equal(parity(*twice, POINTS).inside, parity(*raw(BOX), POINTS).inside)


def test_a_wall_between_two_bodies_stays_two_walls():
    next_to = BOX.subdivide().apply_translation([1, 0, 0])
    points = np.array([[0.4, 0.1, 0.05], [0.6, 0.1, 0.05], [1.6, 0.1, 0.0], [-0.6, 0.1, 0]])

    found = parity(*joined(raw(BOX), raw(next_to)), points)

    assert found.inside.tolist() == [True, True, False, False]


@pytest.mark.parametrize("missing", [0, 7])
def test_a_line_through_a_hole_has_no_vote(missing):
    vertices, faces = raw(BOX.subdivide().subdivide())
    faces = np.delete(faces, missing, axis=0)

    found = parity(vertices, faces, POINTS)

    inside = (np.abs(POINTS) < 0.5).all(axis=1)
    assert (found.inside == inside).mean() > 0.999
    assert (found.inside == inside)[found.sure].all()


def test_a_line_far_outside_the_box_crosses_nothing():
    found = parity(*raw(BOX), np.array([[5.0, 5.0, 5.0], [-3.0, 0.1, 0.2]]))

    assert not found.inside.any()
    assert found.sure.all()


def test_faces_in_hundreds_of_layers_are_refused_before_they_are_counted():
    shells = [trimesh.creation.icosphere(1, radius=1 - k / 1000) for k in range(300)]
    heap = trimesh.util.concatenate(shells)

    with pytest.raises(InputError, match=r"hundreds of layers \(a ray crosses 300\)"):
        parity(heap.vertices, heap.faces, np.zeros((100, 3)))
