"""The last layer of the rows encoder and its maximum over rows, without what lies between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from nf2vec_cli.core.kernels import kernels_serve


@torch.library.custom_op("nf2vec::rows_pool", mutates_args=())
def rows_pool(
    rows: Tensor,  # [B, R, K]
    weight: Tensor,  # [E, K]
    bias: Tensor,  # [E]
    precision: str,
) -> tuple[Tensor, Tensor]:  # [B, E], [B, E]
    """Apply a linear layer to every row of an object, and keep the maximum over its rows.

    By a kernel on CUDA, which never writes [B, R, E]. Differentiable: the gradient of a maximum
    goes to the row that has it. A CPU path had better call the twin (`core.neighbours` says why).

    Args:
        rows: R >= 1 rows of each of B objects.
        weight: of the layer, float32.
        bias: of the layer.
        precision: of the kernel's products, "float32", "tf32" or "bfloat16"; sums are float32.

    Returns:
        The maxima, in the precision of `weight`; NaN where a row gives it, as `torch.amax` has it.
        The rows that have them, int64: of equals the first.
    """
    if kernels_serve(rows) and weight.dtype != torch.float64:
        from nf2vec_cli.core.gpu.rows_pool import pool

        return pool(rows, weight, bias, precision)
    return rows_pool_twin(rows, weight, bias)


def rows_pool_twin(rows: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same in plain PyTorch, differentiable."""
    found = linear(rows.to(weight.dtype), weight, bias).max(dim=1)
    return found.values, found.indices


@rows_pool.register_fake
def _(rows: Tensor, weight: Tensor, bias: Tensor, precision: str) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    maxima = weight.new_empty(len(rows), len(weight))
    return maxima, torch.empty_like(maxima, dtype=torch.int64)


@torch.library.custom_op("nf2vec::rows_pool_backward", mutates_args=())
def rows_pool_backward(
    grad: Tensor,  # [B, E]
    argmax: Tensor,  # [B, E] int64
    rows: Tensor,  # [B, R, K]
    weight: Tensor,  # [E, K]
) -> tuple[Tensor, Tensor]:  # [B, R, K], [E, K]
    """Give the gradients of `rows_pool` to rows and weight; the same bits each time."""
    if kernels_serve(rows) and weight.dtype != torch.float64:
        from nf2vec_cli.core.gpu.rows_pool import grad_to_rows, grad_to_weight

        return grad_to_rows(grad, argmax, rows, weight), grad_to_weight(grad, argmax, rows, weight)
    # each number of an embedding names one row: nothing is added up by the scatter
    spread = grad.new_zeros(*rows.shape[:2], len(weight)).scatter_(
        1, argmax[:, None], grad[:, None]
    )
    winners = rows.gather(1, argmax[..., None].expand(-1, -1, rows.shape[2]))
    to_weight = (grad[..., None] * winners).sum(0)
    return (spread @ weight.to(grad.dtype)).to(rows.dtype), to_weight.to(weight.dtype)


@rows_pool_backward.register_fake
def _(grad: Tensor, argmax: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return rows.new_empty(rows.shape), weight.new_empty(weight.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows, weight, _, _ = inputs
    ctx.save_for_backward(rows, weight, output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    rows, weight, argmax = ctx.saved_tensors
    to_rows, to_weight = rows_pool_backward(grad, argmax, rows, weight)
    return to_rows, to_weight, grad.sum(0), None


rows_pool.register_autograd(_backward, setup_context=_setup)
