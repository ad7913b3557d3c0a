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
    opacity = -torch.expm1(-torch.exp(found[..., 3] - 1) * LENGTH)
    return opacity, found[..., :3].sigmoid()


def coarse_radiance(opacity: Tensor, colours: Tensor, side: int) -> Tensor:
    """Average opacity, and colours times opacity, over blocks: [B, 4 (side // 2)^3]."""
    seen = torch.cat([opacity[..., None], colours * opacity[..., None]], -1)
    field = seen.mT.reshape(-1, RADIANCE_CHANNELS, side, side, side)
    return avg_pool3d(field, kernel_size=2).flatten(1)
