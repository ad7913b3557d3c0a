import json
import shutil

import numpy as np
import pytest
from near_init import heads_told, make_store, options, result
from PIL import Image

from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.products import keys, load_state
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks import decoded_clouds, generate_score, look
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.embedded import open_embeddings
from nf2vec_cli.tasks.rebuild import Built

GENERATORS = "heads/generate"
QUICK = ("--set", "steps=30", "--set", "validate_every=10", "--set", "width=8", "--jobs", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of 20 occupancy fields of one class with embeddings."""
    from typer.testing import CliRunner

    from nf2vec_cli.cli import app

    path = make_store(tmp_path_factory.mktemp("made") / "ds.zarr", kind="occ")
    for line in (["train", str(path), *options()], ["encode", str(path)]):
        assert CliRunner().invoke(app, line).exit_code == 0
    return path


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made, tmp_path / "ds.zarr")


@pytest.fixture
def draw(run, store, tmp_path):
    def command(*words, out="gen.zarr", name="shape", count=5):
        asked = ("--class", name, "--count", count, "--out", tmp_path / out)
        return run("generate", store, *asked, *QUICK, *words, "--json")

    return command


def embeddings(path):
    kept = open_embeddings(open_store(path))
    return kept.read(kept.current())


@pytest.mark.parametrize("model", ["flow", "gan"])
def test_a_store_of_embeddings_alone(run, store, draw, tmp_path, model):
    told = result(draw("--model", model))

    assert (told["count"], told["model"], told["class_name"]) == (5, model, "shape")
    assert (told["train_objects"], told["val_objects"]) == (14, 3)
    new, old = open_store(tmp_path / "gen.zarr"), open_store(store)
    assert [new.column("id")[row] for row in new.rows()] == [f"shape/gen-000{n}" for n in range(5)]
    assert new.column("class")[:5] == ["shape"] * 5
    assert (new.init_hash, new.field, new.network) == (old.init_hash, old.field, old.network)
    assert not len(new.rows(Status.DONE))
    z = embeddings(tmp_path / "gen.zarr")
    assert z.shape == (5, 16)
    # components of weights and of slopes, six of each
    np.testing.assert_allclose(np.linalg.norm(z[:, :12], axis=1), 12**0.5, rtol=1e-5)
    assert check_store(tmp_path / "gen.zarr").sound
    assert result(run("info", tmp_path / "gen.zarr", "--json"))["status"] == {"embedded": 5}


def test_what_is_drawn_can_be_rebuilt_from_embeddings_only(run, draw, tmp_path):
    result(draw())
    new = tmp_path / "gen.zarr"
    words = ("--out", tmp_path / "out", "--resolution", "16", "--jobs", "1", "--json")

    decoded = run("reconstruct", new, "--from", "embeddings", "--sources", tmp_path, *words)
    rows = [json.loads(line) for line in decoded.stdout.splitlines()]
    assert [row["id"] for row in rows] == [f"shape/gen-000{n}" for n in range(5)]
    assert all(row["problem"] is None or row["count"] == 0 for row in rows)
    one = run("reconstruct", new, "--from", "embeddings", "--ids", "gen-0003", *words)
    assert json.loads(one.stdout) == rows[3] | {"chamfer": None}

    for ids in ((), ("--ids", "shape/gen-0001")):
        refused = run("reconstruct", new, *ids, *words)
        assert refused.exit_code == 4
        assert "it has no weights" in refused.stderr
        assert "--from embeddings" in refused.stderr
    for verb in ("encode", "train"):
        assert run(verb, new).exit_code == 4


def test_what_is_drawn_can_be_asked_for_and_seen(run, draw, tmp_path, monkeypatch):
    result(draw())
    seen = []
    monkeypatch.setattr(
        look, "build", lambda field, *_, **__: seen.append(field) or Built(None, None)
    )
    new, sheet, page = tmp_path / "gen.zarr", tmp_path / "sheet.png", tmp_path / "page.html"
    line = ("--query", "gen-0003", "--k", "2", "--out", sheet, "--html", page, "--jobs", "1")

    outcome = run("retrieve", new, *line, "--json")

    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.stdout.splitlines()) == 2
    assert [type(field) for field in seen] == [DecodedField] * 3
    assert sheet.exists()
    assert page.read_text().count("<img") == 3


def test_the_generator_is_kept_and_used_again(run, store, draw, tmp_path):
    first = result(draw(out="a.zarr"))
    facts = load_state(open_store(store), GENERATORS, first["generator"])[1]
    (told,) = heads_told(run, store)
    assert (told["task"], told["key"], told["about"]) == ("generate", first["generator"], "shape")
    assert told["metric"] == "val_error"
    assert told["value"] == min(look["error"] for look in facts["curve"]["looks"])
    again, others = result(draw(out="b.zarr")), result(draw("--seed", "7", out="c.zarr"))

    assert again["generator"] == others["generator"] == first["generator"]
    assert load_state(open_store(store), GENERATORS, first["generator"])[1] == facts
    a, b, c = (embeddings(tmp_path / f"{name}.zarr") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01
    changed = result(draw("--set", "seed=1", out="d.zarr"))
    assert changed["generator"] != first["generator"]
    assert len(keys(open_store(store), GENERATORS)) == 2


def test_force_trains_again_to_the_same_numbers_and_replaces_what_was_drawn(store, draw, tmp_path):
    first = result(draw())
    z = embeddings(tmp_path / "gen.zarr")
    ended = load_state(open_store(store), GENERATORS, first["generator"])[1]["ended"]

    refused = draw()
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "gen.zarr is there already" in refused.stderr
    assert f"nf2vec generate {store} --class " in refused.stderr
    assert f"--out {tmp_path / 'gen.zarr'} --force`" in refused.stderr

    result(draw("--force", count=3))
    assert load_state(open_store(store), GENERATORS, first["generator"])[1]["ended"] > ended
    np.testing.assert_array_equal(embeddings(tmp_path / "gen.zarr"), z[:3])


def test_test_objects_are_not_learnt_from(store, draw, tmp_path):
    result(draw(out="a.zarr"))
    kept = open_embeddings(open_store(store, mode="a"))
    rows = kept.store.find(["shape/17", "shape/18", "shape/19"])
    assert {kept.store.column("split")[row] for row in rows} == {"test"}
    kept.write(rows, np.full((3, 16), 1e6, np.float32))

    told = result(draw("--force", out="b.zarr"))

    assert np.isfinite(told["seconds"])
    np.testing.assert_array_equal(embeddings(tmp_path / "a.zarr"), embeddings(tmp_path / "b.zarr"))


def test_metrics_and_a_picture(draw, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_clouds, "DECODED_AT", 16)
    monkeypatch.setattr(generate_score, "POINTS", 64)
    sheet = tmp_path / "pictures" / "gen.png"

    told = result(draw("--metrics", "--emd", "--sheet", sheet))

    assert [row["set"] for row in told["sets"]] == ["generated", "train, decoded", "test, decoded"]
    assert [row["shapes"] for row in told["sets"]] == [5, 14, 3]
    for row in told["sets"]:
        if row["shapes"] - row["empty"] < 2:
            assert row["mmd"] is row["emd_nna"] is None
        else:
            assert row["mmd"] > 0
            assert 0 < row["coverage"] <= 1
            assert 0 <= row["emd_nna"] <= 1
    assert told["novelty"][-1]["of"] == "embedding, as decoded"
    assert told["novelty"][-1]["ratio"] > 0
    with Image.open(sheet) as picture:
        assert picture.width > 3 * picture.height
    run_record = open_store(tmp_path / "gen.zarr").runs()[-1]
    assert run_record["kind"] == "generate"
    assert run_record["summary"]["sets"] == told["sets"]


def test_a_damaged_embedding_is_found_and_set_aside(draw, tmp_path):
    result(draw())
    path = tmp_path / "gen.zarr"
    kept = open_embeddings(open_store(path, mode="a"))
    kept._values[2, 3] = 9.0

    found = check_store(path).findings
    assert [(f.kind, f.where, f.repaired) for f in found] == [
        ("embedding", "shape/gen-0002", False)
    ]
    assert check_store(path, repair=True).sound
    assert len(embeddings(path)) == 4
    assert check_store(path).findings == ()


def test_an_unknown_class_names_the_nearest(draw):
    wrong = draw(name="shapes")
    assert wrong.exit_code == 4
    assert "no embeddings of class 'shapes'" in wrong.stderr
    assert "did you mean shape?" in wrong.stderr
    assert "there are shape" in draw(name="zebra").stderr


def test_what_cannot_be_is_refused_before_anything_is_written(run, store, draw, tmp_path):
    before = sorted(p.relative_to(store) for p in store.rglob("*"))

    assert draw(count=0).exit_code == 2
    assert draw("--set", "steps=0").exit_code == 3
    assert draw("--set", "model=vae").exit_code == 3
    assert draw("--encoder", "nope").exit_code == 4
    assert draw(name="zebra").exit_code == 4
    fields = draw("--force", out="ds.zarr")
    assert fields.exit_code == 4
    assert "never replaced" in fields.stderr
    assert f"--out {tmp_path / 'ds-2.zarr'}`" in fields.stderr
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    assert "is no store" in draw("--force", out="folder").stderr
    gone = run("generate", tmp_path / "no.zarr", "--class", "a", "--out", tmp_path / "o.zarr")
    assert gone.exit_code == 4

    assert sorted(p.relative_to(store) for p in store.rglob("*")) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ds.zarr", "folder"]


def test_a_store_without_embeddings_or_classes_or_enough_objects(run, store, draw, tmp_path):
    bare = make_store(tmp_path / "bare.zarr", count=8)
    words = ("--class", "shape", "--out", tmp_path / "gen.zarr")
    outcome = run("generate", bare, *words)
    assert outcome.exit_code == 4
    assert "nf2vec encode" in outcome.stderr

    opened = open_store(store, mode="a")
    train = [r for r in opened.rows() if opened.column("split")[r] == "train"]
    opened.update(train[7:], **{"class": ["other"] * len(train[7:])})
    few = draw()
    assert few.exit_code == 4
    assert "has 7 objects of class 'shape' in split train" in few.stderr

    opened.update(opened.rows(), **{"class": [""] * len(opened.rows())})
    none = draw()
    assert none.exit_code == 4
    assert "no classes" in none.stderr
    assert not (tmp_path / "gen.zarr").exists()


def test_metrics_without_test_objects_are_refused_before_training(store, draw, tmp_path):
    opened = open_store(store, mode="a")
    rows = opened.rows()
    opened.update(rows, split=["train"] * (len(rows) - 1) + ["test"])

    outcome = draw("--metrics")

    assert outcome.exit_code == 4
    assert "has 1 test objects" in outcome.stderr
    assert not (tmp_path / "gen.zarr").exists()
    assert keys(open_store(store), GENERATORS) == []
    # without val objects the last step counts, and without --metrics all is well
    assert result(draw())["val_objects"] == 0
