"""Triton body of `core.rows_pool`: a product whose tiles leave only their maxima behind.

A program multiplies block_m rows of one object by block_n rows of the weight and writes, for each
of these, the largest sum and its row; PyTorch takes the maximum over the R / block_m tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from nf2vec_cli.core.gpu import DOT, Tile, on_device_of, on_hopper
from nf2vec_cli.core.gpu.ahead import Variant

TILES = {
    "float32": Tile(128, 64, 32, warps=8, stages=3),
    "tf32": Tile(128, 128, 32, warps=8, stages=3),
    "bfloat16": Tile(128, 128, 64, warps=8, stages=3),
}
# H100 and H200: 1.3 and 1.2 times as fast; others spill with so few warps
ON_HOPPER = TILES | {
    "tf32": Tile(128, 128, 32, warps=4, stages=3),
    "bfloat16": Tile(128, 128, 64, warps=4, stages=3),
}


@triton.jit
def _pool(
    rows,  # [B, R, K]
    weight,  # [E, K]
    maxima,  # [B, tiles, E]
    argmax,  # [B, tiles, E]
    count,
    embedding,
    into: tl.constexpr,
    precision: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
):
    # neighbours share rows, which are many; the weight stays in the L2 cache
    e = tl.program_id(0) * block_n + tl.arange(0, block_n)
    tile, tiles, item = tl.program_id(1), tl.num_programs(1), tl.program_id(2).to(tl.int64)
    r = tile * block_m + tl.arange(0, block_m)
    k = tl.arange(0, block_k)
    row_at = rows + item * count * into + r[:, None] * into + k
    weight_at = weight + e * into + k[:, None]
    total = tl.zeros((block_m, block_n), tl.float32)
    for start in range(0, into, block_k):
        inside = start + k < into
        x = tl.load(row_at + start, (r < count)[:, None] & inside, other=0.0)
        w = tl.load(weight_at + start, (e < embedding) & inside[:, None], other=0.0)
        total = tl.dot(x.to(w.dtype), w, total, input_precision=precision)
    total = tl.where((r < count)[:, None], total, float("-inf"))
    # NaN is above everything, as `torch.max` has it; of equals the first counts
    wrong = total != total
    best = tl.max(tl.where(wrong, float("inf"), total), 0)
    broken = tl.max(wrong.to(tl.int32), 0) > 0
    wins = tl.where(broken, wrong, total == best)
    winner = tl.min(tl.where(wins, r[:, None], count), 0)
    best = tl.where(broken, float("nan"), best)
    out = (item * tiles + tile) * embedding + e
    tl.store(maxima + out, best, e < embedding)
    tl.store(argmax + out, winner, e < embedding)


@triton.jit
def _grad_to_rows(
    grad,  # [B, E]
    order,  # [B, E], sorted by the row that each number names
    starts,  # [B, R + 1], where a row's numbers start in that order
    weight,  # [E, K]
    out,  # [B, R, K]
    count,
    embedding,
    into: tl.constexpr,
    block_k: tl.constexpr,
):
    row, item = tl.program_id(0), tl.program_id(1).to(tl.int64)
    k = tl.program_id(2) * block_k + tl.arange(0, block_k)
    total = tl.zeros((block_k,), tl.float32)
    start = starts + item * (count + 1) + row
    for place in range(tl.load(start), tl.load(start + 1)):
        e = tl.load(order + item * embedding + place)
        share = tl.load(grad + item * embedding + e).to(tl.float32)
        total += share * tl.load(weight + e * into + k, k < into, other=0.0).to(tl.float32)
    tl.store(out + (item * count + row) * into + k, total, k < into)


@triton.jit
def _grad_to_weight(
    grad,  # [B, E]
    argmax,  # [B, E]
    rows,  # [B, R, K]
    out,  # [E, K]
    batch,
    count,
    embedding,
    into: tl.constexpr,
    block_k: tl.constexpr,
):
    e = tl.program_id(0)
    k = tl.program_id(1) * block_k + tl.arange(0, block_k)
    total = tl.zeros((block_k,), tl.float32)
    here = rows + k
    for item in range(batch):
        row = tl.load(argmax + item * embedding + e)
        share = tl.load(grad + item * embedding + e).to(tl.float32)
        total += share * tl.load(here + row * into, k < into, other=0.0).to(tl.float32)
        here += count * into
    tl.store(out + e * into + k, total, k < into)


def pool(rows: Tensor, weight: Tensor, bias: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Launch the product and take the maximum over tiles: [B, E] maxima and rows (int64)."""
    batch, count, into = rows.shape
    tile = (ON_HOPPER if on_hopper(rows) else TILES)[precision]
    tiles = triton.cdiv(count, tile.block_m)
    maxima = torch.empty(batch, tiles, len(weight), device=rows.device)
    argmax = torch.empty_like(maxima, dtype=torch.int32)
    operand = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if batch:
        with on_device_of(rows):
            _pool[triton.cdiv(len(weight), tile.block_n), tiles, batch](
                rows.contiguous(),
                weight.to(operand).contiguous(),
                maxima,
                argmax,
                count,
                len(weight),
                into,
                DOT[precision],
                **tile.blocks,
                num_warps=tile.warps,
                num_stages=tile.stages,
                enable_fp_fusion=True,
            )
    best = maxima.max(1)
    winners = argmax.gather(1, best.indices[:, None])[:, 0]
    # a sum with the bias is rounded after the maximum as before it: rounding keeps the order
    return (best.values + bias).to(weight.dtype), winners.long()


def grad_to_rows(grad: Tensor, argmax: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Add up, for each row, what it has of the maxima: [B, R, K]. No atomics, so no chance."""
    batch, count, into = rows.shape
    out = torch.empty(batch, count, into, dtype=rows.dtype, device=rows.device)
    named, order = argmax.sort(dim=1, stable=True)
    edges = torch.arange(count + 1, device=rows.device).repeat(batch, 1)
    starts = torch.searchsorted(named, edges)
    block = block_of(into)
    if batch:
        with on_device_of(rows):
            _grad_to_rows[count, batch, triton.cdiv(into, block)](
                grad.contiguous(),
                order,
                starts,
                weight.contiguous(),
                out,
                count,
                len(weight),
                into,
                block,
                enable_fp_fusion=True,
            )
    return out


def grad_to_weight(grad: Tensor, argmax: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Add up what each number of the embeddings has of the rows it names: [E, K]."""
    batch, count, into = rows.shape
    out = torch.empty(weight.shape, dtype=weight.dtype, device=rows.device)
    block = block_of(into)
    with on_device_of(rows):
        _grad_to_weight[len(weight), triton.cdiv(into, block)](
            grad.contiguous(),
            argmax.contiguous(),
            rows.contiguous(),
            out,
            batch,
            count,
            len(weight),
            into,
            block,
            enable_fp_fusion=True,
        )
    return out


def block_of(into: int) -> int:
    """How many numbers of a row a program of the backward has: all of them, up to 1,024."""
    return min(1024, int(triton.next_power_of_2(into)))


def _variants(size: str, into: int) -> Iterator[Variant]:
    block = block_of(into)
    for precision, hopper in product(TILES, (False, True)):
        tile = (ON_HOPPER if hopper else TILES)[precision]
        operand = "*bf16" if precision == "bfloat16" else "*fp32"
        yield Variant(
            f"rows_pool {size} {precision}",
            _pool,
            {"rows": operand, "weight": operand, "maxima": "*fp32", "argmax": "*i32"}
            | {"count": "i32", "embedding": "i32", "into": "constexpr", "precision": "constexpr"}
            | dict.fromkeys(tile.blocks, "constexpr"),
            {"into": into, "precision": DOT[precision], **tile.blocks},
            tile.warps,
            tile.stages,
            architectures=(90,) if hopper else (80, 100),
        )
    constants, constant = (
        {"into": into, "block_k": block},
        {"into": "constexpr", "block_k": "constexpr"},
    )
    pointers = {"grad": "*fp32", "order": "*i64", "starts": "*i64", "weight": "*fp32"}
    sizes = {"out": "*bf16", "count": "i32", "embedding": "i32", **constant}
    yield Variant(f"rows_pool to rows {size}", _grad_to_rows, pointers | sizes, constants)
    pointers = {"grad": "*fp32", "argmax": "*i64", "rows": "*bf16", "out": "*fp32"}
    sizes = {"batch": "i32", "count": "i32", "embedding": "i32", **constant}
    yield Variant(f"rows_pool to weight {size}", _grad_to_weight, pointers | sizes, constants)


VARIANTS = [*_variants("paper", 1024), *_variants("small", 256)]
