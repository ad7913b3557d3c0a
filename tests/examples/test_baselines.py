import json

import classify_times
import numpy as np
import point_classifiers
import pointnet_segmentation
import pytest
from part_world import CLASSES, make_world, write_npz

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.spread import one_thread

QUICK = ("--width", "0.125", "--points", "64")


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():  # budgets are CPU time of all threads
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store of spheres, stretched along an axis for each class, and their labelled points."""
    folder = tmp_path_factory.mktemp("world")
    made = make_world(folder / "ds.zarr")
    opened = open_store(made, mode="a")
    rows = opened.rows()
    names = opened.column("class")
    place = np.array([CLASSES.index(names[row]) for row in rows])
    points = opened.surface(rows)
    # faces are in some order: points that are not drawn at random are of a few faces, here a cap
    points = np.take_along_axis(points, points[..., :1].argsort(1), 1)
    stretched = points * (0.2 + 0.8 * np.eye(3, dtype=np.float32))[place][:, None]
    opened.commit(rows, opened.weights(rows), surface=stretched)
    write_npz(folder / "parts", made)
    return folder


def told(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pointnet", "dgcnn"])
def test_a_classifier_is_trained_and_tells_test(world, capsys, model):
    seconds = ("--seconds", "3", "--learning-rate", "0.005")

    point_classifiers.main([str(world / "ds.zarr"), "--model", model, *seconds, *QUICK])

    result = told(capsys)
    assert result["accuracy"] == result["class_accuracy"] == result["val_accuracy"] == 100
    assert (result["train_objects"], result["val_objects"], result["test_objects"]) == (24, 3, 3)
    assert (result["model"], result["classes"]) == (model, 3)
    assert result["steps"] > 10
    assert 3 <= result["seconds"] < 5


def test_objects_and_splits_are_those_of_classify(run, world, tmp_path):
    store, lines = world / "ds.zarr", tmp_path / "test.jsonl"
    outcome = run("classify", store, "--set", "steps=2", "--predictions", lines, "--json")
    assert outcome.exit_code == 0, outcome.stderr

    known = point_classifiers.read_clouds(store, None, skip_rare=False).known

    said = json.loads(outcome.stdout)
    names = open_store(store).column("id")
    asked = [json.loads(line) for line in lines.read_text().splitlines()]
    test = known.of("test")
    assert [names[row] for row in known.rows[test]] == [one["id"] for one in asked]
    assert [known.classes[n] for n in known.labels[test]] == [one["truth"] for one in asked]
    assert len(known.of("train")) == said["train_objects"]
    assert len(known.of("val")) == said["val_objects"]


def test_points_are_drawn_from_all_of_a_surface():
    points = np.arange(3 * 2048, dtype=np.float32).reshape(1, -1, 3).repeat(2, 0)

    found = point_classifiers.drawn(points, 512, np.random.default_rng(0))

    assert found.shape == (2, 512, 3)
    assert len(np.unique(found[0, :, 0])) == 512
    assert found[0].mean() == pytest.approx(points.mean(), rel=0.1)
    assert not np.array_equal(found[0], found[1])


def test_variations_stretch_and_shift_within_bounds():
    points = np.ones((400, 2, 3), np.float32)

    found = point_classifiers.varied(points, np.random.default_rng(0), jitter=False)
    moved = point_classifiers.varied(points, np.random.default_rng(0), jitter=True) - found

    assert 2 / 3 - 0.2 <= found.min() < 0.6
    assert 1.5 < found.max() <= 1.7
    assert np.array_equal(found[:, 0], found[:, 1])
    assert 0.02 < np.abs(moved).max() <= 0.051
    assert found.dtype == np.float32


def test_a_store_without_points_is_refused(tmp_path):
    made = make_world(tmp_path / "ds.zarr")
    opened = open_store(made, mode="a")
    opened.commit([4], opened.weights([4]), surface=np.zeros((1, 2048, 3)))

    with pytest.raises(StoreError, match="no points on the surface of 1 objects"):
        point_classifiers.read_clouds(made, None, skip_rare=False)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pointnet", "dgcnn"])
def test_parts_are_learned(world, capsys, model):
    arguments = [str(world / "ds.zarr"), str(world / "parts"), "--model", model, "--seconds", "3"]

    pointnet_segmentation.main([*arguments, *QUICK])

    result = told(capsys)
    assert result["class_miou"] > 0.6  # guesses: 0.3
    assert set(result["classes"]) == set(CLASSES)
    assert 3 <= result["seconds"] < 5


def test_a_class_from_weights_and_from_points_is_timed(world, capsys):
    arguments = ["--objects", "3", "--points", "128", "256", "--width", "0.25"]

    classify_times.main([str(world / "ds.zarr"), *arguments, "--resolution", "32"])

    output = capsys.readouterr()
    rows = json.loads(output.out)
    assert [(row["from"], row["points"]) for row in rows] == [
        ("weights", None),
        ("points", 128),
        ("points", 256),
        ("points rebuilt from the field", 128),
        ("points rebuilt from the field", 256),
    ]
    assert all(0 < row["classify"] <= row["milliseconds"] for row in rows)
    assert rows[3]["before"] > 0
    assert len(output.err.splitlines()) == 1 + len(rows)


@pytest.mark.slow
def test_times_of_unsigned_fields(run, shapes, tmp_path, capsys):
    store = tmp_path / "ds.zarr"
    settings = [w for text in ("steps=60", "pool=30000", "points=3000") for w in ("--set", text)]
    outcome = run(
        *("fit", shapes / "chair", "--field", "udf", "--store", store, *settings, "--jobs", "1")
    )
    assert outcome.exit_code == 0, outcome.stderr

    classify_times.main([str(store), "--objects", "1", "--points", "128", "--width", "0.25"])

    rows = told(capsys)
    assert [row["points"] for row in rows] == [None, 128, 128]
