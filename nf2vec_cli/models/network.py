"""The architecture of a neural field, and the order of its parameters in one flat vector."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor


@dataclass(frozen=True)
class NetworkSpec:
    """A SIREN: `layers` hidden layers of `hidden` sine units, then a linear one (paper, III).

    The paper's network is `NetworkSpec(hidden=512, layers=4)`: 3-512-512-512-512-1, 790,529
    parameters. The flat vector theta [P] holds layer 0's matrix (out x in, row-major), layer 0's
    bias, layer 1's matrix, and so on, as a PyTorch state dict would.
    """

    inputs: int = 3
    hidden: int = 128
    layers: int = 4
    outputs: int = 1
    omega: float = 30.0
    activation: str = "sine"

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of each linear layer, first to last."""
        widths = [self.inputs] + [self.hidden] * self.layers + [self.outputs]
        return [(out, into) for into, out in pairwise(widths)]

    @property
    def parameters(self) -> int:
        """P: how many numbers one field holds."""
        return sum(out * (into + 1) for out, into in self.shapes)

    @property
    def blocks(self) -> list[int]:
        """Lengths of the runs of theta that belong together: each matrix row, then each bias."""
        runs: list[int] = []
        for out, into in self.shapes:
            runs += [into] * out + [out]
        return runs

    def as_dict(self) -> dict[str, int | float | str]:
        """The plain form that the store keeps."""
        return asdict(self)


def split_theta(theta: Tensor, spec: NetworkSpec) -> tuple[list[Tensor], list[Tensor]]:
    """View flat parameters [B, P] as each layer's weights [B, out, in] and biases [B, out]."""
    weights, biases, at = [], [], 0
    for out, into in spec.shapes:
        weights.append(theta[:, at : at + out * into].view(-1, out, into))
        at += out * into
        biases.append(theta[:, at : at + out])
        at += out
    return weights, biases


def weight_rows(theta: Tensor, spec: NetworkSpec) -> Tensor:  # [B, P] -> [B, R, H]
    """Stack the hidden matrices and their biases as rows, R = (layers - 1)(H + 1) (paper, III-B).

    As the authors' code does it: a row is one neuron's incoming weights, each matrix is followed
    by its bias, and the first and the last layer are left out.
    """
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
