"""Kernels of the networks, under the interpreter, against their twins."""

from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from nf2vec_cli.core.gpu import mlp, wide
from nf2vec_cli.core.gpu.sine import cosine, phase, sine
from nf2vec_cli.core.mlp import field_gradient_twin, field_values_twin
from nf2vec_cli.models.network import NetworkSpec, radiance_init, radiance_spec, siren_init

SIREN = NetworkSpec(hidden=16, layers=2)
NERF = radiance_spec(hidden=64, layers=3, octaves=4, biases=False)
CASES = {
    "16": (mlp, SIREN, 1, 40),
    "48": (mlp, NetworkSpec(hidden=48, layers=3, outputs=2), 3, 70),
    "128": (mlp, NetworkSpec(hidden=128, layers=2), 1, 65),
    "deep": (mlp, NetworkSpec(hidden=32, layers=5), 2, 64),
    "nerf": (mlp, NERF, 2, 70),
    "nerf with biases": (mlp, radiance_spec(hidden=48, layers=2, octaves=24, biases=True), 1, 33),
    "wide": (wide, NetworkSpec(hidden=192, layers=2), 1, 130),
    "wide nerf": (wide, radiance_spec(hidden=144, layers=2, octaves=4, biases=True), 1, 33),
}


def problem(spec, batch, points):
    """Parameters, points and slopes; biases of radiance, which begin at 0, are something."""
    generator = torch.Generator().manual_seed(3)
    init = siren_init if spec.activation == "sine" else radiance_init
    theta = torch.stack([init(spec, seed=seed) for seed in range(batch)])
    theta += 0.003 * torch.randn(theta.shape, generator=generator)
    coords = torch.rand(batch, points, 3, generator=generator) * 2 - 1
    return theta, coords, torch.randn(batch, points, spec.outputs, generator=generator)


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    away = (found - expected).abs().amax()
    assert away <= tolerance * expected.abs().amax(), float(away / expected.abs().amax())


@triton.jit
def sines_kernel(x, out, size: tl.constexpr):
    at = tl.arange(0, size)
    r = phase(tl.load(x + at))
    tl.store(out + at, sine(r))
    tl.store(out + size + at, cosine(r))


@pytest.mark.parametrize("reach", [0.1, 3.2, 1000])
def test_sine_and_cosine_are_exact_to_a_millionth(reach):
    x = torch.linspace(-reach, reach, 1 << 16)
    out = torch.empty(2, len(x))

    sines_kernel[(1,)](x, out, len(x))

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
    close(gradient, field_gradient_twin(theta, coords, slopes, spec), tolerance)
