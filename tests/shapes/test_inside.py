from pathlib import Path

import igl
import numpy as np
import pytest
import trimesh
from dirt import DIRT, SECOND, torn

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh, clean
from nf2vec_cli.shapes.inside import signed_distance, tell_inside
from nf2vec_cli.shapes.mesh import load_mesh, normalise
from nf2vec_cli.shapes.sample import surface_points

SHAPES = Path(__file__).parents[2] / "examples" / "shapes"
CHIP, CUP = "chip/DIP-14_W7.62mm_SMDSocket.ply", "tableware/plastic_cup.off"
BALL = trimesh.creation.icosphere(3, 0.6)


def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module", params=[CHIP, CUP])
def solid(request) -> Mesh:
    mesh = load_mesh(SHAPES / request.param)
    assert mesh.watertight
    return Mesh(normalise(mesh.vertices)[0], mesh.faces, True)


def near(vertices, faces, count=3000):
    """Points whose distance to a surface is from 0.001 to 0.05."""
    points = surface_points(vertices, faces, 2 * count, rng=rng())
    points = points + rng().uniform(-0.05, 0.05, points.shape)
    size = np.sqrt(igl.point_mesh_squared_distance(points, vertices, faces)[0])
    return points[(size > 1e-3) & (size < 0.05)][:count]


def within(mesh: Mesh, points):
    return igl.winding_number(mesh.vertices, mesh.faces, points) > 0.5


def right(told, points, truth) -> float:
    return float(np.mean((signed_distance(told, points) < 0) == truth))


def bowl(height: float) -> Mesh:
    """A ball of radius 0.6 without what is above a height."""
    shape = BALL.copy()
    shape.update_faces(np.asarray(shape.triangles_center)[:, 2] < height)
    return clean(np.asarray(shape.vertices), np.asarray(shape.faces))


@pytest.mark.parametrize("kind", DIRT)
def test_signs_are_right_whatever_the_dirt(solid, kind):
    vertices, faces = DIRT[kind](solid.vertices, solid.faces, rng())
    points = near(solid.vertices, solid.faces)
    truth = within(solid, points)
    if kind in SECOND:  # the truth is the union of two bodies
        second = Mesh(SECOND[kind](solid.vertices, solid.faces), solid.faces, True)
        points = np.concatenate([points, near(second.vertices, second.faces)])
        truth = within(solid, points) | within(second, points)

    told = tell_inside(clean(vertices, faces), rng=rng())

    assert right(told, points, truth) >= 0.995
    assert told.doubt < 0.05
    assert told.way == "parity" if kind.startswith("torn") else told.way in ("normal", "winding")


def test_a_clean_body_costs_no_more_than_its_normals():
    told = tell_inside(clean(np.asarray(BALL.vertices), np.asarray(BALL.faces)), rng=rng())

    assert (told.way, told.doubt, told.disagreement, told.note) == ("normal", 0, 0, "")


def test_a_shell_that_faces_inward_is_a_cavity():
    inner = trimesh.creation.icosphere(3, 0.3)
    nested = clean(
        np.concatenate([BALL.vertices, inner.vertices]),
        np.concatenate([BALL.faces, inner.faces[:, ::-1] + len(BALL.vertices)]),
    )

    told = tell_inside(nested, rng=rng())
    distance = signed_distance(told, np.array([[0, 0, 0], [0.45, 0, 0], [0.7, 0, 0.0]]))

    assert (distance < 0).tolist() == [False, True, False]


def test_rays_and_winding_number_that_contradict_each_other_are_reported(solid):
    mesh = clean(*torn(solid.vertices, solid.faces, rng()))

    told = tell_inside(mesh, rng=rng())

    assert told.disagreement > 0.1
    assert told.mesh is mesh  # rays leave the surface where it is


@pytest.mark.parametrize("height", [0, 0.1, 0.3])
def test_an_open_bowl_is_doubtful_and_says_why(height):
    told = tell_inside(bowl(height), rng=rng())

    assert told.way == "winding"
    assert told.doubt > 0.05
    assert "--field udf" in told.note


def test_flipped_sheets_cannot_be_told_at_all():
    vertices, faces = torn(np.asarray(bowl(0).vertices), np.asarray(bowl(0).faces), rng())

    with pytest.raises(InputError, match="nothing behind it"):
        tell_inside(clean(vertices, faces), rng=rng())


@pytest.mark.parametrize("sign", ["parity", "winding", "wrap"])
def test_a_way_can_be_forced(solid, sign):
    points = near(solid.vertices, solid.faces)

    told = tell_inside(solid, sign=sign, rng=rng())

    assert told.way == sign
    assert told.disagreement == 0
    assert right(told, points, within(solid, points)) > 0.99


def test_a_forced_way_is_kept_where_it_is_wrong(solid):
    points = near(solid.vertices, solid.faces)
    truth = within(solid, points)
    mesh = clean(*torn(solid.vertices, solid.faces, rng()))

    told = tell_inside(mesh, sign="winding", rng=rng())

    assert told.disagreement > 0.1
    assert right(told, points, truth) < 0.9
