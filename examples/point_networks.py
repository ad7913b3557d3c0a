"""PointNet and DGCNN in plain torch, to compare embeddings with: classes and parts of point clouds.

PointNet: Qi et al., CVPR 2017 (classification: figure 2 and supplementary, section C; parts: there,
figure 9). DGCNN: Wang et al., ACM TOG 2019 (figure 3), with the authors' code where the paper is
silent. `width` scales all layers but the first and the last; 1 is what was published.

Points are [B, M, 3] throughout, features [B, M, C]. Every network gives its scores and a penalty
that is to be added to the loss (0 for DGCNN). Under bfloat16 autocast, coordinates and what is
subtracted from neighbours stay in float32: they need more than eight bits.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, leaky_relu, one_hot

NEIGHBOURS = 20  # of a point in DGCNN's graphs, the point itself among them
ORTHOGONAL = 1e-3  # weight of PointNet's penalty on its feature transform
SLOPE = 0.2  # of DGCNN's LeakyReLU
BLOCK = 1024  # points whose wide features are there at once: 64k points take 0.3 of the time


def scaled(width: float, *sizes: int) -> list[int]:
    """Scale the sizes of layers; none gets less than 8 units."""
    return [max(8, round(width * size)) for size in sizes]


class Norm(nn.BatchNorm1d):
    """Batch normalisation of the last axis over all others."""

    def forward(self, x: Tensor) -> Tensor:  # [..., C]
        """Normalise."""
        found: Tensor = super().forward(x.flatten(0, -2))
        return found.view_as(x)


class Exact(nn.Linear):
    """A layer that stays in float32 under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def shared(*sizes: int, slope: float = 0.0) -> nn.Sequential:
    """The same layers at every point, each normalised and then rectified: [..., C] -> [..., C']."""
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        # no bias: the normalisation would take it away
        kind = Exact if size == 3 else nn.Linear
        layers += [kind(size, following, bias=False), Norm(following), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers)


def whole(*sizes: int, dropout: float, outputs: int, slope: float = 0.0) -> nn.Sequential:
    """Layers on what was pooled, with dropout after each: [..., C] -> [..., outputs]."""
    layers: list[nn.Module] = []
    for pair in pairwise(sizes):
        layers += [shared(*pair, slope=slope), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def largest(layers: nn.Module, x: Tensor) -> Tensor:  # [B, M, C] -> [B, C']
    """Apply layers to each point and keep the largest of each feature; in eval mode by blocks."""
    if layers.training:
        # max, not amax, whose gradient is costly: a step of PointNet takes a fifth less
        found: Tensor = layers(x).max(1).values
        return found
    return torch.stack([layers(part).max(1).values for part in x.split(BLOCK, 1)]).amax(0)


@torch.no_grad()
def neighbours(x: Tensor, k: int) -> Tensor:  # [B, M, C] -> [B, M, k]
    """Find each point's k nearest points of its cloud, itself among them, in any order."""
    k = min(k, x.shape[1])
    with torch.autocast(x.device.type, enabled=False):
        x = x.float() - x.float().mean(1, keepdim=True)
        # the square of the point itself is left out: it is the same for all of its neighbours
        distances = torch.baddbmm(x.square().sum(2)[:, None], x, x.mT, alpha=-2)
    if x.is_cuda:
        return distances.topk(k, largest=False, sorted=False).indices
    # numpy's selection takes 0.4 of the time of torch's on a CPU
    found = [np.argpartition(one, k - 1)[:, :k] for one in distances.numpy()]
    return torch.from_numpy(np.stack(found))


class EdgeConv(nn.Module):
    """Layers on (x_j - x_i, x_i) for each neighbour j of a point i, of which the largest is kept.

    The neighbours are those in the space of x: the graph changes from layer to layer. The first
    layer is linear, so it is applied to points, not to edges: W (x_j - x_i) + V x_i is
    W x_j + (V - W) x_i. Where it is the only one, no edge is ever written to memory either.
    """

    def __init__(self, *sizes: int, k: int = NEIGHBOURS) -> None:
        super().__init__()
        self.k = k
        self.first = nn.Linear(2 * sizes[0], sizes[1], bias=False)
        self.norm = Norm(sizes[1])
        self.rest = shared(*sizes[1:], slope=SLOPE)

    def forward(self, x: Tensor) -> Tensor:  # [B, M, C] -> [B, M, C']
        """Apply the layers."""
        clouds, points = x.shape[:2]
        near = neighbours(x, self.k)
        of_cloud = torch.arange(0, clouds * points, points, device=x.device)
        index = (near + of_cloud[:, None, None]).flatten(0, 1)
        difference, own = self.first.weight.chunk(2, 1)
        with torch.autocast(x.device.type, enabled=False):
            flat = x.float().flatten(0, 1)
            there, here = flat @ difference.T, flat @ (own - difference).T
            if not len(self.rest):
                return self._largest(there, here, index).view(clouds, points, -1)
            edges = there[index] + here[:, None]
        found: Tensor = self.rest(leaky_relu(self.norm(edges), SLOPE)).max(1).values
        return found.view(clouds, points, -1)

    def _largest(self, there: Tensor, here: Tensor, index: Tensor) -> Tensor:
        """Normalise and rectify there[index] + here[:, None], and keep the largest of each row.

        Both are monotone, so the largest comes first: the least where the norm's factor is
        negative. Mean and variance over the edges are put together from sums over points.
        """
        norm, k = self.norm, index.shape[1]
        sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0)
        top = sign * embedding_bag(index, sign * there, mode="max") + here
        mean, variance = norm.running_mean, norm.running_var
        if self.training:
            edges = index.numel()
            used = index.flatten().bincount(minlength=len(there)).to(there)[:, None]
            mean_there, mean_here = (used * there).sum(0) / edges, here.mean(0)
            there, here = there - mean_there, here - mean_here
            mixed = here * embedding_bag(index, there, mode="sum")
            squares = (used * there.square() + 2 * mixed + k * here.square()).sum(0)
            mean, variance = mean_there + mean_here, squares / edges
            with torch.no_grad():
                norm.running_mean.lerp_(mean, norm.momentum)
                norm.running_var.lerp_(variance * edges / (edges - 1), norm.momentum)
                norm.num_batches_tracked += 1
        factor = norm.weight * (variance + norm.eps).rsqrt()
        return leaky_relu((top - mean) * factor + norm.bias, SLOPE)


class Turn(nn.Module):
    """T-Net: a square matrix for each cloud, the identity at first; `k`: from edges, as DGCNN's."""

    def __init__(self, size: int, width: float, *, k: int = 0) -> None:
        super().__init__()
        w = scaled(width, 64, 128, 1024, 512, 256)
        self.size = size
        self.edges = EdgeConv(size, *w[:2], k=k) if k else nn.Identity()
        self.points = shared(*w[1:3], slope=SLOPE) if k else shared(size, *w[:3])
        self.whole = shared(*w[2:])
        self.last = Exact(w[4], size * size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:  # [B, M, C] -> [B, C, C]
        """Give the matrices."""
        found = self.last(self.whole(largest(self.points, self.edges(x))))
        return found.view(-1, self.size, self.size) + torch.eye(self.size, device=x.device)


def turned(points: Tensor, turn: Tensor) -> Tensor:  # [B, M, 3], [B, 3, 3]
    """Apply a matrix to the points of each cloud, in float32."""
    with torch.autocast(points.device.type, enabled=False):
        return points @ turn.mT


def penalty(turn: Tensor) -> Tensor:  # [B, C, C]
    """Tell how far matrices are from orthogonal ones, as PointNet's authors weigh it."""
    with torch.autocast(turn.device.type, enabled=False):
        off = torch.eye(turn.shape[1], device=turn.device) - turn @ turn.mT
    return ORTHOGONAL * off.square().sum((1, 2)).mean() / 2


class PointNetClassifier(nn.Module):
    """Points turned, features turned, the largest of each feature, three layers."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        w = scaled(width, 64, 64, 64, 128, 1024, 512, 256)
        self.turn, self.turn_features = Turn(3, width), Turn(w[1], width)
        self.early, self.late = shared(3, *w[:2]), shared(*w[1:5])
        self.head = whole(*w[4:], dropout=0.3, outputs=classes)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Score classes: [B, M, 3] -> [B, classes], and the penalty."""
        x = self.early(turned(points, self.turn(points)))
        turn = self.turn_features(x)
        pooled = largest(self.late, x @ turn.mT.to(x.dtype))
        return self.head(pooled).float(), penalty(turn)


class DgcnnClassifier(nn.Module):
    """Four EdgeConvs, their features together; largest and mean of each, three layers."""

    def __init__(self, classes: int, width: float, *, k: int = NEIGHBOURS) -> None:
        super().__init__()
        w = scaled(width, 64, 64, 128, 256, 1024, 512, 256)
        self.edges = nn.ModuleList(EdgeConv(*pair, k=k) for pair in pairwise([3, *w[:4]]))
        self.wide = shared(sum(w[:4]), w[4], slope=SLOPE)
        self.head = whole(2 * w[4], *w[5:], dropout=0.5, outputs=classes, slope=SLOPE)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Score classes: [B, M, 3] -> [B, classes], and no penalty."""
        x, kept = points, []
        for edges in self.edges:
            x = edges(x)
            kept.append(x)
        wide = self.wide(torch.cat(kept, 2))
        pooled = torch.cat([wide.max(1).values, wide.mean(1)], 1)
        return self.head(pooled).float(), points.new_zeros(())


class PointNetSegmenter(nn.Module):
    """Features of all depths at each point, the pooled one, the class."""

    def __init__(self, classes: int, parts: int, width: float) -> None:
        super().__init__()
        w = scaled(width, 64, 128, 128, 512, 2048, 256, 256, 128)
        self.classes = classes
        self.turn, self.turn_features = Turn(3, width), Turn(w[2], width)
        self.stages = nn.ModuleList(shared(*pair) for pair in pairwise([3, *w[:3]]))
        self.wide = shared(w[2], w[3])
        # no ReLU before the pooling, as the authors have it
        self.pooled = nn.Sequential(nn.Linear(w[3], w[4], bias=False), Norm(w[4]))
        self.local = nn.Linear(sum(w[:4]) + w[2], w[5])
        # what pooled feature and class add is the same for all points: computed once a cloud
        self.told = nn.Linear(w[4] + classes, w[5], bias=False)
        self.head = nn.Sequential(
            *(Norm(w[5]), nn.ReLU(), nn.Dropout(0.2)),
            *(shared(w[5], w[6]), nn.Dropout(0.2)),
            *(shared(w[6], w[7]), nn.Linear(w[7], parts)),
        )

    def forward(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Score parts: [B, M, 3], [B] -> [B, M, parts], and the penalty."""
        x = turned(points, self.turn(points))
        kept = []
        for stage in self.stages:
            x = stage(x)
            kept.append(x)
        turn = self.turn_features(x)
        kept.append(x @ turn.mT.to(x.dtype))
        kept.append(self.wide(kept[-1]))
        pooled = largest(self.pooled, kept[-1])
        told = self.told(torch.cat([pooled, one_hot(labels, self.classes).to(pooled)], 1))
        return self.head(self.local(torch.cat(kept, 2)) + told[:, None]).float(), penalty(turn)


class DgcnnSegmenter(nn.Module):
    """Three EdgeConvs on turned points; their features at each point, the pooled one, the class."""

    def __init__(self, classes: int, parts: int, width: float, *, k: int = NEIGHBOURS) -> None:
        super().__init__()
        c, wide, label, *w = scaled(width, 64, 1024, 64, 256, 256, 128)
        self.classes = classes
        self.turn = Turn(3, width, k=k)
        self.edges = nn.ModuleList(
            [EdgeConv(3, c, c, k=k), EdgeConv(c, c, c, k=k), EdgeConv(c, c, k=k)]
        )
        self.wide = shared(3 * c, wide, slope=SLOPE)
        self.label = shared(classes, label, slope=SLOPE)
        self.local = nn.Linear(3 * c, w[0], bias=False)
        # what pooled feature and class add is the same for all points: computed once a cloud
        self.told = nn.Linear(wide + label, w[0], bias=False)
        self.head = nn.Sequential(
            *(Norm(w[0]), nn.LeakyReLU(SLOPE), nn.Dropout(0.4)),
            *(shared(w[0], w[1], slope=SLOPE), nn.Dropout(0.4)),
            *(shared(w[1], w[2], slope=SLOPE), nn.Linear(w[2], parts)),
        )

    def forward(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Score parts: [B, M, 3], [B] -> [B, M, parts], and no penalty."""
        x = turned(points, self.turn(points))
        kept = []
        for edges in self.edges:
            x = edges(x)
            kept.append(x)
        together = torch.cat(kept, 2)
        pooled = largest(self.wide, together)
        label = self.label(one_hot(labels, self.classes).to(pooled))
        told = self.told(torch.cat([pooled, label], 1))
        scores = self.head(self.local(together) + told[:, None])
        return scores.float(), points.new_zeros(())
