"""PointNet part segmentation on the points and splits that `nf2vec segment` trains on.

The baseline of the paper's table of part segmentation: the part segmentation network of Qi et al.,
"PointNet" (CVPR 2017, supplementary, section C), with its layers scaled by --width. It reads raw
points of each object; `nf2vec segment` reads one embedding. Run, with the same CPU seconds each:

    nf2vec segment ds.zarr --parts labelled/
    python examples/pointnet_segmentation.py ds.zarr labelled/ --seconds 120
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from nf2vec_cli.metrics import PartScore, part_score, parts_of_scores, shape_part_iou
from nf2vec_cli.shapes.part_files import find_parts
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.embedded import open_embeddings
from nf2vec_cli.tasks.part_labels import PartSet, label_objects

ORTHOGONAL = 1e-3  # weight of the penalty on the feature transform (the authors')
LOOKS = 10


def shared(*sizes: int) -> nn.Sequential:
    """The same layers at every point: [B, C, M] -> [B, C', M]."""
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Conv1d(size, following, 1), nn.BatchNorm1d(following), nn.ReLU()]
    return nn.Sequential(*layers)


class Turn(nn.Module):
    """T-Net: a square matrix for each cloud, the identity at first."""

    def __init__(self, size: int, width: float) -> None:
        super().__init__()
        w = [max(8, int(width * n)) for n in (64, 128, 1024, 512, 256)]
        self.size, self.points = size, shared(size, *w[:3])
        self.whole = nn.Sequential(
            *(nn.Linear(w[2], w[3]), nn.BatchNorm1d(w[3]), nn.ReLU()),
            *(nn.Linear(w[3], w[4]), nn.BatchNorm1d(w[4]), nn.ReLU()),
        )
        self.last = nn.Linear(w[4], size * size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, M] -> [B, C, C]
        found = self.last(self.whole(self.points(x).amax(2)))
        return found.view(-1, self.size, self.size) + torch.eye(self.size, device=x.device)


class PointNet(nn.Module):
    """Part segmentation: features of all depths at each point, the pooled one, the class."""

    def __init__(self, classes: int, parts: int, width: float) -> None:
        super().__init__()
        w = [max(8, int(width * n)) for n in (64, 128, 128, 512, 2048, 256, 256, 128)]
        self.classes = classes
        self.turn, self.turn_features = Turn(3, width), Turn(w[2], width)
        self.stages = nn.ModuleList([shared(3, w[0]), shared(w[0], w[1]), shared(w[1], w[2])])
        self.wide = shared(w[2], w[3])
        # no ReLU before the pooling, as the authors have it
        self.pooled = nn.Sequential(nn.Conv1d(w[3], w[4], 1), nn.BatchNorm1d(w[4]))
        self.local = nn.Conv1d(sum(w[:4]) + w[2], w[5], 1)
        # what pooled feature and class add is the same for all points: computed once a cloud
        self.whole = nn.Linear(w[4] + classes, w[5], bias=False)
        self.head = nn.Sequential(
            *(nn.BatchNorm1d(w[5]), nn.ReLU(), nn.Dropout(0.2)),
            *(nn.Conv1d(w[5], w[6], 1), nn.BatchNorm1d(w[6]), nn.ReLU(), nn.Dropout(0.2)),
            *(nn.Conv1d(w[6], w[7], 1), nn.BatchNorm1d(w[7]), nn.ReLU()),
            nn.Conv1d(w[7], parts, 1),
        )

    def forward(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Score parts: [B, M, 3], [B] -> [B, M, parts], and the feature transforms [B, C, C]."""
        x = self.turn(points.mT) @ points.mT
        kept = []
        for stage in self.stages:
            x = stage(x)
            kept.append(x)
        turn = self.turn_features(x)
        kept.append(turn @ x)
        kept.append(self.wide(kept[-1]))
        pooled = self.pooled(kept[-1]).amax(2)
        told = self.whole(torch.cat([pooled, one_hot(labels, self.classes).float()], 1))
        return self.head(self.local(torch.cat(kept, 1)) + told[..., None]).mT, turn


def batches(objects: PartSet, args: argparse.Namespace) -> Iterator[tuple[Tensor, ...]]:
    """Draw objects of split train and points of each, without end."""
    rng, train = np.random.default_rng(args.seed), objects.of("train")
    while True:
        chosen = rng.permutation(train)[: args.batch].tolist()
        drawn = {n: rng.integers(0, len(objects.points[n]), args.points) for n in chosen}
        yield (
            torch.from_numpy(np.stack([objects.points[n][drawn[n]] for n in chosen])),
            torch.from_numpy(np.stack([objects.truth[n][drawn[n]] for n in chosen])),
            torch.from_numpy(objects.labels[chosen]),
        )


@torch.no_grad()
def score(net: PointNet, objects: PartSet, split: str, device: torch.device) -> PartScore:
    """Score a split's objects on all their points, as `nf2vec segment` does."""
    net.eval()
    places, names = objects.of(split), objects.names
    ious = []
    for n in places:
        allowed = names.of_class[names.classes[objects.labels[n]]]
        points = torch.from_numpy(objects.points[n])[None].to(device)
        found = net(points, torch.tensor([objects.labels[n]], device=device))[0][0].cpu().numpy()
        ious.append(shape_part_iou(objects.truth[n], parts_of_scores(found, allowed), allowed))
    net.train()
    return part_score(ious, objects.labels[places].tolist())


def main() -> None:
    """Train for some seconds, keep the weights that are best on val, tell test once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("parts", type=Path)
    parser.add_argument("--seconds", type=float, default=120, help="of CPU time, or of a GPU's")
    parser.add_argument("--width", type=float, default=0.25, help="of the layers; 1: the authors'")
    parser.add_argument("--points", type=int, default=512, help="of an object in a step")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    clock = time.process_time if device.type == "cpu" else time.monotonic
    store = open_store(args.store)
    kept = open_embeddings(store)
    objects = label_objects(store, kept.current(), find_parts(args.parts), space="source")
    torch.manual_seed(args.seed)
    names = objects.names
    net = PointNet(len(names.classes), len(names.parts), args.width).to(device)
    optimiser = torch.optim.Adam(net.parameters(), lr=args.learning_rate)
    best, state, steps, looks, spent = -1.0, net.state_dict(), 0, 0, 0.0
    for points, truth, labels in batches(objects, args):
        began, share = clock(), min(spent / args.seconds, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = args.learning_rate * 0.5 * (1 + np.cos(np.pi * share)) + 1e-6
        scores, turn = net(points.to(device), labels.to(device))
        loss = cross_entropy(scores.flatten(0, 1), truth.flatten().to(device))
        off = torch.eye(turn.shape[1], device=device) - turn @ turn.mT
        loss = loss + ORTHOGONAL * off.square().sum((1, 2)).mean() / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps, spent = steps + 1, spent + clock() - began
        if spent >= args.seconds * (looks + 1) / LOOKS:
            looks += 1
            found = score(net, objects, "val", device).class_miou
            if found > best:
                best, state = found, {k: v.clone() for k, v in net.state_dict().items()}
        if spent >= args.seconds:
            break
    net.load_state_dict(state)
    test = score(net, objects, "test", device)
    result = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "steps": steps,
        "seconds": round(spent, 1),
        "val_class_miou": round(best, 4),
        "class_miou": round(test.class_miou, 4),
        "instance_miou": round(test.instance_miou, 4),
        "classes": {names.classes[n]: round(value, 4) for n, value in test.by_class.items()},
    }
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
