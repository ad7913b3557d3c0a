"""What fields are at fixed points of object space, read from their weights alone."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from nf2vec_cli.core.device import quick_products
from nf2vec_cli.core.kernels import kernels_serve
from nf2vec_cli.core.mlp import field_values, tiled_values
from nf2vec_cli.models.network import NetworkSpec

CELLS = 4  # steps of a histogram along an axis; its cells are two steps wide, 5 along an axis
# six ways along the axes and eight to the corners; twelve more to the edges told no more
WAYS = [way for way in product((-1, 0, 1), repeat=3) if sum(map(abs, way)) in (1, 3)]
# what a move does at most, or its standard deviation: factors of the axes, radians, shift
STRETCH, TURN, SHIFT = 0.2, 0.14, 0.04
# by kernels, bytes of a layer's outputs of the fields read at once: wide networks hold two layers
# in memory, and those of 339 fields of 512 units at 19^3 points are 9.5 GB
LAYER_BYTES = 1 << 30
HISTOGRAM = len(WAYS) * (CELLS + 1) ** 3  # numbers of a slope histogram


def lattice(side: int) -> Tensor:  # -> [side^3, 3]
    """Give the middles of side^3 cells of [-1, 1]^3, x slowest."""
    along = (torch.arange(side) + 0.5) * (2 / side) - 1
    return torch.cartesian_prod(along, along, along)


def moved(points: Tensor, count: int, generator: torch.Generator) -> Tensor:  # [M, 3], [B, M, 3]
    """Move points for each of B objects as if each stood in the cube a little otherwise.

    Each axis by a factor of exp(-STRETCH) to exp(STRETCH), a turn about any axis by angles of
    spread TURN (at most twice that) and a shift of spread SHIFT; kept in [-1, 1], where fields are
    known.
    """
    factors = torch.exp(STRETCH * (2 * torch.rand(count, 1, 3, generator=generator) - 1))
    angles = TURN * torch.randn(count, 3, generator=generator).clamp_(-2, 2)
    shifts = SHIFT * torch.randn(count, 1, 3, generator=generator)
    turns = angles.new_zeros(count, 3, 3)
    for way, (row, column) in enumerate(((1, 2), (2, 0), (0, 1))):
        turns[:, row, column], turns[:, column, row] = -angles[:, way], angles[:, way]
    turned = points.cpu() @ (torch.linalg.matrix_exp(turns) * factors).mT
    found: Tensor = (turned + shifts).clamp_(-1, 1)
    return found.to(points.device)


def field_outputs(theta: Tensor, coords: Tensor, spec: NetworkSpec) -> Tensor:
    """Give the raw outputs of B fields, [B, P], each at its own points, [B, M, 3] -> [B, M].

    By kernels as many at once as LAYER_BYTES allows; without, one after the other: on a CPU that
    beats a batched product. None depends on the others.
    """
    found = coords.new_empty(coords.shape[:2])
    if kernels_serve(theta):
        step = max(1, LAYER_BYTES // (4 * coords.shape[1] * spec.hidden))
        for start in range(0, len(theta), step):
            part = slice(start, start + step)
            found[part] = field_values(theta[part], coords[part], spec)[..., 0]
        return found
    for one in range(len(theta)):
        found[one] = tiled_values(theta[one], coords[one], spec)[:, 0]
    return found


@torch.no_grad()
def read_field(
    theta: Tensor,  # [B, P]
    spec: NetworkSpec,
    side: int,
    moves: torch.Generator | None = None,
) -> Tensor:  # [B, side^3]
    """Read fields at a lattice as their labels, 0 to 1: every kind has a sigmoid at its end.

    moves: read each as it would be if its object were `moved` by a draw of this.
    """
    points = lattice(side).to(theta.device)
    if moves is None:
        points = points.expand(len(theta), -1, -1)
    else:
        points = moved(points, len(theta), moves)
    with quick_products() if theta.device.type == "cpu" else nullcontext():
        return field_outputs(theta, points, spec).sigmoid_()


def slope_histogram(values: Tensor, side: int) -> Tensor:  # [B, side^3] -> [B, F]
    """Tell how much a field rises which way in each part of space.

    Histograms of oriented gradients (Dalal and Triggs 2005) in 3D: differences across a point along
    each of WAYS, where the field rises that way, averaged over cells that overlap by half; the
    square root keeps the few steep places from drowning the rest. Neighbours are averaged first: a
    thin field falls between the points of a lattice. CELLS divides side - 3; F = HISTOGRAM.
    """
    field = avg_pool3d(values.view(-1, 1, side, side, side), kernel_size=2, stride=1)[:, 0]
    mid = slice(1, -1)
    rise = torch.stack(
        [
            field[:, 2:, mid, mid] - field[:, :-2, mid, mid],
            field[:, mid, 2:, mid] - field[:, mid, :-2, mid],
            field[:, mid, mid, 2:] - field[:, mid, mid, :-2],
        ],
        dim=1,
    )
    ways = torch.tensor(WAYS, dtype=values.dtype, device=values.device)
    ways = ways / ways.norm(dim=1, keepdim=True)
    along = torch.einsum("bixyz,wi->bwxyz", rise, ways).relu_()
    stride = (side - 3) // CELLS
    pooled = avg_pool3d(along, kernel_size=2 * stride, stride=stride, padding=stride)
    return pooled.flatten(1).sqrt_()


def coarse_values(values: Tensor, side: int) -> Tensor:  # [B, side^3] -> [B, (side // 2)^3]
    """Average a field over blocks of 2^3 points: what of its values varies in large parts."""
    return avg_pool3d(values.view(-1, 1, side, side, side), kernel_size=2).flatten(1)
