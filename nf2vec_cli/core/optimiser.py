"""The optimisers that fit fields: Adam, and Muon for the hidden matrices. B objects at once.

Each object has a step count and a rate of its own, so that another can take the place of one that
is finished.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Newton-Schulz polynomial of Muon (Jordan et al. 2024): pushes all singular values towards 1.
# Polynomials that differ by iteration (Polar Express) reach the same quality here with one
# iteration less, and align two fits of one shape less well.
QUINTIC = (3.4445, -4.7750, 2.0315)
TILE = 128  # rows of a product that is symmetric: only tiles on and below the diagonal are computed


class Adam:
    """Adam (Kingma and Ba 2015) over slices of flat parameters [B, P], without weight decay."""

    def __init__(self, theta: Tensor, slices: list[slice], beta1: float, beta2: float) -> None:
        self.theta, self.slices = theta, slices
        self.beta1, self.beta2 = beta1, beta2
        self.first = torch.zeros_like(theta)
        self.second = torch.zeros_like(theta)
        self.steps = theta.new_zeros(len(theta), 1)

    def step(self, grad: Tensor, rate: Tensor) -> None:
        """Move the parameters against `grad` [B, P], each object by its own `rate` [B, 1]."""
        self.steps += 1
        rate = rate / (1 - self.beta1**self.steps)
        unbias = (1 - self.beta2**self.steps).rsqrt()
        for part in self.slices:
            g, m, v = grad[:, part], self.first[:, part], self.second[:, part]
            m.lerp_(g, 1 - self.beta1)
            v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
            self.theta[:, part].sub_(v.sqrt().mul_(unbias).add_(1e-8).reciprocal_().mul_(m * rate))

    def restart(self, place: int) -> None:
        """Forget what is known of the object at `place`: another takes it."""
        for state in (self.first, self.second, self.steps):
            state[place] = 0


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
        self.average = matrices[0].new_zeros(len(matrices), batch, size, size)

    def step(self, grads: list[Tensor], rate: Tensor) -> None:
        """Move each matrix against its gradient by `rate` [B, 1] in every singular direction."""
        self.average.mul_(self.momentum).add_(torch.stack(grads))
        moves = orthogonalise(self.average.flatten(0, 1), self.iterations)
        moves = moves.view_as(self.average).mul_(rate[..., None])
        for matrix, move in zip(self.matrices, moves, strict=True):
            matrix.sub_(move)

    def restart(self, place: int) -> None:
        """Forget the momentum of the object at `place`: another takes it."""
        self.average[:, place] = 0


def orthogonalise(matrices: Tensor, iterations: int) -> Tensor:  # [N, H, H] -> [N, H, H]
    """Approximate U V^T of each matrix U S V^T: singular values within about 0.7 to 1.2.

    The polynomial wants the largest singular value just below 1. The usual bound on it, the
    Frobenius norm, is several times too large; the norm of (X X^T)^2, which the first iteration
    computes anyway, gives the sum of the eighth powers, and with it a bound that is nearly tight:
    two iterations then do the work of three.
    """
    a, b, c = QUINTIC
    # against underflow: what follows takes eighth powers
    x: Tensor = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-12)
    for iteration in range(iterations):
        gram = _symmetric_square(x)
        square = _symmetric_square(gram)
        if iteration == 0:
            top = torch.linalg.matrix_norm(square, keepdim=True).sqrt().clamp_min(1e-12)
            x, gram, square = x / top.sqrt(), gram / top, square / top**2
        x = torch.baddbmm(x, gram.mul_(b).add_(square, alpha=c), x, beta=a)
    return x


def _symmetric_square(x: Tensor) -> Tensor:  # [N, H, H] -> [N, H, H]
    """Multiply x by its transpose; above the diagonal the result is mirrored, not computed.

    On a GPU all of it is computed: copies cost more than products.
    """
    size = x.shape[-1]
    if size <= TILE or x.is_cuda:
        return torch.bmm(x, x.mT)
    out = torch.empty_like(x)
    for low in range(0, size, TILE):
        rows = slice(low, low + TILE)
        out[:, rows, : low + TILE] = torch.bmm(x[:, rows], x[:, : low + TILE].mT)
        out[:, :low, rows] = out[:, rows, :low].mT
    return out
