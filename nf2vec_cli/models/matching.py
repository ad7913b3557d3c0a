"""Which neuron of one field is which of another, and in what guise (weight matching).

A field's weights can change in exact ways that leave its function as it is: neurons of a hidden
layer may trade places; a sine unit may turn over, as sin(-x) = -sin(x), or move on by half periods,
as sin(x + k pi) = (-1)^k sin(x); a ReLU unit may be scaled by s > 0 and its use by 1 / s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from nf2vec_cli.models.network import NetworkSpec, split_theta, weight_rows

ALIGNED = 0.5  # correlation of hidden weights with the init below which a field came from elsewhere
SWEEPS = 100  # over all layers, at most: a handful are enough
GAIN = 1e-9  # relative to the squared distance, below which a layer counts as settled
SIMPLER = 0.99  # of a distance: what is no nearer than this is not worth a richer symmetry
LOG_SCALE = 10.0  # a ReLU unit is scaled by exp(-10) to exp(10): one without weights has no best
BISECTIONS = 40  # of that range: to 2e-11
Numbers = NDArray[np.float64]


class Freedom(IntEnum):
    """What units may do: change places; turn over as well; move by half periods, or be scaled."""

    places = 0
    signs = 1
    all = 2


@dataclass(frozen=True)
class Symmetry:
    """What becomes of the units of one hidden layer, an entry of [H] each.

    Unit i is then what unit `order[i]` was: its incoming weights and bias times `into`, `shift`
    added to the bias, its outgoing weights times `out`.
    """

    order: NDArray[np.int64]
    into: Numbers
    shift: Numbers
    out: Numbers


@dataclass(frozen=True)
class Units:
    """The units of a hidden layer: incoming [H, I], biases [H], outgoing [H, O]."""

    into: Numbers
    bias: Numbers
    out: Numbers


def match_fields(
    a: Tensor, b: Tensor, spec: NetworkSpec, *, plain: bool = False, seed: int = 0
) -> list[Symmetry]:
    """Bring the weights of `b` as close to those of `a` as symmetries of its function can.

    Weight matching of Ainsworth et al. 2022 (arXiv 2209.04836, algorithm 1; paper, section VIII):
    coordinate descent over the layers in random order; each layer, with the others held, is a
    linear assignment, solved exactly. Here a pair of units costs what is left of their squared
    distance after the best sign and shift, or the best scale. The descent ends in a local optimum:
    it starts from a first pass through the layers by incoming weights alone, since the input is the
    one place where both fields surely agree.

    The more units may do, the more chance has to choose from: at width 64, with signs and shifts, a
    fit ends nearer to its own init by 0.05 % with 5 % of its neurons elsewhere than where they
    came from. So places are tried alone, then signs, then all, and the simplest that comes about as
    near as the next is taken.

    Args:
        a: weights of a field, [P].
        b: weights of another field of the same architecture, [P].
        spec: the architecture.
        plain: neurons trade places and nothing else, starting from where they are, as in the paper.
        seed: of the order of the layers.

    Returns:
        One symmetry a hidden layer, for `transformed`.
    """
    ours, theirs, rng = _layers(a, spec), _layers(b, spec), np.random.default_rng(seed)
    if plain:
        start = [_identity(spec.hidden)] * spec.layers
        return _descend(ours, theirs, spec, start, Freedom.places, rng)
    best, nearest = [_identity(spec.hidden)] * spec.layers, np.inf
    for freedom in (f for f in Freedom if f != Freedom.signs or spec.activation == "sine"):
        start = _forward(ours, theirs, spec, freedom)
        found = _descend(ours, theirs, spec, start, freedom, rng)
        apart = float((transformed(b.double(), found, spec) - a.double()).norm())
        if apart < SIMPLER * nearest:
            best, nearest = found, apart
    return best


def transformed(theta: Tensor, symmetries: list[Symmetry], spec: NetworkSpec) -> Tensor:
    """Apply a symmetry to each hidden layer of a field, [P] -> [P]: the same function."""
    weights, biases = split_theta(theta[None], spec)
    parts = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        w, b = weight[0].double(), bias[0].double()
        if layer > 0:
            before = symmetries[layer - 1]
            w = w[:, torch.from_numpy(before.order)] * torch.from_numpy(before.out)
        if layer < spec.layers:
            own = symmetries[layer]
            order, into = torch.from_numpy(own.order), torch.from_numpy(own.into)
            w, b = w[order] * into[:, None], b[order] * into + torch.from_numpy(own.shift)
        parts += [w.flatten(), b] if spec.biases else [w.flatten()]
    return torch.cat(parts).to(theta.dtype)


def moved(symmetries: list[Symmetry]) -> float:
    """Give the share of neurons that do not stay in their place, in [0, 1]."""
    return float(np.mean([own.order != np.arange(len(own.order)) for own in symmetries]))


def turned(symmetries: list[Symmetry]) -> float:
    """Give the share of neurons whose incoming or outgoing weights change their sign, in [0, 1]."""
    return float(np.mean([(own.into < 0) | (own.out < 0) for own in symmetries]))


def correlation(
    theta: Tensor, reference: Tensor, spec: NetworkSpec, *, biases: bool = True
) -> Tensor:
    """Correlate fields [B, P] with one [P] in their hidden weights: [B]; NaN where not finite.

    Fields correlate by more than ALIGNED with the init that they were fitted from, and by about 0
    with another one. biases: those of the hidden layers count as well, as far as shapes have them.
    """
    hidden, other = (_hidden(part, spec, biases) for part in (theta, reference[None]))
    centred, other = (part - part.mean(1, keepdim=True) for part in (hidden, other))
    found: Tensor = (centred @ other[0]) / (centred.norm(dim=1) * other.norm())
    return found


def chance(reference: Tensor, spec: NetworkSpec, *, seed: int = 0) -> float:
    """Correlate the hidden matrices of a field with the best match of weights that mean nothing.

    They are the field's own, shuffled within each matrix and bias. What a field of another init
    reaches is about this; the wider the network, the less: 0.27, 0.20, 0.16 and 0.12 at widths of
    64, 128, 256 and 512.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [
        part[torch.randperm(len(part), generator=generator)]
        for part in reference.split(
            [n for out, into in spec.shapes for n in (out * into, *[out] * spec.biases)]
        )
    ]
    mixed = torch.cat(parts)
    made = transformed(mixed, match_fields(reference, mixed, spec, seed=seed), spec)
    return float(correlation(made[None], reference, spec, biases=False))


def _hidden(theta: Tensor, spec: NetworkSpec, biases: bool) -> Tensor:  # [B, P] -> [B, W]
    """Give the weights of the hidden matrices; of shapes, whose rows are these, biases as well."""
    if biases and not spec.radiance:
        return weight_rows(theta, spec).flatten(1)
    weights, _ = split_theta(theta, spec)
    return torch.cat([matrix.flatten(1) for matrix in weights[1:-1]], dim=1)


def _descend(
    a: list[tuple[Numbers, Numbers]],
    b: list[tuple[Numbers, Numbers]],
    spec: NetworkSpec,
    found: list[Symmetry],
    freedom: Freedom,
    rng: np.random.Generator,
) -> list[Symmetry]:
    for _ in range(SWEEPS):
        settled = True
        for layer in rng.permutation(spec.layers):
            ours, theirs = _units(a, layer), _units(b, layer, found)
            cost, guise = _costs(ours, theirs, spec, freedom)
            rows, best = linear_sum_assignment(cost)
            now = _distance(ours, theirs, found[layer])
            if now - cost[rows, best].sum() > GAIN * now:
                found[layer], settled = _chosen(best, guise), False
        if settled:
            break
    return found


def _forward(
    a: list[tuple[Numbers, Numbers]],
    b: list[tuple[Numbers, Numbers]],
    spec: NetworkSpec,
    freedom: Freedom,
) -> list[Symmetry]:
    """Match layer after layer by incoming weights: what a layer feeds is not matched yet."""
    found = [_identity(spec.hidden)] * spec.layers
    for layer in range(spec.layers):
        ours, theirs = _units(a, layer), _units(b, layer, found)
        empty = np.zeros((spec.hidden, 1))
        ours, theirs = Units(ours.into, ours.bias, empty), Units(theirs.into, theirs.bias, empty)
        cost, guise = _costs(ours, theirs, spec, freedom)
        found[layer] = _chosen(linear_sum_assignment(cost)[1], guise)
    return found


def _distance(a: Units, b: Units, own: Symmetry) -> float:
    """Give the squared distance of a layer's units as they are matched."""
    into = a.into - b.into[own.order] * own.into[:, None]
    bias = a.bias - b.bias[own.order] * own.into - own.shift
    out = a.out - b.out[own.order] * own.out[:, None]
    return float(sum(np.square(part).sum() for part in (into, bias, out)))


def _identity(hidden: int) -> Symmetry:
    ones = np.ones(hidden)
    return Symmetry(np.arange(hidden), ones, np.zeros(hidden), ones)


def _chosen(order: NDArray[np.int64], guise: list[Numbers]) -> Symmetry:
    into, shift, out = (part[np.arange(len(order)), order] for part in guise)
    return Symmetry(order, into, shift, out)


def _units(
    layers: list[tuple[Numbers, Numbers]], layer: int, found: list[Symmetry] | None = None
) -> Units:
    """Give the units of a layer, as they are when the layers around it are transformed."""
    (into, bias), (after, _) = layers[layer], layers[layer + 1]
    if found and layer > 0:
        into = into[:, found[layer - 1].order] * found[layer - 1].out
    if found and layer + 1 < len(found):
        after = after[found[layer + 1].order] * found[layer + 1].into[:, None]
    return Units(into, bias, after.T)


def _costs(
    a: Units, b: Units, spec: NetworkSpec, freedom: Freedom
) -> tuple[Numbers, list[Numbers]]:
    """Give for each unit of `a` and of `b` their squared distance, and the guise that makes it so.

    Returns:
        Distances; factors of the incoming weights, shifts, factors of the outgoing ones. [H, H].
    """
    if spec.activation == "relu" and freedom == Freedom.all:
        return _scaled(a, b)
    lengths = _squares(a)[:, None] + _squares(b)
    into, out = 2 * a.into @ b.into.T, 2 * a.out @ b.out.T
    step = np.pi / spec.omega if freedom == Freedom.all else 0.0
    best = np.full_like(into, np.inf)
    guise = [np.ones_like(into) for _ in range(3)]
    for sign in (1, -1) if freedom >= Freedom.signs else (1,):
        gap = a.bias[:, None] - sign * b.bias
        for parity in (0, 1) if freedom == Freedom.all else (0,):
            # the nearest even or odd number of half periods
            turns = 2 * np.rint((gap / step - parity) / 2) + parity if step else 0 * gap
            use = sign * (-1) ** parity
            cost = lengths - sign * into - use * out + np.square(gap - turns * step)
            better = cost < best
            best[better] = cost[better]
            for part, value in zip(guise, (sign, turns * step, use), strict=True):
                part[better] = np.broadcast_to(value, part.shape)[better]
    return best, guise


def _scaled(a: Units, b: Units) -> tuple[Numbers, list[Numbers]]:
    """Scale each unit of `b` to each of `a`: |a_in - s b_in|^2 + |a_out - b_out / s|^2 is least.

    A root of its slope in log s, by bisection; there is one where the units are alike.
    """
    into_a, into_b = (np.column_stack([units.into, units.bias]) for units in (a, b))
    p, q = np.square(into_b).sum(1)[None], into_a @ into_b.T
    n, r = np.square(b.out).sum(1)[None], a.out @ b.out.T
    low, high = np.full_like(q, -LOG_SCALE), np.full_like(q, LOG_SCALE)
    for _ in range(BISECTIONS):
        s = np.exp((low + high) / 2)
        rising = p * s**2 - q * s - n / s**2 + r / s > 0
        high = np.where(rising, np.log(s), high)
        low = np.where(rising, low, np.log(s))
    s = np.exp((low + high) / 2)
    lengths = np.square(into_a).sum(1) + np.square(a.out).sum(1)
    cost = lengths[:, None] + p * s**2 - 2 * q * s + n / s**2 - 2 * r / s
    return cost, [s, np.zeros_like(s), 1 / s]


def _squares(units: Units) -> Numbers:
    found: Numbers = np.square(units.into).sum(1) + np.square(units.out).sum(1)
    return found


def _layers(theta: Tensor, spec: NetworkSpec) -> list[tuple[Numbers, Numbers]]:
    weights, biases = split_theta(theta.double()[None], spec)
    return [(w[0].numpy(), b[0].numpy()) for w, b in zip(weights, biases, strict=True)]
