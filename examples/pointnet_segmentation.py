"""PointNet or DGCNN part segmentation on the points and splits that `nf2vec segment` trains on.

The baselines of the paper's table of part segmentation, with their layers scaled by --width. They
read raw points of each object; `nf2vec segment` reads one embedding. Run, with the same CPU seconds
each:

    nf2vec segment ds.zarr --parts labelled/
    python examples/pointnet_segmentation.py ds.zarr labelled/ --model dgcnn --seconds 120
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from point_networks import DgcnnSegmenter, PointNetSegmenter
from point_training import train
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nf2vec_cli.core.device import open_device, use_bfloat16
from nf2vec_cli.metrics import PartScore, part_score, parts_of_scores, shape_part_iou
from nf2vec_cli.shapes.part_files import find_parts
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.embedded import open_embeddings
from nf2vec_cli.tasks.part_labels import PartSet, label_objects

MODELS = {"pointnet": PointNetSegmenter, "dgcnn": DgcnnSegmenter}


def batches(objects: PartSet, args: argparse.Namespace) -> Iterator[tuple[Tensor, ...]]:
    """Draw objects of split train and points of each, without end."""
    rng, places = np.random.default_rng(args.seed), objects.of("train")
    while True:
        chosen = rng.permutation(places)[: args.batch].tolist()
        drawn = {n: _draw(len(objects.points[n]), args.points, rng) for n in chosen}
        yield (
            torch.from_numpy(np.stack([objects.points[n][drawn[n]] for n in chosen])),
            torch.from_numpy(np.stack([objects.truth[n][drawn[n]] for n in chosen])),
            torch.from_numpy(objects.labels[chosen]),
        )


def _draw(there: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw places of points; some twice only where there are too few."""
    if there < wanted:
        return rng.integers(0, there, wanted)
    return rng.permutation(there)[:wanted]


def groups(there: int, args: argparse.Namespace) -> list[NDArray[np.int64]]:
    """Say which points of an object are asked for together.

    PointNet sees all of them. DGCNN sees as many as in training: among more, neighbours are nearer
    than those it has learned from.
    """
    count = 1 if args.model == "pointnet" else -(-there // args.points)
    return np.array_split(np.random.default_rng(there).permutation(there), count)


@torch.no_grad()
def score(net: nn.Module, objects: PartSet, split: str, args: argparse.Namespace) -> PartScore:
    """Score a split's objects on all their points, as `nf2vec segment` does."""
    device = next(net.parameters()).device
    places, names = objects.of(split), objects.names
    ious = []
    for n in places:
        allowed = names.of_class[names.classes[objects.labels[n]]]
        label = torch.tensor([objects.labels[n]], device=device)
        found = np.empty((len(objects.points[n]), len(names.parts)), np.float32)
        for group in groups(len(found), args):
            points = torch.from_numpy(objects.points[n][group])[None].to(device)
            found[group] = net(points, label)[0][0].cpu().numpy()
        ious.append(shape_part_iou(objects.truth[n], parts_of_scores(found, allowed), allowed))
    return part_score(ious, objects.labels[places].tolist())


def main(argv: Sequence[str] | None = None) -> None:
    """Train for some seconds, keep the weights that are best on val, tell test once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("parts", type=Path)
    parser.add_argument("--model", choices=list(MODELS), default="pointnet")
    parser.add_argument("--seconds", type=float, default=120, help="of CPU time, or of a GPU's")
    parser.add_argument("--width", type=float, default=0.25, help="of the layers; 1: the authors'")
    parser.add_argument("--points", type=int, default=512, help="of an object in a step")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="the largest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    device = open_device(args.device)
    bfloat16 = use_bfloat16(args.precision, device)
    store = open_store(args.store)
    kept = open_embeddings(store)
    objects = label_objects(store, kept.current(), find_parts(args.parts), space="source")
    torch.manual_seed(args.seed)
    names = objects.names
    net = MODELS[args.model](len(names.classes), len(names.parts), args.width).to(device)
    drawn = batches(objects, args)

    def loss(_: int) -> Tensor:
        points, truth, labels = next(drawn)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            scores, penalty = net(points.to(device), labels.to(device))
        return cross_entropy(scores.flatten(0, 1), truth.flatten().to(device)) + penalty

    def look() -> float:
        return score(net, objects, "val", args).class_miou

    done = train(net, loss, look, seconds=args.seconds, rate=args.learning_rate)
    test = score(net, objects, "test", args)
    result = {
        "model": args.model,
        "width": args.width,
        "parameters": sum(p.numel() for p in net.parameters()),
        "steps": done.steps,
        "seconds": round(done.seconds, 1),
        "val_class_miou": round(done.score, 4),
        "class_miou": round(test.class_miou, 4),
        "instance_miou": round(test.instance_miou, 4),
        "classes": {names.classes[n]: round(value, 4) for n, value in test.by_class.items()},
    }
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
