"""A small network on pictures of the objects whose radiance a store holds, beside their embeddings.

The baseline of the paper's table of NeRF classification, which is a ResNet50 trained on a million
pictures of other things; here is one that sees nothing but the views of the same training objects.
Objects are divided into folds, class by class; for each fold both learn from the others: the
network from pictures, and an encoder from weights, with a logistic regression on its embeddings.
Run, on a store that was fitted to folders of pictures:

    python examples/view_classifier.py n.zarr views/ --folds 5 --seconds 60

It prints one line of JSON: accuracies in percent with their standard deviations over folds, and
the milliseconds that a class costs from weights, and from pictures rendered of the weights.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from point_training import train
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nf2vec_cli.config import Preset
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.config.load import load_config
from nf2vec_cli.config.train import TrainConfig, train_defaults
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.errors import Nf2vecError
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.shapes.pictures import colour_of
from nf2vec_cli.shapes.views import load_views
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.radiance import read_cameras, read_grids
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.bench_embedding import measure
from nf2vec_cli.tasks.encode_shard import embedder
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.radiance_field import RadianceField
from nf2vec_cli.tasks.spread import one_thread
from nf2vec_cli.tasks.train import train_encoder

WIDTHS = (3, 32, 64, 128, 128)
BATCH, ASKED = 64, 9  # pictures of a step; of an object that is asked about
VAL = 0.15  # of the objects that are trained on: they choose the best step
CPU = torch.device("cpu")


class ViewNetwork(nn.Module):
    """Four convolutions, each halving the picture, and the mean over it: [B, 3, H, W] -> [B, C]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(WIDTHS):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(WIDTHS[-1], classes))

    def forward(self, pictures: Tensor) -> Tensor:
        """Give a score for each class."""
        scores: Tensor = self.head(self.layers(pictures - 0.5).mean((2, 3)))
        return scores


def read_pictures(store: Store, rows: Rows, views: Path) -> list[Tensor]:
    """Read each object's pictures on white, [V, 3, H, W] of uint8."""
    background = FitConfig.model_validate(store.config).background
    sources, found = store.column("source"), []
    for row in rows:
        pixels = load_views(
            views / sources[row], background=colour_of(background) if background else None
        ).pixels
        alpha = pixels[..., 3:].astype(np.float32) / 255
        white = np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        found.append(torch.from_numpy(white).permute(0, 3, 1, 2).contiguous())
    return found


def fold_of(labels: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Divide objects into folds, each class evenly, by chance."""
    rng = np.random.default_rng(0)
    found = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        found[members] = (np.arange(len(members)) + rng.integers(folds)) % folds
    return found


def of_pictures(
    pictures: list[Tensor],
    labels: NDArray[np.int64],
    parts: NDArray[np.str_],
    *,
    seconds: float,
    rate: float,
) -> tuple[float, float, ViewNetwork]:
    """Train on pictures; give the share of right guesses by one view and by nine, of test."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    net = ViewNetwork(int(labels.max()) + 1)
    learnt = np.flatnonzero(parts == "train")

    def loss_of(_: int) -> Tensor:
        chosen = rng.choice(learnt, BATCH)
        drawn = torch.stack([pictures[i][rng.integers(len(pictures[i]))] for i in chosen])
        mirrored = torch.from_numpy(rng.random(BATCH) < 0.5)
        drawn[mirrored] = drawn[mirrored].flip(3)
        return cross_entropy(net(drawn.float() / 255), torch.from_numpy(labels[chosen]))

    def right(part: str) -> tuple[float, float]:
        one, nine = [], []
        with torch.no_grad():
            for i in np.flatnonzero(parts == part):
                scores = net.eval()(pictures[i].float() / 255).log_softmax(1)
                one.append(float((scores.argmax(1) == int(labels[i])).float().mean()))
                some = torch.linspace(0, len(scores) - 1, min(ASKED, len(scores))).long()
                nine.append(float(scores[some].mean(0).argmax() == int(labels[i])))
        return 100 * float(np.mean(one)), 100 * float(np.mean(nine))

    train(net, loss_of, lambda: right("val")[0], seconds=seconds, rate=rate)
    return *right("test"), net.eval()


def of_weights(
    path: Path, rows: Rows, labels: NDArray[np.int64], parts: NDArray[np.str_], config: TrainConfig
) -> tuple[float, float, Any]:
    """Train an encoder on a copy of the store with these splits; logistic and 1-NN, of test."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "n.zarr"
        shutil.copytree(path, copy)
        store = open_store(copy, mode="a")
        store.update(rows, split=parts.tolist())
        key = train_encoder(copy, config).encoder
        trained = open_encoder(open_store(copy), key)
        z = embedder(trained.module, CPU)(torch.from_numpy(store.weights(rows)))
    found = measure("", z[parts != "val"], labels[parts != "val"], parts[parts != "val"] == "train")
    return found.logistic, found.nearest, trained


def costs(path: Path, rows: Rows, net: ViewNetwork, trained: Any) -> dict[str, float]:
    """Clock one object's class from its weights, and from nine pictures that they render."""
    store = open_store(path)
    config, spec = FitConfig.model_validate(store.config), NetworkSpec(**store.network)
    theta, embed = store.weights(rows[:5]), embedder(trained.module, CPU)
    head = nn.Linear(trained.module.decoder.embedding, 10)
    spent: dict[str, list[float]] = {"encode and classify": [], "render": [], "classify": []}
    for one, grid, cameras in zip(
        theta, read_grids(store, rows[:5]), read_cameras(store, rows[:5]), strict=True
    ):
        began = time.process_time()
        with torch.no_grad():
            head(embed(torch.from_numpy(one[None])))
        spent["encode and classify"].append(time.process_time() - began)
        began = time.process_time()
        some = np.linspace(0, len(cameras.poses) - 1, ASKED).astype(int)
        width, height = cameras.size[0].tolist()
        rays = camera_rays(
            torch.from_numpy(cameras.poses[some]),
            torch.from_numpy(cameras.focal[some]),
            width,
            height,
        )
        seen = RadianceField(one, spec, grid, config.samples).render(rays)
        spent["render"].append(time.process_time() - began)
        began = time.process_time()
        with torch.no_grad():
            net(seen.colour.view(ASKED, height, width, 3).permute(0, 3, 1, 2))
        spent["classify"].append(time.process_time() - began)
    return {f"{name}, ms": 1e3 * float(np.median(found)) for name, found in spent.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare pictures and weights, fold by fold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("views", type=Path, help="folder that the store's sources are in")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds of the network")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--set", action="append", help="setting of `nf2vec train`")
    asked = parser.parse_args(arguments)
    store = open_store(asked.store)
    rows = store.rows(Status.DONE)
    names = np.array(store.column("class"))[rows]
    labels = np.unique(names, return_inverse=True)[1]
    config = load_config(
        TrainConfig, overrides=asked.set or [], base=train_defaults(Preset.small, "nerf")
    )
    pictures = read_pictures(store, rows, asked.views)
    folds, rng = fold_of(labels, asked.folds), np.random.default_rng(1)
    scores: dict[str, list[float]] = {
        name: [] for name in ("one view", "nine views", "logistic", "1-NN")
    }
    with one_thread():
        for fold in range(asked.folds):
            parts = np.where(folds == fold, "test", "train").astype("<U5")
            learnt = np.flatnonzero(folds != fold)
            parts[rng.choice(learnt, max(2, int(VAL * len(learnt))), replace=False)] = "val"
            one, nine, net = of_pictures(
                pictures, labels, parts, seconds=asked.seconds, rate=asked.learning_rate
            )
            logistic, nearest, trained = of_weights(asked.store, rows, labels, parts, config)
            for name, score in zip(scores, (one, nine, logistic, nearest), strict=True):
                scores[name].append(score)
            told = ", ".join(f"{name} {found[-1]:.1f}" for name, found in scores.items())
            sys.stderr.write(f"fold {fold + 1} of {asked.folds}: {told}\n")
        means = {name: [float(np.mean(f)), float(np.std(f))] for name, f in scores.items()}
        spent = costs(asked.store, rows, net, trained)
    sys.stdout.write(json.dumps(means | {"objects": len(rows)} | spent) + "\n")


if __name__ == "__main__":
    try:
        main()
    except Nf2vecError as error:
        sys.exit(f"{error}")
