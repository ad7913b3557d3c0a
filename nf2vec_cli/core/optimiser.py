"""The optimisers that fit fields: Adam, and Muon for the hidden matrices. B objects at once."""

from __future__ import annotations

import torch
from torch import Tensor

# Newton-Schulz polynomial of Muon (Jordan et al. 2024): pushes all singular values towards 1.
# Polynomials that differ by iteration (Polar Express) reach the same quality here with one
# iteration less, and align two fits of one shape less well.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Adam:
    """Adam (Kingma and Ba 2015) over slices of flat parameters [B, P], without weight decay."""

    def __init__(self, theta: Tensor, slices: list[slice], beta1: float, beta2: float) -> None:
        self.theta, self.slices = theta, slices
        self.beta1, self.beta2 = beta1, beta2
        self.first = torch.zeros_like(theta)
        self.second = torch.zeros_like(theta)
        self.steps = 0

    def step(self, grad: Tensor, rate: float) -> None:
        """Move the parameters against `grad` [B, P] by `rate`."""
        self.steps += 1
        rate = rate / (1 - self.beta1**self.steps)
        unbias = (1 - self.beta2**self.steps) ** -0.5
        for part in self.slices:
            g, m, v = grad[:, part], self.first[:, part], self.second[:, part]
            m.lerp_(g, 1 - self.beta1)
            v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
            self.theta[:, part].addcdiv_(m, v.sqrt().mul_(unbias).add_(1e-8), value=-rate)


class Muon:
    """Momentum, made orthogonal, for square hidden matrices [B, H, H] (Jordan et al. 2024).

    Every direction of a matrix moves by the same amount, so a fit needs about a third of Adam's
    steps, and two fits of one shape stay linearly connected where a large Adam step breaks that.
    """

    def __init__(self, matrices: list[Tensor], momentum: float, iterations: int) -> None:
        """`matrices`: one a layer, views into the flat parameters; changed in place by `step`."""
        self.matrices = matrices
        self.momentum, self.iterations = momentum, iterations
        batch, size, _ = matrices[0].shape
        self.average = matrices[0].new_zeros(len(matrices) * batch, size, size)

    def step(self, grads: list[Tensor], rate: float) -> None:
        """Move each matrix against its gradient by `rate` in every singular direction."""
        self.average.mul_(self.momentum).add_(torch.cat(grads))
        moves = orthogonalise(self.average, self.iterations)
        for matrix, move in zip(self.matrices, moves.split(len(grads[0])), strict=True):
            matrix.sub_(move, alpha=rate)


def orthogonalise(matrices: Tensor, iterations: int) -> Tensor:  # [N, H, H] -> [N, H, H]
    """Approximate U V^T of each matrix U S V^T: singular values within about 0.7 to 1.2."""
    a, b, c = QUINTIC
    x: Tensor = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-12)
    for _ in range(iterations):
        gram = torch.bmm(x, x.mT)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x
