"""What it costs to classify an object on this CPU: from its field's weights, or from points.

The paper's figure 11. Of fields that are stored, `nf2vec classify` embeds the weights and asks a
head. PointNet (point_networks.py, at --width) asks points: those at hand, or, where only the field
is, points that are rebuilt from it first. Run:

    python examples/classify_times.py ds.zarr

Milliseconds of CPU time an object on one thread, medians over objects, on stderr as a table and on
stdout as a line of JSON. The head and PointNet are untrained: that costs the same.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from point_networks import Norm, PointNetClassifier
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from nf2vec_cli.config import Origin
from nf2vec_cli.config.classify import ClassifyConfig
from nf2vec_cli.core.device import use_bfloat16
from nf2vec_cli.errors import Nf2vecError
from nf2vec_cli.models.classifier import Classifier
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.encode_shard import embedder
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.open_fields import open_fields, require_fitted
from nf2vec_cli.tasks.rebuild import Form, build
from nf2vec_cli.tasks.spread import one_thread

CPU = torch.device("cpu")
REPEATS = 3  # of what takes less than BRIEF
BRIEF = 0.5  # seconds


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Tell how many milliseconds of CPU time some work takes, and what it gives."""
    spent: list[float] = []
    while not spent or (len(spent) < REPEATS and sum(spent) < BRIEF):
        began = time.process_time()
        found = work()
        spent.append(time.process_time() - began)
    return 1e3 * median(spent), found


def folded(net: nn.Module) -> nn.Module:
    """Fold each normalisation into the layer before it, as `nf2vec encode` does with its own."""
    for module in list(net.modules()):
        if isinstance(module, nn.Sequential):
            for at in range(1, len(module)):
                if isinstance(module[at], Norm) and isinstance(module[at - 1], nn.Linear):
                    module[at - 1] = fuse_linear_bn_eval(module[at - 1], module[at])
                    module[at] = nn.Identity()
    return net


@torch.no_grad()
def from_weights(store: Store, rows: Rows, classes: int, encoder: str | None) -> dict[str, Any]:
    """Time `nf2vec encode` of one field, and a head of `nf2vec classify`."""
    trained, config = open_encoder(store, encoder), ClassifyConfig()
    embed = embedder(trained.module, CPU)
    size = trained.module.decoder.embedding
    head = Classifier(size, classes, widths=config.widths, dropout=config.dropout).eval()
    thetas = torch.from_numpy(store.weights(rows))
    head(embed(thetas[:1]))  # what is slow only the first time
    embedding, asking = [], []
    for theta in thetas:
        spent, z = clocked(lambda theta=theta: embed(theta[None]))
        embedding.append(spent)
        asking.append(clocked(lambda z=z: head(z).softmax(1))[0])
    return {
        "from": "weights",
        "points": None,
        "before": median(embedding),
        "classify": median(asking),
        "milliseconds": median(map(sum, zip(embedding, asking, strict=True))),
    }


def from_points(
    net: nn.Module, clouds: Sequence[NDArray[np.float32]], *, bfloat16: bool
) -> list[float]:
    """Time PointNet on each cloud."""

    @torch.no_grad()
    def ask(cloud: NDArray[np.float32]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            found: Tensor = net(torch.from_numpy(cloud)[None])[0].softmax(1)
        return found

    ask(clouds[0])
    return [clocked(lambda cloud=cloud: ask(cloud))[0] for cloud in clouds]


def rebuilt(
    store: Store, rows: Rows, points: int, resolution: int
) -> tuple[list[float], list[NDArray[np.float32]]]:
    """Time how fields become clouds: of those that have a surface, milliseconds and points."""
    fields, spent, clouds = open_fields(store, Origin.weights), [], []
    for row in rows:
        field = fields.at(int(row))
        milliseconds, built = clocked(
            lambda field=field: build(
                field, store.field, Form.cloud, resolution=resolution, points=points
            )
        )
        assert isinstance(built.shape, Cloud)
        if len(built.shape.points):
            spent.append(milliseconds)
            clouds.append(built.shape.points.astype(np.float32))
    return spent, clouds


def timed(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time all ways to a class; one row each."""
    store = open_store(args.store)
    done = store.rows(Status.DONE)
    require_fitted(store, done)
    rows = done[np.linspace(0, len(done) - 1, min(args.objects, len(done))).astype(int)]
    classes = max(2, len(set(store.column("class"))))
    torch.manual_seed(0)
    net = folded(PointNetClassifier(classes, args.width).eval())
    bfloat16, rng = use_bfloat16(args.precision, CPU), np.random.default_rng(0)
    found = [from_weights(store, rows, classes, args.encoder)]
    surfaces = store.surface(rows)
    after: list[dict[str, Any]] = []
    rebuilt(store, rows[:1], min(args.points), args.resolution)  # what is slow the first time
    for points in args.points:
        # as many as are wanted, though the store has fewer: what they are costs the same
        drawn = rng.integers(0, surfaces.shape[1], points)
        asked = median(from_points(net, surfaces[:, drawn], bfloat16=bfloat16))
        found.append(
            {"from": "points", "points": points, "before": 0.0, "classify": asked}
            | {"milliseconds": asked}
        )
        building, clouds = rebuilt(store, rows, points, args.resolution)
        if not clouds:
            continue
        asking = from_points(net, clouds, bfloat16=bfloat16)
        after.append(
            {
                "from": "points rebuilt from the field",
                "points": int(median(map(len, clouds))),
                "before": median(building),
                "classify": median(asking),
                "milliseconds": median(map(sum, zip(building, asking, strict=True))),
            }
        )
    return found + after


def main(argv: Sequence[str] | None = None) -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--points", type=int, nargs="+", default=[2048, 16384, 65536])
    parser.add_argument("--width", type=float, default=1.0, help="of PointNet; 1: the authors'")
    parser.add_argument("--resolution", type=int, default=64, help="grid that meshes come from")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--encoder", help="default: the store's newest, or the one that ships")
    args = parser.parse_args(argv)
    try:
        with one_thread():
            rows = timed(args)
    except Nf2vecError as error:
        parser.error(f"{error}" + (f" ({error.hint})" if error.hint else ""))
    heads = ("from", "points", "before [ms]", "classify [ms]", "together [ms]")
    lines = [
        (row["from"], row["points"] or "", *(f"{row[n]:.1f}" for n in list(row)[2:]))
        for row in rows
    ]
    for name, points, *spent in (heads, *lines):
        columns = "".join(f"{text:>16}" for text in spent)
        print(f"{name:<30}{points:>8}{columns}", file=sys.stderr)  # noqa: T201
    kept = [{n: round(v, 3) if isinstance(v, float) else v for n, v in row.items()} for row in rows]
    print(json.dumps(kept))  # noqa: T201


if __name__ == "__main__":
    main()
