"""The fields as ops of PyTorch: values, and the gradient of a loss to the parameters.

Apart from `core.mlp`, which imports this where a kernel serves: the first call of an op takes two
CPU seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nf2vec_cli.core.kernels import kernels_serve
from nf2vec_cli.core.mlp import Sizes, field_gradient_twin, field_values_twin

MOST_OUTPUTS = 16  # they are computed one by one


@torch.library.custom_op("nf2vec::field_values", mutates_args=())
def values(
    theta: Tensor,
    coords: Tensor,
    hidden: int,
    layers: int,
    outputs: int,
    omega: float,
    activation: str,
    octaves: int,
    biases: bool,
    precision: str,
) -> Tensor:
    """Evaluate B fields: theta [B, P], coords [B, M, 3] -> [B, M, V]; see `core.mlp`."""
    spec = Sizes(hidden, layers, outputs, omega, activation, octaves, biases)
    if _served(theta, spec):
        from nf2vec_cli.core.gpu import mlp, wide

        kernels = mlp if hidden <= mlp.WIDEST else wide
        found: Tensor = kernels.values(theta, coords, spec, precision)
        return found
    return field_values_twin(theta, coords, spec)


@values.register_fake
def _(theta: Tensor, coords: Tensor, *facts: Any) -> Tensor:
    return theta.new_empty(*coords.shape[:2], Sizes(*facts[:-1]).outputs)


@torch.library.custom_op("nf2vec::field_gradient", mutates_args=())
def gradient(
    theta: Tensor,
    coords: Tensor,
    slopes: Tensor,
    hidden: int,
    layers: int,
    outputs: int,
    omega: float,
    activation: str,
    octaves: int,
    biases: bool,
    precision: str,
) -> Tensor:
    """Give a loss's gradient to theta [B, P] from its slopes [B, M, V] to `values`."""
    spec = Sizes(hidden, layers, outputs, omega, activation, octaves, biases)
    if _served(theta, spec):
        from nf2vec_cli.core.gpu import mlp, wide

        kernels = mlp if hidden <= mlp.WIDEST else wide
        found: Tensor = kernels.gradient(theta, coords, slopes, spec, precision)
        return found
    return field_gradient_twin(theta, coords, slopes, spec)


@gradient.register_fake
def _(theta: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(theta)


def _kept(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    theta, coords, *facts = inputs
    ctx.save_for_backward(theta, coords)
    ctx.facts = facts


def _backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
    theta, coords = ctx.saved_tensors
    moved = None
    if ctx.needs_input_grad[1]:  # by the twin: no loop of the program asks for it
        with torch.enable_grad():
            at = coords.detach().requires_grad_()
            outputs = field_values_twin(theta.detach(), at, Sizes(*ctx.facts[:-1]))
            (moved,) = torch.autograd.grad(outputs, at, slopes)
    return gradient(theta, coords, slopes, *ctx.facts), moved, *[None] * len(ctx.facts)


values.register_autograd(_backward, setup_context=_kept)


def _served(theta: Tensor, spec: Sizes) -> bool:
    single = theta.dtype == torch.float32
    return single and spec.outputs <= MOST_OUTPUTS and kernels_serve(theta)
