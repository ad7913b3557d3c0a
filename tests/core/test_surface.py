import subprocess
import sys

import numpy as np
import pytest
from skimage.measure import marching_cubes

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

    assert dense.evaluated == 1
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


def torus(coords):
    x, y, z = coords.T
    ring = np.hypot(np.hypot(x, y) - 0.6, z) - 0.2
    return np.clip(ring, -0.1, 0.1).astype(np.float32)


def edge_counts(surface):
    edges = np.sort(surface.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return np.unique(edges, axis=0, return_counts=True)[1]


def euler(surface):
    return len(surface.vertices) - len(edge_counts(surface)) + len(surface.faces)


def test_blocks_join_to_the_surface_of_the_dense_grid():
    size = 140
    axis = np.linspace(-1, 1, size)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    values = torus(grid.astype(np.float32)).reshape(size, size, size)
    vertices, faces, _, _ = marching_cubes(np.pad(values, 1, constant_values=0.1), 0.0)
    expected = (vertices - 1) * (2 / (size - 1)) - 1

    surface = zero_surface(torus, size, reach=0.1)

    assert surface.evaluated < 0.1
    assert len(surface.faces) == len(faces)
    assert len(np.unique(surface.vertices, axis=0)) == len(surface.vertices) == len(vertices)
    assert (edge_counts(surface) == 2).all()
    assert euler(surface) == 0
    assert np.abs(np.sort(surface.vertices, axis=0) - np.sort(expected, axis=0)).max() < 1e-5


@pytest.mark.parametrize("spoil", ["steep", "noisy", "steep and noisy"])
def test_a_field_that_is_no_distance_still_gives_a_closed_surface(spoil):
    def evaluate(coords):
        value = np.linalg.norm(coords - np.float32([0.1, 0, 0]), axis=1) - 0.7
        if "steep" in spoil:
            value = 1.5 * value
        if "noisy" in spoil:
            value = value + 0.02 * np.sin(coords @ np.float32([90, 60, 40]) * 3)
        return np.clip(value, -0.1, 0.1).astype(np.float32)

    surface = zero_surface(evaluate, 128, reach=0.1)
    dense = zero_surface(evaluate, 128, reach=1e-9)

    assert (edge_counts(surface) % 2 == 0).all()
    assert surface.evaluated < 0.2
    assert len(surface.faces) == len(dense.faces)


def test_the_surface_is_followed_where_the_distance_misleads():
    def evaluate(coords):  # a rod whose values grow ten times too fast at one end
        rod = np.maximum(np.hypot(coords[:, 1], coords[:, 2]) - 0.1, np.abs(coords[:, 0]) - 0.9)
        return np.clip(rod * np.where(coords[:, 0] > 0.3, 10, 1), -0.1, 0.1).astype(np.float32)

    surface = zero_surface(evaluate, 128, reach=0.1)

    assert (edge_counts(surface) == 2).all()
    assert surface.vertices[:, 0].max() > 0.88
    assert surface.evaluated < 0.1


@pytest.mark.parametrize("resolution", [40, 128, 200])
def test_an_occupancy_field_gives_the_surface_of_its_level(resolution):
    def evaluate(coords):
        return (1 / (1 + np.exp(60 * torus(coords) + 1))).astype(np.float32)

    surface = occupancy_surface(evaluate, resolution, level=0.4)

    away = np.abs(torus(surface.vertices) - (np.log(0.6 / 0.4) - 1) / 60)
    assert away.max() < 0.3 * (2 / resolution)
    assert (edge_counts(surface) == 2).all()
    assert euler(surface) == 0
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    assert (a * np.cross(b, c)).sum() > 0  # six times the volume
    assert surface.evaluated < {40: 1.01, 128: 0.4, 200: 0.2}[resolution]


def test_a_thin_part_between_the_first_points_is_followed():
    def evaluate(coords):
        bar = (np.abs(coords[:, 1:] - 0.004).max(axis=1) < 0.012) & (np.abs(coords[:, 0]) < 0.9)
        body = np.linalg.norm(coords, axis=1) < 0.3
        return (bar | body).astype(np.float32)

    surface = occupancy_surface(evaluate, 260, level=0.5)

    assert surface.vertices[:, 0].max() > 0.88
    assert (edge_counts(surface) % 2 == 0).all()


MEMORY = """
from pathlib import Path
import torch
from nf2vec_cli.core.mlp import tiled_values
from nf2vec_cli.core.surface import zero_surface
from nf2vec_cli.models.network import NetworkSpec, siren_init

spec = NetworkSpec(hidden=128)
theta = siren_init(spec, seed=0)


def evaluate(coords):  # a ball, as a network of full size would give it
    x = torch.from_numpy(coords)
    noise = tiled_values(theta, x, spec)[:, 0] * 1e-4
    return (x.norm(dim=1) - 0.9 + noise).clamp(-0.1, 0.1).numpy()


surface = zero_surface(evaluate, 512, reach=0.1)
assert len(surface.faces) > 1_000_000
assert surface.evaluated < 0.06
# not ru_maxrss, which starts at what the parent process holds
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
def test_memory_stays_small_at_512():
    line = [sys.executable, "-c", MEMORY]
    child = subprocess.run(line, capture_output=True, text=True, check=True)

    assert int(child.stdout) / 1024 < 1000  # MiB
