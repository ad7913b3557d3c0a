"""Which tensors a kernel serves."""

from types import SimpleNamespace

import pytest
import torch

from nf2vec_cli.core import kernels
from nf2vec_cli.core.kernels import kernels_serve, ruled_out


@pytest.fixture
def on_cuda(monkeypatch):
    """Make a stand-in for a tensor on a GPU of a compute capability, where triton is installed."""

    def make(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        return SimpleNamespace(is_cuda=True, device=torch.device("cuda", 1))

    monkeypatch.delenv("NF2VEC_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "triton_installed", lambda: True)
    kernels.new_enough.cache_clear()
    yield make
    kernels.new_enough.cache_clear()


def test_a_cpu_tensor_goes_to_the_twin():
    assert not kernels_serve(torch.zeros(1))


def test_kernels_can_be_ruled_out(monkeypatch, on_cuda):
    x = on_cuda((8, 0))
    assert kernels_serve(x)
    assert not ruled_out()

    monkeypatch.setenv("NF2VEC_KERNELS", "reference")

    assert not kernels_serve(x)
    assert ruled_out()


@pytest.mark.parametrize(
    ("capability", "wanted"), [((7, 5), False), ((8, 0), True), ((12, 1), True)]
)
def test_old_gpus_go_to_the_twin(on_cuda, capability, wanted):
    assert kernels_serve(on_cuda(capability)) is wanted


def test_without_triton_everything_goes_to_the_twin(monkeypatch, on_cuda):
    x = on_cuda((9, 0))
    monkeypatch.setattr(kernels, "triton_installed", lambda: False)

    assert not kernels_serve(x)
