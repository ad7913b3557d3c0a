"""The op of the last layer and the maximum over rows, by its twin."""

import torch
from torch.nn.functional import linear

from nf2vec_cli.core.rows_pool import rows_pool, rows_pool_twin


def drawn(batch=2, rows=7, into=5, embedding=4):
    draw = torch.Generator().manual_seed(0)
    sizes = (batch, rows, into), (embedding, into), (embedding,)
    return [torch.randn(s, generator=draw, dtype=torch.double, requires_grad=True) for s in sizes]


def test_it_is_the_maximum_over_rows_of_a_linear_layer():
    rows, weight, bias = drawn()

    maxima, argmax = rows_pool(rows, weight, bias, "float32")

    each = linear(rows, weight, bias)
    torch.testing.assert_close(maxima, each.amax(1))
    assert torch.equal(argmax, each.argmax(1))


def test_the_op_keeps_what_it_promises():
    torch.library.opcheck(rows_pool, (*drawn(), "float32"))


def test_gradients_are_right_in_double_precision():
    inputs = drawn()

    assert torch.autograd.gradcheck(lambda *x: rows_pool(*x, "float32")[0], inputs)
    assert torch.autograd.gradcheck(lambda *x: rows_pool_twin(*x)[0], inputs)


def test_an_object_without_a_number_keeps_it_to_itself():
    rows, weight, bias = drawn(batch=3)
    clean = rows_pool(rows, weight, bias, "float32")[0]
    with torch.no_grad():
        rows[1, 2, 3] = torch.nan

    maxima, argmax = rows_pool(rows, weight, bias, "float32")

    assert maxima[1].isnan().all()
    assert argmax[1].eq(2).all()
    assert torch.equal(maxima[[0, 2]], clean[[0, 2]])


def test_no_objects_give_no_embeddings():
    rows, weight, bias = drawn(batch=0)

    maxima, argmax = rows_pool(rows, weight, bias, "float32")
    maxima.sum().backward()

    assert maxima.shape == argmax.shape == (0, 4)
    assert weight.grad.eq(0).all()
