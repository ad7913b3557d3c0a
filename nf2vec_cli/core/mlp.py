"""Networks of sine or ReLU units: values, and the gradient of a loss to the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from nf2vec_cli.core.kernels import kernels_serve
from nf2vec_cli.core.sine import sin_, sincos_

PointLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Layers(Protocol):
    """What the engine must know of an architecture: `models.network.NetworkSpec` is one."""

    @property
    def omega(self) -> float: ...

    @property
    def shapes(self) -> list[tuple[int, int]]: ...


class Network(Layers, Protocol):
    """What kernels must know besides: `models.network.NetworkSpec` is one.

    activation: "sine" or "relu". octaves: frequencies that coordinates are coded by; 0: they are
    not.
    """

    @property
    def hidden(self) -> int: ...

    @property
    def layers(self) -> int: ...

    @property
    def outputs(self) -> int: ...

    @property
    def activation(self) -> str: ...

    @property
    def octaves(self) -> int: ...

    @property
    def biases(self) -> bool: ...


@dataclass(frozen=True)
class Sizes:
    """A network as an op is told of it: a `Network`."""

    hidden: int
    layers: int
    outputs: int
    omega: float
    activation: str
    octaves: int
    biases: bool

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of each linear layer, first to last."""
        first = 6 * self.octaves if self.octaves else 3
        return [(o, i) for i, o in pairwise([first, *[self.hidden] * self.layers, self.outputs])]


def siren_forward(
    weights: list[Tensor],  # one a layer: [B, H_out, H_in]
    biases: list[Tensor],  # one a layer: [B, H_out]
    coords: Tensor,  # [B, M, 3]
    omega: float = 30.0,
) -> Tensor:  # [B, M, V]
    """Evaluate B sine networks, each at its own M points; plain PyTorch, differentiable.

    The twin of everything faster in this module: what they compute must equal this.

    Args:
        weights: layer matrices in the order they apply, float32.
        biases: layer offsets, same order.
        coords: points in object space, unitless, inside [-1, 1]^3.
        omega: factor on every hidden pre-activation before the sine, in radians.

    Returns:
        Raw outputs of the last layer; the field turns them into a distance.
    """
    h = coords
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        h = torch.sin(omega * torch.baddbmm(b.unsqueeze(1), h, w.mT))
    return torch.baddbmm(biases[-1].unsqueeze(1), h, weights[-1].mT)


def frequencies(coords: Tensor, octaves: int) -> Tensor:  # [.., 3] -> [.., 6 * octaves]
    """Code points of [-1, 1]^3 by sines and cosines (Tancik et al. 2020), as tiny-cuda-nn does.

    With u = (x + 1) / 2: number d * 2 n + 2 k is sin(2^k pi u_d), the next one its cosine.
    """
    factor = 2.0 ** torch.arange(octaves, dtype=coords.dtype, device=coords.device)
    turns = (coords[..., None] + 1) / 2 * factor
    # whole periods are taken off before the factor pi: that is exact, at any octave
    sine = turns.sub_(2 * (turns / 2).floor()).mul_(torch.pi).contiguous()
    if sine.requires_grad:  # in place there is no way back to the points
        return torch.stack([sine.sin(), sine.cos()], dim=-1).flatten(-3)
    cosine = torch.empty_like(sine)
    sincos_(sine, cosine)
    return torch.stack([sine, cosine], dim=-1).flatten(-3)


def coded(coords: Tensor, octaves: int) -> Tensor:  # [.., 3] -> [.., 6 * octaves or 3]
    """Give what a first layer reads of points: their `frequencies`, or themselves at 0 octaves."""
    return frequencies(coords, octaves) if octaves else coords


def relu_forward(
    weights: list[Tensor],  # one a layer: [B, H_out, H_in]
    biases: list[Tensor],  # one a layer: [B, H_out]
    inputs: Tensor,  # [B, M, I]
) -> Tensor:  # [B, M, V]
    """Evaluate B networks of ReLU units, each at its own M points, `coded`; differentiable."""
    h = inputs
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        h = torch.baddbmm(b.unsqueeze(1), h, w.mT).relu_()
    return torch.baddbmm(biases[-1].unsqueeze(1), h, weights[-1].mT)


def field_values(
    theta: Tensor,  # [B, P]
    coords: Tensor,  # [B, M, 3]
    spec: Network,
    precision: str = "float32",
) -> Tensor:  # [B, M, V]
    """Evaluate B fields of any kind, each at its own points; differentiable.

    precision: of products, where a kernel computes them: "float32", "tf32" or "bfloat16". Sums are
    float32 in all of them.
    """
    if kernels_serve(theta):
        # not on a CPU: the first call of an op takes two CPU seconds (it imports the compiler)
        from nf2vec_cli.core.mlp_op import values

        found: Tensor = values(theta, coords, *facts(spec), precision)
        return found
    return field_values_twin(theta, coords, spec)


def field_values_twin(theta: Tensor, coords: Tensor, spec: Network) -> Tensor:
    """Do what `field_values` does in plain PyTorch: [B, P], [B, M, 3] -> [B, M, V]."""
    weights, biases = views(theta, spec.shapes, spec.biases)
    if spec.activation == "sine":
        return siren_forward(weights, biases, coords, spec.omega)
    return relu_forward(weights, biases, coded(coords, spec.octaves))


def field_gradient_twin(
    theta: Tensor,  # [B, P]
    coords: Tensor,  # [B, M, 3]
    slopes: Tensor,  # [B, M, V]
    spec: Network,
) -> Tensor:  # [B, P]
    """Give the gradient of a loss to theta from its slope to `field_values`; plain PyTorch."""
    sine = spec.activation == "sine"
    weights, biases = views(theta, spec.shapes, spec.biases)
    inputs = [coded(coords, spec.octaves)]
    sums = []
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        z = torch.baddbmm(b.unsqueeze(1), inputs[-1], w.mT)
        sums.append(z)
        inputs.append((spec.omega * z).sin() if sine else z.relu())
    grads, back = [], slopes
    for layer in range(spec.layers, -1, -1):
        grads += [back.sum(1)] * spec.biases + [(back.mT @ inputs[layer]).flatten(1)]
        if layer:
            z = sums[layer - 1]
            slope = spec.omega * (spec.omega * z).cos() if sine else (z > 0).to(z)
            back = (back @ weights[layer]) * slope
    return torch.cat(grads[::-1], 1)


def facts(spec: Network) -> tuple[int, int, int, float, str, int, bool]:
    """Give a network's sizes as an op takes them: the arguments of `Sizes`."""
    kind = spec.activation, spec.octaves, spec.biases
    return spec.hidden, spec.layers, spec.outputs, spec.omega, *kind


def tiled_values(
    theta: Tensor,  # [P]
    coords: Tensor,  # [M, 3]
    spec: Network,
    tile: int = 4096,
) -> Tensor:  # [M, V]
    """Evaluate one field at many points in tiles that stay in the cache of a CPU; no gradient."""
    weights, biases = _scaled(theta, spec)
    unit_ = sin_ if spec.activation == "sine" else torch.relu_
    out = coords.new_empty(len(coords), len(weights[-1]))
    for start in range(0, len(coords), tile):
        h = coded(coords[start : start + tile], spec.octaves)
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            h = unit_(torch.addmm(b, h, w.T))
        torch.addmm(biases[-1], h, weights[-1].T, out=out[start : start + tile])
    return out


def tiled_values_and_slopes(
    theta: Tensor,  # [P]
    coords: Tensor,  # [M, 3]
    spec: Network,
    tile: int = 1024,
) -> tuple[Tensor, Tensor]:  # [M, V], [M, 3]
    """Evaluate one field, and the gradient of its output 0 to the coordinates.

    The reverse pass is written out: the weights carry no autograd state, and only a tile's
    outputs and slopes of units are kept. At its kink a ReLU has slope 0, as autograd has it.
    """
    weights, biases = _scaled(theta, spec)
    out = coords.new_empty(len(coords), len(weights[-1]))
    slopes = torch.empty_like(coords)
    for start in range(0, len(coords), tile):
        h = inputs = coded(coords[start : start + tile], spec.octaves)
        rises = []
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            h = torch.addmm(b, h, w.T)
            rises.append(_respond_(h, spec))
        torch.addmm(biases[-1], h, weights[-1].T, out=out[start : start + tile])
        back = rises.pop().mul_(weights[-1][0])
        while rises:
            back = torch.mm(back, weights[len(rises)]).mul_(rises.pop())
        slopes[start : start + tile] = _to_coords(torch.mm(back, weights[0]), inputs, spec.octaves)
    return out, slopes


def _scaled(theta: Tensor, spec: Network) -> tuple[list[Tensor], list[Tensor]]:
    """Give one field's layers; of sine units with omega in them: [H_out, H_in], [H_out] each."""
    weights, biases = views(theta[None], spec.shapes, spec.biases)
    factor = spec.omega if spec.activation == "sine" else 1.0
    first, last = slice(-1), slice(-1, None)
    return (
        [w[0] * factor for w in weights[first]] + [w[0] for w in weights[last]],
        [b[0] * factor for b in biases[first]] + [b[0] for b in biases[last]],
    )


def _respond_(z: Tensor, spec: Network) -> Tensor:
    """Replace sums by what units make of them, and give the slopes of that."""
    if spec.activation == "sine":
        cosine = torch.empty_like(z)
        sincos_(z, cosine)
        return cosine
    slope = (z > 0).to(z)
    z.relu_()
    return slope


def _to_coords(back: Tensor, inputs: Tensor, octaves: int) -> Tensor:  # [M, I], [M, I] -> [M, 3]
    """Carry a gradient from what the first layer read to the points."""
    if not octaves:
        return back
    pitch = torch.pi / 2 * 2.0 ** torch.arange(octaves, dtype=back.dtype, device=back.device)
    to_sine, to_cosine = back.unflatten(-1, (3, octaves, 2)).unbind(-1)
    sine, cosine = inputs.unflatten(-1, (3, octaves, 2)).unbind(-1)
    found: Tensor = ((to_sine * cosine - to_cosine * sine) * pitch).sum(-1)
    return found


def views(
    flat: Tensor, shapes: list[tuple[int, int]], present: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """View flat parameters as weights and biases; biases that are not present are zeros."""
    weights, biases, at = [], [], 0
    for out, into in shapes:
        weights.append(flat[:, at : at + out * into].unflatten(1, (out, into)))
        at += out * into
        biases.append(flat[:, at : at + out] if present else flat.new_zeros(len(flat), out))
        at += out * present
    return weights, biases
