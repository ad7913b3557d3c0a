import io

import numpy as np
import pytest
import trimesh
from files import npy, npz, written
from hypothesis import given, settings
from hypothesis import strategies as st

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.voxels import (
    load_voxels,
    shell_of_mesh,
    shell_of_points,
    solid_of_mesh,
    solid_of_shell,
    write_binvox,
)

GRID = np.zeros((6, 4, 5), bool)
GRID[1:4, 1:3, 2:5] = True


def binvox(grid=GRID, origin=(1.0, -2, 3), pitch=0.25):
    buffer = io.BytesIO()
    write_binvox(buffer, grid, np.array(origin), pitch)
    return buffer.getvalue()


GOOD = {
    "bool.npy": npy(GRID),
    "int.npy": npy(GRID.astype(np.int64) * 7),
    "float.npy": npy(GRID.astype(np.float32) * 0.8),
    "channel.npy": npy(GRID[None].astype(np.uint8)),
    "last.npy": npy(GRID[..., None]),
    "named.npz": npz(voxels=GRID, label=np.array(3)),
    "any.npz": npz(something=GRID),
}


@pytest.mark.parametrize("name", GOOD)
def test_arrays_give_the_grid_in_units_of_a_cell(tmp_path, name):
    voxels = load_voxels(written(tmp_path, name, GOOD[name]))

    assert np.array_equal(voxels.grid, GRID)
    assert (voxels.origin.tolist(), voxels.pitch) == ([0, 0, 0], 1)


def test_binvox_keeps_the_place_and_the_size_of_a_cell(tmp_path):
    voxels = load_voxels(written(tmp_path, "a.binvox", binvox()))

    assert np.array_equal(voxels.grid, GRID)
    assert voxels.origin.tolist() == [1, -2, 3]
    assert voxels.pitch == pytest.approx(0.25)


def test_binvox_is_read_as_another_reader_reads_it(tmp_path):
    theirs = trimesh.load(
        written(tmp_path, "a.binvox", binvox(np.pad(GRID, ((0, 0), (1, 1), (0, 1)))))
    )

    ours = load_voxels(tmp_path / "a.binvox").grid

    assert np.array_equal(ours, theirs.matrix)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(2, 12)] * 3))
def test_binvox_comes_back(tmp_path_factory, seed, shape):
    grid = np.random.default_rng(seed).random(shape) < 0.3
    grid[0, 0, 0], grid[1, 1, 1] = True, False
    path = tmp_path_factory.mktemp("binvox") / "a.binvox"
    path.write_bytes(binvox(grid))

    assert np.array_equal(load_voxels(path).grid, grid)


def test_runs_of_more_than_255_cells_come_back(tmp_path):
    grid = np.zeros((20, 20, 20), bool)
    grid[10:] = True

    found = load_voxels(written(tmp_path, "a.binvox", binvox(grid)))

    assert np.array_equal(found.grid, grid)


BAD = {
    "zero.npy": (b"", "empty"),
    "empty.npy": (npy(np.zeros((8, 8, 8), bool)), "none of its cells"),
    "full.npy": (npy(np.ones((8, 8, 8), bool)), "all of its cells"),
    "plane.npy": (npy(np.ones((8, 8), bool)), r"shape \(8, 8\)"),
    "colour.npy": (npy(np.ones((8, 8, 8, 3))), "shape"),
    "thin.npy": (npy(np.ones((1, 8, 8), bool)), "fewer than two"),
    "complex.npy": (npy(np.ones((8, 8, 8), complex)), "not numbers"),
    "words.npy": (npy(np.full((8, 8, 8), "a")), "not numbers"),
    "nan.npy": (npy(np.full((8, 8, 8), np.nan)), "NaN"),
    "cut.npy": (npy(GRID)[:-10], "cut short"),
    "two.npz": (npz(a=GRID, b=GRID), "no voxel grid"),
    "cut.binvox": (binvox()[:-4], "cut short"),
    "noise.binvox": (b"#binvox nothing", "no binvox"),
    "place.binvox": (binvox().replace(b"translate ", b"translate 1 1 1 "), "three finite numbers"),
    "large.npy": (
        npy(np.lib.stride_tricks.as_strided(np.zeros(600), (600, 2, 2), (8, 0, 0))),
        "512",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_grids_are_refused_with_a_reason(tmp_path, name):
    data, reason = BAD[name]

    with pytest.raises(InputError, match=reason):
        load_voxels(written(tmp_path, name, data))


def ball(radius=0.8):
    shape = trimesh.creation.icosphere(4, radius)
    return np.asarray(shape.vertices), np.asarray(shape.faces)


def test_the_cells_of_points_are_the_papers():
    points = np.array([[-1, -1, -1], [1, 1, 1], [-0.01, 0.01, 0.5]])

    grid = shell_of_points(points, 4)

    assert np.argwhere(grid).tolist() == [[0, 0, 0], [1, 2, 3], [3, 3, 3]]


def test_a_shell_of_a_mesh_has_no_holes():
    grid = shell_of_mesh(*ball(), 32, rng=np.random.default_rng(0))

    height = np.linalg.norm((2 * np.argwhere(grid) + 1) / 32 - 1, axis=1) - 0.8
    assert np.abs(height).max() < np.sqrt(3) / 32
    filled = solid_of_shell(grid)
    assert filled.sum() > 2 * grid.sum()
    assert filled[16, 16, 16]


def test_few_cells_that_the_surface_passes_are_missed():
    grid = shell_of_mesh(*ball(), 32, rng=np.random.default_rng(0))
    every = np.random.default_rng(1).normal(size=(2_000_000, 3))
    truth = shell_of_points(0.8 * every / np.linalg.norm(every, axis=1, keepdims=True), 32)

    assert (truth & ~grid).sum() < 0.08 * truth.sum()


def test_a_solid_is_what_is_inside():
    grid = solid_of_mesh(*ball(), 24)

    centres = (2 * np.indices((24, 24, 24)).reshape(3, -1).T + 1) / 24 - 1
    inside = np.linalg.norm(centres, axis=1) < 0.8
    assert (grid.reshape(-1) == inside).mean() > 0.995
