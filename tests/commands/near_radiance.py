"""Stores of small radiance fields near their init, for tests that fit nothing."""

import numpy as np
import torch

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.models.network import radiance_init, radiance_spec, split_theta
from nf2vec_cli.store.create import create_store
from nf2vec_cli.store.radiance import Cameras, pack_cameras, pack_grid
from nf2vec_cli.store.schema import CAMERAS, GRID, Entry
from nf2vec_cli.store.store import open_store

RADIANCE = radiance_spec(hidden=16, layers=3, octaves=3, biases=False)
CELLS, SAMPLES, SIDE = 16, 64, 24
# settings of a training that takes a moment, beside near_init's
RAYS = {"embedding": 32, "rays": 12, "step_samples": 80, "empty": 20}


def make_radiance_store(path, *, seed=0, count=20, dense=4.0, spread=0.02, classes=("one", "two")):
    """Make a store of balls of fog: `dense` is the factor on what the field says of density."""
    init = radiance_init(RADIANCE, seed=seed).numpy()
    config = FitConfig(
        hidden=16, layers=3, octaves=3, grid=CELLS, samples=SAMPLES, batch=8, codec="exact"
    )
    create_store(
        path,
        field="nerf",
        network=RADIANCE.as_dict(),
        init=init,
        blocks=RADIANCE.blocks,
        codec="exact",
        bits=8,
        batch=8,
        config=config.model_dump(mode="json"),
        versions={},
        cells=CELLS,
    )
    made = open_store(path, mode="a")
    splits = ["train"] * (count - 6) + ["val"] * 3 + ["test"] * 3
    names = [classes[n % len(classes)] for n in range(count)]
    rows = made.register(
        [
            Entry(f"{name}/{n}", f"{name}/{n}", name, split)
            for n, (name, split) in enumerate(zip(names, splits, strict=True))
        ]
    )
    rng = np.random.default_rng(1)
    theta = init + rng.normal(0, spread, (count, len(init))).astype(np.float32)
    weights, _ = split_theta(torch.from_numpy(theta), RADIANCE)
    weights[-1][:, 3] *= dense
    points = rng.normal(size=(count, SURFACE_POINTS, 3))
    points *= 0.5 / np.linalg.norm(points, axis=2, keepdims=True)
    made.commit(
        rows,
        theta,
        surface=points.astype(np.float32),
        beside={
            GRID: np.stack([pack_grid(ball(0.4 + 0.2 * (n % 2))) for n in range(count)]),
            CAMERAS: np.stack([pack_cameras(ring()) for _ in range(count)]),
        },
        error=np.zeros(count),
        psnr=np.full(count, 30.0),
    )
    return path


def ball(radius):
    """Cells whose middles are within a radius of the origin."""
    along = (np.arange(CELLS) + 0.5) * (2 / CELLS) - 1
    x, y, z = np.meshgrid(along, along, along, indexing="ij")
    return x**2 + y**2 + z**2 < radius**2


def ring(count=6):
    """Cameras around the origin that look at it; every third one was held out."""
    poses = []
    for angle in np.arange(count) * 2 * np.pi / count:
        back = np.array([np.cos(angle), 0.3, np.sin(angle)])
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 1, 0], back)
        right /= np.linalg.norm(right)
        up = np.cross(back, right)
        poses.append(np.column_stack([right, up, back, 3 * back]))
    return Cameras(
        np.array(poses, np.float32),
        np.full(count, 1.2 * SIDE, np.float32),
        np.full((count, 2), SIDE, np.int64),
        np.arange(count) % 3 == 2,
    )
