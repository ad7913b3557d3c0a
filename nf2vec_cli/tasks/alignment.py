"""How far apart fits are, and the loss on the line between two: pure functions of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.core.mlp import PointLoss
from nf2vec_cli.fields import FieldName
from nf2vec_cli.models.matching import match_fields, moved, transformed
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.probes import field_outputs

POSITIONS = 11  # on the line between two fits, both ends included
ALL = "all"  # the row of means
SAME, OTHER, MATCHED, TURNED = PAIRS = (
    "same init",
    "different inits",
    "different inits, matched",
    "different inits, all symmetries",
)


@dataclass(frozen=True)
class Repeatability:
    """How far apart the fits of one shape are; in the row `all`, the means of the other rows.

    within: mean Euclidean distance between two refits of the shape, in the unit of the weights or
    embeddings that are compared. between: the same between its refits and all other shapes'.
    ratio: between over within; above 1, objects are told apart. nearest: percent of its refits
    whose nearest other fit is one of the same shape.
    """

    shape: str
    within: float
    between: float
    ratio: float
    nearest: float


@dataclass(frozen=True)
class Connectivity:
    """The loss on the straight line between two fits of a shape; row `all`: means of the others.

    pair: whether the two fits start from one init, from different ones, or from different ones
    with the second's neurons permuted to match the first's, or brought to them by all symmetries
    (signs, and shifts by half periods, besides). ends: mean training loss of the two, in
    its own unit (nats for cross-entropy). barrier: largest loss on the line less `ends`, in the
    same unit, never negative. relative: barrier over ends, percent. relative_kl: the same over what
    the ends have above the entropy of the labels, which no field goes below. identity: percent of
    hidden neurons that weight matching of the two fits leaves in their place.
    """

    shape: str
    pair: str
    ends: float
    barrier: float
    relative: float
    relative_kl: float
    identity: float


@dataclass(frozen=True)
class Alignment:
    """What was found. width: H. compared: weights, or the embeddings of an encoder, by its key."""

    field: FieldName
    width: int
    refits: int
    compared: str
    repeatability: tuple[Repeatability, ...]
    connectivity: tuple[Connectivity, ...]


@dataclass(frozen=True)
class Line:
    """Training loss at each of `positions`, of a shape and a pair; entropy: that of the labels."""

    shape: str
    pair: str
    entropy: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class AlignmentStudy:
    """The summary, and the numbers behind it.

    positions: 0 at the first fit, 1 at the second. lines: a shape and pair each. fits: names of
    the rows and columns of `distances`, SHAPE#REFIT. distances: [F, F], Euclidean.
    """

    summary: Alignment
    positions: tuple[float, ...]
    lines: tuple[Line, ...]
    fits: tuple[str, ...]
    distances: NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """The query points of one shape on which the loss is measured."""

    coords: Tensor
    targets: Tensor
    loss: PointLoss

    @property
    def entropy(self) -> float:
        """Give the mean entropy of the labels: the least that a cross-entropy can be."""
        y = self.targets
        return float((torch.special.entr(y) + torch.special.entr(1 - y)).mean())


def distances_between(points: Tensor) -> NDArray[np.float64]:  # [F, D] -> [F, F]
    """Measure Euclidean distances, without the cancellation that a product would bring."""
    found: NDArray[np.float64] = torch.cdist(
        points.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).numpy()
    return found


def repeatability(
    names: Sequence[str], distances: NDArray[np.float64], refits: int
) -> list[Repeatability]:
    """Compare fits, a shape's `refits` in a row: a row a shape, and the row of means.

    names: of the N shapes. distances: [N * refits, N * refits].
    """
    owner = np.repeat(np.arange(len(names)), refits)
    alone = distances + np.diag(np.full(len(distances), np.inf))
    hits = owner[alone.argmin(1)] == owner
    rows = []
    for at, name in enumerate(names):
        mine = owner == at
        within = float(distances[np.ix_(mine, mine)].sum() / (refits * (refits - 1)))
        between = float(distances[np.ix_(mine, ~mine)].mean())
        ratio = between / within if within else inf
        rows.append(Repeatability(name, within, between, ratio, 100 * float(hits[mine].mean())))
    return [*rows, mean_row(rows)]


def connectivity(
    shape: str, first: Tensor, same: Tensor, other: Tensor, batch: Batch, spec: NetworkSpec
) -> Iterator[tuple[Connectivity, Line]]:
    """Walk from the first fit of a shape, [P], to one of the same init and one of another."""
    near = match_fields(first, same, spec, plain=True)
    order = match_fields(first, other, spec, plain=True)
    whole = match_fields(first, other, spec)
    entropy = batch.entropy
    for pair, end, match in (
        (SAME, same, near),
        (OTHER, other, order),
        (MATCHED, transformed(other, order, spec), order),
        (TURNED, transformed(other, whole, spec), whole),
    ):
        losses = _line(first, end, batch, spec)
        ends = (losses[0] + losses[-1]) / 2
        barrier = max(losses) - ends
        relative, kl = 100 * barrier / ends, 100 * barrier / (ends - entropy)
        row = Connectivity(shape, pair, ends, barrier, relative, kl, 100 - 100 * moved(match))
        yield row, Line(shape, pair, entropy, losses)


def _line(a: Tensor, b: Tensor, batch: Batch, spec: NetworkSpec) -> tuple[float, ...]:
    found = []
    for share in torch.linspace(0, 1, POSITIONS):
        raw = field_outputs(torch.lerp(a, b, share)[None], batch.coords[None], spec)[0]
        found.append(float(batch.loss(raw.double(), batch.targets)[0].mean()))
    return tuple(found)


Row = TypeVar("Row", Repeatability, Connectivity)


def mean_row(rows: Sequence[Row]) -> Row:
    """Average the numbers of rows; the shape is `all`, other texts are the first row's."""
    values: dict[str, str | float] = {}
    for entry in fields(rows[0]):
        column = [getattr(row, entry.name) for row in rows]
        text = isinstance(column[0], str)
        values[entry.name] = column[0] if text else float(np.mean(column))
    return type(rows[0])(**(values | {"shape": ALL}))  # type: ignore[arg-type]
