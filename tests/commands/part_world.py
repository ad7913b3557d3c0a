"""A store of fields near their init whose objects have labelled points: parts are half spaces."""

import json
import shutil

import numpy as np
from near_init import TINY, make_store

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.encode import encode_store
from nf2vec_cli.tasks.train import train_encoder

CLASSES = ("ball", "cone", "cube")
CENTRE, SCALE = np.array([5.0, -3.0, 1.0]), 20.0
POINTS = 120
# noise drowns the embeddings, which say nothing of these parts
QUICK = (
    *("hidden=32", "octaves=2", "points=64", "batch=24", "noise=1"),
    *("steps=100", "validate_every=25", "learning_rate=1e-2"),
)


def quick(*more):
    return [w for setting in (*QUICK, *more) for w in ("--set", setting)]


def labels_of(unit, name):
    """Part 0 of a class is where its own axis is negative; raw labels are 10, 11, 20, 21..."""
    axis = CLASSES.index(name)
    return 10 * (axis + 1) + (unit[:, axis] > 0)


def make_world(path, *, kind="sdf", count=30):
    """Give a store with embeddings, classes in turn, and transforms other than the identity."""
    store = make_store(path, kind=kind, count=count)
    opened = open_store(store, mode="a")
    names = [CLASSES[n % 3] for n in range(count)]
    transform = np.tile([*CENTRE, SCALE], (count, 1))
    opened.update(range(count), **{"class": names, "transform": transform})
    train_encoder(store, TrainConfig(**(TINY | {"widths": (16,), "steps": 4})), device="cpu")
    encode_store(store, device="cpu")
    return store


def write_npz(folder, store, *, only=None, **changed):
    """Write CLASS.npz of the store's own surface points, in the user's units."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = open_store(store)
    ids, classes = opened.column("id"), opened.column("class")
    rows = [row for row in opened.rows().tolist() if only is None or only(row)]
    for name in CLASSES:
        mine = [row for row in rows if classes[row] == name]
        if not mine:
            continue
        unit = opened.surface(mine)[:, :POINTS].astype(float)
        arrays = {
            "points": (unit * SCALE + CENTRE).astype(np.float32),
            "labels": np.stack([labels_of(one, name) for one in unit]),
            "names": np.array([ids[row].rpartition("/")[2] for row in mine]),
        }
        np.savez(folder / f"{name}.npz", **(arrays | changed))
    return folder


def write_shapenet(folder, store, *, listed=True):
    """Write the same points as ShapeNet-Part has them: SYNSET/NAME.txt, names and lists."""
    write_npz(folder / "npz", store)
    opened = open_store(store)
    splits = dict(zip(opened.column("id"), opened.column("split"), strict=True))
    lists = {"train": [], "val": [], "test": []}
    lines = []
    for number, name in enumerate(CLASSES):
        synset = f"9000000{number}"
        lines.append(f"{name}\t{synset}")
        arrays = dict(np.load(folder / "npz" / f"{name}.npz"))
        (folder / synset).mkdir()
        for points, labels, stem in zip(
            arrays["points"], arrays["labels"], arrays["names"], strict=True
        ):
            table = np.column_stack([points, np.zeros_like(points), labels])
            np.savetxt(folder / synset / f"{stem}.txt", table, fmt="%.6f")
            lists[splits[f"shape/{stem}"]].append(f"shape_data/{synset}/{stem}")
    shutil.rmtree(folder / "npz")
    (folder / "synsetoffset2category.txt").write_text("\n".join(lines) + "\n")
    (folder / "train_test_split").mkdir()
    for split, entries in lists.items():
        if listed:
            file = folder / "train_test_split" / f"shuffled_{split}_file_list.json"
            file.write_text(json.dumps(entries))
    return folder
