"""The encoders that ship: a fresh store is embedded with nothing trained."""

import csv
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.encoders import read_encoder, shipped

FOLDER = Path(str(files("nf2vec_cli") / "pretrained"))
MOST_BYTES = 12_000_000


def test_what_ships_is_small_and_listed_in_the_card():
    assert sorted(shipped()) == ["sdf-small", "udf-small"]
    assert sum(file.stat().st_size for file in shipped().values()) <= MOST_BYTES
    card = (FOLDER / "CARD.md").read_text(encoding="utf-8")
    for name, file in shipped().items():
        trained = read_encoder(file)
        assert trained.kind == name.partition("-")[0]
        assert trained.key in card
        assert trained.init_hash in card


@pytest.mark.parametrize("field", ["sdf", "udf"])
def test_a_fresh_store_is_embedded_with_nothing_trained(run, shapes, tmp_path, field):
    store = tmp_path / "ds.zarr"
    quick = ("--set", "steps=3", "--set", "pool=2000", "--set", "points=200", "--jobs", "1")
    run("fit", shapes / "lamp", "--field", field, "--store", store, *quick)

    encoded = run("encode", store, "--json")

    assert encoded.exit_code == 0, encoded.stderr
    found = json.loads(encoded.stdout)
    trained = read_encoder(shipped()[f"{field}-small"])
    assert found["encoder"] == trained.key
    kept = Embeddings(open_store(store), found["encoder"])
    z = kept.read(kept.current())
    assert z.shape == (found["encoded"], trained.config.embedding)
    assert np.isfinite(z).all()
    assert z.std() > 0.1


def test_objects_are_openly_licensed_and_none_is_of_a_test_split():
    with (FOLDER / "objects.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))

    assert {row["split"] for row in rows} == {"train", "val"}
    assert {row["licence"].split()[0] for row in rows} == {
        "CC0-1.0",
        "CC-BY-3.0",
        "CC-BY-3.0-US",
        "CC-BY-SA-4.0",
    }
    assert all(row["source"].startswith(("sweethome3d", "debian:kicad")) for row in rows)
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "val")}
    for file in shipped().values():
        result = read_encoder(file).facts["result"]
        assert (result["train_objects"], result["val_objects"]) == tuple(counts.values())
