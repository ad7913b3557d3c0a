"""The architecture of a neural field, and the order of its parameters in one flat vector."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

RADIANCE_OUTPUTS = 4  # red, green, blue and density


@dataclass(frozen=True)
class NetworkSpec:
    """`layers` hidden layers of `hidden` units, then a linear one (paper, III).

    Of shapes it is a SIREN; the paper's is `NetworkSpec(hidden=512, layers=4)`, 790,529 parameters:
    3-512-512-512-512-1. Fields from elsewhere may be `relu_spec(...)`. Of radiance it is
    `radiance_spec(...)`: ReLU units on coordinates that are coded by sines and cosines of `octaves`
    frequencies, and, in the paper, no biases. `density`: length in unit space that its densities
    are per; the authors' are per unit of a cube of +-0.7.

    The flat vector theta [P] holds layer 0's matrix (out x in, row-major), layer 0's bias, layer
    1's matrix, and so on, as a PyTorch state dict would.
    """

    inputs: int = 3
    hidden: int = 128
    layers: int = 4
    outputs: int = 1
    omega: float = 30.0
    activation: str = "sine"
    octaves: int = 0
    biases: bool = True
    density: float = 1.0

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of each linear layer, first to last."""
        widths = [self.inputs] + [self.hidden] * self.layers + [self.outputs]
        return [(out, into) for into, out in pairwise(widths)]

    @property
    def radiance(self) -> bool:
        """Whether it gives colours and a density, not one number of a shape."""
        return self.outputs == RADIANCE_OUTPUTS

    @property
    def parameters(self) -> int:
        """P: how many numbers one field holds."""
        return sum(out * (into + self.biases) for out, into in self.shapes)

    @property
    def blocks(self) -> list[int]:
        """Lengths of the runs of theta that belong together: each matrix row, then each bias."""
        runs: list[int] = []
        for out, into in self.shapes:
            runs += [into] * out + [out] * self.biases
        return runs

    def as_dict(self) -> dict[str, int | float | str]:
        """The plain form that the store keeps; without a coding of coordinates it is shorter."""
        known = asdict(self)
        unused = {"density"} if self.density == 1 else set()
        unused |= set() if self.octaves else {"octaves", "biases", "density"}
        return {name: value for name, value in known.items() if name not in unused}


def relu_spec(*, hidden: int, layers: int, octaves: int = 0) -> NetworkSpec:
    """Name a network of ReLU units of a shape: points in, coded if `octaves` is not 0; one out."""
    return NetworkSpec(6 * octaves or 3, hidden, layers, 1, 0.0, "relu", octaves)


def radiance_spec(
    *, hidden: int, layers: int, octaves: int, biases: bool, density: float = 1.0
) -> NetworkSpec:
    """Name a network of radiance: coded coordinates in, red, green, blue and density out.

    The paper's is 64 units, 3 layers, 24 octaves, no biases: 144-64-64-64-4, 17,664 parameters
    (the authors' files have 12 more rows in the last matrix, which nothing reads).
    """
    sizes = 6 * octaves, hidden, layers, RADIANCE_OUTPUTS
    return NetworkSpec(*sizes, 0.0, "relu", octaves, biases, density)


def split_theta(theta: Tensor, spec: NetworkSpec) -> tuple[list[Tensor], list[Tensor]]:
    """View flat parameters [B, P] as each layer's weights [B, out, in] and biases [B, out].

    Biases that a network does not have are zeros.
    """
    weights, biases, at = [], [], 0
    for out, into in spec.shapes:
        weights.append(theta[:, at : at + out * into].view(-1, out, into))
        at += out * into
        if spec.biases:
            biases.append(theta[:, at : at + out])
            at += out
        else:
            biases.append(theta.new_zeros(len(theta), out))
    return weights, biases


def weight_rows(theta: Tensor, spec: NetworkSpec) -> Tensor:  # [B, P] -> [B, R, H]
    """Stack the hidden matrices and their biases as rows, R = (layers - 1)(H + 1) (paper, III-B).

    As the authors' code does it: a row is one neuron's incoming weights, each matrix is followed
    by its bias, and the first and the last layer are left out. Of radiance all layers are rows.
    """
    if spec.radiance:  # nothing is left out; the last row is filled up with zeros, as theirs are
        filled = pad(theta, (0, -theta.shape[1] % spec.hidden))
        return filled.view(len(theta), -1, spec.hidden)
    first = spec.hidden * (spec.inputs + 1)
    count = (spec.layers - 1) * (spec.hidden + 1)
    return theta[:, first : first + count * spec.hidden].view(len(theta), count, spec.hidden)


def siren_init(spec: NetworkSpec, *, seed: int) -> Tensor:
    """Draw the shared start of all fields of a store: theta [P], float32.

    Sitzmann et al. 2020, as the paper's authors use it: first matrix U(+-1/inputs), the others
    U(+-sqrt(6/H)/omega) with the last layer among them, biases U(+-1/sqrt(inputs)).
    The same seed gives the same bits on every machine (CPU generator).
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[Tensor] = []
    for layer, (out, into) in enumerate(spec.shapes):
        bound = 1 / into if layer == 0 else sqrt(6 / into) / spec.omega
        parts.append((torch.rand(out * into, generator=generator) * 2 - 1) * bound)
        parts.append((torch.rand(out, generator=generator) * 2 - 1) / sqrt(into))
    return torch.cat(parts)


PCG_SEED = 999  # of the authors' radiance fields (tiny-cuda-nn's, with stream 1)
PCG_FACTOR = 0x5851F42D4C957F2D
TCNN_OUTPUTS = 16  # rows of their last matrix: its bound goes by them, and only four are used


def radiance_init(spec: NetworkSpec, *, seed: int) -> Tensor:
    """Draw the shared start of all radiance fields of a store: theta [P], float32.

    As tiny-cuda-nn does it for the paper's authors: Xavier's uniform bound, from the generator
    pcg32 (O'Neill 2014), so that seed 0 with the paper's sizes gives the start of their published
    fields without a file. Biases, which theirs lack, start at 0.
    """
    drawn = tcnn_init(spec, seed=seed)
    parts, at = [], 0
    for out, into in spec.shapes:
        parts += [drawn[at : at + out * into], np.zeros(out * spec.biases, np.float32)]
        at += out * into
    return torch.from_numpy(np.concatenate(parts))


def tcnn_init(spec: NetworkSpec, *, seed: int) -> NDArray[np.float32]:
    """Draw tiny-cuda-nn's start of a network of radiance; its last matrix has TCNN_OUTPUTS rows.

    Seed 0: that of the authors' files, whose other rows nothing reads.
    """
    sizes = [*spec.shapes[:-1], (TCNN_OUTPUTS, spec.hidden)]
    bits = pcg32(PCG_SEED + seed, sum(rows * into for rows, into in sizes))
    drawn = (bits >> 9 | 0x3F800000).view(np.float32) - np.float32(1)  # uniform in [0, 1)
    at = 0
    for rows, into in sizes:
        bound = np.float32(sqrt(6 / (rows + into)))
        part = drawn[at : at + rows * into]
        part[:] = part * (2 * bound) - bound
        at += rows * into
    return drawn


def pcg32(seed: int, count: int, *, stream: int = 1) -> NDArray[np.uint32]:
    """Give the first numbers of the generator pcg32: [count]."""
    mask = (1 << 64) - 1
    step = stream << 1 | 1
    state = ((step + seed) * PCG_FACTOR + step) & mask
    bits = np.empty(count, np.uint32)
    for place in range(count):
        mixed = ((state >> 18 ^ state) >> 27) & 0xFFFFFFFF
        turn = state >> 59
        bits[place] = (mixed >> turn | mixed << (-turn & 31)) & 0xFFFFFFFF
        state = (state * PCG_FACTOR + step) & mask
    return bits
