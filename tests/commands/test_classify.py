import json
import shutil

import numpy as np
import pytest
from near_init import heads_told, make_store, options, result

from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import open_store

SETTINGS = ("steps=80", "widths=[16]", "batch=32", "validate_every=20", "learning_rate=0.01")
FEW = tuple(word for text in SETTINGS for word in ("--set", text))
SIZE = 16


def tell(store, count=3):
    """Give the objects classes, and embeddings that tell them."""
    opened = open_store(store, mode="a")
    rows = opened.rows()
    place = np.arange(len(rows)) % count
    opened.update(rows, **{"class": [f"c{n}" for n in place]})
    (key,) = [f.name for f in (store / "embeddings").iterdir() if f.is_dir()]
    rng = np.random.default_rng(0)
    z = rng.normal(0, 0.3, (len(rows), SIZE))
    z[np.arange(len(rows)), place] += 4
    Embeddings(opened, key).write(rows, z.astype(np.float32))
    return store


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where the store of these tests is kept: the first that asks for it makes it."""
    return tmp_path_factory.mktemp("trained") / "ds.zarr"


@pytest.fixture
def store(run, trained, tmp_path):
    """A store of 60 objects in three classes that their embeddings tell apart."""
    if not trained.exists():
        made = make_store(tmp_path / "made.zarr", count=60)
        splits = ["train"] * 36 + ["val"] * 12 + ["test"] * 12
        open_store(made, mode="a").update(range(60), split=splits)
        result(run("train", made, *options(), "--json"))
        result(run("encode", made, "--json"))
        tell(made).rename(trained)
    return shutil.copytree(trained, tmp_path / "ds.zarr")


def test_a_head_is_trained_measured_and_kept(run, store):
    first = result(run("classify", store, *FEW, "--json"))
    again = run("classify", store, *FEW, "--json")

    assert (first["accuracy"], first["class_accuracy"]) == (100, 100)
    assert np.array(first["confusion"]).tolist() == np.diag([4, 4, 4]).tolist()
    assert first["test_objects"] == 12
    assert json.loads(again.stdout) == first
    assert "train:" not in again.stderr
    assert len(list((store / "heads" / "classify").glob("*/state"))) == 1
    assert heads_told(run, store) == [
        {
            **{"task": "classify", "key": first["heads"][0], "encoder": first["encoder"]},
            **{"about": "3 classes", "metric": "accuracy", "value": 100},
        }
    ]


def test_several_seeds_give_a_spread_and_a_head_each(run, store):
    found = result(run("classify", store, *FEW, "--seeds", "3", "--json"))

    assert len(set(found["heads"])) == 3
    assert found["spread"] == 0


def test_what_embeddings_do_not_tell_is_guessed_by_chance(run, store):
    opened = open_store(store, mode="a")
    rng = np.random.default_rng(3)
    (key,) = [f.name for f in (store / "embeddings").iterdir() if f.is_dir()]
    noise = rng.normal(size=(60, SIZE)).astype(np.float32)
    Embeddings(opened, key).write(opened.rows(), noise)

    assert result(run("classify", store, *FEW, "--force", "--json"))["accuracy"] < 75


def test_new_labels_make_a_new_head(run, store):
    first = result(run("classify", store, *FEW, "--json"))
    open_store(store, mode="a").update([0], **{"class": ["c1"]})

    assert result(run("classify", store, *FEW, "--json"))["heads"] != first["heads"]


def test_predictions_and_confusion_are_written(run, store, tmp_path):
    lines, picture = tmp_path / "out" / "test.jsonl", tmp_path / "out" / "confusion.png"

    outcome = run("classify", store, *FEW, "--predictions", lines, "--confusion", picture)

    assert outcome.exit_code == 0, outcome.stderr
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"shape/{n}" for n in range(48, 60)]
    for row in rows:
        assert row["predicted"] == row["truth"]
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["probability"] == max(row["probabilities"].values())
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_objects_without_a_class_are_classified_on_request(run, store):
    open_store(store, mode="a").update([3, 4], **{"class": ["", ""]})

    outcome = run("classify", store, *FEW, "--unlabelled", "--json")

    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [(row["id"], row["predicted"]) for row in rows] == [("shape/3", "c0"), ("shape/4", "c1")]


def test_a_new_file_is_fitted_embedded_and_classified(run, fitted, folder, tmp_path):
    more = tmp_path / "more"
    for split in ("val", "test"):
        for name in ("lamp/lamp.ply", "sofa/sofa.stl"):
            target = more / name.split("/")[0] / split / f"{split}-{name.split('/')[1]}"
            target.parent.mkdir(parents=True)
            shutil.copy(folder / name, target)
    opened = open_store(fitted, mode="a")
    opened.update(opened.rows(), split=["train"] * 3)
    assert run("fit", more, "--field", "sdf", "--store", fitted, "--jobs", "1").exit_code == 0
    assert run("encode", fitted).exit_code == 0
    (more / "broken.stl").write_bytes(b"")

    outcome = run("classify", fitted, *FEW, "--skip-rare", "--predict", more, "--json")

    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert outcome.exit_code == 7, outcome.stderr
    assert "broken" in outcome.stderr
    assert sorted(row["id"] for row in rows) == [
        f"{name}/{split}/{split}-{name}" for name in ("lamp", "sofa") for split in ("test", "val")
    ]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)
    assert all(set(row["probabilities"]) == {"lamp", "sofa"} for row in rows)
    kept = open_store(fitted).rows()
    assert len(kept) == 7  # nothing was added


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"class": [""] * 60}, "no classes"),
        ({"class": ["c"] * 60}, "one class, 'c'"),
        ({"split": ["train"] * 48 + ["test"] * 12}, "in split val"),
        ({"split": ["train"] * 48 + ["val"] * 12}, "in split test"),
        ({"class": ["a", "b"] * 29 + ["lone", "a"]}, "lone"),
    ],
)
def test_labels_that_will_not_do_are_refused_and_nothing_is_written(run, store, changed, reason):
    open_store(store, mode="a").update(range(60), **changed)

    outcome = run("classify", store, *FEW)

    assert outcome.exit_code == 4
    assert reason in outcome.stderr
    assert not (store / "heads").exists()


def test_rare_classes_can_be_left_out(run, store):
    names = ["a", "b"] * 29 + ["lone", "a"]
    open_store(store, mode="a").update(range(60), **{"class": names})

    found = result(run("classify", store, *FEW, "--skip-rare", "--json"))

    assert (found["classes"], found["left_out"]) == (["a", "b"], 1)


def test_a_store_without_embeddings_is_refused(run, tmp_path):
    outcome = run("classify", make_store(tmp_path / "bare.zarr"))

    assert outcome.exit_code == 4
    assert "nf2vec encode" in outcome.stderr
