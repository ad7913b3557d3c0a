"""Kernels are launched on the GPU that holds their tensors, whichever is the current one."""

import os
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch
from triton.runtime.interpreter import InterpretedFunction

from nf2vec_cli.core import gpu
from nf2vec_cli.core.decode import code_width
from nf2vec_cli.core.gpu import composite, decode, march, mlp, neighbours, rows_pool, wide
from nf2vec_cli.models.network import NetworkSpec

NATIVE = os.environ["TRITON_INTERPRET"] == "0"
# launches are counted by the interpreter
pytestmark = pytest.mark.skipif(NATIVE, reason="kernels are compiled here")
SPEC = NetworkSpec(hidden=4, layers=2)
ONE, SIDE = torch.ones(1, 1, 3), 2


def networks(module):
    theta, slopes = torch.ones(1, SPEC.parameters), torch.ones(1, 1, 1)
    module.values(theta, ONE, SPEC, "float32")
    module.gradient(theta, ONE, slopes, SPEC, "float32")


def pooled():
    rows, weight, argmax = torch.ones(1, 2, 4), torch.ones(3, 4), torch.zeros(1, 3).long()
    rows_pool.pool(rows, weight, torch.zeros(3), "float32")
    for backward in (rows_pool.grad_to_rows, rows_pool.grad_to_weight):
        backward(torch.ones(1, 3), argmax, rows, weight)


def decoded():
    width = code_width(1, "turns")
    layers = [torch.ones(size) for size in ((2, 1, 4), (2, 4, width), (4, 4, 4), (4, 4), (1, 4))]
    decode.decoded(*layers, torch.ones(1), ONE, 1, "turns", "float32")


def marched():
    towards = torch.tensor([[[0.0, 0, 1]]])
    near, span = torch.zeros(1, 1), torch.ones(1, 1)
    grids = torch.full((1, 1), 255, dtype=torch.uint8)
    march.samples_in_cells(0 * towards, towards, near, 0 * span, span, grids, SIDE, 0.1)


def added_up():
    samples = torch.ones(2, 3), torch.ones(2), torch.ones(2), torch.ones(()), torch.zeros(2).long()
    sums = composite.ray_sums(*samples, 1)
    composite.ray_slopes(sums, *samples, sums)


def chosen():
    neighbours.streamed_rows(torch.ones(1, 4), torch.ones(2, 4), torch.ones(2), torch.ones(2), 1)


LAUNCHES = {  # kernels launched by each module's public functions
    "composite": (added_up, 2),
    "decode": (decoded, 1),
    "march": (marched, 2),
    "mlp": (lambda: networks(mlp), 3),
    "neighbours": (chosen, 1),
    "rows_pool": (pooled, 3),
    "wide": (lambda: networks(wide), 3 + 3 + 3 + 2),  # values once more for the gradient
}


def test_every_module_with_kernels_is_looked_at():
    found = {
        module.name
        for module in iter_modules([str(Path(gpu.__file__).parent)])
        if getattr(import_module(f"nf2vec_cli.core.gpu.{module.name}"), "VARIANTS", ())
    }

    assert found == set(LAUNCHES)


@pytest.mark.parametrize("module", LAUNCHES)
def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch, module):
    current, launched = [None], []
    launch = InterpretedFunction.run

    @contextmanager
    def guard(x):
        current.append(x.device)
        yield
        current.pop()

    def run(self, *args, **kwargs):
        launched.append(current[-1])
        return launch(self, *args, **kwargs)

    monkeypatch.setattr(import_module(f"nf2vec_cli.core.gpu.{module}"), "on_device_of", guard)
    monkeypatch.setattr(InterpretedFunction, "run", run)
    call, count = LAUNCHES[module]

    call()

    assert launched == [torch.device("cpu")] * count
