"""The kernels of `core.rows_pool` do what its twin does."""

import pytest
import torch

from nf2vec_cli.core import rows_pool as ops
from nf2vec_cli.core.gpu.rows_pool import grad_to_rows, grad_to_weight, pool
from nf2vec_cli.core.rows_pool import rows_pool_twin
from nf2vec_cli.models import encoder as models
from nf2vec_cli.models.network import NetworkSpec


def drawn(batch=2, rows=150, into=40, embedding=70, seed=0):
    """Sizes that fill no tile; the first tile of rows is full."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, rows, into, generator=draw)
    weight = torch.randn(embedding, into, generator=draw) / into**0.5
    return x, weight, torch.randn(embedding, generator=draw)


def exact(x):
    """Round to numbers that bfloat16 has, so that products in it are exact."""
    return x.bfloat16().float()


@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("sizes", [(2, 150, 40, 70), (1, 1, 8, 3), (3, 128, 64, 64)])
def test_maxima_and_their_rows_are_the_twins(sizes, precision):
    x, weight, bias = drawn(*sizes)
    if precision == "tf32":  # which has 10 bits where bfloat16 has 7
        x, weight = exact(x), exact(weight)

    maxima, rows = pool(x, weight, bias, precision)

    wanted = rows_pool_twin(x, weight, bias)
    assert (maxima.dtype, rows.dtype) == (torch.float32, torch.int64)
    torch.testing.assert_close(maxima, wanted[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(rows, wanted[1])


def test_products_may_be_of_bfloat16():
    x, weight, bias = drawn()

    maxima, _ = pool(x.bfloat16(), weight, bias, "bfloat16")
    same, rows = pool(exact(x), exact(weight), bias, "bfloat16")

    torch.testing.assert_close(maxima, rows_pool_twin(x, weight, bias)[0], rtol=1e-2, atol=1e-2)
    assert maxima.dtype == weight.dtype
    wanted = rows_pool_twin(exact(x), exact(weight), bias)
    torch.testing.assert_close(same, wanted[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(rows, wanted[1])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_are_the_twins(precision):
    x, weight, bias = drawn(rows=9, into=20, embedding=13)
    x = exact(x)
    for leaf in (x, weight, bias):
        leaf.requires_grad_()
    maxima, rows = rows_pool_twin(x, weight, bias)
    grad = torch.randn_like(maxima)
    maxima.backward(grad)

    dtype = getattr(torch, precision)
    to_rows = grad_to_rows(grad, rows, x.detach().to(dtype), weight.detach())
    to_weight = grad_to_weight(grad, rows, x.detach().to(dtype), weight.detach())

    assert (to_rows.dtype, to_weight.dtype) == (dtype, torch.float32)
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(to_rows.float(), x.grad, **near)
    torch.testing.assert_close(to_weight, weight.grad, rtol=1e-5, atol=1e-5)


def test_rows_that_fill_up_a_tile_count_for_nothing():
    x, weight, bias = drawn(batch=1, rows=3)

    found = pool(-x.abs(), weight.abs(), bias, "float32")  # all products are below 0

    wanted = rows_pool_twin(-x.abs(), weight.abs(), bias)
    torch.testing.assert_close(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


def test_of_equal_rows_the_first_counts():
    x, weight, bias = (i.mul(8).round() for i in drawn(rows=4))  # sums of integers are exact
    x = x.repeat(1, 50, 1)  # the same four rows again and again, within tiles and across them

    _, rows = pool(x, weight, bias, "float32")

    assert rows.max() == 3
    assert torch.equal(rows, rows_pool_twin(x, weight, bias)[1])


def test_nan_stays_in_its_object_and_names_its_row():
    x, weight, bias = drawn(batch=3)
    clean = pool(x, weight, bias, "float32")
    x[1, 140, 7] = torch.nan

    maxima, rows = pool(x, weight, bias, "float32")

    assert maxima[1].isnan().all()
    assert rows[1].eq(140).all()
    for found, before in zip((maxima, rows), clean, strict=True):
        assert torch.equal(found[[0, 2]], before[[0, 2]])


def test_no_objects_give_no_embeddings():
    x, weight, bias = drawn(batch=0)

    maxima, rows = pool(x, weight, bias, "float32")

    assert maxima.shape == rows.shape == (0, 70)
    assert grad_to_rows(maxima, rows, x, weight).shape == x.shape
    assert torch.equal(grad_to_weight(maxima, rows, x, weight), torch.zeros_like(weight))


def test_input_need_not_be_contiguous():
    x, weight, bias = drawn()
    turned, across = x.mT.contiguous().mT, weight.T.contiguous().T
    assert not turned.is_contiguous()

    found = pool(turned, across, bias, "float32")

    for one, wanted in zip(found, pool(x, weight, bias, "float32"), strict=True):
        assert torch.equal(one, wanted)


def test_gradients_need_not_be_contiguous():
    x, weight, bias = drawn(rows=9, into=20, embedding=13)
    _, argmax = rows_pool_twin(x, weight, bias)
    grad, rows = torch.randn(13, 2).T, x.mT.contiguous().mT

    for back in (grad_to_rows, grad_to_weight):
        found = back(grad, argmax, rows, weight.T.contiguous().T)
        assert torch.equal(found, back(grad.contiguous(), argmax, x, weight))


def test_the_encoder_of_rows_is_trained_through_the_kernels(monkeypatch):
    torch.manual_seed(0)
    spec = NetworkSpec(hidden=8, layers=2)
    encoder = models.RowsEncoder(spec, widths=(8, 12), embedding=6)
    theta = torch.randn(3, spec.parameters)
    pull = torch.randn(3, 6)

    def run():
        encoder.zero_grad()
        z = encoder(theta)
        (z * pull).sum().backward()
        trained = (p for p in encoder.parameters() if p.requires_grad)
        return [z.detach(), *(p.grad.clone() for p in trained)]

    wanted = run()
    for module in (models, ops):
        monkeypatch.setattr(module, "kernels_serve", lambda _: True)
    found = run()

    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert not torch.equal(one, torch.zeros_like(one))
