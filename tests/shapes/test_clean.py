import warnings

import igl
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import clean
from nf2vec_cli.shapes.orient import open_edges


def box(low, high) -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=[low, high])


def joined(*shapes) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate without merging: each shape keeps its own vertices."""
    starts = np.cumsum([0] + [len(shape.vertices) for shape in shapes])
    faces = [shape.faces + start for shape, start in zip(shapes, starts, strict=False)]
    return np.concatenate([shape.vertices for shape in shapes]), np.concatenate(faces)


def turned(shape: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(shape.vertices, shape.faces[:, ::-1], process=False)


def mirrored(shape: trimesh.Trimesh, height: float) -> trimesh.Trimesh:
    """Mirror a shape at z = height; it stays the right side out."""
    vertices = shape.vertices * [1, 1, -1] + [0, 0, 2 * height]
    return trimesh.Trimesh(vertices, shape.faces[:, ::-1], process=False)


def volume(mesh) -> float:
    corners = mesh.vertices[mesh.faces] - mesh.vertices.mean(0)
    return float(np.linalg.det(corners).sum() / 6)


def winding(mesh, *points) -> list[float]:
    found = igl.winding_number(mesh.vertices, mesh.faces, np.array(points, float))
    return np.round(found, 6).tolist()


UNIT = box([0, 0, 0], [1, 1, 1])
BALL = trimesh.creation.icosphere(2)


def test_a_clean_mesh_is_left_as_it_is():
    mesh = clean(BALL.vertices, BALL.faces)

    assert mesh.watertight
    assert mesh.notes == ()
    assert len(mesh.vertices) == len(BALL.vertices)
    assert volume(mesh) == pytest.approx(BALL.volume)


def test_doubled_faces_are_dropped():
    faces = np.concatenate([UNIT.faces, UNIT.faces[:5], UNIT.faces[2:3, [1, 2, 0]]])

    mesh = clean(UNIT.vertices, faces)

    assert mesh.watertight
    assert len(mesh.faces) == 12
    assert mesh.notes == ("6 doubled or collapsed faces dropped",)


def test_a_box_with_two_sides_to_every_wall_becomes_a_box():
    mesh = clean(*joined(UNIT, turned(UNIT)))

    assert mesh.watertight
    assert volume(mesh) == pytest.approx(1)


def test_flipped_faces_are_turned_back():
    faces = BALL.faces.copy()
    faces[::7] = faces[::7, ::-1]

    mesh = clean(BALL.vertices, faces)

    assert mesh.watertight
    assert volume(mesh) == pytest.approx(BALL.volume)
    assert mesh.notes == (f"{len(faces[::7])} faces turned",)


def test_a_body_that_is_inside_out_is_turned():
    mesh = clean(*joined(UNIT, turned(box([3, 0, 0], [4, 1, 1]))))

    assert mesh.watertight
    assert winding(mesh, [0.5, 0.5, 0.5], [3.5, 0.5, 0.5]) == [1, 1]
    assert mesh.notes == ("1 inside-out bodies turned",)


def test_a_speck_that_is_inside_out_is_turned_in_a_large_scene():
    low = np.array([3, 3, 3])
    mesh = clean(*joined(UNIT, turned(box(low, low + 1e-5))))

    assert winding(mesh, low + 5e-6) == [1]


HOLLOW = (box([-2, -2, -2], [2, 2, 2]), turned(BALL))


def test_a_cavity_stays_a_cavity():
    mesh = clean(*joined(*HOLLOW))

    assert mesh.watertight
    assert mesh.notes == ()
    assert winding(mesh, [0, 0, 0], [1.5, 0, 0], [3, 0, 0]) == [0, 1, 0]


def test_a_cavity_stays_a_cavity_where_the_whole_is_inside_out():
    mesh = clean(*joined(*map(turned, HOLLOW)))

    assert winding(mesh, [0, 0, 0], [1.5, 0, 0], [3, 0, 0]) == [0, 1, 0]


def test_a_cavity_stays_a_cavity_where_some_faces_were_flipped():
    vertices, faces = joined(*HOLLOW)
    faces[[0, 20, 90]] = faces[[0, 20, 90], ::-1]

    mesh = clean(vertices, faces)

    assert mesh.watertight
    assert winding(mesh, [0, 0, 0], [1.5, 0, 0], [3, 0, 0]) == [0, 1, 0]


def test_a_body_in_a_cavity_stays_a_body():
    mesh = clean(*joined(*HOLLOW, box([-0.2, -0.2, -0.2], [0.2, 0.2, 0.2])))

    assert winding(mesh, [0, 0, 0], [0.8, 0, 0], [1.5, 0, 0]) == [1, 0, 1]


def test_where_windings_are_random_a_body_within_a_body_is_no_cavity():
    vertices, faces = joined(box([-2, -2, -2], [2, 2, 2]), BALL)
    flip = np.random.default_rng(0).random(len(faces)) < 0.5
    faces[flip] = faces[flip, ::-1]

    mesh = clean(vertices, faces)

    assert mesh.watertight
    assert winding(mesh, [0, 0, 0], [1.5, 0, 0], [3, 0, 0]) == [2, 1, 0]


@pytest.mark.parametrize("split", [False, True])
def test_a_wall_between_two_boxes_falls_away(split):
    vertices, faces = joined(UNIT, mirrored(UNIT, 1))
    if split:  # the same shape with its corners merged beforehand
        shape = trimesh.Trimesh(vertices, faces, process=True)
        vertices, faces = shape.vertices, shape.faces

    mesh = clean(vertices, faces)

    assert mesh.watertight
    assert len(mesh.faces) == 20
    assert winding(mesh, [0.5, 0.4, 0.5], [0.5, 0.4, 1.5], [0.5, 0.4, 2.5]) == [1, 1, 0]


def test_two_bodies_on_one_floor_stay_closed():
    """The floor's faces are there twice, one way: dropping either would open a body."""
    mesh = clean(*joined(UNIT, box([0, 0, 0], [1, 1, 2])))

    assert mesh.watertight
    assert winding(mesh, [0.5, 0.4, 0.5], [0.5, 0.4, 1.5], [0.5, 0.4, -0.5]) == [2, 1, 0]


def test_bodies_that_touch_along_an_edge_or_at_a_corner_stay_closed():
    mesh = clean(*joined(UNIT, box([1, 1, 0], [2, 2, 1]), box([2, 2, 1], [3, 3, 2])))

    assert mesh.watertight
    assert volume(mesh) == pytest.approx(3)


def test_a_folded_sliver_cancels():
    """Two faces on one edge that fold onto each other, on an otherwise closed mesh."""
    ball = trimesh.creation.icosphere(3)
    a, b, _ = ball.faces[0]
    sliver = [[a, b, len(ball.vertices)], [b, a, len(ball.vertices)]]
    vertices = np.concatenate([ball.vertices, [1.1 * ball.vertices[a]]])

    mesh = clean(vertices, np.concatenate([ball.faces, sliver]))

    assert mesh.watertight
    assert len(mesh.faces) == len(ball.faces)
    assert len(mesh.vertices) == len(ball.vertices)


@pytest.mark.parametrize("noise", [5e-8, 4e-6])
def test_seams_that_are_off_by_rounding_are_closed(noise):
    rng = np.random.default_rng(3)
    ball = trimesh.creation.icosphere(3)
    corners = ball.faces.reshape(-1)
    vertices = ball.vertices[corners] + rng.uniform(-noise, noise, (len(corners), 3))

    mesh = clean(vertices, np.arange(len(corners)).reshape(-1, 3))

    assert mesh.watertight
    assert len(mesh.vertices) == len(ball.vertices)


def test_a_thin_wall_of_a_closed_mesh_is_not_collapsed():
    sheet = box([0, 0, 0], [1, 1, 1e-9])

    mesh = clean(sheet.vertices, sheet.faces)

    assert mesh.watertight
    assert len(mesh.vertices) == 8


def test_a_tolerance_that_does_not_close_the_mesh_is_not_used():
    ball = trimesh.creation.icosphere(3)
    corners = ball.faces[20:].reshape(-1)
    noise = np.random.default_rng(3).uniform(-1e-8, 1e-8, (len(corners), 3))

    mesh = clean(ball.vertices[corners] + noise, np.arange(len(corners)).reshape(-1, 3))

    assert not mesh.watertight
    assert len(mesh.vertices) == len(corners)


def test_an_open_mesh_is_said_to_be_open():
    mesh = clean(UNIT.vertices, UNIT.faces[:-2])

    assert not mesh.watertight


def test_two_triangles_are_open_although_they_have_an_area():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)

    assert not clean(vertices, np.array([[0, 1, 2], [0, 2, 3]])).watertight


def test_a_sheet_with_two_sides_is_open():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3], [2, 1, 0], [3, 2, 0]])

    mesh = clean(vertices, faces)

    assert not mesh.watertight
    assert len(mesh.faces) == 2


def test_vertices_that_no_face_names_may_hold_anything():
    vertices = np.concatenate([[[np.nan, np.inf, 0]], UNIT.vertices, [[1e300, 0, 0]]])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mesh = clean(vertices, UNIT.faces + 1)

    assert mesh.watertight
    assert len(mesh.vertices) == 8


TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)


@pytest.mark.parametrize(
    ("vertices", "words"),
    [
        (TRIANGLE * [[1], [np.nan], [1]], "NaN or infinite"),
        (np.add(TRIANGLE, [[0], [0], [np.inf]]), "NaN or infinite"),
        (TRIANGLE * 0 + 5, "points are the same"),
        (TRIANGLE * [1, 0, 0], "no area"),
        (np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2]], float), "no area"),
        (TRIANGLE * 1.5e308 * [[1], [1], [-1]] + [-1e308, 0, 0], "beyond what numbers can hold"),
        (TRIANGLE * 1e-200, "beyond what numbers can hold"),
    ],
)
def test_nonsense_is_refused_with_a_reason(vertices, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=words):
            clean(vertices, np.array([[0, 1, 2]]))


def test_a_soup_of_many_bodies_does_not_take_for_ever():
    """20,000 separate tetrahedra, half of them inside out."""
    rng = np.random.default_rng(0)
    tetra = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    vertices = (rng.uniform(0, 1000, (20_000, 1, 3)) + tetra).reshape(-1, 3)
    all_faces = 4 * np.arange(20_000)[:, None, None] + faces
    all_faces[::2] = all_faces[::2, :, ::-1]

    mesh = clean(vertices, all_faces.reshape(-1, 3))

    assert mesh.watertight
    assert volume(mesh) == pytest.approx(20_000 / 6, rel=1e-2)


@st.composite
def assemblies(draw) -> tuple[np.ndarray, np.ndarray]:
    """Closed bodies, touching, overlapping, nested or apart, at any size and place."""
    numbers = st.integers(0, 3)
    shapes = []
    for _ in range(draw(st.integers(1, 4))):
        low = np.array([draw(numbers) for _ in range(3)], float)
        if draw(st.booleans()):
            shape = box(low, low + [1 + draw(numbers) for _ in range(3)])
        else:
            shape = trimesh.creation.icosphere(1, radius=0.5 + draw(numbers) / 2)
            shape.apply_translation(low)
        if draw(st.booleans()):
            shape = mirrored(shape, draw(numbers))
        shapes.append(turned(shape) if draw(st.booleans()) else shape)
    vertices, faces = joined(*shapes)
    scale = 10.0 ** draw(st.integers(-6, 9))
    offset = scale * 10.0 ** draw(st.integers(0, 6)) * draw(st.sampled_from([-1, 0, 1]))
    return vertices * scale + offset, faces


@settings(max_examples=120, deadline=None)
@given(assemblies())
def test_closed_bodies_stay_closed(assembly):
    vertices, faces = assembly
    assert not len(open_edges(faces))

    mesh = clean(vertices, faces)

    assert mesh.watertight
    assert not len(open_edges(mesh.faces))


@settings(max_examples=40, deadline=None)
@given(st.integers(-6, 9), st.integers(0, 6), st.booleans(), st.integers(0, 2**32 - 1))
def test_size_place_and_a_few_flipped_faces_do_not_matter(power, far, inverted, seed):
    rng = np.random.default_rng(seed)
    flips = rng.random(len(BALL.faces)) < 0.2
    faces = np.where(flips[:, None] ^ inverted, BALL.faces[:, ::-1], BALL.faces)
    scale = 10.0**power

    mesh = clean(BALL.vertices * scale + scale * 10.0**far, faces)

    assert mesh.watertight
    assert volume(mesh) == pytest.approx(BALL.volume * scale**3, rel=1e-6)
