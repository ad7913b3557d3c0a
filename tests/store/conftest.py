import numpy as np
import pytest

from nf2vec_cli.store.create import create_store
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store

P, BLOCKS = 600, [20] * 25 + [100]


@pytest.fixture
def init():
    return np.random.default_rng(0).standard_normal(P).astype(np.float32)


@pytest.fixture
def make(tmp_path, init):
    """Make an empty store; keywords change it."""

    def made(name="s.zarr", **changes):
        settings = {
            "field": "sdf",
            "network": {"hidden": 4, "layers": 2},
            "init": init,
            "blocks": BLOCKS,
            "codec": "compact",
            "bits": 8,
            "batch": 4,
            "config": {"steps": 1},
            "versions": {"nf2vec": "0"},
        }
        create_store(tmp_path / name, **(settings | changes))
        return open_store(tmp_path / name, mode="a")

    return made


@pytest.fixture
def fields(init):
    """Weights [9, P] near the init."""
    noise = np.random.default_rng(1).standard_normal((9, P)).astype(np.float32)
    return init + 0.01 * noise


@pytest.fixture(params=["compact", "exact"])
def filled(request, make, fields):
    """A store with six objects of which one failed and one is pending."""
    store = make(codec=request.param)
    rows = store.register([Entry(f"c/x{i}", f"c/x{i}.ply", "c", "train") for i in range(6)])
    store.commit(rows[:4], fields[:4], error=[0.1] * 4, transform=np.ones((4, 4)))
    store.fail(rows[4:5], ["no faces"])
    return store
