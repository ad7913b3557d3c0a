"""Move an object by editing the first layer of its field: exact, whatever the shape.

The paper lists transforms of the shape as a limitation: an embedding sees another object. Here a
field is moved before it is embedded. With x -> A x + t the moved field is f'(y) = f(A^-1 (y - t)),
so W1' = W1 A^-1 and b1' = b1 - W1 A^-1 t, and nothing else changes.

What the values mean is another matter. Occupancy moves with the object. Distances scale with it: a
field of distances goes on to speak in the object's old unit, value'(y) = s f(A^-1 (y - t)) for a
move that scales by s, and says "far" from 0.1 s on. A logit of s d is no affine function of the
logit of d, so s cannot be folded into the last layer: who reads the field multiplies. After a move
that scales axes differently only the surface itself is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.errors import UsageFault
from nf2vec_cli.models.network import NetworkSpec

Floats = NDArray[np.floating]
AXES = {"x": 0, "y": 1, "z": 2}
EXAMPLES = "rotate=z:90, mirror=x, scale=0.5, scale=1,2,1 or shift=0.1,0,0"


@dataclass(frozen=True)
class Affine:
    """The move x -> linear x + shift. linear: [3, 3], shift: [3], in object space."""

    linear: Floats
    shift: Floats

    @classmethod
    def rotation(cls, axis: str, degrees: float) -> Affine:
        """Turn about an axis, counterclockwise for who looks against it."""
        angle = np.deg2rad(degrees)
        linear = np.eye(3)
        first, second = [k for k in range(3) if k != AXES[axis]]
        if axis == "y":  # z -> x, so that the three turns are alike
            first, second = second, first
        linear[first, first] = linear[second, second] = np.cos(angle)
        linear[second, first] = np.sin(angle)
        linear[first, second] = -np.sin(angle)
        return cls(linear, np.zeros(3))

    @classmethod
    def mirror(cls, axis: str) -> Affine:
        """Swap the two sides of an axis."""
        factors = np.ones(3)
        factors[AXES[axis]] = -1
        return cls(np.diag(factors), np.zeros(3))

    @classmethod
    def scaling(cls, factors: float | Floats) -> Affine:
        """Scale by one factor, or by one for each axis."""
        return cls(np.eye(3) * np.asarray(factors, float), np.zeros(3))

    @classmethod
    def shifting(cls, vector: Floats) -> Affine:
        """Move by a vector."""
        return cls(np.eye(3), np.asarray(vector, float))

    def then(self, other: Affine) -> Affine:
        """Do this move, then the other."""
        return Affine(other.linear @ self.linear, other.linear @ self.shift + other.shift)

    def inverse(self) -> Affine:
        """Give the move back."""
        back: Floats = np.linalg.inv(self.linear)
        return Affine(back, -back @ self.shift)

    def __call__(self, points: Floats) -> Floats:
        """Move points [M, 3]."""
        moved: Floats = points @ self.linear.T + self.shift
        return moved

    @property
    def stretches(self) -> Floats:
        """Give the largest, middle and least factor by which lengths change: [3]."""
        found: Floats = np.linalg.svd(self.linear, compute_uv=False)
        return found

    @property
    def is_similarity(self) -> bool:
        """Tell whether all lengths change by one factor, so that distances stay exact."""
        most, _, least = self.stretches
        return bool(most - least <= 1e-9 * most)


def transform_fields(
    theta: Tensor,  # [B, P]
    spec: NetworkSpec,
    linear: Tensor,  # [3, 3] or [B, 3, 3]
    shift: Tensor,  # [3] or [B, 3]
) -> Tensor:  # [B, P]
    """Move B fields, all alike or each by its own move; only their first layer changes.

    The sums are done in float64, and the result is rounded once.
    """
    out, into = spec.shapes[0]
    back = torch.linalg.inv(linear.to(theta.device, torch.float64))
    weights = theta[:, : out * into].view(-1, out, into).double() @ back
    moved = theta.clone()
    moved[:, : out * into] = weights.flatten(1).to(theta.dtype)
    offset = (weights @ shift.to(theta.device, torch.float64)[..., None]).squeeze(-1)
    bias = theta[:, out * into : out * (into + 1)].double() - offset
    moved[:, out * into : out * (into + 1)] = bias.to(theta.dtype)
    return moved


def parse_transform(text: str) -> Affine:
    """Read one move as it is typed, such as `rotate=z:90`.

    Raises:
        UsageFault: it is none, or it flattens the object.
    """
    kind, _, value = text.strip().partition("=")
    try:
        if kind == "rotate":
            axis, _, angle = value.partition(":")
            return Affine.rotation(axis, *_numbers(angle, 1))
        if kind == "mirror":
            return Affine.mirror(value)
        if kind == "scale":
            factors = np.array(_numbers(value, 1, 3))
            if (np.abs(factors) < 1e-6).any():
                raise ValueError("a factor of zero flattens the object")
            return Affine.scaling(factors)
        if kind == "shift":
            return Affine.shifting(np.array(_numbers(value, 3)))
    except (ValueError, KeyError, TypeError) as error:
        why = f": {error}" if isinstance(error, ValueError) else ""
        raise UsageFault(f"{text!r} is no move{why}", hint=f"write {EXAMPLES}") from error
    raise UsageFault(f"{text!r} is no move", hint=f"write {EXAMPLES}")


def _numbers(text: str, *counts: int) -> list[float]:
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) not in counts or not np.isfinite(numbers).all():
        raise ValueError(f"{text!r} is not {' or '.join(map(str, counts))} finite numbers")
    return numbers
