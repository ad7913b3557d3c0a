import numpy as np
import pytest
import trimesh

from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.config.fit import FitConfig, fit_defaults
from nf2vec_cli.fields import occ
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.voxels import Voxels


def config_of(**settings):
    return FitConfig(**{"pool": 4_000, "points": 200, "voxels": 32} | settings)


def ball():
    shape = trimesh.creation.icosphere(3, 0.8)
    return Mesh(np.asarray(shape.vertices), np.asarray(shape.faces), True)


def cells_of(pool, size):
    return tuple(np.floor((pool.coords + 1) / 2 * size).astype(int).T)


def test_the_pool_is_cell_centres_with_the_grids_own_values():
    grid = np.random.default_rng(0).random((16, 16, 16)) < 0.2
    shape = Voxels(grid, np.full(3, -1.0), 2 / 16, ())

    pool = occ.prepare(shape, config_of(pool=4096), rng=np.random.default_rng(0))

    cells = cells_of(pool, 16)
    centres = (2 * np.stack(cells, 1) + 1) / 16 - 1
    np.testing.assert_allclose(pool.coords, centres, atol=1e-6)
    assert np.array_equal(pool.values, grid[cells])
    assert len(set(zip(*cells, strict=True))) == 4096
    assert pool.cells == 16


@pytest.mark.parametrize(("occupancy", "middle"), [("shell", False), ("solid", True)])
def test_a_shell_is_hollow_and_a_solid_is_not(occupancy, middle):
    grid = occ.occupied_cells(ball(), config_of(occupancy=occupancy), rng=np.random.default_rng(0))

    assert grid.shape == (32, 32, 32)
    assert grid[16, 16, 16] == middle
    assert not grid[0, 0, 0]
    assert grid[:, 16, 16].any()


def test_a_cloud_fills_the_cells_its_points_fall_in():
    cloud = Cloud(np.array([[-1.0, -1, -1], [0.99, 0.99, 0.99], [1, 1, 1], [0.01, 0.01, 0.01]]))

    grid = occ.occupied_cells(cloud, config_of(voxels=8), rng=np.random.default_rng(0))

    assert np.argwhere(grid).tolist() == [[0, 0, 0], [4, 4, 4], [7, 7, 7]]


def test_all_cells_at_the_boundary_are_in_a_pool_that_has_room():
    config = config_of(pool=16_000)
    grid = occ.occupied_cells(ball(), config, rng=np.random.default_rng(0))

    pool = occ.prepare(ball(), config, rng=np.random.default_rng(0))

    assert pool.values.sum() == grid.sum()
    assert (pool.stratum == 0).sum() == grid.sum()
    # strata go outward: occupied, touching, next, far
    height = [np.abs(np.linalg.norm(pool.coords[pool.stratum == s], axis=1) - 0.8) for s in (0, 1)]
    assert max(h.max() for h in height) < 3 * 2 / 32 * np.sqrt(3)
    assert not pool.values[pool.stratum >= 1].any()


def test_deep_inside_a_solid_is_far_from_the_boundary():
    config = config_of(pool=16_000, occupancy="solid")

    pool = occ.prepare(ball(), config, rng=np.random.default_rng(0))

    deep = np.linalg.norm(pool.coords, axis=1) < 0.5
    assert deep.any()
    assert (pool.stratum[deep] == 3).all()
    assert (pool.values[deep] == 1).all()


def test_the_authors_pool_is_every_cell():
    config = FitConfig(**fit_defaults(Preset.small, Recipe.paper, "occ"))

    pool = occ.prepare(ball(), config, rng=np.random.default_rng(0))

    assert (config.focal_alpha, config.focal_gamma, config.voxels) == (0.9, 3, 64)
    assert len({tuple(c) for c in np.stack(cells_of(pool, 64), 1)}) == 64**3
