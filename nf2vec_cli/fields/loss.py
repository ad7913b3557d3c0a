"""Losses of single points, each with its slope, as the hand-written gradient wants them."""

from __future__ import annotations

from torch import Tensor, sigmoid
from torch.nn.functional import softplus

from nf2vec_cli.core.mlp import PointLoss


def cross_entropy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Give each point's binary cross-entropy with soft labels, and its slope (paper, III-A)."""
    return softplus(outputs) - targets * outputs, sigmoid(outputs) - targets


def focal(alpha: float, gamma: float) -> PointLoss:
    """Make the focal loss: a (1 - p)^gamma times the cross-entropy -log p (paper, III-A).

    p is the probability that is given to the true answer; a is `alpha` where that is 1 and
    1 - `alpha` where it is 0.
    """

    def each(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        entropy, slope = cross_entropy(outputs, targets)
        true = (-entropy).exp()
        wrong = (1 - true).clamp_min(1e-12)
        weight = (1 - alpha + (2 * alpha - 1) * targets) * wrong**gamma
        return weight * entropy, weight * slope * (1 + gamma * true * entropy / wrong)

    return each
