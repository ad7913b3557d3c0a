"""Which tensors a kernel serves."""

import torch

from nf2vec_cli.core.kernels import kernels_serve, ruled_out


def test_a_cpu_tensor_goes_to_the_twin():
    assert not kernels_serve(torch.zeros(1))


def test_kernels_can_be_ruled_out(monkeypatch):
    class OnCuda:
        is_cuda = True

    monkeypatch.delenv("NF2VEC_KERNELS", raising=False)
    assert kernels_serve(OnCuda())
    assert not ruled_out()

    monkeypatch.setenv("NF2VEC_KERNELS", "reference")

    assert not kernels_serve(OnCuda())
    assert ruled_out()
