"""Streamed exact top-k: each query's best rows, without the matrix of all scores."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nf2vec_cli.core.gpu import on_device_of, on_hopper
from nf2vec_cli.core.gpu.ahead import Variant

TILE, WARPS = {"BLOCK_Q": 64, "BLOCK_N": 128, "BLOCK_E": 16}, 8
# H100 and H200, where few are kept: 2.2 times as fast; more would spill
FEW, FEW_WARPS, FEW_KEPT = {"BLOCK_Q": 64, "BLOCK_N": 64, "BLOCK_E": 32}, 4, 32
STAGES = 3
LOWEST = tl.constexpr(-(1 << 31))  # code of what is no row, below that of any score


@triton.jit
def top_rows(
    queries,  # [Q, E]
    gallery,  # [N, E]
    scale,  # [N]
    shift,  # [N]
    keys,  # [Q, S, K] int64
    count,  # Q
    rows,  # N
    part,  # rows of the gallery that one program looks at
    E: tl.constexpr,
    K: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Keep the K best of one part of the gallery for BLOCK_Q queries: score = q g scale + shift.

    A key is the score, as an integer in the same order, above what the row lacks to 2^31 - 1: keys
    are ordered, all different, and of equal scores the first row has the greatest.
    """
    split = tl.program_id(1)
    q = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    e, column, slot = tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_N), tl.arange(0, K)
    best = tl.zeros([BLOCK_Q, K], tl.int64) + ((tl.full([], LOWEST, tl.int64) << 32) + slot)
    for start in range(split * part, tl.minimum((split + 1) * part, rows), BLOCK_N):
        n = start + column
        scores = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
        for at in range(0, E, BLOCK_E):
            here = tl.load(
                queries + q[:, None].to(tl.int64) * E + at + e,
                mask=(q < count)[:, None] & (at + e < E),
                other=0.0,
            )
            there = tl.load(
                gallery + n[:, None].to(tl.int64) * E + at + e,
                mask=(n < rows)[:, None] & (at + e < E),
                other=0.0,
            )
            # tf32 alone has 10 bits: it would swap more neighbours than are kept to spare
            scores = tl.dot(here, there.T, scores, input_precision="tf32x3")
        scores = scores * tl.load(scale + n, mask=n < rows, other=0.0)
        scores += tl.load(shift + n, mask=n < rows, other=0.0)
        scores = tl.where(scores == scores, scores, float("-inf"))
        code = scores.to(tl.int32, bitcast=True)
        code = tl.where(code < 0, code ^ 0x7FFFFFFF, code)
        code = tl.where((n < rows) & (q < count)[:, None], code, LOWEST)
        # the block's best against the worst that is kept, until none of the queries gains: 2.6
        # steps a block, the mean over 100,000 random rows at K = 32, less work than a sort
        gains = 1
        while gains > 0:
            top, place = tl.max(code, 1, return_indices=True, return_indices_tie_break_left=True)
            row = (start + place).to(tl.int64)
            key = (top.to(tl.int64) << 32) + (0x7FFFFFFF - row)
            worst = tl.min(best, 1)
            better = (top != LOWEST) & (key > worst)
            replaced = better[:, None] & (best == worst[:, None])
            best = tl.where(replaced, key[:, None], best)
            code = tl.where(column == place[:, None], LOWEST, code)
            gains = tl.max(better.to(tl.int32), 0)
    target = (q[:, None].to(tl.int64) * tl.num_programs(1) + split) * K + slot
    tl.store(keys + target, best, mask=(q < count)[:, None])


def streamed_rows(queries: Tensor, gallery: Tensor, scale: Tensor, shift: Tensor, k: int) -> Tensor:
    """Give the k rows of the greatest q g scale + shift: [Q, k], in no order.

    Of equal scores the first rows are taken; scores that are no number come last.
    """
    queries, gallery = queries.contiguous(), gallery.contiguous()
    (count, size), rows = queries.shape, len(gallery)
    kept = max(16, triton.next_power_of_2(k))
    few = kept <= FEW_KEPT and on_hopper(queries)
    tile, warps = (FEW, FEW_WARPS) if few else (TILE, WARPS)
    blocks = triton.cdiv(count, tile["BLOCK_Q"])
    # a part of few rows would be merged more than it is searched
    splits = max(1, min(_programs(queries) // max(blocks, 1), triton.cdiv(rows, 16 * kept)))
    part = triton.cdiv(triton.cdiv(rows, splits), tile["BLOCK_N"]) * tile["BLOCK_N"]
    splits = triton.cdiv(rows, max(part, 1))
    keys = torch.empty(count, splits, kept, dtype=torch.int64, device=queries.device)
    if count and k:
        with on_device_of(queries):
            top_rows[blocks, splits](
                *(queries, gallery, scale, shift, keys, count, rows, part, size, kept),
                **tile,
                num_warps=warps,
                num_stages=STAGES,
            )
    found: Tensor = keys.flatten(1).topk(k, dim=1, sorted=False).values
    return ~found & 0x7FFFFFFF


def _programs(x: Tensor) -> int:
    """Give how many programs keep a GPU busy: two a multiprocessor."""
    if not x.is_cuda:
        return 2
    return 2 * torch.cuda.get_device_properties(x.device).multi_processor_count


def _variant(
    kept: int, tile: dict[str, int], warps: int, architectures: tuple[int, ...]
) -> Variant:
    pointers = dict.fromkeys(("queries", "gallery", "scale", "shift"), "*fp32")
    sizes = {"keys": "*i64", "count": "i32", "rows": "i32", "part": "i32"}
    return Variant(
        f"neighbours-{kept}",
        top_rows,
        pointers | sizes | dict.fromkeys(("E", "K", *tile), "constexpr"),
        {"E": 1024, "K": kept, **tile},
        warps,
        STAGES,
        architectures=architectures,
    )


VARIANTS = [
    _variant(32, TILE, WARPS, (80, 100)),
    _variant(32, FEW, FEW_WARPS, (90,)),
    _variant(128, TILE, WARPS, (80, 90, 100)),
]
