"""One fitted field as a function of points, in unit space, moved if that is wanted."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.core.kernels import kernels_serve
from nf2vec_cli.core.mlp import field_values, tiled_values, tiled_values_and_slopes
from nf2vec_cli.fields.field import Field, field_of
from nf2vec_cli.fields.pool import CLIP
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.transform import Affine, transform_fields

Floats = NDArray[np.float32]
CPU = torch.device("cpu")


class Askable(Protocol):
    """A field that can be asked at points, from weights or from an embedding."""

    @property
    def reach(self) -> float: ...

    def values(self, coords: Floats) -> Floats: ...

    def slopes(self, coords: Floats) -> tuple[Floats, Floats]: ...
    def to(self, device: torch.device) -> None: ...


class FieldFunction:
    """A field that can be asked: theta [P] of a kind, with values in the unit of object space.

    A field that is moved by `move` says distances in its old unit; they are scaled by the least
    factor of the move, which is exact for similarities, and never too large for others. It is asked
    from the CPU, whatever device it computes on.
    """

    def __init__(
        self,
        theta: Floats,
        spec: NetworkSpec,
        kind: str,
        move: Affine | None = None,
        device: torch.device = CPU,
    ) -> None:
        field: Field = field_of(kind)
        flat = torch.from_numpy(theta)[None]
        self.factor = 1.0
        if move is not None:
            linear, shift = torch.from_numpy(move.linear), torch.from_numpy(move.shift)
            flat = transform_fields(flat, spec, linear, shift)
            if kind != "occ":
                self.factor = float(move.stretches[-1])
        self.theta, self.spec = flat, spec
        self.to(device)
        self.read_back = field.read_back
        self.reach = CLIP * self.factor

    def to(self, device: torch.device) -> None:
        """Compute on a device from now on."""
        self.theta = self.theta.to(device)

    def values(self, coords: Floats) -> Floats:  # [M, 3] -> [M]
        """Say what the field is at points of object space."""
        at = torch.from_numpy(coords).to(self.theta.device)
        if kernels_serve(self.theta):
            raw = field_values(self.theta, at[None], self.spec)[0]
        else:
            raw = tiled_values(self.theta[0], at, self.spec)
        found: Floats = self.read_back(raw[:, 0]).cpu().numpy() * np.float32(self.factor)
        return found

    def slopes(self, coords: Floats) -> tuple[Floats, Floats]:  # [M, 3] -> [M], [M, 3]
        """Say what the field is, and how it changes along each axis."""
        at = torch.from_numpy(coords).to(self.theta.device)
        raw, slopes = tiled_values_and_slopes(self.theta[0], at, self.spec)
        outputs = raw[:, 0].requires_grad_()
        values = self.read_back(outputs)
        (outer,) = torch.autograd.grad(values.sum(), outputs)
        factor = np.float32(self.factor)
        moved = (outer[:, None] * slopes).cpu().numpy() * factor
        return values.detach().cpu().numpy() * factor, moved
