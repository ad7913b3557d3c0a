"""Sums over the samples on each ray, and their slopes: a row of a tile goes along one ray."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nf2vec_cli.core.gpu import on_device_of
from nf2vec_cli.core.gpu.ahead import Variant

TILE = {"BLOCK_R": 8, "BLOCK_S": 32}
WARPS = 4


@triton.jit
def sum_rays(
    colours,  # [M, 3]
    density,  # [M]
    depths,  # [M]
    step,  # [M], or one number unless STEPS
    first,  # [R + 1] int64
    sums,  # [R, 5]: written
    rays,  # R
    STEPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Add up colours, weights and depths of BLOCK_R rays, BLOCK_S samples of each at once."""
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    known = r < rays
    begin = tl.load(first + r, mask=known, other=0)
    count = (tl.load(first + r + 1, mask=known, other=0) - begin).to(tl.int32)
    passed = tl.zeros([BLOCK_R], tl.float32)
    red, green, blue, weight, depth = passed, passed, passed, passed, passed
    for base in range(0, tl.max(count, 0), BLOCK_S):
        number = base + tl.arange(0, BLOCK_S)
        at = begin[:, None] + number
        inside = number < count[:, None]
        optical, through, passed = _passed(density, step, at, number, inside, passed, STEPS)
        w = tl.exp(-through) * _taken(optical)
        red += tl.sum(w * tl.load(colours + at * 3, mask=inside, other=0.0), 1)
        green += tl.sum(w * tl.load(colours + at * 3 + 1, mask=inside, other=0.0), 1)
        blue += tl.sum(w * tl.load(colours + at * 3 + 2, mask=inside, other=0.0), 1)
        depth += tl.sum(w * tl.load(depths + at, mask=inside, other=0.0), 1)
        weight += tl.sum(w, 1)
    tl.store(sums + r * 5, red, mask=known)
    tl.store(sums + r * 5 + 1, green, mask=known)
    tl.store(sums + r * 5 + 2, blue, mask=known)
    tl.store(sums + r * 5 + 3, weight, mask=known)
    tl.store(sums + r * 5 + 4, depth, mask=known)


@triton.jit
def slope_rays(
    grad,  # [R, 5]: slopes of the loss in the sums
    colours,
    density,
    depths,
    step,
    first,
    sums,  # [R, 5]: as `sum_rays` gave them
    to_colours,  # [M, 3]: written
    to_density,  # [M]: written
    rays,
    STEPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Give the slopes of the loss in colours and densities.

    With each sample's worth v = grad (colour, 1, depth), more density adds what is left of the
    light after the sample, times v, and takes the share of what lies behind it, the sum of w v: all
    of the ray's, which is grad sums, less what has been passed.
    """
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    known = r < rays
    begin = tl.load(first + r, mask=known, other=0)
    count = (tl.load(first + r + 1, mask=known, other=0) - begin).to(tl.int32)
    to_red, red = _pair(grad, sums, r, known, 0)
    to_green, green = _pair(grad, sums, r, known, 1)
    to_blue, blue = _pair(grad, sums, r, known, 2)
    to_weight, weight = _pair(grad, sums, r, known, 3)
    to_depth, depth = _pair(grad, sums, r, known, 4)
    behind = (
        to_red * red + to_green * green + to_blue * blue + to_weight * weight + to_depth * depth
    )
    passed = tl.zeros([BLOCK_R], tl.float32)
    for base in range(0, tl.max(count, 0), BLOCK_S):
        number = base + tl.arange(0, BLOCK_S)
        at = begin[:, None] + number
        inside = number < count[:, None]
        optical, through, passed = _passed(density, step, at, number, inside, passed, STEPS)
        w = tl.exp(-through) * _taken(optical)
        worth = to_red[:, None] * tl.load(colours + at * 3, mask=inside, other=0.0)
        worth += to_green[:, None] * tl.load(colours + at * 3 + 1, mask=inside, other=0.0)
        worth += to_blue[:, None] * tl.load(colours + at * 3 + 2, mask=inside, other=0.0)
        worth += to_weight[:, None]
        worth += to_depth[:, None] * tl.load(depths + at, mask=inside, other=0.0)
        left = tl.exp(-(through + optical))
        slope = left * worth - (behind[:, None] - tl.cumsum(w * worth, 1))
        length = tl.load(step + at, mask=inside, other=0.0) if STEPS else tl.load(step)
        tl.store(to_density + at, slope * length, mask=inside)
        tl.store(to_colours + at * 3, w * to_red[:, None], mask=inside)
        tl.store(to_colours + at * 3 + 1, w * to_green[:, None], mask=inside)
        tl.store(to_colours + at * 3 + 2, w * to_blue[:, None], mask=inside)
        behind -= tl.sum(w * worth, 1)


@triton.jit
def _passed(density, step, at, number, inside, passed, STEPS: tl.constexpr):
    """Give optical lengths of samples, those before them on the ray, and that of all up to here.

    The sum before a sample is not the sum with it less its own: a wall would swallow the air.
    """
    optical = _optical(density, step, at, inside, STEPS)
    before = _optical(density, step, at - 1, inside & (number > 0), STEPS)
    return optical, passed[:, None] + tl.cumsum(before, 1), passed + tl.sum(before, 1)


@triton.jit
def _optical(density, step, at, inside, STEPS: tl.constexpr):
    length = tl.load(step + at, mask=inside, other=0.0) if STEPS else tl.load(step)
    return tl.load(density + at, mask=inside, other=0.0).to(tl.float32) * length


@triton.jit
def _taken(x):
    """Give 1 - exp(-x), of small x by its series: the difference would lose all digits."""
    small = tl.abs(x) < 0.25
    y = tl.where(small, x, 0.0)
    series = 1 - y / 3 * (1 - y / 4 * (1 - y / 5 * (1 - y / 6 * (1 - y / 7))))
    return tl.where(small, y * (1 - y / 2 * series), 1 - tl.exp(-x))


@triton.jit
def _pair(grad, sums, r, known, column: tl.constexpr):
    slope = tl.load(grad + r * 5 + column, mask=known, other=0.0).to(tl.float32)
    return slope, tl.load(sums + r * 5 + column, mask=known, other=0.0).to(tl.float32)


def ray_sums(
    colours: Tensor, density: Tensor, depths: Tensor, step: Tensor, ray: Tensor, rays: int
) -> Tensor:  # -> [R, 5]
    """Add up samples, as the twin does; step: [M] or []."""
    sums = density.new_empty(rays, 5)
    if rays:
        with on_device_of(density):
            sum_rays[(triton.cdiv(rays, TILE["BLOCK_R"]),)](
                *(x.contiguous() for x in (colours, density, depths, step)),
                *(_first(ray, rays), sums, rays, bool(step.dim())),
                **TILE,
                num_warps=WARPS,
            )
    return sums


def ray_slopes(
    grad: Tensor,
    colours: Tensor,
    density: Tensor,
    depths: Tensor,
    step: Tensor,
    ray: Tensor,
    sums: Tensor,
) -> tuple[Tensor, Tensor]:  # -> [M, 3], [M]
    """Give the slopes in colours and densities, as the twin does."""
    rays = len(sums)
    to_colours, to_density = colours.new_empty(colours.shape), density.new_empty(density.shape)
    if rays:
        with on_device_of(density):
            slope_rays[(triton.cdiv(rays, TILE["BLOCK_R"]),)](
                *(x.contiguous() for x in (grad, colours, density, depths, step)),
                *(_first(ray, rays), sums, to_colours, to_density, rays, bool(step.dim())),
                **TILE,
                num_warps=WARPS,
            )
    return to_colours, to_density


def _first(ray: Tensor, rays: int) -> Tensor:  # -> [R + 1]
    """Tell where the samples of each ray begin, without asking the GPU how many there are."""
    return torch.searchsorted(ray.contiguous(), torch.arange(rays + 1, device=ray.device))


_SAMPLES = dict.fromkeys(("colours", "density", "depths", "step"), "*fp32") | {"first": "*i64"}
_CONSTANTS = dict.fromkeys(("STEPS", *TILE), "constexpr")
VARIANTS = [
    Variant(
        "composite-forward",
        sum_rays,
        _SAMPLES | {"sums": "*fp32", "rays": "i32"} | _CONSTANTS,
        {"STEPS": True, **TILE},
        WARPS,
    ),
    Variant(
        "composite-backward",
        slope_rays,
        {"grad": "*fp32"}
        | _SAMPLES
        | dict.fromkeys(("sums", "to_colours", "to_density"), "*fp32")
        | {"rays": "i32"}
        | _CONSTANTS,
        {"STEPS": True, **TILE},
        WARPS,
    ),
]
