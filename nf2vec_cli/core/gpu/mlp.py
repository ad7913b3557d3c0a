"""Networks of up to 128 units, many at once, each at its own points: values and gradients.

Everything of a tile of points stays in registers and shared memory: the codes of the coordinates,
the activations of a layer, and the gradient on its way down. The weights come from the caches.
For the gradient, what is kept of each layer goes through a scratch of the program's own, small
enough for the L2 cache. A program owns a share of an object's points and a copy of its gradient,
which is added up tile by tile, and the copies are summed afterwards: no atomics, so the same input
gives the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nf2vec_cli.core.gpu import on_device_of, on_hopper
from nf2vec_cli.core.gpu.ahead import Variant
from nf2vec_cli.core.gpu.launches import Launch, launch_of
from nf2vec_cli.core.gpu.sine import cosine, phase, phase_of_half_turns, sine, sine_or_cosine
from nf2vec_cli.core.mlp import Network, Sizes

SHARES = 16  # copies of an object's gradient at most; by M alone: no result depends on neighbours


WIDEST = 128  # units of a layer: a tile of it, and the gradient of its matrix, fit into registers
BLOCK = 1024  # numbers of a program that adds up
# how `tl.dot` is told; three products of tf32 are as exact as one of fp32
DOT = {"float32": "tf32x3", "tf32": "tf32", "bfloat16": "bf16"}


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """Multiply matrices with fp32 accumulation."""
    if PRECISION == "bf16":
        found = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    else:
        found = tl.dot(a, b, input_precision=PRECISION)
    return found


@triton.jit
def codes(x, KP: tl.constexpr, OCTAVES: tl.constexpr):
    """Code one coordinate: [TILE] -> [TILE, KP], sine and cosine in turn (`core.mlp`)."""
    column = tl.arange(0, KP)
    factor = (1 << tl.minimum(column // 2, OCTAVES - 1)).to(tl.float32)
    r = phase_of_half_turns(((x + 1) / 2)[:, None] * factor[None, :])
    return sine_or_cosine(r, column[None, :] % 2 != 0)


@triton.jit
def kept_of(z, OMEGA: tl.constexpr):
    """Turn sums [TILE, HP] into what is kept of a layer: phases, or what a ReLU gives."""
    # of a ReLU not the `maximum`, which would lose a NaN
    return phase(z * OMEGA) if OMEGA > 0 else tl.where(z < 0, 0.0, z)


@triton.jit
def response(kept, OMEGA: tl.constexpr):
    """Give the outputs of a layer's units."""
    return sine(kept) if OMEGA > 0 else kept


@triton.jit
def sloped(back, kept, OMEGA: tl.constexpr):
    """Carry a gradient through a layer's units."""
    return back * (cosine(kept) * OMEGA) if OMEGA > 0 else tl.where(kept > 0, back, 0.0)


@triton.jit
def ascend(
    coords, theta, matrices, scratch, row, alive, L,
    H: tl.constexpr, HP: tl.constexpr, OMEGA: tl.constexpr, OCTAVES: tl.constexpr,
    KP: tl.constexpr, BIASES: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """Compute a tile's hidden layers; return what is kept of the last one: [TILE, HP].

    With KEEP that of all layers goes to `scratch`: [L, TILE, HP].
    """
    unit = tl.arange(0, HP)
    real = unit < H
    into: tl.constexpr = 6 * OCTAVES if OCTAVES else 3
    z = tl.zeros([TILE, HP], tl.float32)
    for axis in tl.static_range(3):
        x = tl.load(coords + row * 3 + axis, mask=alive, other=0.0)
        if OCTAVES:
            column = tl.arange(0, KP)
            place = unit[None, :] * into + axis * 2 * OCTAVES + column[:, None]
            there = real[None, :] & (column < 2 * OCTAVES)[:, None]
            first = tl.load(theta + place, mask=there, other=0.0)
            z += product(codes(x, KP, OCTAVES), first, PRECISION)
        else:
            first = tl.load(theta + unit * 3 + axis, mask=real, other=0.0)
            z += x[:, None] * first[None, :]
    if BIASES:
        z += tl.load(theta + H * into + unit, mask=real, other=0.0)[None, :]
    place = tl.arange(0, TILE)[:, None] * HP + unit[None, :]
    for layer in range(1, L):
        kept = kept_of(z, OMEGA)
        if KEEP:
            tl.store(scratch + (layer - 1) * TILE * HP + place, kept)
        w = tl.load(matrices + (layer - 1) * HP * HP + unit[None, :] * HP + unit[:, None])
        z = product(response(kept, OMEGA), w, PRECISION)
        if BIASES:
            bias = theta + H * (into + 1) + (layer - 1) * H * (H + 1) + H * H
            z += tl.load(bias + unit, mask=real, other=0.0)[None, :]
    return kept_of(z, OMEGA)


@triton.jit
def forward_kernel(
    coords, theta, matrices, values, points, L, P,
    H: tl.constexpr, HP: tl.constexpr, V: tl.constexpr, OMEGA: tl.constexpr,
    OCTAVES: tl.constexpr, KP: tl.constexpr, BIASES: tl.constexpr, PRECISION: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Evaluate one network at one tile of its points."""
    one = tl.program_id(1).to(tl.int64)
    theta += one * P
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    alive = row < points
    unit = tl.arange(0, HP)
    kept = ascend(
        coords + one * points * 3, theta, matrices + one * (L - 1) * HP * HP, theta, row, alive, L,
        H, HP, OMEGA, OCTAVES, KP, BIASES, PRECISION, TILE, False,
    )  # fmt: skip
    h = response(kept, OMEGA)
    into: tl.constexpr = 6 * OCTAVES if OCTAVES else 3
    last = theta + H * (into + BIASES) + (L - 1) * H * (H + BIASES)
    for v in tl.static_range(V):
        w = tl.load(last + v * H + unit, mask=unit < H, other=0.0)
        found = tl.sum(h * w[None, :], 1)
        if BIASES:
            found += tl.load(last + V * H + v)
        tl.store(values + (one * points + row) * V + v, found, mask=alive)


@triton.jit
def add(place, more, mask, begun):
    """Add to a part of the gradient that this program alone owns; the first tile writes it."""
    tl.store(place, tl.load(place, mask=mask & begun, other=0.0) + more, mask=mask)


@triton.jit
def add_first(
    grad, coords, back, row, alive, begun,
    H: tl.constexpr, HP: tl.constexpr, OCTAVES: tl.constexpr, KP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add what the first matrix has of a tile's gradient."""
    unit = tl.arange(0, HP)
    real = unit < H
    for axis in tl.static_range(3):
        x = tl.load(coords + row * 3 + axis, mask=alive, other=0.0)
        if OCTAVES:
            column = tl.arange(0, KP)
            where = unit[:, None] * (6 * OCTAVES) + axis * 2 * OCTAVES + column[None, :]
            there = real[:, None] & (column < 2 * OCTAVES)[None, :]
            more = product(tl.trans(back), codes(x, KP, OCTAVES), PRECISION)
            add(grad + where, more, there, begun[:, None])
        else:
            add(grad + unit * 3 + axis, tl.sum(back * x[:, None], 0), real, begun)


@triton.jit
def backward_kernel(
    coords, theta, matrices, slopes, partial, scratch, points, share, objects, L, P,
    H: tl.constexpr, HP: tl.constexpr, V: tl.constexpr, OMEGA: tl.constexpr,
    OCTAVES: tl.constexpr, KP: tl.constexpr, BIASES: tl.constexpr, PRECISION: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Add up the gradient of one network over one share of its points."""
    one = tl.program_id(1).to(tl.int64)
    theta += one * P
    coords += one * points * 3
    slopes += one * points * V
    matrices += one * (L - 1) * HP * HP
    copy = tl.program_id(0).to(tl.int64) * objects + one
    grad = partial + copy * P
    scratch += copy * (L - 1) * TILE * HP
    unit = tl.arange(0, HP)
    real = unit < H
    square = real[:, None] & real[None, :]
    into: tl.constexpr = 6 * OCTAVES if OCTAVES else 3
    first: tl.constexpr = H * (into + BIASES)
    last = first + (L - 1) * H * (H + BIASES)
    place_kept = tl.arange(0, TILE)[:, None] * HP + unit[None, :]
    begin = tl.program_id(0) * share
    for start in range(begin, tl.minimum(begin + share, points), TILE):
        begun = (start + 0 * unit) > begin  # of all units alike: a mask
        row = start + tl.arange(0, TILE)
        alive = row < points
        kept = ascend(
            coords, theta, matrices, scratch, row, alive, L,
            H, HP, OMEGA, OCTAVES, KP, BIASES, PRECISION, TILE, True,
        )  # fmt: skip
        h = response(kept, OMEGA)
        back = tl.zeros([TILE, HP], tl.float32)
        for v in tl.static_range(V):
            s = tl.load(slopes + row * V + v, mask=alive, other=0.0)
            end = tl.load(theta + last + v * H + unit, mask=real, other=0.0)
            back += s[:, None] * end[None, :]
            add(grad + last + v * H + unit, tl.sum(s[:, None] * h, 0), real, begun)
            if BIASES:
                bias = grad + last + V * H + v
                tl.store(bias, tl.where(start > begin, tl.load(bias), 0.0) + tl.sum(s, 0))
        back = sloped(back, kept, OMEGA)
        # what one thread has kept or added another may read
        tl.debug_barrier()
        for above in range(1, L):
            layer = L - above
            place = first + (layer - 1) * H * (H + BIASES)
            if BIASES:
                add(grad + place + H * H + unit, tl.sum(back, 0), real, begun)
            kept = tl.load(scratch + (layer - 1) * TILE * HP + place_kept)
            more = product(tl.trans(back), response(kept, OMEGA), PRECISION)
            add(grad + place + unit[:, None] * H + unit[None, :], more, square, begun[None, :])
            w = tl.load(matrices + (layer - 1) * HP * HP + unit[:, None] * HP + unit[None, :])
            back = sloped(product(back, w, PRECISION), kept, OMEGA)
        if BIASES:
            add(grad + H * into + unit, tl.sum(back, 0), real, begun)
        add_first(grad, coords, back, row, alive, begun, H, HP, OCTAVES, KP, PRECISION)
        tl.debug_barrier()


@triton.jit
def total_kernel(partial, total, shares, size, BLOCK: tl.constexpr):
    """Add up the shares, always in their order: [S, N] -> [N]."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    found = tl.load(partial + at, mask=at < size, other=0.0)
    for _share in range(1, shares):
        partial += size
        found += tl.load(partial + at, mask=at < size, other=0.0)
    tl.store(total + at, found, mask=at < size)


def values(
    theta: Tensor,  # [B, P]
    coords: Tensor,  # [B, M, 3]
    spec: Network,
    precision: str,
) -> Tensor:  # [B, M, V]
    """Evaluate B networks of at most WIDEST units, each at its own points."""
    points = coords.shape[1]
    found = theta.new_empty(*coords.shape[:2], spec.outputs)
    if found.numel():
        launch = launch_of(spec.hidden, precision, "forward", hopper=on_hopper(theta))
        chosen = constants(spec, precision, launch)
        with on_device_of(theta):
            forward_kernel[(triton.cdiv(points, chosen["TILE"]), len(theta))](
                coords.contiguous(), theta.contiguous(), hidden_matrices(theta, spec, precision),
                found, points, spec.layers, theta.shape[1],
                **chosen, num_warps=launch.warps, num_stages=launch.stages,
            )  # fmt: skip
    return found


def gradient(
    theta: Tensor,  # [B, P]
    coords: Tensor,  # [B, M, 3]
    slopes: Tensor,  # [B, M, V]
    spec: Network,
    precision: str,
    out: Tensor | None = None,  # [B, P]
) -> Tensor:  # [B, P]
    """Give the gradient of a loss to theta, from its slope to each of `values`.

    out: where it goes, if given.
    """
    points = coords.shape[1]
    total = theta.new_empty(theta.shape) if out is None else out
    if not slopes.numel():
        return total.zero_()
    launch = launch_of(spec.hidden, precision, "backward", hopper=on_hopper(theta))
    chosen = constants(spec, precision, launch)
    share = triton.cdiv(triton.cdiv(points, chosen["TILE"]), SHARES) * chosen["TILE"]
    partial = theta.new_empty(triton.cdiv(points, share), *theta.shape)
    kept = (spec.layers - 1) * chosen["TILE"] * chosen["HP"]
    scratch = theta.new_empty(partial.shape[:2].numel(), kept)
    with on_device_of(theta):
        backward_kernel[partial.shape[:2]](
            coords.contiguous(), theta.contiguous(), hidden_matrices(theta, spec, precision),
            slopes.contiguous(), partial, scratch, points, share, len(theta), spec.layers,
            theta.shape[1],
            **chosen, num_warps=launch.warps, num_stages=launch.stages,
        )  # fmt: skip
        total_kernel[(triton.cdiv(total.numel(), BLOCK),)](
            partial, total, len(partial), total.numel(), BLOCK=BLOCK
        )
    return total


def hidden_matrices(theta: Tensor, spec: Network, precision: str) -> Tensor:
    """Copy the hidden matrices, [B, L - 1, HP, HP]: padded by zeros, in the precision of products.

    In theta they lie at odd places, which no wide load can read.
    """
    (width, into), gaps = spec.shapes[0], spec.layers - 1
    first, each = width * (into + spec.biases), width * (width + spec.biases)
    rows = theta[:, first : first + gaps * each].unflatten(1, (gaps, each))
    low = torch.bfloat16 if precision == "bfloat16" else torch.float32
    out = theta.new_zeros(len(theta), gaps, block(width), block(width), dtype=low)
    out[..., :width, :width] = rows[..., : width**2].unflatten(2, (width, width))
    return out


def block(width: int) -> int:
    """Give the size of the block that holds so many: a power of two, 16 or more."""
    return int(max(16, triton.next_power_of_2(width)))


def constants(spec: Network, precision: str, launch: Launch) -> dict[str, Any]:
    """Give what a kernel is compiled for."""
    return {
        "H": spec.hidden,
        "HP": block(spec.hidden),
        "V": spec.outputs,
        "OMEGA": float(spec.omega) if spec.activation == "sine" else 0.0,
        "OCTAVES": spec.octaves,
        "KP": block(2 * spec.octaves),
        "BIASES": int(spec.biases),
        "PRECISION": DOT[precision],
        "TILE": launch.tile,
    }


def _variant(spec: Sizes, precision: str, way: str, *, hopper: bool) -> Variant:
    launch = launch_of(spec.hidden, precision, way, hopper=hopper)
    arguments = {"coords": "*fp32", "theta": "*fp32"}
    arguments["matrices"] = "*bf16" if precision == "bfloat16" else "*fp32"
    pointers = {"forward": ["values"], "backward": ["slopes", "partial", "scratch"]}[way]
    numbers = {"forward": ["points"], "backward": ["points", "share", "objects"]}[way]
    arguments |= dict.fromkeys(pointers, "*fp32") | dict.fromkeys([*numbers, "L", "P"], "i32")
    chosen = constants(spec, precision, launch)
    return Variant(
        f"{spec.activation}_{spec.hidden}_{way}_{precision}",
        {"forward": forward_kernel, "backward": backward_kernel}[way],
        arguments | dict.fromkeys(chosen, "constexpr"),
        chosen,
        launch.warps,
        launch.stages,
        architectures=(90,) if hopper else (80, 100),
    )


VARIANTS = [
    _variant(spec, precision, way, hopper=hopper)
    for spec in (
        Sizes(128, 4, 1, 30.0, "sine", 0, True),
        Sizes(64, 4, 1, 30.0, "sine", 0, True),
        Sizes(64, 3, 4, 0.0, "relu", 10, False),
    )
    for precision in DOT
    for way in ("forward", "backward")
    for hopper in (False, True)
]
VARIANTS += [
    Variant(
        "total",
        total_kernel,
        {"partial": "*fp32", "total": "*fp32", "shares": "i32", "size": "i32"}
        | {"BLOCK": "constexpr"},
        {"BLOCK": BLOCK},
    )
]
