"""What fields of radiance are at fixed points of object space, read from their weights alone."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from nf2vec_cli.core.device import quick_products
from nf2vec_cli.core.mlp import frequencies, relu_forward
from nf2vec_cli.models.network import NetworkSpec, split_theta
from nf2vec_cli.models.probes import lattice, moved

RADIANCE_CHANNELS = 4  # opacity, and the three colours as far as they are seen
BINS = 5  # of a histogram along each of red, green and blue
HUES = BINS**3
FAINT = 0.05  # of what is seen in a block, below which the whole object's colour counts more
LENGTH = 0.1  # that light goes through: density becomes the share that it swallows, 0 to 1


@torch.no_grad()
def read_radiance(
    theta: Tensor,  # [B, P]
    spec: NetworkSpec,
    side: int,
    moves: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Read fields at a lattice: opacities [B, side^3] and colours [B, side^3, 3], 0 to 1.

    One after the other: none depends on the others, and its activations stay in the cache.
    moves: read each as it would be if its object were `moved` by a draw of this.
    """
    points = lattice(side).to(theta.device)[None]
    if moves is not None:
        points = moved(points[0], len(theta), moves)
    coded = frequencies(points, spec.octaves)
    found = theta.new_empty(len(theta), side**3, 4)
    with quick_products() if theta.device.type == "cpu" else nullcontext():
        for one, place in enumerate(found):
            weights, biases = split_theta(theta[one : one + 1], spec)
            at = coded[one % len(coded)][None]
            place[:] = relu_forward(weights, biases, at)[0]
    opacity = -torch.expm1(-torch.exp(found[..., 3] - 1) * (LENGTH * spec.density))
    return opacity, found[..., :3].sigmoid()


def coarse_radiance(opacity: Tensor, colours: Tensor, side: int) -> Tensor:
    """Average opacity, and colours times opacity, over blocks: [B, 4 (side // 2)^3]."""
    seen = torch.cat([opacity[..., None], colours * opacity[..., None]], -1)
    field = seen.mT.reshape(-1, RADIANCE_CHANNELS, side, side, side)
    return avg_pool3d(field, kernel_size=2).flatten(1)


def shown(opacity: Tensor, side: int) -> Tensor:  # [B, side^3] -> [B, side^3]
    """Tell how much of a point can be seen: opaque itself, with clear points around it.

    Inside of what is opaque a field has any colour: no picture ever showed it.
    """
    field = opacity.view(-1, 1, side, side, side)
    around = avg_pool3d(field, kernel_size=3, stride=1, padding=1)  # outside it is clear
    return (field * (1 - around)).flatten(1)


def hue_histogram(opacity: Tensor, colours: Tensor, side: int) -> Tensor:  # -> [B, HUES]
    """Tell how much of what is seen has which colour, wherever it is; square roots of shares.

    A colour counts for the eight nearest of BINS^3 colours, by how near they are.
    """
    weights = shown(opacity, side)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-6)
    along = torch.arange(BINS, device=colours.device) / (BINS - 1)
    near = (1 - (colours[..., None] - along).abs() * (BINS - 1)).clamp_min(0)  # [B, M, 3, BINS]
    found = torch.einsum("bm,bmi,bmj,bmk->bijk", weights, *near.unbind(2))
    return found.flatten(1).sqrt()


def tint(opacity: Tensor, colours: Tensor, side: int) -> Tensor:  # -> [B, 3 (side // 2)^3]
    """Average what colours can be seen over blocks; where nothing is, over the whole object."""
    weights = shown(opacity, side)[..., None]
    whole = (weights * colours).sum(1) / weights.sum(1).clamp_min(1e-6)  # [B, 3]
    both = torch.cat([weights * colours, weights], -1)
    field = both.mT.reshape(-1, 4, side, side, side)
    pooled = avg_pool3d(field, kernel_size=2).flatten(2)
    found = (pooled[:, :3] + FAINT * whole[..., None]) / (pooled[:, 3:] + FAINT)
    return found.flatten(1)
