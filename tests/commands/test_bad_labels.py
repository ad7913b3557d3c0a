"""What tasks on embeddings do with labels, names, queries and encoders that will not do."""

import json
import shutil

import numpy as np
import pytest
import trimesh
from near_init import heads_told, options, result
from part_world import make_world, quick, write_npz

from nf2vec_cli.store.products import ENCODERS, keys
from nf2vec_cli.store.store import open_store

COUNT = 30  # 24 in train, 3 in val, 3 in test; classes in turn
CLASSIFY = ("classify", "S", "--predictions", "OUT")
RETRIEVE = ("retrieve", "S", "--out", "OUT")
SEGMENT = ("segment", "S", "--parts", "PARTS", "--out", "OUT")
GENERATE = ("generate", "S", "--class", "ball", "--out", "OUT")
MAP = ("map", "S", "B", "--out", "OUT")
VIEW = ("view", "S", "--out", "OUT")
MEASURE = (*RETRIEVE, "--metrics")
ALL = (CLASSIFY, MEASURE, SEGMENT, GENERATE, MAP, VIEW)
SHORT = ("--set", "steps=4", "--set", "validate_every=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two stores of the same objects with embeddings, and labelled clouds of them."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("ds.zarr", "b.zarr"):
        make_world(folder / name)
    write_npz(folder / "parts", folder / "ds.zarr")
    return folder


@pytest.fixture
def place(made, tmp_path):
    return shutil.copytree(made, tmp_path / "place")


def line(place, words):
    names = {"S": "ds.zarr", "B": "b.zarr", "PARTS": "parts", "OUT": "out"}
    return [place / names.get(word, word) if word in names else word for word in words]


def stores(place):
    return [open_store(place / name, mode="a") for name in ("ds.zarr", "b.zarr")]


def classes(change):
    def spoil(place):
        for store in stores(place):
            names = [change(n, name) for n, name in enumerate(store.column("class")[:COUNT])]
            store.update(range(COUNT), **{"class": names})

    return spoil


def no_split(name):
    def spoil(place):
        for store in stores(place):
            other = "test" if name == "train" else "train"
            splits = [other if split == name else split for split in store.column("split")]
            store.update(range(COUNT), split=splits[:COUNT])

    return spoil


def lone_in_test(place):
    parts = place / "parts"
    shutil.rmtree(parts)
    write_npz(parts, place / "ds.zarr", only=lambda row: row % 3 or row == 27)


def no_clouds(place):
    for file in (place / "parts").iterdir():
        file.unlink()


def short_labels(place):
    arrays = dict(np.load(place / "parts" / "ball.npz"))
    (place / "parts" / "ball").mkdir()
    labelled = {"points": arrays["points"][0], "labels": arrays["labels"][0][:-1]}
    np.savez(place / "parts" / "ball" / "0.npz", **labelled)
    (place / "parts" / "ball.npz").unlink()


def no_embeddings(place):
    for name in ("ds.zarr", "b.zarr"):
        shutil.rmtree(place / name / "embeddings")


def other_fields(place):
    store, _ = stores(place)
    store.commit(range(COUNT), store.weights(range(COUNT)) + 1)


def other_ids(place):
    stores(place)[1].update(range(COUNT), id=[f"other/{n}" for n in range(COUNT)])


def files(place):
    (place / "grid.binvox").write_bytes(b"#binvox 1")
    trimesh.PointCloud(np.random.default_rng(0).random((500, 3))).export(place / "cloud.ply")


def keep(_):
    pass


CASES = {
    "no labels": (
        classes(lambda *_: ""),
        (CLASSIFY, 4, "has no classes"),
        (MEASURE, 4, "has no classes"),
        (GENERATE, 4, "has no classes"),
    ),
    "no labelled clouds": (no_clouds, (SEGMENT, 5, "holds no labelled clouds")),
    "one class": (
        classes(lambda *_: "ball"),
        (CLASSIFY, 4, "one class, 'ball': two are needed"),
        (MEASURE, 4, "one class, 'ball': two are needed"),
    ),
    "a class with one object": (
        classes(lambda n, name: name if name != "ball" or n == 0 else "cone"),
        (CLASSIFY, 4, "1 classes have no object in split train, or none in val and test: ball"),
        (GENERATE, 4, "has 1 objects of class 'ball' in split train"),
    ),
    "a class with one labelled object": (
        lone_in_test,
        (SEGMENT, 5, "labels no object of class ball in split train"),
    ),
    "no train": (
        no_split("train"),
        (CLASSIFY, 4, "in split train"),
        ((*MEASURE, "--split", "train"), 4, "no embedded object in split 'train'"),
        (SEGMENT, 5, "in split train"),
        (GENERATE, 4, "has 0 objects of class 'ball' in split train"),
        (MAP, 4, "share 0 objects of split train"),
    ),
    "no val": (
        no_split("val"),
        (CLASSIFY, 4, "in split val"),
        ((*RETRIEVE, "-q", "shape/1", "--split", "val"), 4, "no embedded object in split 'val'"),
        (SEGMENT, 5, "in split val"),
        (MAP, 4, "no object of split val"),
    ),
    "no test": (
        no_split("test"),
        (CLASSIFY, 4, "in split test"),
        (MEASURE, 4, "no embedded object in split 'test'"),
        (SEGMENT, 5, "in split test"),
        ((*GENERATE, "--metrics"), 4, "has 0 test objects"),
        (MAP, 4, "no object of split test"),
    ),
    "unknown names": (
        keep,
        ((*RETRIEVE, "-q", "shape/200"), 4, "did you mean shape/20"),
        ((*RETRIEVE, "-q", "zzz"), 4, "has no object 'zzz'"),
        ((*SEGMENT, "--ids", "shape/200"), 4, "did you mean shape/20"),
        ((*GENERATE[:3], "bal", *GENERATE[4:]), 4, "did you mean ball?"),
        ((*GENERATE[:3], "zebra", *GENERATE[4:]), 4, "there are ball, cone, cube"),
        *(((*words, "--encoder", "nope"), 4, "by encoder 'nope'") for words in ALL),
        ((*MAP, "--target-encoder", "nope"), 4, "by encoder 'nope'"),
        (("segment", "S", "--encoder", "nope"), 4, "no head that tells parts from embeddings by"),
        (("segment", "S", "--head", "nope"), 4, "has no head 'nope'"),
    ),
    "shapes of another field": (
        files,
        ((*RETRIEVE, "-q", "grid.binvox"), 5, "neither a folder, a shape"),
        ((*RETRIEVE, "-q", "cloud.ply", "--jobs", "1"), 5, "the file is a cloud"),
        (("classify", "S", "--predict", "grid.binvox"), 5, "neither a folder, a shape"),
    ),
    "no embeddings": (no_embeddings, *((words, 4, "holds no embeddings") for words in ALL)),
    "embeddings of other fields": (
        other_fields,
        *((words, 4, "are of other fields than it holds now") for words in ALL),
    ),
    "labels of another length": (short_labels, (SEGMENT, 5, "has 120 points and labels (119,)")),
    "no object in common": (other_ids, (MAP, 4, "share no object")),
    "one store twice": (keep, (("map", "S", "S", "--out", "OUT"), 2, "is on both sides")),
}


def state(place):
    return {f: f.read_bytes() for f in place.rglob("*") if f.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_it_is_told_with_a_line_to_type_and_nothing_is_written(run, place, monkeypatch, case):
    spoil, *lines = CASES[case]
    spoil(place)
    before = state(place)
    monkeypatch.chdir(place)

    for words, code, told in lines:
        outcome = run(*line(place, words))

        assert (outcome.exit_code, told in outcome.stderr) == (code, True), (words, outcome.stderr)
        error, hint = outcome.stderr.splitlines()[-2:]
        assert error.startswith("error: "), words
        assert hint.startswith("hint: "), words
        assert "`nf2vec " in hint, words
        assert outcome.stdout == ""
        assert state(place) == before, words


def test_a_cloud_is_not_classified_by_distances_with_signs(run, place):
    files(place)
    result(run("classify", place / "ds.zarr", *SHORT, "--json"))
    before = state(place)

    outcome = run("classify", place / "ds.zarr", *SHORT, "--predict", place / "cloud.ply")

    assert outcome.exit_code == 5
    assert "the file is a cloud" in outcome.stderr
    assert "`nf2vec fit" in outcome.stderr
    assert state(place) == before


@pytest.mark.parametrize(
    "name",
    [
        "classify",
        "retrieve",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("segment", "generate", "map", "view")),
    ],
)
def test_embeddings_of_two_encoders_are_never_mixed(run, place, name):
    store = place / "ds.zarr"
    result(run("train", store, *options(seed=1), "--json"))
    result(run("encode", store, "--json"))
    both = keys(open_store(store), ENCODERS)
    words, more = {
        "classify": (("classify", "S"), SHORT),
        "segment": (("segment", "S", "--parts", "PARTS"), quick("steps=2")),
        "generate": (GENERATE, (*SHORT, "--force", "--count", "2")),
        "map": (("map", "S", "B"), SHORT),
        "retrieve": (("retrieve", "S", "--metrics"), ()),
        "view": (VIEW, ("--resolution", "16", "--jobs", "1")),
    }[name]

    told = []
    for key in both:
        outcome = run(*line(place, words), *more, "--encoder", key, "--json")
        assert outcome.exit_code == 0, outcome.stderr
        told.append(json.loads(outcome.stdout.splitlines()[0]))
    newest = run(*line(place, words), *more, "--json")

    assert len(both) == 2
    assert json.loads(newest.stdout.splitlines()[0]) | {"seconds": 0} == told[1] | {"seconds": 0}
    if name == "segment":
        assert {head["encoder"] for head in heads_told(run, store)} == set(both)
        alone = [
            run("segment", store, "--encoder", key, "--ids", "shape/1", "--jobs", "1").stdout
            for key in both
        ]
        assert [key in text for key, text in zip(both, alone, strict=True)] == [True, True]
    else:
        assert [one["encoder"] for one in told] == both
    if name in ("classify", "segment", "generate", "map"):
        assert len(heads_told(run, store)) == 2  # one of each encoder
