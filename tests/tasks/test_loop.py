import numpy as np
import pytest
import torch
from torch import nn

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.errors import Nf2vecError
from nf2vec_cli.progress import Silent
from nf2vec_cli.tasks.loop import Loop, arrays_of

SETTINGS = {
    "steps": 40,
    "validate_every": 10,
    "checkpoint_every": 15,
    "learning_rate": 0.05,
    "batch": 4,
}


def loop_of(looks=None, **changes):
    """Fit a line; each step draws its own points, by its number."""
    torch.manual_seed(0)
    module = nn.Linear(2, 1)
    target = torch.tensor([[1.0, -2.0]])

    def loss(step):
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        return (module(x) - x @ target.T).square().mean()

    def look():
        value = (module.weight - target).square().sum().item() if looks is None else looks.pop(0)
        return {"chamfer": value}

    config = TrainConfig(**SETTINGS | changes)
    return Loop(module, config, loss_of=loss, look=look, by="chamfer")


def ran(loop):
    states = []
    loop.run(checkpoint=lambda *state: states.append(state), progress=Silent())
    return states


def test_a_run_that_is_resumed_ends_as_one_that_was_not_stopped():
    whole = loop_of()
    states = ran(whole)

    for arrays, facts in states:
        again = loop_of()
        copied = {name: value.copy() for name, value in arrays.items()}
        again.restore(copied, facts)
        ran(again)

        assert again.curve.losses == whole.curve.losses
        assert again.curve.looks == whole.curve.looks
        for name, value in arrays_of(whole.module).items():
            assert np.array_equal(arrays_of(again.module)[name], value)
    assert len(states) == 2


def test_it_learns():
    loop = loop_of(steps=200)
    ran(loop)

    assert torch.allclose(loop.module.weight, torch.tensor([[1.0, -2.0]]), atol=0.05)


def test_the_best_look_decides_which_module_stays():
    other = loop_of(looks=[3.0, 1.0], steps=20, schedule="constant")
    same = loop_of(looks=[3.0, 1.0, 2.0, 2.0], schedule="constant")
    ran(other)
    ran(same)
    assert all(
        np.array_equal(v, arrays_of(other.module)[n]) for n, v in arrays_of(same.module).items()
    )


def test_patience_ends_a_run():
    loop = loop_of(looks=[1.0, 2.0, 2.0, 2.0], patience=2)
    ran(loop)

    assert loop.step == 30


def test_a_loss_that_is_not_finite_is_an_error():
    loop = loop_of()
    loop.loss_of = lambda _: loop.module.weight.sum() * float("nan")

    with pytest.raises(Nf2vecError, match="diverged"):
        ran(loop)
