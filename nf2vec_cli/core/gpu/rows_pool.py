"""Triton body of `core.rows_pool`: a product whose tiles leave only their maxima behind.

A program multiplies BLOCK_R rows of one object by BLOCK_E rows of the weight and writes, for each
of these, the largest sum and its row; PyTorch takes the maximum over the R / BLOCK_R tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from nf2vec_cli.core.gpu.ahead import Variant


@dataclass(frozen=True)
class Tile:
    """What a program of the product holds at once, and how many warps it has."""

    BLOCK_R: int
    BLOCK_E: int
    BLOCK_K: int
    warps: int
    stages: int

    @property
    def constants(self) -> dict[str, int]:
        return {name: size for name, size in asdict(self).items() if name.startswith("BLOCK")}


TILES = {
    "ieee": Tile(128, 64, 16, warps=8, stages=3),
    "tf32": Tile(128, 128, 32, warps=8, stages=3),
    "bf16": Tile(128, 128, 64, warps=8, stages=3),
}


@triton.jit
def _pool(
    rows,  # [B, R, K]
    weight,  # [E, K]
    maxima,  # [B, tiles, E]
    argmax,  # [B, tiles, E]
    R,
    E,
    K: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # neighbours share rows, which are many; the weight stays in the L2 cache
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    tile, tiles, item = tl.program_id(1), tl.num_programs(1), tl.program_id(2).to(tl.int64)
    r = tile * BLOCK_R + tl.arange(0, BLOCK_R)
    k = tl.arange(0, BLOCK_K)
    row_at = rows + item * R * K + r[:, None] * K + k
    weight_at = weight + e * K + k[:, None]
    total = tl.zeros((BLOCK_R, BLOCK_E), tl.float32)
    for start in range(0, K, BLOCK_K):
        inside = start + k < K
        x = tl.load(row_at + start, (r < R)[:, None] & inside, other=0.0)
        w = tl.load(weight_at + start, (e < E) & inside[:, None], other=0.0)
        total = tl.dot(x.to(w.dtype), w, total, input_precision=PRECISION)
    total = tl.where((r < R)[:, None], total, float("-inf"))
    # NaN is above everything, as `torch.max` has it; of equals the first counts
    wrong = total != total
    best = tl.max(tl.where(wrong, float("inf"), total), 0)
    broken = tl.max(wrong.to(tl.int32), 0) > 0
    wins = tl.where(broken, wrong, total == best)
    winner = tl.min(tl.where(wins, r[:, None], R), 0)
    best = tl.where(broken, float("nan"), best)
    out = (item * tiles + tile) * E + e
    tl.store(maxima + out, best, e < E)
    tl.store(argmax + out, winner, e < E)


@triton.jit
def _grad_to_rows(
    grad,  # [B, E]
    order,  # [B, E], sorted by the row that each number names
    starts,  # [B, R + 1], where a row's numbers start in that order
    weight,  # [E, K]
    out,  # [B, R, K]
    R,
    E,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row, item = tl.program_id(0), tl.program_id(1).to(tl.int64)
    k = tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_K,), tl.float32)
    start = starts + item * (R + 1) + row
    for place in range(tl.load(start), tl.load(start + 1)):
        e = tl.load(order + item * E + place)
        share = tl.load(grad + item * E + e).to(tl.float32)
        total += share * tl.load(weight + e * K + k, k < K, other=0.0).to(tl.float32)
    tl.store(out + (item * R + row) * K + k, total, k < K)


@triton.jit
def _grad_to_weight(
    grad,  # [B, E]
    argmax,  # [B, E]
    rows,  # [B, R, K]
    out,  # [E, K]
    B,
    R,
    E,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    e = tl.program_id(0)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_K,), tl.float32)
    here = rows + k
    for item in range(B):
        row = tl.load(argmax + item * E + e)
        share = tl.load(grad + item * E + e).to(tl.float32)
        total += share * tl.load(here + row * K, k < K, other=0.0).to(tl.float32)
        here += R * K
    tl.store(out + e * K + k, total, k < K)


def pool(rows: Tensor, weight: Tensor, bias: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Launch the product and take the maximum over tiles: [B, E] maxima and rows (int64)."""
    batch, count, into = rows.shape
    tile = TILES[precision]
    tiles = triton.cdiv(count, tile.BLOCK_R)
    maxima = torch.empty(batch, tiles, len(weight), device=rows.device)
    argmax = torch.empty_like(maxima, dtype=torch.int32)
    operand = torch.bfloat16 if precision == "bf16" else torch.float32
    if batch:
        _pool[triton.cdiv(len(weight), tile.BLOCK_E), tiles, batch](
            rows.contiguous(),
            weight.to(operand).contiguous(),
            maxima,
            argmax,
            count,
            len(weight),
            into,
            _input_precision(precision),
            **tile.constants,
            num_warps=tile.warps,
            num_stages=tile.stages,
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
        )
    return out


def grad_to_weight(grad: Tensor, argmax: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Add up what each number of the embeddings has of the rows it names: [E, K]."""
    batch, count, into = rows.shape
    out = torch.empty(weight.shape, dtype=weight.dtype, device=rows.device)
    block = block_of(into)
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
    )
    return out


def block_of(into: int) -> int:
    """How many numbers of a row a program of the backward has: all of them, up to 1,024."""
    return min(1024, triton.next_power_of_2(into))


def _input_precision(precision: str) -> str:
    return "ieee" if precision == "bf16" else precision  # of products of float32 alone


def _variants(size: str, into: int) -> Iterator[Variant]:
    block = block_of(into)
    for precision, tile in TILES.items():
        operand = "*bf16" if precision == "bf16" else "*fp32"
        yield Variant(
            f"rows_pool {size} {precision}",
            _pool,
            {"rows": operand, "weight": operand, "maxima": "*fp32", "argmax": "*i32"}
            | {"R": "i32", "E": "i32", "K": "constexpr", "PRECISION": "constexpr"}
            | dict.fromkeys(tile.constants, "constexpr"),
            {"K": into, "PRECISION": _input_precision(precision), **tile.constants},
            tile.warps,
            tile.stages,
        )
    constants, constant = {"K": into, "BLOCK_K": block}, {"K": "constexpr", "BLOCK_K": "constexpr"}
    pointers = {"grad": "*fp32", "order": "*i64", "starts": "*i64", "weight": "*fp32"}
    sizes = {"out": "*bf16", "R": "i32", "E": "i32", **constant}
    yield Variant(f"rows_pool to rows {size}", _grad_to_rows, pointers | sizes, constants)
    pointers = {"grad": "*fp32", "argmax": "*i64", "rows": "*bf16", "out": "*fp32"}
    sizes = {"B": "i32", "R": "i32", "E": "i32", **constant}
    yield Variant(f"rows_pool to weight {size}", _grad_to_weight, pointers | sizes, constants)


VARIANTS = [*_variants("paper", 1024), *_variants("small", 256)]
