"""BatchNorm over the whole batch, of which each process of a run may hold a share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nf2vec_cli.core.ranks import ALONE, Ranks, added


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` of [N, C] whose statistics are those of all processes' rows.

    torch's own SyncBatchNorm needs CUDA; this asks only for a sum, which gloo has too. With one
    process, and where nothing is trained, it is torch's. ranks: the processes of the run.
    """

    ranks: Ranks = ALONE

    def forward(self, x: Tensor) -> Tensor:  # [N, C] -> [N, C]
        """Normalise rows."""
        if self.ranks.size == 1 or not self.training:
            found: Tensor = super().forward(x)
            return found
        wide = x.float()  # of bfloat16, as torch's own computes
        mean, variance, count = self._moments(wide)
        with torch.no_grad():
            assert self.running_mean is not None  # tracked, as by default
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias - mean * scale, wide, scale).to(x.dtype)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor, float]:  # -> [C], [C], rows
        """Give mean and variance of all processes' rows, from each one's own, in one message.

        By the parallel formula (Chan et al. 1979): sums of squares would lose digits.
        """
        mine = torch.stack([torch.full_like(x[0], len(x)), x.mean(0), x.var(0, correction=0)])
        places = [torch.zeros_like(mine)] * self.ranks.size
        places[self.ranks.rank] = mine
        counts, means, variances = added(torch.stack(places, 1), self.ranks)
        count = float(counts.detach()[:, 0].sum())
        parts = counts / count
        mean = (parts * means).sum(0)
        variance = (parts * (variances + (means - mean).square())).sum(0)
        return mean, variance, count


def share_norms(module: nn.Module, ranks: Ranks) -> None:
    """Let each BatchNorm of a module count the rows of all processes."""
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.ranks = ranks
