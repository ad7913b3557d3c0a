"""Triton body of `core.decode`: all layers of the decoder for a block of points in one program.

A layer is a product of block_m points and all hidden units, in blocks of columns. At 512 units the
activations of a layer are too many for registers beside the sums of the next, so they go through a
scratch of the program's own in global memory, two layers in turns. Programs are as many as run at
once, each takes one block of points after another, and the scratch of all stays in the L2 cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from nf2vec_cli.core.decode import code_width
from nf2vec_cli.core.gpu import DOT, Tile, on_device_of, on_hopper
from nf2vec_cli.core.gpu.ahead import Variant
from nf2vec_cli.core.gpu.sine import phase, phase_of_half_turns, sine_or_cosine

CODE = 32  # columns of the code are filled up to a multiple of this

# No register is spilt on sm_80, sm_90 or sm_100. At 512 units the scratch of a program is 139 KB in
# bfloat16 and 279 KB in float32: 18 and 37 MB of the 50 MB of L2 cache of an H100 with 132
# multiprocessors. At 1,024 units in float32 it is 75 MB, more than that cache.
TILES = {
    "float32": Tile(64, 128, 16, warps=8, stages=3),
    "tf32": Tile(64, 128, 16, warps=8, stages=3),
    "bfloat16": Tile(64, 256, 64, warps=8, stages=3),
}
# H100 and H200 have room for more: in tf32 twice as fast
ON_HOPPER = TILES | {
    "float32": Tile(128, 64, 32, warps=8, stages=3),
    "tf32": Tile(64, 256, 32, warps=8, stages=3),
}


@triton.jit
def _coded(x, column, octaves: tl.constexpr, turns: tl.constexpr):
    """Code points: x[d] [M], columns [C] -> [M, C], zeros beyond the last column."""
    if turns:
        axis, rest = column // (2 * octaves), column % (2 * octaves)
        octave, is_cosine, width = rest // 2, rest % 2, 6 * octaves
        plain = column < 0
    else:
        rest = tl.maximum(column - 3, 0)
        octave, axis, is_cosine = rest // 6, rest % 3, rest % 6 // 3
        plain, width = column < 3, 3 + 6 * octaves
        axis = tl.where(plain, column, axis)
    factor = (1 << tl.minimum(octave, octaves - 1)).to(tl.float32)
    value = tl.where(axis == 0, x[0][:, None], tl.where(axis == 1, x[1][:, None], x[2][:, None]))
    r = phase_of_half_turns((value + 1.0) * 0.5 * factor) if turns else phase(value * factor)
    found = tl.where(plain, value, sine_or_cosine(r, is_cosine != 0))
    return tl.where(column < width, found, 0.0)


@triton.jit
def _product(
    source,
    weight,
    into: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
):
    """Multiply activations, one row a point, by rows of a weight matrix: [M, N]."""
    k = tl.arange(0, block_k)
    total = tl.zeros((block_m, block_n), tl.float32)
    for start in range(0, into, block_k):
        h = tl.load(source + start + k)
        w = tl.load(weight + start + k[:, None])
        total = tl.dot(h, w, total, input_precision=precision)
    return total


@triton.jit
def _relu(x):
    return tl.where(x < 0, 0.0, x)  # NaN stays


@triton.jit
def _decode(
    of_object,  # [2, B, H]
    of_code,  # [2, H, C]
    weights,  # [4, H, H]
    biases,  # [4, H]
    last_weight,  # [block_v, H]
    last_bias,  # [V]
    coords,  # [B, M, 3]
    scratch,  # [programs, block_m, 2 H + C]
    out,  # [B, M, V]
    batch,
    points,
    outputs,
    hidden: tl.constexpr,
    width: tl.constexpr,
    octaves: tl.constexpr,
    turns: tl.constexpr,
    precision: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    block_c: tl.constexpr,
    block_v: tl.constexpr,
):
    stride: tl.constexpr = 2 * hidden + width
    of_point, n = tl.arange(0, block_m), tl.arange(0, block_n)
    mine = scratch + tl.program_id(0).to(tl.int64) * block_m * stride + of_point[:, None] * stride
    codes = mine + 2 * hidden
    blocks = tl.cdiv(points, block_m)
    for block in range(tl.program_id(0), batch * blocks, tl.num_programs(0)):
        item, first = block // blocks, block % blocks * block_m
        there = first + of_point < points
        point = item.to(tl.int64) * points + first + of_point
        x = (
            tl.load(coords + point * 3, there, other=0.0),
            tl.load(coords + point * 3 + 1, there, other=0.0),
            tl.load(coords + point * 3 + 2, there, other=0.0),
        )
        for start in range(0, width, block_c):
            column = start + tl.arange(0, block_c)
            coded = _coded(x, column[None], octaves, turns)
            tl.store(codes + column, coded.to(scratch.dtype.element_ty))
        tl.debug_barrier()
        for start in range(0, hidden, block_n):
            rows = start + n
            total = _product(
                codes, of_code + rows * width, width, block_m, block_n, block_c, precision
            )
            total += tl.load(of_object + item * hidden + rows)
            tl.store(mine + rows, _relu(total).to(scratch.dtype.element_ty))
        tl.debug_barrier()
        for layer in range(4):
            source = mine + layer % 2 * hidden
            target = mine + (1 - layer % 2) * hidden
            for start in range(0, hidden, block_n):
                rows = start + n
                weight = weights + (layer * hidden + rows) * hidden
                total = _product(source, weight, hidden, block_m, block_n, block_k, precision)
                total = _relu(total + tl.load(biases + layer * hidden + rows))
                if layer == 1:
                    skip = _product(
                        codes,
                        of_code + (hidden + rows) * width,
                        width,
                        block_m,
                        block_n,
                        block_c,
                        precision,
                    )
                    total += _relu(skip + tl.load(of_object + (batch + item) * hidden + rows))
                tl.store(target + rows, total.to(scratch.dtype.element_ty))
            tl.debug_barrier()
        v = tl.arange(0, block_v)
        total = _product(
            mine, last_weight + v * hidden, hidden, block_m, block_v, block_k, precision
        )
        total += tl.load(last_bias + v, v < outputs, other=0.0)
        tl.store(out + point[:, None] * outputs + v, total, there[:, None] & (v < outputs))


def decoded(
    of_object: Tensor,
    of_code: Tensor,
    weights: Tensor,
    biases: Tensor,
    last_weight: Tensor,
    last_bias: Tensor,
    coords: Tensor,
    octaves: int,
    coding: str,
    precision: str,
) -> Tensor:
    """Launch the decoder; its arguments are those of `core.decode.decode`."""
    batch, points, _ = coords.shape
    outputs, units = last_weight.shape
    tile = tile_of(units, precision, hopper=on_hopper(coords))
    operand = torch.bfloat16 if precision == "bfloat16" else torch.float32
    # zeros are added to no sum: sizes are filled up to whole blocks
    width = -(-of_code.shape[2] // CODE) * CODE
    more = -units % tile.block_n
    block_v = max(16, int(triton.next_power_of_2(outputs)))
    found = torch.empty(batch, points, outputs, device=coords.device)
    blocks = batch * int(triton.cdiv(points, tile.block_m))
    programs = min(blocks, _at_once(coords))
    if not programs:
        return found.to(coords.dtype)
    stride = 2 * (units + more) + width
    with on_device_of(coords):
        _decode[programs,](
            pad(of_object.float(), (0, more)).contiguous(),
            pad(of_code.to(operand), (0, width - of_code.shape[2], 0, more)).contiguous(),
            pad(weights.to(operand), (0, more, 0, more)).contiguous(),
            pad(biases.float(), (0, more)).contiguous(),
            pad(last_weight.to(operand), (0, more, 0, block_v - outputs)).contiguous(),
            last_bias.float().contiguous(),
            coords.float().contiguous(),
            torch.empty(programs, tile.block_m, stride, dtype=operand, device=coords.device),
            found,
            batch,
            points,
            outputs,
            units + more,
            width,
            octaves,
            coding == "turns",
            dot_of(precision, hopper=on_hopper(coords)),
            **tile.blocks,
            block_c=CODE,
            block_v=block_v,
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=True,
        )
    return found.to(coords.dtype)


def tile_of(units: int, precision: str, *, hopper: bool) -> Tile:
    """Choose the tile: no more columns than there are units."""
    tile = (ON_HOPPER if hopper else TILES)[precision]
    return tile if units > 128 else replace(tile, block_n=min(tile.block_n, 128))


def dot_of(precision: str, *, hopper: bool) -> str:
    """Name the products: in float32 others have no registers for those of three parts."""
    return "ieee" if precision == "float32" and not hopper else DOT[precision]


def _at_once(x: Tensor) -> int:
    """How many programs run: one a multiprocessor; under the interpreter a few take turns too."""
    if not x.is_cuda:
        return 3
    return torch.cuda.get_device_properties(x.device).multi_processor_count


def _variants() -> Iterator[Variant]:
    sizes = {"batch": "i32", "points": "i32", "outputs": "i32"}
    for name, units, octaves, coding in (
        ("paper", 512, 10, "radians"),
        ("small", 128, 10, "radians"),
        ("radiance", 1024, 24, "turns"),
    ):
        for precision, hopper in product(TILES, (False, True)):
            tile = tile_of(units, precision, hopper=hopper)
            operand = "*bf16" if precision == "bfloat16" else "*fp32"
            constants = {
                "hidden": units,
                "width": -(-code_width(octaves, coding) // CODE) * CODE,
                "octaves": octaves,
                "turns": coding == "turns",
                "precision": dot_of(precision, hopper=hopper),
                **tile.blocks,
                "block_c": CODE,
                "block_v": 16,
            }
            pointers = {
                "of_object": "*fp32",
                "of_code": operand,
                "weights": operand,
                "biases": "*fp32",
                "last_weight": operand,
                "last_bias": "*fp32",
                "coords": "*fp32",
                "scratch": operand,
                "out": "*fp32",
            }
            signature = pointers | sizes | dict.fromkeys(constants, "constexpr")
            yield Variant(
                f"decode {name} {precision}",
                _decode,
                signature,
                constants,
                tile.warps,
                tile.stages,
                architectures=(90,) if hopper else (80, 100),
            )


VARIANTS = [*_variants()]
