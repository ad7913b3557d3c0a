"""Samples of rays in occupied cells, of several fields at once: counted, then written."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nf2vec_cli.core.gpu import on_device_of
from nf2vec_cli.core.gpu.ahead import Variant

TILE = {"BLOCK_R": 8, "BLOCK_S": 64}
WARPS = 4


@triton.jit
def lattice_samples(
    origins,  # [B, R, 3]
    directions,  # [B, R, 3]
    near,  # [B, R]
    first,  # [B, R] int32: place of the first lattice point that is looked up
    span,  # [B, R] int32: how many are
    grids,  # [B, BYTES] uint8
    counts,  # [B, R] int32: written unless WRITE
    before,  # [B, R] int64: samples of all rays before; read if WRITE
    ray,  # [M] int64: written if WRITE
    place,  # [M] int16: written if WRITE
    rays,  # R
    step,
    SIDE: tl.constexpr,
    BYTES: tl.constexpr,
    WRITE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Look up the lattice points of BLOCK_R rays, BLOCK_S of each at once.

    The same operations on the same numbers as the twin, none of them fused: so a point is in the
    same cell, and the samples are the same to the last.
    """
    field = tl.program_id(1).to(tl.int64)
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    known = r < rays
    at = field * rays + r
    start = tl.load(near + at, mask=known, other=0.0)
    lowest = tl.load(first + at, mask=known, other=0)
    length = tl.load(span + at, mask=known, other=0)
    o_x = tl.load(origins + at * 3, mask=known, other=0.0)
    o_y = tl.load(origins + at * 3 + 1, mask=known, other=0.0)
    o_z = tl.load(origins + at * 3 + 2, mask=known, other=0.0)
    d_x = tl.load(directions + at * 3, mask=known, other=0.0)
    d_y = tl.load(directions + at * 3 + 1, mask=known, other=0.0)
    d_z = tl.load(directions + at * 3 + 2, mask=known, other=0.0)
    found = tl.zeros([BLOCK_R], tl.int32)
    if WRITE:
        offset = tl.load(before + at, mask=known, other=0)
    for base in range(0, tl.max(length, 0), BLOCK_S):
        number = base + tl.arange(0, BLOCK_S)
        k = lowest[:, None] + number
        t = start[:, None] + (k.to(tl.float32) + 0.5) * step
        x = o_x[:, None] + d_x[:, None] * t
        y = o_y[:, None] + d_y[:, None] * t
        z = o_z[:, None] + d_z[:, None] * t
        inside = (number < length[:, None]) & (tl.abs(x) < 1) & (tl.abs(y) < 1) & (tl.abs(z) < 1)
        cell = (_cell(x, inside, SIDE) * SIDE + _cell(y, inside, SIDE)) * SIDE
        cell += _cell(z, inside, SIDE)
        byte = tl.load(grids + field * BYTES + (cell >> 3), mask=inside, other=0).to(tl.int32)
        taken = (byte >> (7 - (cell & 7))) & 1
        if WRITE:
            target = offset[:, None] + (found[:, None] + tl.cumsum(taken, 1) - 1)
            tl.store(ray + target, tl.zeros_like(target) + at[:, None], mask=taken != 0)
            tl.store(place + target, k.to(tl.int16), mask=taken != 0)
        found += tl.sum(taken, 1)
    if not WRITE:
        tl.store(counts + at, found, mask=known)


@triton.jit
def _cell(x, inside, SIDE: tl.constexpr):
    """Tell which cell along an axis a coordinate lies in; 0 unless it is inside."""
    number = ((tl.where(inside, x, -1.0) + 1) * (SIDE / 2)).to(tl.int32)
    return tl.minimum(number, SIDE - 1)


def samples_in_cells(
    origins: Tensor,  # [B, R, 3]
    directions: Tensor,  # [B, R, 3]
    near: Tensor,  # [B, R]
    first: Tensor,  # [B, R]
    span: Tensor,  # [B, R]
    grids: Tensor,  # [B, BYTES]
    side: int,
    step: float,
) -> tuple[Tensor, Tensor]:
    """Give whose the samples are, counted on over the fields, and their places: [M], [M]."""
    fields, rays = near.shape
    counts = torch.zeros(fields, rays, dtype=torch.int32, device=near.device)
    given = (origins, directions, near, first.int(), span.int(), grids)
    known = tuple(x.contiguous() for x in given)
    ray = torch.empty(0, dtype=torch.int64, device=near.device)
    place = torch.empty(0, dtype=torch.int16, device=near.device)
    before = torch.zeros_like(counts, dtype=torch.int64)

    def launch(write: bool) -> None:
        lattice_samples[triton.cdiv(rays, TILE["BLOCK_R"]), fields](
            *(*known, counts, before, ray, place, rays, step, side, grids.shape[1], write),
            **TILE,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )

    if not counts.numel():
        return ray, place
    with on_device_of(near):
        launch(write=False)
        ends = counts.view(-1).cumsum(0)
        before = (ends - counts.view(-1)).view_as(counts)
        total = int(ends[-1])
        ray, place = ray.new_empty(total), place.new_empty(total)
        if total:
            launch(write=True)
    return ray, place


VARIANTS = [
    Variant(
        f"march-{side}-{'write' if write else 'count'}",
        lattice_samples,
        dict.fromkeys(("origins", "directions", "near"), "*fp32")
        | {
            "first": "*i32",
            "span": "*i32",
            "grids": "*u8",
            "counts": "*i32",
            "before": "*i64",
            "ray": "*i64",
        }
        | {"place": "*i16", "rays": "i32", "step": "fp32"}
        | dict.fromkeys(("SIDE", "BYTES", "WRITE", *TILE), "constexpr"),
        {"SIDE": side, "BYTES": side**3 // 8, "WRITE": write, **TILE},
        WARPS,
        fusion=False,
    )
    for side in (96, 128)
    for write in (False, True)
]
