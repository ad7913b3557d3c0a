"""`nf2vec map`: what is learnt, what is written, and what is refused."""

import json
import shutil
import tomllib

import numpy as np
import pytest
from near_init import heads_told, make_store, options, result

from nf2vec_cli.config.map import MapConfig, Preset, map_defaults
from nf2vec_cli.store.products import ENCODERS, Embeddings, keys
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store

COUNT = 80  # 74 to train on, 3 to choose by, 3 to test
QUICK = ("--set", "steps=300", "--set", "hidden=64", "--device", "cpu", "--jobs", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two stores of the same objects, udf and occ, with encoders; A's embeddings explain B's."""
    from typer.testing import CliRunner

    from nf2vec_cli.cli import app

    folder = tmp_path_factory.mktemp("pair")
    for name, kind in (("a", "udf"), ("b", "occ")):
        path = make_store(folder / f"{name}.zarr", kind=kind, count=COUNT)
        for line in (["train", path, *options()], ["encode", path]):
            found = CliRunner().invoke(app, [str(word) for word in line])
            assert found.exit_code == 0, found.stderr
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(COUNT, 3))  # what an object is, told by either embedding in its way
    z = shape @ rng.normal(size=(3, 16)) + 0.1 * rng.normal(size=(COUNT, 16))
    related = 3 * np.tanh(shape @ rng.normal(0, 0.4, (3, 16))) + 1
    for name, values in (("a", z), ("b", related)):
        kept = embeddings(folder / f"{name}.zarr", "a")
        kept.write(kept.current(), values.astype(np.float32))
    return folder


@pytest.fixture
def pair(made, tmp_path):
    shutil.copytree(made / "a.zarr", tmp_path / "a.zarr")
    shutil.copytree(made / "b.zarr", tmp_path / "b.zarr")
    return tmp_path / "a.zarr", tmp_path / "b.zarr"


def embeddings(path, mode="r"):
    store = open_store(path, mode)
    return Embeddings(store, keys(store, ENCODERS)[-1])


def state(*folders):
    return {
        file: file.read_bytes()
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_what_a_says_of_b_is_learnt_and_test_is_told_apart(run, pair):
    found = result(run("map", *pair, *QUICK, "--json"))

    assert (found["train_pairs"], found["val_pairs"], found["test_pairs"]) == (74, 3, 3)
    assert found["test_error"] < 0.2
    assert found["test_error"] < found["nearest_error"]
    assert found["store"] is None
    assert heads_told(run, pair[0]) == [
        {
            **{"task": "map", "key": found["mapper"], "encoder": found["encoder"]},
            **{"about": str(pair[1]), "metric": "test_error", "value": found["test_error"]},
        }
    ]


def test_the_new_store_has_as_objects_and_bs_decoder(run, pair, tmp_path):
    a, b = pair
    out = tmp_path / "new" / "mapped.zarr"

    found = result(run("map", a, b, "--out", out, *QUICK, "--json"))

    assert (found["mapped"], found["written"]) == (COUNT, True)
    made, source, target = (open_store(path) for path in (out, a, b))
    rows = made.rows()
    assert made.field == "occ"
    assert made.init_hash == target.init_hash
    assert (made.column("status")[rows] == Status.EMBEDDED).all()
    for name in ("id", "class", "split", "parent"):
        old = source.column(name)
        assert [made.column(name)[row] for row in rows] == [old[row] for row in source.rows()]
    # close to B's own, and not them
    z, wanted = embeddings(out).read(rows), embeddings(b).read(target.rows())
    assert 0 < np.square(z - wanted).mean() < 0.2 * wanted.var()


def test_the_line_that_it_tells_makes_shapes(run, pair, tmp_path):
    found = result(run("map", *pair, "--out", tmp_path / "m.zarr", *QUICK, "--json"))
    words = found["reconstruct"].split()

    assert words[:2] == ["nf2vec", "reconstruct"]
    words[words.index("DIR")] = str(tmp_path / "shapes")
    shown = run(*words[1:], "--ids", "shape/1", "--resolution", "16", "--jobs", "1", "--json")

    row = json.loads(shown.stdout.splitlines()[0])
    assert row["id"] == "shape/1"
    assert shown.exit_code == (7 if row["problem"] else 0)


def test_a_second_run_does_nothing_and_says_the_same(run, pair, tmp_path):
    line = ("map", *pair, "--out", tmp_path / "m.zarr", *QUICK, "--json")
    first = result(run(*line))
    before = state(*pair, tmp_path / "m.zarr")

    second = result(run(*line))

    assert second == first | {"written": False}
    assert state(*pair, tmp_path / "m.zarr") == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(run, pair, tmp_path):
    outs = []
    for number, seed in enumerate((1, 1, 2)):
        outs.append(tmp_path / f"{number}.zarr")
        line = ("--out", outs[-1], "--seed", seed, "--force", "--json")
        result(run("map", *pair, *QUICK, *line))
    z = [embeddings(out).read(range(COUNT)) for out in outs]

    np.testing.assert_array_equal(z[0], z[1])
    assert not np.array_equal(z[0], z[2])


def test_test_objects_have_no_part_in_it(run, pair):
    first = result(run("map", *pair, *QUICK, "--json"))
    spoilt = embeddings(pair[1], "a")
    spoilt.write(range(COUNT - 3, COUNT), np.full((3, 16), 40, np.float32))
    # what was embedded there is another field's now
    digest = spoilt.store.column("digest")
    digest[COUNT - 3 :] += 1
    spoilt.store.update(range(COUNT), digest=digest)
    spoilt.write(range(COUNT), spoilt.read(range(COUNT)))

    again = result(run("map", *pair, *QUICK, "--json"))

    assert (again["mapper"], again["val_error"]) == (first["mapper"], first["val_error"])
    assert again["test_error"] > 2 * first["test_error"]


def test_what_either_store_holds_out_is_held_out(run, pair):
    target = open_store(pair[1], "a")
    splits = target.column("split")
    splits[0], splits[1], splits[COUNT - 6] = "test", "val", "test"  # the last one is val in A
    target.update(range(COUNT), split=splits)

    found = result(run("map", *pair, *QUICK, "--json"))

    assert (found["train_pairs"], found["val_pairs"], found["test_pairs"]) == (72, 3, 5)


def test_objects_of_a_alone_are_mapped_too(run, pair, tmp_path):
    target = open_store(pair[1], "a")
    target.update([0], status=[Status.FAILED])

    found = result(run("map", *pair, "--out", tmp_path / "m.zarr", *QUICK, "--json"))

    assert (found["train_pairs"], found["mapped"]) == (73, COUNT)
    assert open_store(tmp_path / "m.zarr").column("source")[:2] == ["", "shape/1.ply"]


def test_shapes_are_compared_with_bs_surfaces(run, pair):
    found = result(run("map", *pair, *QUICK, "--metrics", "--json"))

    rows = {row["shape"]: row for row in found["shapes"]}
    assert list(rows) == [
        *("source, as it is", "mapped", "nearest in train", "own embedding"),
        "nearest in train, as it is",
    ]
    # both stores were made with the same points
    assert rows["source, as it is"] == {
        **{"shape": "source, as it is", "shapes": 3, "empty": 0},
        **{"chamfer": 0, "f1": 1, "f5": 1, "psnr": None},
    }
    for row in rows.values():
        assert row["shapes"] == 3
        assert (row["chamfer"] is None) == (row["empty"] == 3)
    again = result(run("map", *pair, *QUICK, "--metrics", "--json"))
    assert again["shapes"] == found["shapes"]


@pytest.mark.slow
def test_sources_in_another_frame_are_not_compared(run, pair):
    store = open_store(pair[0], "a")
    store.update(range(COUNT), transform=np.ones((COUNT, 4)))

    found = result(run("map", *pair, *QUICK, "--metrics", "--json"))

    assert "source, as it is" not in [row["shape"] for row in found["shapes"]]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_mapper(run, pair, monkeypatch):
    from nf2vec_cli.tasks.loop import Loop

    line = ("map", *pair, *QUICK, "--set", "checkpoint_every=100", "--json")
    whole = result(run(*line))
    one, steps = Loop._one, []

    def stopped(loop):
        steps.append(loop.step)
        if len(steps) == 151:
            raise KeyboardInterrupt
        return one(loop)

    monkeypatch.setattr(Loop, "_one", stopped)
    assert run(*line, "--force").exit_code == 130
    # the one of before is there still; a new setting has none
    assert result(run(*line))["val_error"] == whole["val_error"]
    steps.clear()
    other = (*line, "--set", "seed=5")
    assert run(*other).exit_code == 130
    monkeypatch.setattr(Loop, "_one", lambda loop: (steps.append(loop.step), one(loop))[1])
    steps.clear()
    resumed = result(run(*other))
    assert steps[0] == 100
    monkeypatch.setattr(Loop, "_one", one)
    assert result(run(*other, "--force"))["val_error"] == resumed["val_error"]


def spoil_ids(pair):
    target = open_store(pair[1], "a")
    target.update(range(COUNT), id=[f"other/{n}" for n in range(COUNT)])


def spoil_count(pair):
    target = open_store(pair[1], "a")
    target.update(range(70), id=[f"other/{n}" for n in range(70)])


def spoil_split(name):
    def spoil(pair):
        for path in pair:
            store = open_store(path, "a")
            splits = ["train" if s == name else s for s in store.column("split")]
            store.update(range(COUNT), split=splits[:COUNT])

    return spoil


def spoil_embeddings(pair):
    shutil.rmtree(pair[1] / "embeddings")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_ids, "share no object"),
        (spoil_count, "a mapper needs 8"),
        (spoil_split("val"), "no object of split val"),
        (spoil_split("test"), "no object of split test"),
        (spoil_embeddings, "holds no embeddings"),
    ],
)
def test_what_cannot_be_paired_is_refused_and_nothing_is_written(run, pair, tmp_path, spoil, words):
    spoil(pair)
    before = state(*pair)

    outcome = run("map", *pair, "--out", tmp_path / "m.zarr", *QUICK)

    assert (outcome.exit_code, outcome.stdout) == (4, "")
    assert words in outcome.stderr
    assert "hint" in outcome.stderr
    assert state(*pair) == before
    assert not (tmp_path / "m.zarr").exists()


def test_metrics_without_a_surface_to_compare_with_are_refused(run, pair):
    shutil.rmtree(pair[1] / "surface")
    open_store(pair[1], "a")  # adds points that are not known
    before = state(*pair)

    outcome = run("map", *pair, "--metrics", *QUICK)

    assert outcome.exit_code == 4
    assert "no points on the surfaces" in outcome.stderr
    assert state(*pair) == before


@pytest.mark.parametrize("option", ["--encoder", "--target-encoder"])
def test_another_encoder_than_there_is_is_refused(run, pair, option):
    before = state(*pair)

    outcome = run("map", *pair, option, "nosuch", *QUICK)

    assert outcome.exit_code == 4
    assert "'nosuch'" in outcome.stderr
    assert state(*pair) == before


def test_one_store_on_both_sides_is_refused(run, pair):
    assert run("map", pair[0], pair[0], *QUICK).exit_code == 2


def test_a_store_that_is_not_there_is_refused(run, pair, tmp_path):
    assert run("map", tmp_path / "none.zarr", pair[1], *QUICK).exit_code == 4
    assert not (tmp_path / "none.zarr").exists()


def test_fields_and_strangers_are_never_replaced(run, pair, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    before = state(*pair, tmp_path / "notes")

    for out in (pair[0], pair[1], tmp_path / "notes"):
        outcome = run("map", *pair, "--out", out, "--force", *QUICK)
        assert outcome.exit_code == 4
        assert str(out) in outcome.stderr

    assert state(*pair, tmp_path / "notes") == before


@pytest.mark.slow
def test_other_embeddings_are_replaced_by_force_only(run, pair, tmp_path):
    out = tmp_path / "m.zarr"
    result(run("map", *pair, "--out", out, *QUICK, "--json"))
    before = state(out)

    refused = run("map", *pair, "--out", out, *QUICK, "--seed", "3")
    assert refused.exit_code == 4
    line = f"nf2vec map {pair[0]} {pair[1]} --out {out} --force"
    assert f"`{line}`" in refused.stderr.replace("\n", " ")
    assert state(out) == before

    assert result(run("map", *pair, "--out", out, *QUICK, "--seed", "3", "--force", "--json"))
    assert state(out) != before


def test_the_papers_network_trains_too(run, pair):
    line = ("--preset", "paper", "--set", "hidden=32", "--set", "steps=20")
    found = result(run("map", *pair, *QUICK[4:], *line, "--set", "validate_every=10", "--json"))

    assert np.isfinite(found["val_error"])


def test_config_prints_a_file_that_map_takes(run):
    printed = run("config", "map", "--preset", "paper")

    made = MapConfig.model_validate(tomllib.loads(printed.stdout))
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert made == MapConfig.model_validate(map_defaults(Preset.paper))


def test_a_wrong_setting_is_refused(run, pair):
    outcome = run("map", *pair, "--set", "layers=0")

    assert outcome.exit_code == 3
    assert "nf2vec config map" in outcome.stderr
