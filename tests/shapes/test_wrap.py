import igl
import numpy as np
import pytest
import trimesh
from dirt import flipped, soup

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh, clean
from nf2vec_cli.shapes.orient import open_edges
from nf2vec_cli.shapes.wrap import wrap

BALL = trimesh.creation.icosphere(4, 0.6)
CELL = 1.2 / 57  # of the ball's grid at 64 points


def rng():
    return np.random.default_rng(0)


def mesh_of(*shapes) -> Mesh:
    shape = trimesh.util.concatenate(shapes)
    return Mesh(np.asarray(shape.vertices, float), np.asarray(shape.faces, np.int64), False)


def volume(mesh: Mesh) -> float:
    return float(np.linalg.det(mesh.vertices[mesh.faces]).sum() / 6)


def turns(mesh: Mesh, *points):
    found = igl.winding_number(mesh.vertices, mesh.faces, np.array(points, float))
    return np.round(found, 3).tolist()


def test_the_wrap_of_a_ball_is_closed_and_lies_on_it():
    wrapped = wrap(mesh_of(BALL), rng=rng(), resolution=64)

    assert wrapped.mesh.watertight
    assert not len(open_edges(wrapped.mesh.faces))
    assert wrapped.cell == pytest.approx(CELL, rel=0.01)
    assert wrapped.within < 0.05 * CELL
    # pulled back by the level: neither thicker nor thinner
    assert volume(wrapped.mesh) == pytest.approx(BALL.volume, rel=2e-3)


def test_windings_and_cracks_do_not_matter():
    vertices, faces = soup(*flipped(BALL.vertices, BALL.faces, rng()), rng())
    torn = vertices + 0.1 * CELL * rng().uniform(-1, 1, vertices.shape)

    wrapped = wrap(Mesh(torn, faces, False), rng=rng(), resolution=64)

    assert volume(wrapped.mesh) == pytest.approx(BALL.volume, rel=0.02)


def test_a_wall_thinner_than_a_cell_keeps_its_thickness():
    plate = trimesh.creation.box([1, 1, 0.3 * CELL])

    wrapped = wrap(mesh_of(plate), rng=rng(), resolution=64)

    assert volume(wrapped.mesh) == pytest.approx(plate.volume, rel=0.1)


def test_what_is_hidden_inside_is_gone():
    hidden = trimesh.creation.box([0.2, 0.3, 0.25])
    sheet = trimesh.Trimesh(hidden.vertices, hidden.faces[:5], process=False)

    wrapped = wrap(mesh_of(BALL, sheet), rng=rng(), resolution=64)

    assert turns(wrapped.mesh, [0, 0, 0], [0, 0, 0.2], [0, 0, 0.7]) == [1, 1, 0]
    assert np.linalg.norm(wrapped.mesh.vertices, axis=1).min() > 0.59


@pytest.mark.parametrize(("way", "inside"), [(1, 1), (-1, 0)])
def test_a_sealed_shell_is_a_cavity_if_it_faces_inward(way, inside):
    shell = trimesh.creation.icosphere(3, 0.3)
    shell = trimesh.Trimesh(shell.vertices, shell.faces[:, ::way], process=False)

    wrapped = wrap(mesh_of(BALL, shell), rng=rng(), resolution=64)

    assert turns(wrapped.mesh, [0, 0, 0], [0, 0, 0.45]) == [inside, 1]


def test_bodies_that_overlap_become_one():
    other = BALL.copy().apply_translation([0.3, 0.1, 0])

    wrapped = wrap(mesh_of(BALL, other), rng=rng(), resolution=64)

    assert turns(wrapped.mesh, [0.15, 0, 0], [-0.4, 0, 0], [0.7, 0, 0]) == [1, 1, 1]


@pytest.mark.parametrize("height", [0.0, 0.4])
def test_an_inside_that_leaks_away_is_refused_with_a_way_out(height):
    shape = BALL.copy()
    shape.update_faces(np.asarray(shape.triangles_center)[:, 2] < height)

    with pytest.raises(InputError, match=r"nothing behind it.*--field udf"):
        wrap(clean(np.asarray(shape.vertices), np.asarray(shape.faces)), rng=rng(), resolution=64)
