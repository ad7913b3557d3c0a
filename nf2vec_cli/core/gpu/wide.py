"""Networks of more than 128 units: batched products with what follows them in the same pass.

A layer's sums leave the multiprocessor as its outputs and, for the gradient, as phases: bias,
factor and sine cost no traffic of their own, nor does the cosine on the way down. Eager, that
traffic costs as much as the products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nf2vec_cli.core.device import quick_products
from nf2vec_cli.core.gpu import Tile, on_device_of
from nf2vec_cli.core.gpu.ahead import Variant
from nf2vec_cli.core.gpu.mlp import DOT, block, kept_of, product, response, sloped
from nf2vec_cli.core.mlp import Network, coded, views

PLAIN, LAYER, SLOPED = 0, 1, 2  # what follows a product


@triton.jit
def product_kernel(
    a, b, c, bias, kept, M, N, K,
    a_one, a_row, a_column, b_one, b_row, b_column, c_one, c_row, bias_one,
    OMEGA: tl.constexpr, THEN: tl.constexpr, BIASES: tl.constexpr, KEEP: tl.constexpr,
    PRECISION: tl.constexpr, TM: tl.constexpr, TN: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """Multiply [M, K] by [K, N] for each object; `kept` lies as `c` does."""
    one = tl.program_id(1).to(tl.int64)
    across = tl.cdiv(N, TN)
    top = tl.program_id(0) // across * TM
    row = tl.arange(0, TM)
    column = (tl.program_id(0) % across) * TN + tl.arange(0, TN)
    inner = tl.arange(0, TK)
    # rows of a batch of points may lie beyond 2^31 numbers, those of a tile do not
    a += one * a_one + top.to(tl.int64) * a_row
    at_a = a + row[:, None] * a_row + inner[None, :] * a_column
    at_b = b + one * b_one + inner[:, None] * b_row + column[None, :] * b_column
    corner = one * c_one + top.to(tl.int64) * c_row
    place = row[:, None] * c_row + column[None, :]
    found = tl.zeros([TM, TN], tl.float32)
    for start in range(0, K, TK):
        left = (top + row < M)[:, None] & (start + inner < K)[None, :]
        right = (start + inner < K)[:, None] & (column < N)[None, :]
        found += product(
            tl.load(at_a, mask=left, other=0.0), tl.load(at_b, mask=right, other=0.0), PRECISION
        )
        at_a += TK * a_column
        at_b += TK * b_row
    inside = (top + row < M)[:, None] & (column < N)[None, :]
    if BIASES:
        found += tl.load(bias + one * bias_one + column, mask=column < N, other=0.0)[None, :]
    if THEN == 1:
        found = kept_of(found, OMEGA)
        if KEEP:
            tl.store(kept + corner + place, found, mask=inside)
        found = response(found, OMEGA)
    if THEN == 2:
        found = sloped(found, tl.load(kept + corner + place, mask=inside, other=0.0), OMEGA)
    tl.store(c + corner + place, found, mask=inside)


# none spills on sm_80, 90 or 100. Those of tf32 were quick among 16 on an H100; the others have as
# many columns as spill nothing, and were measured in whole steps alone
TILES = {
    PLAIN: Tile(128, 128, 32, warps=8, stages=3),
    LAYER: Tile(128, 128, 32, warps=8, stages=3),
    SLOPED: Tile(128, 64, 32, warps=4, stages=3),
}
OTHERS = {
    "float32": TILES | dict.fromkeys((LAYER, SLOPED), Tile(128, 64, 32, warps=8, stages=3)),
    "bfloat16": {
        PLAIN: Tile(128, 128, 64, warps=8, stages=3),
        LAYER: Tile(128, 64, 64, warps=8, stages=3),
        SLOPED: Tile(128, 64, 64, warps=8, stages=3),
    },
}
WIDTH = 512  # of what is compiled ahead


@dataclass
class Kept:
    """What the way down needs: each layer's inputs, and phases (of ReLU, outputs)."""

    inputs: list[Tensor]
    phases: list[Tensor]


def values(
    theta: Tensor,  # [B, P]
    coords: Tensor,  # [B, M, 3]
    spec: Network,
    precision: str,
    kept: Kept | None = None,
) -> Tensor:  # [B, M, V]
    """Evaluate B networks, each at its own points; fill `kept` for the gradient."""
    weights, biases = views(theta.contiguous(), spec.shapes, spec.biases)
    h = coded(coords, spec.octaves).contiguous()
    low = low_precision(precision)
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        last = layer == spec.layers
        out = h.new_empty(*h.shape[:2], w.shape[1], dtype=torch.float32 if last else low)
        phases = out.new_empty(out.shape if kept and not last else 0, dtype=torch.float32)
        if kept:
            kept.inputs.append(h)
            kept.phases.append(phases)
        multiply(
            h, _aligned(w, low if layer else torch.float32).mT, out, spec, precision,
            # the factor makes angles of coordinates: rounded, they would be off by hundredths
            exact=not layer and not spec.octaves,
            then=PLAIN if last else LAYER, bias=b if spec.biases else None,
            kept=phases if phases.numel() else None,
        )  # fmt: skip
        h = out
    return h


def gradient(
    theta: Tensor,  # [B, P]
    coords: Tensor,  # [B, M, 3]
    slopes: Tensor,  # [B, M, V]
    spec: Network,
    precision: str,
    kept: Kept | None = None,
    out: Tensor | None = None,  # [B, P]
) -> Tensor:  # [B, P]
    """Give the gradient of a loss to theta, from its slope to each of `values`.

    kept: what `values` filled, or None: it is computed anew. out: where it goes, if given.
    """
    if kept is None:
        kept = Kept([], [])
        values(theta, coords, spec, precision, kept)
    found = theta.new_empty(theta.shape) if out is None else out
    if not slopes.numel():
        return found.zero_()
    low = low_precision(precision)
    weights, _ = views(theta.contiguous(), spec.shapes, spec.biases)
    grad_w, grad_b = views(found, spec.shapes, spec.biases)
    back = slopes.contiguous()
    for layer in range(spec.layers, -1, -1):
        _to_weights(back, kept.inputs[layer], grad_w[layer], spec, precision)
        if spec.biases:
            torch.sum(back, 1, dtype=torch.float32, out=grad_b[layer])
        if layer:
            down = back.new_empty(kept.phases[layer - 1].shape, dtype=low)
            multiply(
                back, _down(weights[layer], low), down, spec, precision,
                then=SLOPED, kept=kept.phases[layer - 1],
            )  # fmt: skip
            back = down
    return found


def _to_weights(
    back: Tensor,  # [B, M, N]
    inputs: Tensor,  # [B, M, K]
    out: Tensor,  # [B, N, K]
    spec: Network,
    precision: str,
) -> None:
    """Give the gradient to a layer's matrix: nothing follows the product."""
    if precision == "tf32":
        # its operands lie across what tensor cores read of tf32: cuBLAS takes 0.29 ms where the
        # kernel takes 1.1 (64 objects, 2,048 points, 512 units, H100)
        with quick_products():
            out.copy_(torch.bmm(back.mT, inputs))
    else:
        multiply(back.mT, inputs, out, spec, precision)


def multiply(
    a: Tensor,  # [B, M, K]
    b: Tensor,  # [B, K, N]
    out: Tensor,  # [B, M, N], its rows in one piece
    spec: Network,
    precision: str,
    *,
    exact: bool = False,
    then: int = PLAIN,
    bias: Tensor | None = None,  # [B, N]
    kept: Tensor | None = None,  # [B, M, N]
) -> None:
    """Compute a product and what follows it."""
    (batch, rows, inner), columns = a.shape, b.shape[2]
    if not out.numel():
        return
    tile = tile_of(precision, then)
    with on_device_of(out):
        tm, tn = min(tile.block_m, block(rows)), min(tile.block_n, block(columns))
        product_kernel[(triton.cdiv(rows, tm) * triton.cdiv(columns, tn), batch)](
            a, b, out, out if bias is None else bias, out if kept is None else kept,
            rows, columns, inner, *a.stride(), *b.stride(), *out.stride()[:2],
            0 if bias is None else bias.stride(0),
            PRECISION="ieee" if exact else DOT[precision],
            OMEGA=float(spec.omega) if spec.activation == "sine" else 0.0,
            THEN=then, BIASES=bias is not None, KEEP=kept is not None,
            TM=tm, TN=tn, TK=min(tile.block_k, block(inner)),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip


def tile_of(precision: str, then: int) -> Tile:
    """Choose what a program holds; with phases besides it is less."""
    return OTHERS.get(precision, TILES)[then]


def low_precision(precision: str) -> torch.dtype:
    """Give the type in which activations are kept between products."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _aligned(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy matrices of theta, where they lie at odd places, which no wide load can read."""
    return matrices.to(dtype, memory_format=torch.contiguous_format, copy=True)


def _down(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy matrices for the way down: of numbers of 4 bytes, tensor cores read K first.

    In tf32 0.43 ms instead of 0.88 (64 objects, 2,048 points, 512 units, H100).
    """
    if dtype == torch.bfloat16:
        return _aligned(matrices, dtype)
    return _aligned(matrices.mT, dtype).mT


def _variant(precision: str, then: int) -> Variant:
    low, tile = "*bf16" if precision == "bfloat16" else "*fp32", tile_of(precision, then)
    # steps as `values` and `gradient` lay the operands; a launch finds out what they divide by
    near, far = {
        PLAIN: (("a_row", "b_column"), ("a_column", "b_row", "M", "N")),
        LAYER: (("a_column", "b_row"), ("a_row", "b_column", "K", "N")),
        SLOPED: (("a_column", "b_column"), ("a_row", "b_row", "K", "N")),
    }[then]
    if then == SLOPED and precision != "bfloat16":
        near, far = ("a_column", "b_row"), ("a_row", "b_column", "K", "N")
    chosen: dict[str, Any] = {
        **dict.fromkeys(near, 1), **dict.fromkeys((*far, "c_row"), WIDTH),
        "OMEGA": 30.0, "THEN": then, "BIASES": then == LAYER, "KEEP": then != PLAIN,
        "PRECISION": DOT[precision], "TM": tile.block_m, "TN": tile.block_n, "TK": tile.block_k,
    }  # fmt: skip
    kinds = {"a": low, "b": low, "c": "*fp32" if then == PLAIN else low}
    kinds |= {"bias": "*fp32", "kept": "*fp32"}
    signature = {
        name: "constexpr" if name in chosen else kinds.get(name, "i32")
        for name in product_kernel.arg_names
    }
    name = ("product", "sine", "cosine")[then]
    return Variant(
        f"wide_{name}_{precision}", product_kernel, signature, chosen, tile.warps, tile.stages
    )


VARIANTS = [_variant(p, then) for p in DOT for then in (PLAIN, LAYER, SLOPED)]
