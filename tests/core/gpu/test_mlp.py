"""Kernels of the networks, under the interpreter, against their twins."""

import pytest
import torch
import triton
import triton.language as tl
from torch.overrides import TorchFunctionMode

from nf2vec_cli.core import gradient as engines
from nf2vec_cli.core import mlp as front
from nf2vec_cli.core import mlp_op
from nf2vec_cli.core.gpu import mlp, wide
from nf2vec_cli.core.gpu.engine import FusedGradient
from nf2vec_cli.core.gpu.sine import cosine, phase, sine
from nf2vec_cli.core.gradient import SirenGradient, siren_gradient
from nf2vec_cli.core.mlp import (
    facts,
    field_gradient_twin,
    field_values,
    field_values_twin,
)
from nf2vec_cli.fields.loss import cross_entropy
from nf2vec_cli.models.network import NetworkSpec, radiance_init, radiance_spec, siren_init

SIREN = NetworkSpec(hidden=16, layers=2)
NERF = radiance_spec(hidden=64, layers=3, octaves=10, biases=False)
CASES = {
    "48": (mlp, NetworkSpec(hidden=48, layers=3, outputs=2), 3, 40),
    "128": (mlp, NetworkSpec(hidden=128, layers=2), 1, 65),
    "deep": (mlp, NetworkSpec(hidden=16, layers=5), 1, 33),
    "nerf": (mlp, NERF, 2, 40),
    "relu": (mlp, NetworkSpec(3, 48, 3, 2, 0.0, "relu"), 2, 40),
    "relu, no biases": (mlp, NetworkSpec(3, 16, 2, 1, 0.0, "relu", biases=False), 1, 20),
    "wide": (wide, NetworkSpec(hidden=144, layers=2), 1, 130),
    "wide nerf": (wide, radiance_spec(hidden=144, layers=2, octaves=3, biases=True), 1, 20),
    "wide relu": (wide, NetworkSpec(3, 144, 2, 1, 0.0, "relu"), 1, 20),
}


def problem(spec, batch, points):
    """Parameters, points and slopes; biases of radiance, which begin at 0, are something."""
    generator = torch.Generator().manual_seed(3)
    init = siren_init if spec.activation == "sine" else radiance_init
    noise = 0.003 * torch.randn(batch, spec.parameters, generator=generator)
    theta = torch.stack([init(spec, seed=seed) for seed in range(batch)]).to(noise.device) + noise
    coords = torch.rand(batch, points, 3, generator=generator) * 2 - 1
    return theta, coords, torch.randn(batch, points, spec.outputs, generator=generator)


class RoundedProducts(TorchFunctionMode):
    """Let the twin multiply matrices as tensor cores do: of bfloat16, added up in float32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.matmul, torch.Tensor.__matmul__, torch.baddbmm):
            *added, a, b = args
            if a.shape[-1] > 3:  # products of plain coordinates are exact
                args = (*added, a.bfloat16().float(), b.bfloat16().float())
        return function(*args, **(kwargs or {}))


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    away = (found - expected).abs().amax()
    assert away <= tolerance * expected.abs().amax(), float(away / expected.abs().amax())


@triton.jit
def sines_kernel(x, out, size, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    r = phase(tl.load(x + at))
    tl.store(out + at, sine(r))
    tl.store(out + size + at, cosine(r))


@pytest.mark.parametrize("reach", [0.1, 3.2, 1000])
def test_sine_and_cosine_are_exact_to_a_millionth(reach):
    x = torch.linspace(-reach, reach, 1 << 16)
    out = torch.empty(2, len(x))

    sines_kernel[(16,)](x, out, len(x), block=len(x) // 16)

    truth = torch.stack([x.double().sin(), x.double().cos()])
    assert (out - truth).abs().max() < 1e-6


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_kernels_equal_their_twins(case, precision, tolerance):
    kernels, spec, batch, points = CASES[case]
    theta, coords, slopes = problem(spec, batch, points)

    values = kernels.values(theta, coords, spec, precision)
    gradient = kernels.gradient(theta, coords, slopes, spec, precision)

    close(values, field_values_twin(theta, coords, spec), tolerance)
    if precision == "bfloat16" and spec.activation == "relu":
        # rounding moves some unit near 0 to the other side for some point, which is no small step
        with RoundedProducts():
            expected = field_gradient_twin(theta, coords, slopes, spec)
    else:
        expected = field_gradient_twin(theta, coords, slopes, spec)
    close(gradient, expected, tolerance)


@pytest.mark.parametrize("kernels", [mlp, wide])
def test_an_empty_batch_and_no_points_give_nothing(kernels):
    theta, coords, slopes = problem(SIREN, 2, 5)

    for part in (slice(0), slice(2)):
        none = theta[part], coords[part, :0]
        assert kernels.values(*none, SIREN, "tf32").shape == (len(theta[part]), 0, 1)
        found = kernels.gradient(*none, slopes[part, :0], SIREN, "tf32")
        assert found.shape == theta[part].shape
        assert not found.any()
    assert kernels.values(theta[:0], coords[:0], SIREN, "tf32").shape == (0, 5, 1)


@pytest.mark.parametrize("kernels", [mlp, wide])
def test_inputs_need_not_be_contiguous(kernels):
    theta, coords, slopes = problem(SIREN, 2, 20)
    strided = torch.stack([theta, theta], -1)[..., 0]
    crossed = coords.transpose(0, 1).contiguous().transpose(0, 1)
    turned = slopes.transpose(0, 1).contiguous().transpose(0, 1)
    assert not any(x.is_contiguous() for x in (strided, crossed, turned))

    values = kernels.values(strided, crossed, SIREN, "float32")
    gradient = kernels.gradient(strided, crossed, turned, SIREN, "float32")

    assert torch.equal(values, kernels.values(theta, coords, SIREN, "float32"))
    assert torch.equal(gradient, kernels.gradient(theta, coords, slopes, SIREN, "float32"))


@pytest.mark.parametrize(
    "spec", [SIREN, radiance_spec(hidden=16, layers=2, octaves=2, biases=True)]
)
@pytest.mark.parametrize("kernels", [mlp, wide])
def test_nan_in_one_object_stays_in_that_object(kernels, spec):
    theta, coords, slopes = problem(spec, 3, 20)
    spoilt = theta.clone()
    spoilt[1, 5] = torch.nan  # of the first layer

    values = kernels.values(spoilt, coords, spec, "float32")
    gradient = kernels.gradient(spoilt, coords, slopes, spec, "float32")

    assert values[1].isnan().any()
    assert gradient[1].isnan().any()
    others = [0, 2]
    assert torch.equal(values[others], kernels.values(theta, coords, spec, "float32")[others])
    expected = kernels.gradient(theta, coords, slopes, spec, "float32")
    assert torch.equal(gradient[others], expected[others])


def test_a_result_does_not_depend_on_the_other_objects(monkeypatch):
    monkeypatch.setattr(mlp, "SHARES", 2)
    theta, coords, slopes = problem(SIREN, 2, 140)  # two tiles a share

    together = mlp.gradient(theta, coords, slopes, SIREN, "float32")

    alone = mlp.gradient(theta[1:2], coords[1:2], slopes[1:2], SIREN, "float32")
    assert torch.equal(together[1:2], alone)
    close(together, field_gradient_twin(theta, coords, slopes, SIREN), 1e-5)


@pytest.mark.parametrize(
    "spec", [SIREN, radiance_spec(hidden=16, layers=2, octaves=2, biases=False)]
)
def test_the_twin_of_the_gradient_is_one(spec):
    theta, coords, slopes = (x.double() for x in problem(spec, 2, 6))
    leaf = theta.clone().requires_grad_()
    field_values_twin(leaf, coords, spec).backward(slopes)

    torch.testing.assert_close(field_gradient_twin(theta, coords, slopes, spec), leaf.grad)


def test_the_op_is_one_of_pytorch():
    theta, coords, slopes = problem(SIREN, 2, 6)
    leaf = theta.requires_grad_()

    torch.library.opcheck(mlp_op.values, (leaf, coords, *facts(SIREN), "tf32"))
    torch.library.opcheck(mlp_op.gradient, (theta.detach(), coords, slopes, *facts(SIREN), "tf32"))


def test_the_op_has_gradients_to_parameters_and_coordinates():
    theta, coords, _ = problem(NetworkSpec(hidden=4, layers=2, omega=2.0), 1, 3)
    told = facts(NetworkSpec(hidden=4, layers=2, omega=2.0))
    inputs = [x.double().requires_grad_() for x in (theta, coords)]

    assert torch.autograd.gradcheck(lambda t, x: mlp_op.values(t, x, *told, "tf32"), inputs)


@pytest.fixture
def _kernels_wanted(monkeypatch):
    """Let kernels serve CPU tensors, as the interpreter can."""
    for module in (engines, front, mlp_op):
        monkeypatch.setattr(module, "kernels_serve", lambda _: True)


@pytest.mark.usefixtures("_kernels_wanted")
@pytest.mark.parametrize("hidden", [48, 144])
def test_the_engine_of_a_fit_equals_the_plain_one(hidden):
    spec = NetworkSpec(hidden=hidden, layers=2)
    theta, coords, _ = problem(spec, 2, 40)
    targets = torch.rand(2, 40, generator=torch.Generator().manual_seed(1))
    share = torch.full((2, 40), 1 / 40)
    share[1, 30:] = 0  # of a neighbour with fewer points

    engine = siren_gradient(spec, theta=theta, tile=40, precision="float32")
    losses = engine(coords, targets, cross_entropy, share)

    plain = SirenGradient(spec, theta=theta, tile=40)
    assert isinstance(engine, FusedGradient)
    torch.testing.assert_close(losses, plain(coords, targets, cross_entropy, share))
    close(engine.grad, plain.grad, 1e-5)
    assert [w.shape for w in engine.grad_w] == [w.shape for w in plain.grad_w]
    close(engine.grad_w[1], plain.grad_w[1], 1e-5)


@pytest.mark.usefixtures("_kernels_wanted")
@pytest.mark.parametrize("spec", [SIREN, NERF, CASES["wide"][1]])
def test_values_are_differentiable_through_the_kernels(spec):
    theta, coords, slopes = problem(spec, 1, 20)
    leaf = theta.clone().requires_grad_()

    values = field_values(leaf, coords, spec)
    values.backward(slopes)

    close(values.detach(), field_values_twin(theta, coords, spec), 1e-5)
    close(leaf.grad, field_gradient_twin(theta, coords, slopes, spec), 1e-5)
