"""The op of the implicit decoder, by its twin."""

import pytest
import torch

from nf2vec_cli.core.decode import code_width, decode, decode_twin
from nf2vec_cli.models.decoder import Decoder


def drawn(batch=2, points=7, coding="radians"):
    torch.manual_seed(0)
    decoder = Decoder(6, hidden=5, octaves=2, outputs=3, coding=coding)
    reads = decoder.enter.in_features - code_width(2, coding)
    z, coords = torch.randn(batch, 6), torch.rand(batch, points, 3) * 2 - 1
    joined, layers = (decoder.enter, decoder.skip), [*decoder.before, *decoder.after]
    inputs = [
        torch.stack([z @ j.weight[:, :reads].T + j.bias for j in joined]),
        torch.stack([j.weight[:, reads:] for j in joined]),
        torch.stack([layer.weight for layer in layers]),
        torch.stack([layer.bias for layer in layers]),
        *(decoder.last.weight, decoder.last.bias),
    ]
    return [*(x.detach() for x in inputs), coords, 2, coding, "float32"], decoder, z


@pytest.mark.parametrize("coding", ["radians", "turns"])
def test_it_is_the_decoder(coding):
    inputs, decoder, z = drawn(coding=coding)

    found = decode(*inputs)

    torch.testing.assert_close(found, decoder(z, inputs[6]).detach())
    torch.testing.assert_close(found, decode_twin(*inputs))


def test_the_op_keeps_what_it_promises():
    inputs, _, _ = drawn()

    torch.library.opcheck(decode, inputs)


def test_an_object_without_a_number_keeps_it_to_itself():
    inputs, _, _ = drawn(batch=3)
    clean = decode(*inputs)
    inputs[0][0, 1, 2] = torch.nan

    found = decode(*inputs)

    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize(("batch", "points"), [(0, 4), (2, 0)])
def test_no_points_give_no_values(batch, points):
    inputs, _, _ = drawn(batch=batch, points=points)

    assert decode(*inputs).shape == (batch, points, 3)
