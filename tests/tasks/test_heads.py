import numpy as np
import pytest
import torch
from near_init import make_store
from torch import nn

from nf2vec_cli.config.map import MapConfig
from nf2vec_cli.errors import StoreError
from nf2vec_cli.progress import Silent
from nf2vec_cli.store.products import CHECKPOINTS, HEADS, keys, save_checkpoint
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.heads import has_head, open_head, save_head, train_head
from nf2vec_cli.tasks.loop import Loop

LINES = {
    "classify": "nf2vec classify {} --force",
    "segment": "nf2vec segment {} --parts DIR --force",
    "generate": "nf2vec generate {} --class CLASS --out NEW.zarr --force",
    "map": "nf2vec map {} B.zarr --force",
}
CONFIG = MapConfig(steps=4, validate_every=2, checkpoint_every=2)


@pytest.fixture
def store(tmp_path):
    return open_store(make_store(tmp_path / "ds.zarr", count=0), mode="a")


def loop_of(module):
    def loss(_):
        return module(torch.ones(1, 2)).square().mean()

    return Loop(module, CONFIG, loss_of=loss, look=lambda: {"error": float(loss(0))}, by="error")


def kept(store, task):
    loop = loop_of(nn.Linear(2, 1))
    train_head(store, task, "key", loop, force=False, progress=Silent())
    assert len(keys(store, CHECKPOINTS)) == 1
    save_head(store, task, "key", loop, config=CONFIG, device=torch.device("cpu"), encoder="one")
    return loop.module


def break_state(store, place):
    file = store.path / place / "state" / "c" / "0"
    file.write_bytes(file.read_bytes()[:-3])


@pytest.mark.parametrize("task", LINES)
def test_a_head_comes_back_and_its_checkpoints_go(store, task):
    assert not has_head(store, task, "key")
    module = kept(store, task)

    found, facts = open_head(store, task, "key", lambda _: nn.Linear(2, 1))

    assert has_head(store, task, "key")
    assert keys(store, CHECKPOINTS) == []
    torch.testing.assert_close(found.weight, module.weight, rtol=0, atol=0)
    assert (facts["encoder"], facts["config"]) == ("one", CONFIG.model_dump(mode="json"))


@pytest.mark.parametrize("task", LINES)
def test_what_is_damaged_is_told_with_the_line_that_trains_it_again(store, task):
    kept(store, task)
    line = LINES[task].format(store.path)

    with pytest.raises(StoreError, match=f"heads/{task}/key is not what its settings say") as other:
        open_head(store, task, "key", lambda _: nn.Linear(3, 1))
    break_state(store, f"{HEADS}/{task}/key")
    with pytest.raises(StoreError, match=f"heads/{task}/key cannot be read") as broken:
        open_head(store, task, "key", lambda _: nn.Linear(2, 1))

    assert f"`{line}`" in other.value.hint
    assert f"`{line}`" in broken.value.hint


@pytest.mark.parametrize("task", LINES)
def test_a_damaged_checkpoint_names_the_task_that_it_is_of(store, task):
    name = "segment-key" if task == "segment" else "key"
    loop = loop_of(nn.Linear(2, 1))
    save_checkpoint(store, name, {"now/weight": np.zeros(3)}, step=2)
    break_state(store, f"{CHECKPOINTS}/{name}-2")

    with pytest.raises(StoreError, match=r"checkpoints/.*key-2 cannot be read") as caught:
        train_head(store, task, "key", loop, force=False, progress=Silent())

    assert f"`{LINES[task].format(store.path)}`" in caught.value.hint
    train_head(store, task, "key", loop, force=True, progress=Silent())
