import numpy as np
import pytest

from nf2vec_cli.core.surface import occupancy_surface, zero_surface


def ball(radius, centre=(0.0, 0.0, 0.0)):
    def evaluate(coords):
        distance = np.linalg.norm(coords - np.float32(centre), axis=1) - radius
        return np.clip(distance, -0.1, 0.1).astype(np.float32)

    return evaluate


@pytest.mark.parametrize("resolution", [32, 64, 128, 131])
def test_a_ball_comes_back_round_and_outward(resolution):
    surface = zero_surface(ball(0.6, (0.1, 0.0, -0.2)), resolution, reach=0.1)

    offset = surface.vertices - [0.1, 0.0, -0.2]
    radius = np.linalg.norm(offset, axis=1)
    assert np.abs(radius - 0.6).max() < 0.5 * (2 / resolution) ** 2 + 1e-5
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    assert ((normal * (a - [0.1, 0.0, -0.2])).sum(1) > 0).mean() > 0.99


def test_the_coarse_pass_changes_nothing():
    rng = np.random.default_rng(0)
    centres = rng.uniform(-0.8, 0.8, (12, 3))

    def beads(coords):
        distance = np.linalg.norm(coords[:, None] - centres, axis=2).min(1) - 0.08
        return np.clip(distance, -0.1, 0.1).astype(np.float32)

    sparse = zero_surface(beads, 97, reach=0.1)
    dense = zero_surface(beads, 97, reach=1e-9)  # nothing can be skipped

    assert dense.evaluated >= 1
    assert sparse.evaluated < 0.4
    assert np.array_equal(sparse.faces, dense.faces)
    np.testing.assert_allclose(sparse.vertices, dense.vertices, atol=1e-6)


def test_a_surface_that_leaves_the_box_is_closed():
    surface = zero_surface(ball(1.0, (0.5, 0.0, 0.0)), 64, reach=0.1)

    edges = np.sort(surface.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert (count == 2).all()
    assert np.abs(surface.vertices).max() <= 1


def test_a_field_without_zero_gives_an_empty_surface():
    surface = zero_surface(lambda c: np.full(len(c), 0.1, np.float32), 32, reach=0.1)

    assert surface.faces.shape == (0, 3)


def test_blocks_are_joined_without_a_seam():
    """A torus through many blocks: closed, every vertex once, genus 1."""

    def torus(coords):
        ring = np.hypot(coords[:, 0], coords[:, 1]) - 0.6
        return np.clip(np.hypot(ring, coords[:, 2]) - 0.25, -0.1, 0.1).astype(np.float32)

    found = zero_surface(torus, 100, reach=0.1)

    edges = np.sort(found.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    pairs, counts = np.unique(edges, axis=0, return_counts=True)
    assert (counts == 2).all()
    assert len(np.unique(found.vertices, axis=0)) == len(found.vertices)
    assert len(found.vertices) - len(pairs) + len(found.faces) == 0
    assert found.evaluated < 0.2


def test_a_field_that_is_no_exact_distance_still_gives_a_closed_surface():
    """Twice too steep: cubes are left out that the surface enters, and must be found again."""

    def steep(coords):
        distance = np.linalg.norm(coords * [1, 1, 0.4], axis=1) - 0.35
        return np.clip(2.5 * distance, -0.1, 0.1).astype(np.float32)

    found = zero_surface(steep, 120, reach=0.1)

    edges = np.sort(found.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert np.abs(found.vertices[:, 2]).max() > 0.86


def test_an_occupancy_gives_a_closed_surface_at_its_level():
    def ball(coords):
        return (1 / (1 + np.exp(40 * (np.linalg.norm(coords, axis=1) - 0.7)))).astype(np.float32)

    found = occupancy_surface(ball, 96, level=0.4)

    radius = np.linalg.norm(found.vertices, axis=1)
    assert np.abs(radius - (0.7 + np.log(0.6 / 0.4) / 40)).max() < 0.002
    edges = np.sort(found.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert found.evaluated < 0.5
    normals = np.cross(
        found.vertices[found.faces[:, 1]] - found.vertices[found.faces[:, 0]],
        found.vertices[found.faces[:, 2]] - found.vertices[found.faces[:, 0]],
    )
    assert ((normals * found.vertices[found.faces[:, 0]]).sum(1) > 0).mean() > 0.99
