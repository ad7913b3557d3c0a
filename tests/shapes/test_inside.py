import igl
import numpy as np
import pytest

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.inside import Way, judge, parity, signed_distance, winding
from nf2vec_cli.shapes.mesh import load_mesh, normalise
from nf2vec_cli.shapes.sample import surface_points

DIRTS = ["holes", "flipped", "doubled", "inner_shell", "bodies", "soup", "inside_out", "mixed"]
SHAPES = ("chair/chair.ply", "sofa/sofa.stl", "lamp/lamp.ply")


@pytest.fixture(params=SHAPES)
def mesh(shapes, request):
    read = load_mesh(shapes / request.param)
    assert read.watertight
    return Mesh(normalise(read.vertices)[0], read.faces, True, ())


def near(mesh, count=6_000):
    """Points at 0.001 to 0.05 from the clean surface, and whether they are inside it."""
    rng = np.random.default_rng(5)
    base = surface_points(mesh.vertices, mesh.faces, count, rng=rng)
    away = rng.standard_normal(base.shape)
    points = base + away / np.linalg.norm(away, axis=1, keepdims=True) * rng.uniform(
        1e-3, 0.05, (count, 1)
    )
    squared = igl.point_mesh_squared_distance(points, mesh.vertices, mesh.faces)[0]
    points = points[squared > 1e-6]
    return points, igl.winding_number(mesh.vertices, mesh.faces, points) > 0.5


@pytest.mark.parametrize("dirt", DIRTS)
def test_signs_are_right_whatever_the_dirt(mesh, dirty, dirt):
    points, inside = near(mesh)

    rng = np.random.default_rng(0)
    verdict = judge(dirty(mesh, dirt), "auto", max_doubt=0.05, rng=rng)

    assert ((signed_distance(verdict, points) < 0) == inside).mean() >= 0.995


def test_one_clean_body_needs_no_more_than_its_normals(shapes):
    read = load_mesh(shapes / "sofa" / "sofa.stl")
    mesh = Mesh(normalise(read.vertices)[0], read.faces, True, ())

    verdict = judge(mesh, "auto", max_doubt=0.05, rng=np.random.default_rng(0))

    assert verdict.way is Way.normal
    assert verdict.disagreement < 0.01
    assert verdict.mesh is mesh


@pytest.mark.parametrize("way", ["parity", "winding", "wrap"])
def test_a_way_that_is_asked_for_is_taken(mesh, way):
    points, inside = near(mesh)

    verdict = judge(mesh, way, max_doubt=0.05, rng=np.random.default_rng(0))

    assert verdict.way == way
    least = {"wrap": 0.9, "parity": 0.98, "winding": 0.995}[way]
    assert ((signed_distance(verdict, points) < 0) == inside).mean() >= least


def test_parity_and_winding_see_the_same_in_a_clean_mesh(mesh):
    points, inside = near(mesh, 2_000)

    assert (parity(mesh, points) == inside).mean() > 0.99
    assert ((winding(mesh, points) > 0.5) == inside).mean() > 0.998


def test_half_a_ball_is_wrapped_by_nothing():
    import trimesh

    ball = trimesh.creation.icosphere(3, 0.9)
    half = np.asarray(ball.triangles_center)[:, 2] < 0
    bowl = Mesh(np.asarray(ball.vertices), np.asarray(ball.faces)[half], False, ())

    for way in ("auto", "wrap"):
        with pytest.raises(InputError, match=r"open.*--field udf"):
            judge(bowl, way, max_doubt=0.05, rng=np.random.default_rng(0))
