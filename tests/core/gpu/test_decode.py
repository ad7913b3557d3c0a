"""The kernel of `core.decode` does what its twin does."""

import pytest
import torch

from nf2vec_cli.core import decode as ops
from nf2vec_cli.core.decode import code, decode_twin
from nf2vec_cli.core.gpu.decode import decoded
from nf2vec_cli.models import decoder as models
from nf2vec_cli.models.split import SplitDecoder


def drawn(batch=2, points=70, units=20, outputs=3, octaves=4, coding="radians", seed=0):
    """Sizes that fill no block."""
    draw = torch.Generator().manual_seed(seed)

    def of(*size, spread=1.0):
        return torch.randn(size, generator=draw) * spread

    coords = torch.rand(batch, points, 3, generator=draw) * 2 - 1
    width = code(coords[:0], octaves, coding).shape[-1]
    layers = (
        of(2, batch, units),
        of(2, units, width, spread=width**-0.5),
        of(4, units, units, spread=(2 / units) ** 0.5),
        of(4, units),
        of(outputs, units, spread=units**-0.5),
        of(outputs),
    )
    return [*layers, coords, octaves, coding]


@pytest.mark.parametrize(
    ("precision", "sizes"),
    [
        ("float32", {"batch": 3}),
        ("float32", {"batch": 1, "points": 64, "units": 128, "outputs": 1, "octaves": 10}),
        ("float32", {"batch": 1, "points": 257, "coding": "turns", "octaves": 6}),
        ("tf32", {"batch": 1, "points": 1, "units": 130, "octaves": 1}),
        ("tf32", {"batch": 1, "coding": "turns", "octaves": 24, "outputs": 17}),
    ],
)
def test_values_are_the_twins(precision, sizes):
    inputs = drawn(**sizes)

    found = decoded(*inputs, precision)

    wanted = decode_twin(*inputs)
    assert found.shape == wanted.shape
    if precision == "tf32" and found.is_cuda:  # 10 bits, which the interpreter does not round to
        assert (found - wanted).norm() < 5e-3 * wanted.norm()
    else:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)


def test_products_may_be_of_bfloat16():
    inputs = drawn(units=64)
    wanted = decode_twin(*inputs)

    found = decoded(*inputs, "bfloat16")

    with torch.autocast(found.device.type, torch.bfloat16):
        plain = decode_twin(*inputs).float()
    assert found.dtype == torch.float32
    # as near as PyTorch's own products of bfloat16 are, and no exact ones
    assert 1e-3 < (found - wanted).norm() / wanted.norm() < 1e-2
    assert (found - wanted).norm() < 1.1 * (plain - wanted).norm()


@pytest.mark.parametrize(("coding", "octaves"), [("radians", 16), ("turns", 24)])
def test_points_are_coded_to_single_precision(coding, octaves):
    """The last layer reads the code itself: all others pass it on, of either sign."""
    coords = torch.rand(1, 40, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    coords[0, :2] = torch.tensor([[0.0, 1, -1], [0.5, -0.5, 0.25]])
    wanted = code(coords, octaves, coding)
    width = wanted.shape[-1]
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    layers = (
        torch.zeros(2, 1, 2 * width),
        torch.stack([both, torch.zeros_like(both)]),
        torch.eye(2 * width).expand(4, -1, -1),
        torch.zeros(4, 2 * width),
        both.T,
        torch.zeros(width),
    )

    found = decoded(*layers, coords, octaves, coding, "float32")

    assert (found - wanted).abs().max() < 2e-6


def test_nan_stays_at_its_point_and_in_its_object():
    inputs = drawn(batch=3)
    clean = decoded(*inputs, "float32")
    inputs[6][0, 5, 1] = torch.nan
    inputs[0][1, 2, 3] = torch.nan  # of the skip's second object

    found = decoded(*inputs, "float32")

    wrong = torch.zeros(3, 70, dtype=torch.bool)
    wrong[0, 5], wrong[2] = True, True
    assert torch.equal(found.isnan().all(-1), wrong)
    assert torch.equal(found[~wrong], clean[~wrong])


@pytest.mark.parametrize(("batch", "points"), [(0, 5), (2, 0)])
def test_no_points_give_no_values(batch, points):
    found = decoded(*drawn(batch=batch, points=points), "float32")

    assert found.shape == (batch, points, 3)


def test_input_need_not_be_contiguous():
    inputs = drawn()
    turned = [
        x.mT.contiguous().mT if isinstance(x, torch.Tensor) and x.ndim > 1 else x for x in inputs
    ]
    assert not turned[6].is_contiguous()

    assert torch.equal(decoded(*turned, "float32"), decoded(*inputs, "float32"))


@pytest.mark.parametrize("coding", ["radians", "turns"])
@pytest.mark.parametrize("kind", ["reads all", "reads some", "split"])
def test_a_decoder_without_gradient_is_one_kernel(monkeypatch, kind, coding):
    torch.manual_seed(0)
    if kind == "split":
        decoder = SplitDecoder(12, hidden=16, octaves=3, coding=coding)
    else:
        reads = 5 if kind == "reads some" else None
        decoder = models.Decoder(12, hidden=16, octaves=3, reads=reads, coding=coding)
    z, coords = torch.randn(2, 12), torch.rand(2, 5, 3) * 2 - 1
    wanted = decoder(z, coords)
    launched = []
    for module in (models, ops):
        monkeypatch.setattr(module, "kernels_serve", lambda x: launched.append(x) or True)

    with torch.no_grad():
        found = decoder(z, coords)

    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(launched) == 2
    assert decoder(z, coords).requires_grad
