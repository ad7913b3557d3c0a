"""The implicit decoder (paper, section III-C) at many points, without gradient, in one launch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from nf2vec_cli.core.kernels import kernels_serve
from nf2vec_cli.core.mlp import frequencies

# octaves up to which the kernel's own range reduction is exact to single precision
OCTAVES = {"radians": 16, "turns": 24}


@torch.library.custom_op("nf2vec::decode", mutates_args=())
def decode(
    of_object: Tensor,  # [2, B, H]
    of_code: Tensor,  # [2, H, C]
    weights: Tensor,  # [4, H, H]
    biases: Tensor,  # [4, H]
    last_weight: Tensor,  # [V, H]
    last_bias: Tensor,  # [V]
    coords: Tensor,  # [B, M, 3]
    octaves: int,
    coding: str,
    precision: str,
) -> Tensor:  # [B, M, V]
    """Give a decoder's raw outputs at each object's own points.

    By a kernel on CUDA, whose activations never leave the cache. A CPU path had better call the
    twin (`core.neighbours` says why).

    Args:
        of_object: what the embedding adds to the first layer and to the skip, biases included.
        of_code: the part of these two layers that multiplies the coded coordinates.
        weights: of the two layers before the skip and the two after it.
        biases: of these.
        last_weight: of the linear layer at the end.
        last_bias: of that.
        coords: points in object space.
        octaves: of the coding.
        coding: "radians" (`fourier`, C = 3 + 6 octaves) or "turns" (`frequencies`, C = 6 octaves).
        precision: of the kernel's products, "float32", "tf32" or "bfloat16"; sums are float32.
    """
    if kernels_serve(coords):
        from nf2vec_cli.core.gpu.decode import decoded

        run = decoded
    else:
        run = decode_twin
    layers = of_object, of_code, weights, biases, last_weight, last_bias
    return run(*layers, coords, octaves, coding, precision)


@decode.register_fake
def _(
    of_object: Tensor,  # noqa: ARG001
    of_code: Tensor,  # noqa: ARG001
    weights: Tensor,  # noqa: ARG001
    biases: Tensor,  # noqa: ARG001
    last_weight: Tensor,
    last_bias: Tensor,  # noqa: ARG001
    coords: Tensor,
    octaves: int,  # noqa: ARG001
    coding: str,  # noqa: ARG001
    precision: str,  # noqa: ARG001
) -> Tensor:
    return coords.new_empty(*coords.shape[:2], len(last_weight))


def decode_twin(
    of_object: Tensor,
    of_code: Tensor,
    weights: Tensor,
    biases: Tensor,
    last_weight: Tensor,
    last_bias: Tensor,
    coords: Tensor,
    octaves: int,
    coding: str,
    precision: str = "float32",  # noqa: ARG001
) -> Tensor:
    """Compute the same in plain PyTorch."""
    coded = code(coords, octaves, coding)
    h, skip = (
        (linear(coded, w) + o[:, None]).relu_() for w, o in zip(of_code, of_object, strict=True)
    )
    for place, (w, b) in enumerate(zip(weights, biases, strict=True)):
        if place == len(weights) // 2:
            h = h + skip
        h = linear(h, w, b).relu_()
    return linear(h, last_weight, last_bias)


def code(coords: Tensor, octaves: int, coding: str) -> Tensor:  # [.., 3] -> [.., C]
    """Code points by sines and cosines, in "radians" (`fourier`) or "turns" (`frequencies`)."""
    return (fourier if coding == "radians" else frequencies)(coords, octaves)


def code_width(octaves: int, coding: str) -> int:
    """C: how many numbers a coded point has."""
    return 6 * octaves + (3 if coding == "radians" else 0)


def fourier(coords: Tensor, octaves: int) -> Tensor:  # [.., 3] -> [.., 3 + 6 octaves]
    """Code coordinates as x, sin(2^k x), cos(2^k x), k < octaves, without a factor of pi."""
    parts = [coords]
    for octave in range(octaves):
        scaled = coords * 2.0**octave
        parts += [scaled.sin(), scaled.cos()]
    return torch.cat(parts, dim=-1)
