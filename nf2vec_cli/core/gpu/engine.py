"""The engine of a fit on a GPU: `core.mlp.SirenGradient`, by kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from nf2vec_cli.core.gpu import mlp, wide
from nf2vec_cli.core.mlp import Network, PointLoss, views

VARIANTS = ()  # kernels of other modules


class FusedGradient:
    """Loss and weight gradients of B fields with one output, at all their points at once."""

    def __init__(self, spec: Network, *, theta: Tensor, precision: str) -> None:
        """`theta`: [B, P], its values are read anew at each call; precision: of products."""
        self.spec, self.theta, self.precision = spec, theta, precision
        self.grad = torch.zeros_like(theta)
        self.weights, self.biases = views(theta, spec.shapes, spec.biases)
        self.grad_w, self.grad_b = views(self.grad, spec.shapes, spec.biases)

    def __call__(
        self,
        coords: Tensor,  # [B, M, 3]
        targets: Tensor,  # [B, M]
        loss: PointLoss,
        share: Tensor,  # [B, M]
    ) -> Tensor:  # [B]
        """Put the gradient of the sum of the objects' losses into `grad`; return those losses."""
        given = self.theta, coords
        if self.spec.hidden <= mlp.WIDEST:
            outputs = mlp.values(*given, self.spec, self.precision)
            each, slopes = self._losses(outputs, targets, loss, share)
            mlp.gradient(*given, slopes, self.spec, self.precision, self.grad)
        else:
            kept = wide.Kept([], [])
            outputs = wide.values(*given, self.spec, self.precision, kept)
            each, slopes = self._losses(outputs, targets, loss, share)
            wide.gradient(*given, slopes, self.spec, self.precision, kept, self.grad)
        return each.sum(1)

    @staticmethod
    def _losses(
        outputs: Tensor, targets: Tensor, loss: PointLoss, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        each, slope = loss(outputs.squeeze(-1), targets)
        return each * share, (slope * share).unsqueeze(-1)
