import numpy as np
import pytest
import torch

from nf2vec_cli.core import sine
from nf2vec_cli.core.gradient import SirenGradient
from nf2vec_cli.core.mlp import (
    field_gradient_twin,
    field_values_twin,
    frequencies,
    relu_forward,
    siren_forward,
    tiled_values,
    tiled_values_and_slopes,
)
from nf2vec_cli.fields.loss import cross_entropy
from nf2vec_cli.models.network import (
    NetworkSpec,
    radiance_init,
    radiance_spec,
    relu_spec,
    siren_init,
    split_theta,
)

SPEC = NetworkSpec(hidden=48, layers=3)


def problem(batch: int, points: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    theta = torch.stack([siren_init(SPEC, seed=s) for s in range(batch)])
    coords = torch.rand(batch, points, 3, generator=generator) * 2 - 1
    return theta, coords, torch.rand(batch, points, generator=generator)


def mean_of(coords):
    return torch.full(coords.shape[:2], 1 / coords.shape[1])


def by_autograd(theta, coords, targets):
    leaf = theta.clone().requires_grad_()
    weights, biases = split_theta(leaf, SPEC)
    outputs = siren_forward(weights, biases, coords, SPEC.omega).squeeze(-1)
    each = torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    losses = each.mean(1)
    losses.sum().backward()
    return losses.detach(), leaf.grad


@pytest.mark.parametrize("kernels", ["best", "reference"])
@pytest.mark.parametrize(("batch", "points", "tile"), [(1, 100, 100), (1, 101, 40), (3, 64, 50)])
def test_gradient_equals_autograd(monkeypatch, kernels, batch, points, tile):
    if kernels == "reference":
        monkeypatch.setattr(sine, "_fused", lambda: None)
    theta, coords, targets = problem(batch, points)
    engine = SirenGradient(SPEC, theta=theta, tile=tile)

    losses = engine(coords, targets, cross_entropy, mean_of(coords))

    expected_losses, expected = by_autograd(theta, coords, targets)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=1e-6)
    assert (engine.grad - expected).norm() <= 1e-5 * expected.norm()


def test_a_point_without_weight_changes_nothing():
    theta, coords, targets = problem(2, 50)
    engine = SirenGradient(SPEC, theta=theta, tile=50)
    share = mean_of(coords)
    share[1, 30:] = 0
    share[1, :30] = 1 / 30

    losses = engine(coords, targets, cross_entropy, share)

    both = engine.grad.clone()
    engine = SirenGradient(SPEC, theta=theta[1:], tile=50)
    alone = engine(coords[1:, :30], targets[1:, :30], cross_entropy, mean_of(coords[1:, :30]))
    torch.testing.assert_close(losses[1:], alone)
    torch.testing.assert_close(both[1:], engine.grad, rtol=1e-4, atol=1e-7)


def test_a_second_call_starts_from_zero():
    theta, coords, targets = problem(1, 50)
    engine = SirenGradient(SPEC, theta=theta, tile=50)

    engine(coords, targets, cross_entropy, mean_of(coords))
    first = engine.grad.clone()
    engine(coords, targets, cross_entropy, mean_of(coords))

    assert torch.equal(engine.grad, first)


def test_nan_in_one_object_stays_in_that_object():
    theta, coords, targets = problem(3, 50)
    clean = SirenGradient(SPEC, theta=theta, tile=50)
    clean(coords, targets, cross_entropy, mean_of(coords))
    coords = coords.clone()
    coords[1, 7] = float("nan")
    engine = SirenGradient(SPEC, theta=theta, tile=50)

    engine(coords, targets, cross_entropy, mean_of(coords))

    assert engine.grad[1].isnan().any()
    assert torch.equal(engine.grad[[0, 2]], clean.grad[[0, 2]])


def one_field(spec):
    """Give theta [P] of a network of any kind, with biases that are something."""
    if spec.activation == "sine":
        return siren_init(spec, seed=1)
    theta = radiance_init(spec, seed=1)
    return theta + 0.05 * torch.randn(len(theta), generator=torch.Generator().manual_seed(1))


KINDS = {
    "sine": SPEC,
    "sine, 4 outputs": NetworkSpec(hidden=48, layers=3, outputs=4),
    "relu": relu_spec(hidden=48, layers=3),
    "relu, coded": relu_spec(hidden=48, layers=3, octaves=4),
    "relu, no biases": NetworkSpec(3, 48, 3, 2, 0.0, "relu", biases=False),
    "radiance": radiance_spec(hidden=48, layers=3, octaves=6, biases=False),
}
of_each_kind = pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)


@of_each_kind
@pytest.mark.parametrize("tile", [7, 4096])
def test_values_equal_the_twin(spec, tile):
    theta, (coords,) = one_field(spec), problem(1, 100)[1]

    values = tiled_values(theta, coords, spec, tile)

    expected = field_values_twin(theta[None], coords[None], spec)[0]
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)


@of_each_kind
def test_no_points_give_no_values(spec):
    assert tiled_values(one_field(spec), torch.empty(0, 3), spec).shape == (0, spec.outputs)
    values, slopes = tiled_values_and_slopes(one_field(spec), torch.empty(0, 3), spec)
    assert (values.shape, slopes.shape) == ((0, spec.outputs), (0, 3))


@pytest.mark.parametrize("scale", [1, 30, 900])
def test_fused_sine_and_cosine_are_exact_to_a_millionth(scale):
    pytest.importorskip("numba")
    x = torch.linspace(-scale, scale, 100_003)
    sin, cos = x.clone(), torch.empty_like(x)

    sine.sincos_(sin, cos)

    truth = x.double().numpy()
    assert np.abs(sin.numpy() - np.sin(truth)).max() < 1e-6
    assert np.abs(cos.numpy() - np.cos(truth)).max() < 1e-6


def test_sine_of_a_view_that_is_not_contiguous():
    x = torch.randn(20, 30).T
    sin, cos = x.clone().T.contiguous().T, torch.empty(30, 20)

    sine.sincos_(sin, cos)

    torch.testing.assert_close(sin, x.sin())
    torch.testing.assert_close(cos, x.cos())


@of_each_kind
@pytest.mark.parametrize("tile", [7, 4096])
def test_slopes_equal_autograd(spec, tile):
    theta = one_field(spec).double()
    coords = (torch.rand(1, 100, 3, dtype=torch.float64) * 2 - 1).requires_grad_()
    expected = field_values_twin(theta[None], coords, spec)
    (slopes,) = torch.autograd.grad(expected[..., 0].sum(), coords)

    values, found = tiled_values_and_slopes(theta, coords[0].detach(), spec, tile)

    torch.testing.assert_close(values, expected[0].detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, slopes[0], rtol=1e-11, atol=1e-11)


@of_each_kind
def test_the_gradient_to_the_parameters_equals_autograd(spec):
    theta = one_field(spec).double()[None].requires_grad_()
    coords = torch.rand(1, 30, 3, dtype=torch.float64) * 2 - 1
    slopes = torch.randn(1, 30, spec.outputs, dtype=torch.float64)
    (expected,) = torch.autograd.grad(field_values_twin(theta, coords, spec), theta, slopes)

    found = field_gradient_twin(theta.detach(), coords, slopes, spec)

    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_slopes_in_single_precision():
    theta, coords = siren_init(SPEC, seed=2), torch.rand(300, 3) * 2 - 1

    _, found = tiled_values_and_slopes(theta, coords, SPEC)
    _, truth = tiled_values_and_slopes(theta.double(), coords.double(), SPEC)

    torch.testing.assert_close(found.double(), truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernels", ["best", "reference"])
def test_frequencies_are_sines_and_cosines_of_doubling_pitch(kernels, monkeypatch):
    if kernels == "reference":
        monkeypatch.setattr(sine, "_fused", lambda: None)
    coords = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1

    coded = frequencies(coords, 24)

    # in double, of the same numbers: at octave 23 single precision would know nothing of the angle
    turns = ((coords + 1) / 2).double().numpy()
    for d in range(3):
        for k in range(24):
            angle = np.pi * 2.0**k * turns[:, d]
            np.testing.assert_allclose(coded[:, d * 48 + 2 * k], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(coded[:, d * 48 + 2 * k + 1], np.cos(angle), atol=1e-6)


def test_relu_networks_are_evaluated_each_at_its_own_points():
    generator = torch.Generator().manual_seed(1)
    shapes = [(8, 6), (8, 8), (4, 8)]
    weights = [torch.randn(2, *shape, generator=generator) for shape in shapes]
    biases = [torch.randn(2, shape[0], generator=generator) for shape in shapes]
    coded = torch.randn(2, 5, 6, generator=generator)

    found = relu_forward(weights, biases, coded)

    for one in range(2):
        h = coded[one]
        for w, b in zip(weights, biases, strict=True):
            h = h @ w[one].T + b[one]
            if len(w[one]) == 8:
                h = h.clamp_min(0)
        torch.testing.assert_close(found[one], h)
