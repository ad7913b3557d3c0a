"""Stores of fields near their init, for tests of what reads weights and never looks at shapes."""

import json

import numpy as np

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.models.network import NetworkSpec, siren_init
from nf2vec_cli.store.create import create_store
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store

SPEC = NetworkSpec(3, 32, 3, 1, 30.0)
TINY = {
    "embedding": 16,
    "components": 6,
    "probes": 7,
    "tail": 16,
    "hidden": 16,
    "octaves": 3,
    "widths": "[16]",
    "batch": 4,
    "points": 64,
    "steps": 12,
    "validate_every": 4,
    "checkpoint_every": 3,
}


def options(**changed):
    return [w for key, value in (TINY | changed).items() for w in ("--set", f"{key}={value}")]


def make_store(path, *, kind="sdf", seed=0, count=20, spoil=None):
    init = siren_init(SPEC, seed=seed).numpy()
    create_store(
        path,
        field=kind,
        network=SPEC.as_dict(),
        init=init,
        blocks=SPEC.blocks,
        codec="exact",
        bits=8,
        batch=8,
        config=FitConfig(hidden=32, layers=3, batch=8).model_dump(mode="json"),
        versions={},
    )
    if not count:
        return path
    made = open_store(path, mode="a")
    splits = ["train"] * (count - 6) + ["val"] * 3 + ["test"] * 3
    rows = made.register(
        [Entry(f"shape/{n}", f"shape/{n}.ply", "shape", splits[n]) for n in range(count)]
    )
    rng = np.random.default_rng(1)
    theta = init + rng.normal(0, 0.01, (count, len(init))).astype(np.float32)
    if spoil is not None:
        theta[spoil] = np.nan
    points = rng.normal(size=(count, SURFACE_POINTS, 3))
    points /= 2 * np.linalg.norm(points, axis=2, keepdims=True)
    transform = np.tile([0.1, 0.2, 0.3, 2.0], (count, 1))
    surface = points.astype(np.float32)
    made.commit(rows, theta, surface=surface, error=np.zeros(count), transform=transform)
    return path


def heads_told(run, store):
    """Give what `nf2vec info` says of the heads of a store, without their times."""
    heads = result(run("info", store, "--json"))["heads"]
    assert all(head.pop("ended") > "2020" for head in heads)
    return heads


def result(outcome):
    assert outcome.exit_code == 0, outcome.stderr
    return json.loads(outcome.stdout)
