import base64

import numpy as np
import pytest
import trimesh

from nf2vec_cli.fields import occ
from nf2vec_cli.tasks.view_mesh import Glance, glance, pack, simplified

RADIUS = 0.6


class Ball:
    """The distance to a sphere, signed or not, or whether a point is inside."""

    def __init__(self, kind, radius=RADIUS):
        self.kind, self.radius, self.reach = kind, radius, 0.1

    def values(self, coords):
        distance = np.linalg.norm(coords, axis=1) - self.radius
        if self.kind == "occ":
            return (occ.LEVEL * (1 - distance)).astype(np.float32)
        return np.clip(
            np.abs(distance) if self.kind == "udf" else distance, -self.reach, self.reach
        ).astype(np.float32)

    def slopes(self, coords):
        length = np.linalg.norm(coords, axis=1, keepdims=True)
        way = coords / np.maximum(length, 1e-6) * np.sign(length - self.radius)
        return self.values(coords), np.where(abs(length - self.radius) < 0.1, way, 0).astype("f4")


def unpacked(text):
    """Read it as page.js does."""
    numbers = np.frombuffer(base64.b64decode(text), "<u2")
    count, faces = numbers[:2].astype(int)
    ends = 2 + 3 * count
    vertices = numbers[2:ends].reshape(-1, 3) / 65535 * 2 - 1
    assert len(numbers) == ends + 3 * faces
    return vertices, numbers[ends:].reshape(-1, 3).astype(int)


@pytest.mark.parametrize("kind", ["sdf", "occ"])
def test_a_mesh_is_small_and_on_the_surface(kind):
    text = glance(Glance(Ball(kind), kind, 56, 600))

    vertices, faces = unpacked(text)
    assert 500 <= len(faces) <= 600
    assert len(text) < 10_000
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), RADIUS, atol=0.006)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    # faces look outward
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.03)


def test_an_unsigned_field_gives_both_sheets_of_its_shell():
    text = glance(Glance(Ball("udf"), "udf", 56, 800))

    vertices, faces = unpacked(text)
    assert 700 <= len(faces) <= 800
    assert len(text) < 10_000
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), RADIUS, atol=0.01)


@pytest.mark.parametrize("kind", ["sdf", "udf"])
def test_nothing_to_see_is_an_empty_text(kind):
    assert glance(Glance(Ball(kind, radius=-1), kind, 24, 600)) == ""


def test_sixteen_bits_keep_vertices_to_a_thirty_thousandth():
    rng = np.random.default_rng(0)
    vertices, faces = rng.uniform(-1, 1, (100, 3)), rng.integers(0, 100, (50, 3))

    found, joined = unpacked(pack(vertices, faces))

    np.testing.assert_allclose(found, vertices, atol=1 / 65535)
    np.testing.assert_array_equal(joined, faces)
    assert pack(np.zeros((65_536, 3)), faces) == ""
    assert pack(vertices, faces[:0]) == ""


def test_what_cannot_be_simplified_is_kept():
    ball = trimesh.creation.icosphere(subdivisions=3)
    fan = np.concatenate([ball.faces, ball.faces[:, ::-1], ball.faces])  # no manifold

    vertices, faces = simplified(np.asarray(ball.vertices), fan, 100)

    assert len(vertices)
    assert len(faces)
    assert faces.max() < len(vertices)
