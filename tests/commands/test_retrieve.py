import json
import shutil
import sys

import numpy as np
import pytest
from near_init import make_store
from PIL import Image

from nf2vec_cli.store.products import ENCODERS, Embeddings, save_state
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks import hit_pictures
from nf2vec_cli.tasks.bench_retrieve import bench_retrieve

# name, class, split, place on a line
LINE = (
    ("a/0", "a", "test", 0),
    ("a/1", "a", "test", 1),
    ("b/0", "b", "test", 2.5),
    ("a/2", "a", "test", 10),
    ("b/1", "b", "test", 12),
    ("a/3", "a", "train", 0.25),
    ("b/2", "b", "train", 30),
    ("c/0", "", "train", 50),
)


def fill(path, objects, *, key="one", copies=()):
    """Put objects with embeddings on a line into an empty store."""
    made = open_store(path, mode="a")
    entries = [Entry(name, f"{name}.ply", kind, split) for name, kind, split, _ in objects]
    entries += [
        Entry(f"{name}+{n}", f"{name}.ply", kind, split, copy=n, parent=name)
        for n, (name, kind, split, _) in enumerate(copies, 1)
    ]
    rows = made.register(entries)
    rng = np.random.default_rng(0)
    theta = made.init + rng.normal(0, 0.01, (len(rows), len(made.init))).astype(np.float32)
    whole = {"error": np.zeros(len(rows)), "transform": [[0, 0, 0, 1]] * len(rows)}
    made.commit(rows, theta, **whole)
    embed(made, key, [place for *_, place in (*objects, *copies)], rows)
    return path


def embed(store, key, places, rows):
    save_state(store, ENCODERS, key, {"none": np.zeros(1)}, ended=key)
    z = np.zeros((len(rows), 3), np.float32)
    z[:, 0] = places
    Embeddings.open_or_make(store, key, 3).write(rows, z)


@pytest.fixture(scope="module")
def line_store(tmp_path_factory):
    """Eight objects on a line, made once."""
    return fill(make_store(tmp_path_factory.mktemp("line") / "ds.zarr", count=0), LINE)


@pytest.fixture
def store(line_store, tmp_path):
    """A copy of the eight objects."""
    return shutil.copytree(line_store, tmp_path / "ds.zarr")


def found(outcome):
    assert outcome.exit_code == 0, outcome.stderr
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def ids(rows):
    return [row["id"] for row in rows]


@pytest.fixture
def near(run, store):
    """Ask the store on the line by Euclidean distance."""

    def near(*words, stdin=None):
        line = ("retrieve", store, "--metric", "euclidean", *words, "--json")
        return found(run(*line, stdin=stdin))

    return near


def test_what_is_nearest_comes_first_and_not_the_query(near):
    rows = near("--query", "a/1", "--k", "3")

    assert rows == [
        {"query": "a/1", "rank": 1, "id": "a/3", "class": "a", "distance": 0.75},
        {"query": "a/1", "rank": 2, "id": "a/0", "class": "a", "distance": 1},
        {"query": "a/1", "rank": 3, "id": "b/0", "class": "b", "distance": 1.5},
    ]


def test_all_but_the_query_are_found_where_k_is_large(near):
    assert len(near("--query", "a/1", "--k", "99")) == len(LINE) - 1


def test_split_threshold_and_stdin(near):
    assert ids(near("--query", "a/1", "--split", "train", "--k", "2")) == ["a/3", "b/2"]
    assert ids(near("--query", "a/1", "--threshold", "1")) == ["a/3", "a/0"]
    rows = near("--query", "a/2", "--query", "-", "--k", "1", stdin="b/1\n\n c/0 \n")
    assert [(row["query"], row["id"]) for row in rows] == [
        ("a/2", "b/1"),
        ("b/1", "a/2"),
        ("c/0", "b/2"),
    ]


def test_a_short_name_is_enough_where_only_one_object_has_it(near):
    assert near("--query", "3", "--k", "1")[0]["query"] == "a/3"
    assert near("--query", "3", "--query", "a/3", "--k", "1")[0]["id"] == "a/0"


def test_the_query_is_known_by_its_row_even_if_another_is_equal(run, tmp_path):
    twins = [(f"a/{n}", "a", "test", 5) for n in range(4)]
    store = fill(make_store(tmp_path / "ds.zarr", count=0), twins)

    for n in range(4):
        rows = found(run("retrieve", store, "-q", f"a/{n}", "--json"))
        assert ids(rows) == [f"a/{m}" for m in range(4) if m != n]
        assert rows[0]["distance"] == 0


def test_copies_are_left_out_and_siblings_always(run, tmp_path):
    objects = [(f"a/{n}", "a", "train", n) for n in range(3)]
    store = make_store(tmp_path / "ds.zarr", count=0)
    fill(store, objects, copies=[("a/0", "a", "train", 0.1), ("a/1", "a", "train", 0.2)])
    line = ("retrieve", store, "--metric", "euclidean", "--json")

    assert ids(found(run(*line, "-q", "a/0"))) == ["a/1", "a/2"]
    assert ids(found(run(*line, "-q", "a/0+1"))) == ["a/1", "a/2"]
    assert ids(found(run(*line, "-q", "a/0", "--copies"))) == ["a/1+2", "a/1", "a/2"]
    assert ids(found(run(*line, "-q", "a/0+1", "--copies"))) == ["a/1+2", "a/1", "a/2"]


def test_metrics_are_those_by_hand(run, store):
    line = ("retrieve", store, "--metrics", "--metric", "euclidean")

    (report,) = found(run(*line, "--json"))

    assert (report["queries"], report["objects"], report["lonely"]) == (5, 5, 0)
    assert (report["asked"], report["gallery"]) == ("split test", "split test")
    assert [row["k"] for row in report["at"]] == [1, 5, 10]
    first, fifth, tenth = report["at"]
    assert (first["hit"], first["precision"]) == (40, 40)
    assert (fifth["hit"], tenth["hit"]) == (100, 100)
    assert fifth["precision"] == pytest.approx(32)
    assert fifth["map"] == pytest.approx(56.6667, abs=1e-3)
    assert fifth["ndcg"] == pytest.approx(69.4338, abs=1e-3)
    table = run(*line, "--k", "3").stdout
    assert "mAP@k of the paper" in table
    assert [line.split()[0] for line in table.splitlines()[-4:]] == ["1", "3", "5", "10"]


def test_metrics_against_another_gallery_and_of_given_queries(run, store):
    line = ("retrieve", store, "--metrics", "--metric", "euclidean", "--json")

    (report,) = found(run(*line, "--gallery", "train"))
    assert (report["queries"], report["objects"], report["gallery"]) == (5, 2, "split train")
    assert report["at"][0]["hit"] == 60  # a/3 is nearest to all

    (report,) = found(run(*line, "--gallery", "all", "--split", "train"))
    assert (report["asked"], report["gallery"]) == ("split train", "all")
    assert (report["queries"], report["objects"]) == (2, 7)  # what has no class has no part

    (report,) = found(run(*line, "-q", "b/1", "-q", "c/0"))
    assert (report["queries"], report["asked"], report["gallery"]) == (1, "queries", "all")


def test_a_query_alone_in_its_class_counts_as_a_miss(run, tmp_path):
    objects = [("a/0", "a", "test", 1), ("a/1", "a", "test", 2), ("b/0", "b", "test", 3)]
    store = fill(make_store(tmp_path / "ds.zarr", count=0), objects)

    (report,) = found(run("retrieve", store, "--metrics", "--metric", "euclidean", "--json"))

    assert report["lonely"] == 1
    assert report["at"][1]["hit"] == pytest.approx(200 / 3)


def test_two_encoders_are_never_mixed(run, store):
    made = open_store(store, mode="a")
    places = [-place for *_, place in reversed(LINE)]
    embed(made, "two", places, made.rows())
    line = ("retrieve", store, "--metric", "euclidean", "-q", "a/0", "--k", "1", "--json")

    newest, one = (found(run(*line, *more)) for more in ((), ("--encoder", "one")))

    assert newest[0]["id"] == "a/1"
    assert newest[0]["distance"] == 20
    assert one[0]["id"] == "a/3"
    assert run(*line, "--encoder", "three").exit_code == 4


def test_pictures_of_queries_and_hits(run, store, tmp_path, monkeypatch):
    monkeypatch.setattr(hit_pictures, "RESOLUTION", 16)
    out, page = tmp_path / "new" / "sheet.png", tmp_path / "new" / "page.html"
    line = ("retrieve", store, "--metric", "euclidean", "--jobs", "1", "--json")

    rows = found(run(*line, "-q", "a/0", "-q", "c/0", "--k", "2", "--out", out, "--html", page))

    assert len(rows) == 4
    with Image.open(out) as sheet:
        assert sheet.width == 3 * (220 + 6) + 6  # the query and its two hits
        assert sheet.height > 2 * 220
    text = page.read_text()
    assert text.count("<img") == 6
    assert all(row["id"] in text for row in rows)
    assert text.count('class="same"') == 2  # of a/0; c/0 has no class
    assert text.count('class=""') == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("-q", "a/9"), 4, "did you mean"),
        (("-q", "a/9.stl"), 4, "no such file"),
        (("-q", "0"), 4, "may be a/0 or b/0 or c/0"),
        (("-q", "-"), 2, "holds no query"),
        ((), 2, "nothing is asked"),
        (("-q", "a/0", "--k", "0"), 2, "--k"),
        (("-q", "a/0", "--metric", "manhattan"), 2, "--metric"),
        (("-q", "a/0", "--metrics", "--gallery", "train"), 2, "--gallery"),
        (("-q", "a/0", "--gallery", "train"), 2, "--gallery"),
        (("-q", "a/0", "--split", "val"), 4, "no embedded object in split 'val'"),
        (("--metrics", "--split", "val"), 4, "no embedded object in split 'val'"),
        (("-q", "c/0", "--metrics"), 4, "no query has a class"),
        (("-q", "STORE"), 5, "is a store"),
        (("-q", "EMPTY"), 5, "holds no shape"),
        (("-q", "NOTES"), 5, "neither a folder, a shape"),
        (("-q", "GRID"), 5, "neither a folder, a shape"),
        (("-q", "a/0", "--index", "ann"), 2, "nf2vec[ann]"),
        (("-q", "a/0", "--out", "EMPTY"), 2, "directory"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    run, store, tmp_path, monkeypatch, words, code, told
):
    monkeypatch.setitem(sys.modules, "usearch", None)
    places = {name: tmp_path / name for name in ("EMPTY", "NOTES", "GRID")}
    places["EMPTY"].mkdir()
    places["NOTES"] = tmp_path / "notes.doc"
    places["GRID"] = tmp_path / "grid.binvox"
    for name in ("NOTES", "GRID"):
        places[name].write_text("x")
    places["STORE"] = store
    words = [places.get(word, word) for word in words]
    before = sorted(tmp_path.rglob("*"))
    pictures = () if "--out" in words else ("--out", tmp_path / "sheet.png")

    outcome = run("retrieve", store, *words, *pictures, "--json", stdin="")

    assert outcome.exit_code == code, outcome.stderr
    assert told in outcome.stderr
    assert outcome.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_without_embeddings_the_way_to_them_is_named(run, tmp_path):
    store = make_store(tmp_path / "ds.zarr")

    outcome = run("retrieve", store, "-q", "shape/1")

    assert outcome.exit_code == 4
    assert f"nf2vec encode {store}" in outcome.stderr


def test_an_object_whose_field_has_changed_is_not_asked(run, store):
    made = open_store(store, mode="a")
    made.commit([0], made.weights([0]) + 1)

    outcome = run("retrieve", store, "-q", "a/0")

    assert outcome.exit_code == 4
    assert "'a/0' has no embedding" in outcome.stderr
    assert "a/0" not in ids(found(run("retrieve", store, "-q", "a/1", "--json")))


def test_shapes_are_fitted_and_asked(run, fitted, folder, tmp_path):
    assert run("encode", fitted).exit_code == 0
    (tmp_path / "more" / "lamp").mkdir(parents=True)
    shutil.copy(folder / "lamp" / "lamp.ply", tmp_path / "more" / "lamp")
    (tmp_path / "more" / "broken.stl").write_bytes(b"")
    line = ("retrieve", fitted, "--k", "1", "--jobs", "1", "--json")

    outcome = run(*line, "-q", folder / "lamp" / "lamp.ply", "-q", "chair/chair")
    rows = found(outcome)
    assert [row["query"] for row in rows] == ["chair/chair", str(folder / "lamp" / "lamp.ply")]
    assert rows[1]["id"] == "lamp/lamp"  # a file finds the object that was fitted to it

    outcome = run(*line, "-q", tmp_path / "more")
    assert outcome.exit_code == 7
    assert "broken" in outcome.stderr
    (row,) = (json.loads(line) for line in outcome.stdout.splitlines())
    assert row["query"] == str(tmp_path / "more" / "lamp" / "lamp.ply")
    assert (row["id"], row["distance"]) == ("lamp/lamp", pytest.approx(0, abs=1e-6))

    outcome = run(*line, "-q", tmp_path / "more", "--metrics")
    report = json.loads(outcome.stdout)
    assert (report["queries"], report["lonely"]) == (1, 1)  # its own object is no answer


def test_a_graph_finds_what_the_exact_search_finds(run, store):
    pytest.importorskip("usearch")
    line = ("retrieve", store, "--metric", "euclidean", "-q", "a/1", "-q", "b/2", "--k", "3")

    exact, first, again = (
        found(run(*line, "--json", "--index", index)) for index in ("exact", "ann", "ann")
    )

    assert exact == first == again
    assert len(list((store / "indexes").glob("*.usearch"))) == 1
    assert len(found(run(*line, "-q", "a/2", "--json", "--index", "ann"))) == 9
    assert run("check", store).exit_code == 0


def test_a_search_is_measured_and_leaves_nothing(tmp_path):
    (row,) = bench_retrieve(rows=300, numbers=8, queries=5, k=3, folder=tmp_path)

    assert (row.rows, row.numbers, row.queries, row.k, row.index) == (300, 8, 5, 3, "exact")
    assert row.seconds > 0
    assert row.peak_mb >= row.idle_mb > 50
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_before_anything_is_written(run, tmp_path):
    outcome = run("bench", "retrieve", "--rows", 10**12, "--folder", tmp_path)

    assert outcome.exit_code == 2
    assert "GB free" in outcome.stderr
    assert list(tmp_path.iterdir()) == []
