import numpy as np
import pytest

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.radiance import (
    Cameras,
    pack_cameras,
    pack_grid,
    read_cameras,
    read_grids,
)
from nf2vec_cli.store.schema import CAMERAS, CAMERAS_KEPT, GRID, Entry


def some_cameras(count):
    rng = np.random.default_rng(count)
    return Cameras(
        rng.standard_normal((count, 3, 4)).astype(np.float32),
        rng.uniform(50, 300, count).astype(np.float32),
        np.tile([[100, 80]], (count, 1)),
        np.arange(count) % 4 == 0,
    )


def test_grids_and_cameras_come_back(make, fields):
    store = make(field="nerf", cells=16)
    rows = store.register([Entry(f"x{i}", f"x{i}") for i in range(6)])
    grids = np.random.default_rng(0).random((6, 16, 16, 16)) < 0.1
    cameras = [some_cameras(count) for count in (1, 3, 8, 20, 5, 2)]
    for part in (rows[:5], rows[5:]):  # two commits into the same and the next shard
        beside = {
            GRID: np.stack([pack_grid(grids[row]) for row in part]),
            CAMERAS: np.stack([pack_cameras(cameras[row]) for row in part]),
        }
        store.commit(part, fields[part], beside=beside)

    assert np.array_equal(read_grids(store, rows), grids)
    for found, wanted in zip(read_cameras(store, rows), cameras, strict=True):
        for name in ("poses", "focal", "size", "held"):
            assert np.array_equal(getattr(found, name), getattr(wanted, name))


def test_of_too_many_cameras_some_are_kept_evenly(make, fields):
    store = make(field="nerf", cells=16)
    rows = store.register([Entry("x", "x")])
    many = some_cameras(200)
    beside = {
        GRID: pack_grid(np.zeros((16, 16, 16), bool))[None],
        CAMERAS: pack_cameras(many)[None],
    }
    store.commit(rows, fields[:1], beside=beside)

    (found,) = read_cameras(store, rows)

    assert len(found.poses) == CAMERAS_KEPT
    assert np.array_equal(found.poses[[0, -1]], many.poses[[0, -1]])
    assert read_grids(store, []).shape == (0, 16, 16, 16)


def test_a_store_of_distances_has_no_grids(make):
    with pytest.raises(StoreError, match="keeps no grid: it holds sdf fields"):
        read_grids(make(), [])
