import numpy as np
import pytest
from scipy.spatial import cKDTree

from nf2vec_cli.core.shell import shell_surface

REACH = 0.1
# Euler characteristic of the shell: two spheres; one sphere; two tori. A hole takes two away.
EULER = {"ball": 4, "bowl": 2, "torus": 0}


def edge_counts(faces):
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return np.unique(edges, axis=0, return_counts=True)[1]


@pytest.mark.parametrize("resolution", [64, 128])
@pytest.mark.parametrize("rounding", [0, 0.003])
@pytest.mark.parametrize("shape", EULER)
def test_the_shell_is_thin_and_has_no_holes(unsigned, shape, rounding, resolution):
    field = unsigned(shape, rounding)

    shell = shell_surface(field.evaluate, field.slopes, resolution, reach=REACH)

    counts = edge_counts(shell.faces)
    assert (counts == 2).all()
    assert len(shell.vertices) - len(counts) + len(shell.faces) == EULER[shape]
    away = field.shape(shell.vertices)[0]
    assert away.max() < 0.75 * shell.thickness
    assert shell.thickness == pytest.approx(0.1 * 2 / (resolution - 1))


def test_the_shell_covers_an_open_surface_up_to_its_rim(unsigned):
    field = unsigned("bowl", 0.003)
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((2000, 3))
    truth *= 0.8 / np.linalg.norm(truth, axis=1, keepdims=True)
    truth[:, 2] = -np.abs(truth[:, 2])

    shell = shell_surface(field.evaluate, field.slopes, 128, reach=REACH)

    assert cKDTree(shell.vertices).query(truth)[0].max() < 0.02
    assert shell.vertices[:, 2].max() < 0.003


def test_the_level_rises_over_what_the_field_leaves_at_its_surface(unsigned):
    field = unsigned("torus", 0.009)

    shell = shell_surface(field.evaluate, field.slopes, 128, reach=REACH)

    assert shell.level > 0.0175
    counts = edge_counts(shell.faces)
    assert len(shell.vertices) - len(counts) + len(shell.faces) == 0


def test_a_field_without_zero_set_gives_an_empty_shell():
    def slopes(coords):
        return np.full(len(coords), 0.05, np.float32), np.zeros_like(coords)

    shell = shell_surface(lambda c: slopes(c)[0], slopes, 64, reach=REACH)

    assert shell.faces.shape == (0, 3)


def test_a_grid_coarser_than_the_reach_gives_no_box(unsigned):
    field = unsigned("ball")

    shell = shell_surface(field.evaluate, field.slopes, 16, reach=REACH)

    assert shell.level < REACH
    assert np.abs(shell.vertices).max(initial=0) < 1
