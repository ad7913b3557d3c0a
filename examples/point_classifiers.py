"""PointNet or DGCNN on points of the objects, classes and splits that `nf2vec classify` uses.

The baselines of the paper's table of classification. They read raw points of each object's surface,
as the store keeps them; `nf2vec classify` reads one embedding. Run:

    nf2vec classify ds.zarr
    python examples/point_classifiers.py ds.zarr --model dgcnn --seconds 600

It trains for so many CPU seconds, keeps the weights that are best on val, asks test once, and
prints one line of JSON, accuracies in percent.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from point_networks import DgcnnClassifier, PointNetClassifier
from point_training import train
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nf2vec_cli.core.device import open_device, use_bfloat16
from nf2vec_cli.errors import Nf2vecError, StoreError
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.class_lesson import confusion_of, usable
from nf2vec_cli.tasks.embedded import Labelled, labelled, open_embeddings

MODELS = {"pointnet": PointNetClassifier, "dgcnn": DgcnnClassifier}
SMOOTHING = {"pointnet": 0.0, "dgcnn": 0.2}  # of labels (the authors')
SCALES, SHIFT = (2 / 3, 3 / 2), 0.2  # along each axis (DGCNN's authors; for both networks here)
JITTER, MOST = 0.01, 0.05  # of each point (PointNet's authors)
HELD = 2**40  # seed of the points that val and test are asked by


@dataclass(frozen=True)
class Clouds:
    """Objects with a class, and points on the surface of each, [N, SURFACE_POINTS, 3]."""

    known: Labelled
    points: NDArray[np.float32]


def read_clouds(path: Path, encoder: str | None, *, skip_rare: bool) -> Clouds:
    """Read what `nf2vec classify` would learn from, as points.

    Raises:
        StoreError: as there, or the store keeps no points of an object.
    """
    store = open_store(path)
    rows = open_embeddings(store, encoder).current()
    known = usable(store, labelled(store, rows), skip_rare=skip_rare)
    points = _surfaces(store, known.rows)
    missing = ~points.any((1, 2))
    if missing.any():
        raise StoreError(f"{path} keeps no points on the surface of {missing.sum()} objects")
    return Clouds(known, points)


def _surfaces(store: Store, rows: Rows) -> NDArray[np.float32]:
    """Read shard by shard."""
    shards = rows // store.batch
    return np.concatenate([store.surface(rows[shards == shard]) for shard in np.unique(shards)])


def drawn(
    points: NDArray[np.float32],  # [B, S, 3]
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:  # [B, count, 3]
    """Draw points of each cloud at random: the store has them in the order of the faces."""
    order = rng.random(points.shape[:2]).argsort(1)[:, :count]
    return np.take_along_axis(points, order[..., None], 1)


def varied(
    points: NDArray[np.float32],  # [B, M, 3]
    rng: np.random.Generator,
    *,
    jitter: bool,
) -> NDArray[np.float32]:
    """Stretch and shift each cloud at random, along each axis, and move each point a little."""
    size = (len(points), 1, 3)
    found = points * rng.uniform(*SCALES, size) + rng.uniform(-SHIFT, SHIFT, size)
    if jitter:
        found += np.clip(JITTER * rng.normal(size=points.shape), -MOST, MOST)
    return found.astype(np.float32)


class Asked:
    """A network that is asked for the classes of a split's objects, by points drawn once."""

    def __init__(self, net: nn.Module, clouds: Clouds, args: argparse.Namespace) -> None:
        self.net, self.clouds, self.args = net, clouds, args
        self.device = next(net.parameters()).device
        self.bfloat16 = use_bfloat16(args.precision, self.device)

    def scores(self, points: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Score classes, [B, classes], on the network's device, with the penalty."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            found: tuple[Tensor, Tensor] = self.net(torch.from_numpy(points).to(self.device))
        return found

    @torch.no_grad()
    def of(self, split: str) -> Tensor:
        """Score the classes of a split's objects: [N, classes]."""
        places, rng = self.clouds.known.of(split), np.random.default_rng(HELD)
        points = drawn(self.clouds.points[places], self.args.points, rng)
        parts = np.array_split(points, -(-len(points) // self.args.batch))
        return torch.cat([self.scores(part)[0] for part in parts]).cpu()


def trained(clouds: Clouds, args: argparse.Namespace) -> dict[str, float]:
    """Train a network on split train; tell what val says of its best weights, and test."""
    device, known = open_device(args.device), clouds.known
    torch.manual_seed(args.seed)
    rng, places = np.random.default_rng(args.seed), known.of("train")
    net = MODELS[args.model](len(known.classes), args.width).to(device)
    asked, labels = Asked(net, clouds, args), torch.from_numpy(known.labels)
    order: list[int] = []

    def loss(_: int) -> Tensor:
        nonlocal order
        batch = min(args.batch, len(places))
        if len(order) < batch:  # a rest is left out: batches of one have no statistics
            order = rng.permutation(places).tolist()
        chosen, order = order[:batch], order[batch:]
        points = drawn(clouds.points[chosen], args.points, rng)
        scores, penalty = asked.scores(varied(points, rng, jitter=args.model == "pointnet"))
        wanted = labels[chosen].to(device)
        return cross_entropy(scores, wanted, label_smoothing=SMOOTHING[args.model]) + penalty

    def look() -> float:
        found, wanted = asked.of("val"), labels[known.of("val")]
        wrong, unsure = (found.argmax(1) != wanted).sum(), cross_entropy(found, wanted)
        # val is small: of looks with as many mistakes the one with the least loss is best
        return -float(wrong + unsure / (1 + unsure))

    done = train(net, loss, look, seconds=args.seconds, rate=args.learning_rate)
    right = {split: asked.of(split).argmax(1).numpy() for split in ("val", "test")}
    val, test = known.of("val"), known.of("test")
    confusion = confusion_of(known.labels[test], right["test"], len(known.classes))
    there = confusion.sum(1) > 0
    return {
        "accuracy": 100 * float(np.trace(confusion) / confusion.sum()),
        "class_accuracy": 100 * float((np.diag(confusion)[there] / confusion.sum(1)[there]).mean()),
        "val_accuracy": 100 * float((right["val"] == known.labels[val]).mean()),
        "steps": done.steps,
        "epochs": done.steps * min(args.batch, len(places)) / len(places),
        "seconds": done.seconds,
        "parameters": sum(p.numel() for p in net.parameters()),
        "train_objects": len(places),
        "val_objects": len(val),
        "test_objects": len(test),
        "classes": len(known.classes),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--model", choices=list(MODELS), default="pointnet")
    parser.add_argument("--width", type=float, default=1.0, help="of the layers; 1: the authors'")
    parser.add_argument("--points", type=int, default=1024, help="of an object")
    parser.add_argument("--seconds", type=float, default=600, help="of CPU time, or of a GPU's")
    parser.add_argument("--batch", type=int, default=32, help="objects in a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="the largest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--encoder", help="whose embeddings say which objects; default: the newest")
    parser.add_argument("--skip-rare", action="store_true", help="as in nf2vec classify")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    try:
        clouds = read_clouds(args.store, args.encoder, skip_rare=args.skip_rare)
    except Nf2vecError as error:
        parser.error(f"{error}" + (f" ({error.hint})" if error.hint else ""))
    result = trained(clouds, args)
    facts = {"model": args.model, "width": args.width, "points": args.points, "seed": args.seed}
    print(json.dumps(facts | {name: round(value, 2) for name, value in result.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
