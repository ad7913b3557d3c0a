"""Meshes made dirty on purpose, in the ways of files found in the wild."""

from collections.abc import Callable

import numpy as np
import pytest

from nf2vec_cli.shapes.clean import Mesh, clean

Dirt = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def holes(vertices, faces, rng):
    """Drop 5 % of the faces."""
    return vertices, faces[rng.random(len(faces)) > 0.05]


def flipped(vertices, faces, rng):
    """Turn 30 % of the faces."""
    turn = rng.random(len(faces)) < 0.3
    return vertices, np.where(turn[:, None], faces[:, ::-1], faces)


def doubled(vertices, faces, rng):
    """Have every face twice, half of the copies turned."""
    turn = rng.random(len(faces)) < 0.5
    return vertices, np.concatenate([faces, np.where(turn[:, None], faces[:, ::-1], faces)])


def inner_shell(vertices, faces, rng):
    """Put a small ball, outward, inside: what was left of the works of a machine."""
    import trimesh

    ball = trimesh.creation.icosphere(2, 1.0)
    centre, radius = _room(vertices, faces, rng)
    return (
        np.concatenate([vertices, np.asarray(ball.vertices) * radius + centre]),
        np.concatenate([faces, np.asarray(ball.faces) + len(vertices)]),
    )


def bodies(vertices, faces, _):
    """Have the body twice, the second a hair larger: copies that overlap."""
    moved = vertices * 1.0005
    return np.concatenate([vertices, moved]), np.concatenate([faces, faces + len(vertices)])


def soup(vertices, faces, _):
    """Give every face corners of its own."""
    return vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)


def inside_out(vertices, faces, _):
    """Turn all faces."""
    return vertices, faces[:, ::-1]


def mixed(vertices, faces, rng):
    """Turn some, double all, and take the mesh apart."""
    return soup(*doubled(*flipped(vertices, faces, rng), rng), rng)


DIRTS: dict[str, Dirt] = {
    f.__name__: f for f in (holes, flipped, doubled, inner_shell, bodies, soup, inside_out, mixed)
}


@pytest.fixture
def dirty():
    """Make a clean mesh dirty in one of the ways of DIRTS, and clean it as a file would be."""

    def make(mesh: Mesh, dirt: str, seed: int = 0) -> Mesh:
        return clean(*DIRTS[dirt](mesh.vertices, mesh.faces, np.random.default_rng(seed)))

    return make


def _room(vertices, faces, rng):
    """Find a place for a ball inside: the deepest of many points."""
    import igl

    points = rng.uniform(vertices.min(0), vertices.max(0), (4000, 3))
    signed = igl.signed_distance(points, vertices, faces)[0]
    deepest = int(np.argmin(signed))
    return points[deepest], 0.6 * abs(float(signed[deepest]))
