"""`nf2vec align`: what was moved comes back, no function changes, and what cannot be is refused."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import zarr
from near_init import SPEC, make_store, options, result
from near_radiance import RADIANCE, make_radiance_store

from nf2vec_cli.models.matching import Symmetry, transformed
from nf2vec_cli.models.network import siren_init
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.create import init_hash
from nf2vec_cli.store.products import ENCODERS, keys, save_state
from nf2vec_cli.store.schema import COLUMNS, Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.align import largest_change

COUNT = 20
MOVED = (1, 4, 17)  # objects whose neurons are elsewhere, in different shards
ONE = ("--jobs", "1")


def mixed(theta, spec, seed):
    """Give the same function in other weights."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(spec.layers):
        order = rng.permutation(spec.hidden)
        into, turns = rng.choice([-1.0, 1.0], spec.hidden), rng.integers(-1, 2, spec.hidden)
        if spec.activation == "relu":
            into, turns = np.exp(rng.uniform(-2, 2, spec.hidden)), 0 * turns
        step = np.pi / spec.omega if spec.omega else 0
        found.append(Symmetry(order, into, step * turns, (-1.0) ** turns / into))
    return transformed(torch.from_numpy(theta), found, spec).numpy()


def mix(path, spec, rows=MOVED):
    store = open_store(path, mode="a")
    kept = dict(zip(rows, store.weights(rows), strict=True))
    theta = np.stack([mixed(one, spec, row) for row, one in kept.items()])
    store.commit(rows, theta)


@pytest.fixture
def store(tmp_path):
    """A store of 20 fields near the init, three of which have their neurons elsewhere."""
    path = make_store(tmp_path / "ds.zarr", count=COUNT)
    shutil.copytree(path, tmp_path / "before.zarr")
    mix(path, SPEC)
    return path


def weights(path):
    return open_store(path).weights(range(COUNT))


def state(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_was_moved_comes_back_and_the_store_stays_as_it_is(run, store, tmp_path):
    before, out = state(store), tmp_path / "new" / "aligned.zarr"

    found = result(run("align", store, "--out", out, *ONE, "--json"))

    assert (found["fields"], found["left"], found["aligned"]) == (COUNT, 17, 3)
    assert (found["failed"], found["strangers"], found["written"]) == (0, 0, True)
    assert found["before"] < 0.1
    assert found["after"] > 0.7
    assert [row["id"] for row in found["objects"]] == [f"shape/{row}" for row in MOVED]
    for row in found["objects"]:
        assert row["change"] <= 1e-5
        assert row["moved"] > 90
        assert 60 < row["turned"] < 95
    assert state(store) == before
    np.testing.assert_allclose(weights(out), weights(tmp_path / "before.zarr"), atol=1e-6)
    still = np.delete(np.arange(COUNT), MOVED)
    np.testing.assert_array_equal(weights(out)[still], weights(store)[still])
    for old, new in zip(weights(store), weights(out), strict=True):
        pair = torch.from_numpy(old), torch.from_numpy(new)
        assert largest_change(*pair, SPEC, points=100, seed=1) <= 1e-5


@pytest.mark.slow
def test_the_new_store_has_all_else_that_the_old_one_has(run, store, tmp_path):
    opened = open_store(store, mode="a")
    opened.fail([2], ["it is broken"])
    opened.update([3], status=[Status.PENDING], error=[0.25])
    result(run("train", store, *options(), "--json"))
    out = tmp_path / "aligned.zarr"

    result(run("align", store, "--out", out, *ONE, "--json"))

    old, new = open_store(store), open_store(out)
    rows = old.rows()
    for name in COLUMNS:
        if name != "digest":
            kept, made = ([store.column(name)[row] for row in rows] for store in (old, new))
            np.testing.assert_array_equal(kept, made, err_msg=name)
    done = old.rows(Status.DONE)
    assert len(done) == COUNT - 2
    np.testing.assert_array_equal(new.surface(done), old.surface(done))
    assert keys(new, ENCODERS) == keys(old, ENCODERS)
    assert check_store(out).findings == check_store(store).findings
    (told,) = new.runs()
    assert (told["kind"], told["summary"]["aligned"]) == ("align", 3)
    assert told["config"]["gate"] == 0.5
    assert result(run("encode", out, "--json"))["encoded"] == COUNT - 2


def test_encode_takes_what_it_left_out_before(run, store, tmp_path):
    result(run("train", tmp_path / "before.zarr", *options(), "--json"))
    line = ("encode", "--encoder", tmp_path / "before.zarr", "--json")

    refused = run(line[0], store, *line[1:])
    result(run("align", store, *ONE, "--json"))
    taken = run(line[0], tmp_path / "ds-aligned.zarr", *line[1:])

    assert refused.exit_code == 7
    assert f"nf2vec align {store}" in refused.stderr
    assert json.loads(refused.stdout)["failed"] == 3
    assert json.loads(taken.stdout)["encoded"] == COUNT


def test_a_second_run_does_nothing_and_another_is_refused(run, store, tmp_path):
    first = result(run("align", store, *ONE, "--json"))
    before = state(tmp_path)

    second = result(run("align", store, *ONE, "--json"))
    other = run("align", store, *ONE, "--set", "seed=1")

    assert second == first | {"written": False, "objects": []}
    assert other.exit_code == 4
    assert "--force" in other.stderr
    assert state(tmp_path) == before
    assert result(run("align", store, *ONE, "--set", "seed=1", "--force", "--json"))["written"]


def test_what_is_aligned_has_nothing_to_align(run, store, tmp_path):
    result(run("align", store, *ONE, "--json"))
    out = tmp_path / "ds-aligned.zarr"

    again = result(run("align", out, *ONE, "--json"))
    named = result(run("align", out, "--all", "--dry-run", *ONE, "--json"))

    assert (again["left"], again["aligned"], again["store"]) == (COUNT, 0, None)
    assert named["aligned"] == COUNT
    assert all((row["moved"], row["turned"]) == (0, 0) for row in named["objects"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "before.zarr",
        "ds-aligned.zarr",
        "ds.zarr",
    ]


def test_a_dry_run_says_the_same_and_writes_nothing(run, store, tmp_path):
    before = state(tmp_path)

    shown = result(run("align", store, "--dry-run", *ONE, "--json"))
    table = run("align", store, "--dry-run", *ONE)

    assert state(tmp_path) == before
    made = result(run("align", store, *ONE, "--json"))
    assert made == shown | {"store": made["store"], "written": True}
    assert "shape/17" in table.stdout


def test_fields_can_be_named(run, store):
    line = ("align", store, "--ids", "shape/0", "--ids", "4", *ONE, "--json")

    outcome = run(*line)

    found = json.loads(outcome.stdout)
    assert [row["id"] for row in found["objects"]] == ["shape/0", "shape/4"]
    assert (outcome.exit_code, found["strangers"]) == (0, 2)  # 1 and 17 were not named
    assert "2 fields are still strange" in outcome.stderr
    assert run(*line, "--all").exit_code == 2
    assert run("align", store, "--ids", "shape/99", *ONE).exit_code == 4


def test_a_field_of_another_init_is_made_nearer(run, tmp_path):
    path = make_store(tmp_path / "ds.zarr", count=COUNT)
    other = siren_init(SPEC, seed=5).numpy()
    open_store(path, mode="a").commit([2], other[None])

    outcome = run("align", path, *ONE, "--json")

    found = json.loads(outcome.stdout)
    assert outcome.exit_code == 0
    assert (found["left"], found["aligned"], found["strangers"]) == (COUNT - 1, 1, 1)
    assert abs(found["before"]) < 0.1
    assert found["after"] > 0.5  # biases match by chance
    assert found["matrices"] < 1.2 * found["chance"] < 0.6
    assert "1 fields are still strange" in outcome.stderr


def test_encode_leaves_out_what_align_calls_strange(run, store, tmp_path):
    result(run("train", tmp_path / "before.zarr", *options(), "--json"))
    open_store(store, mode="a").commit([2], siren_init(SPEC, seed=5).numpy()[None])
    told = result(run("align", store, *ONE, "--json"))
    out = tmp_path / "ds-aligned.zarr"

    outcome = run("encode", out, "--encoder", tmp_path / "before.zarr", "--json")

    (strange,) = (row for row in told["objects"] if row["strange"])
    assert (strange["id"], strange["after"] > 0.5) == ("shape/2", True)
    found = json.loads(outcome.stdout)
    assert outcome.exit_code == 7
    assert (found["encoded"], found["strangers"]) == (COUNT - 1, ["shape/2"])
    assert "1 fields are not aligned with the init, 'shape/2' first" in outcome.stderr


def test_a_field_that_is_not_finite_is_told_and_left(run, tmp_path):
    path = make_store(tmp_path / "ds.zarr", count=COUNT, spoil=6)
    mix(path, SPEC)

    outcome = run("align", path, *ONE, "--json")

    found = json.loads(outcome.stdout)
    assert outcome.exit_code == 7
    assert "'shape/6' first: its weights are not finite" in outcome.stderr
    assert (found["aligned"], found["failed"], found["strangers"]) == (3, 1, 1)
    np.testing.assert_array_equal(weights(tmp_path / "ds-aligned.zarr")[6], weights(path)[6])


def test_a_function_that_would_change_stays(run, store, tmp_path):
    outcome = run("align", store, *ONE, "--set", "tolerance=1e-12", "--json")

    found = json.loads(outcome.stdout)
    assert outcome.exit_code == 7
    assert (found["aligned"], found["failed"]) == (0, 3)
    assert "over 1e-12" in found["objects"][0]["problem"]
    np.testing.assert_array_equal(weights(tmp_path / "ds-aligned.zarr"), weights(store))


def test_radiance_comes_back_with_its_grids_and_cameras(run, tmp_path):
    path = make_radiance_store(tmp_path / "n.zarr", count=COUNT)
    shutil.copytree(path, tmp_path / "before.zarr")
    mix(path, RADIANCE)

    found = result(run("align", path, *ONE, "--json"))

    old, new = open_store(tmp_path / "before.zarr"), open_store(tmp_path / "n-aligned.zarr")
    assert (found["aligned"], found["strangers"]) == (3, 0)
    for name in ("grid", "cameras"):
        np.testing.assert_array_equal(
            new.packed(name, range(COUNT)), old.packed(name, range(COUNT))
        )
    for row in range(COUNT):
        one, other = old.weights([row])[0], new.weights([row])[0]
        pair = torch.from_numpy(one), torch.from_numpy(other)
        assert largest_change(*pair, RADIANCE, points=100, seed=1) <= 1e-5
        if row in MOVED:  # scaled so as to come near the init
            before, after = (np.linalg.norm(theta - new.init) for theta in (one, other))
            assert after < 1.02 * before
        else:
            np.testing.assert_array_equal(one, other)


def test_a_quantised_store_becomes_an_exact_one(run, fitted, tmp_path):
    out = tmp_path / "aligned.zarr"

    found = result(run("align", fitted, "--all", "--out", out, *ONE, "--json"))

    old, new = open_store(fitted), open_store(out)
    assert found["aligned"] == 3
    assert (old.codec, new.codec, new.config["codec"]) == ("compact", "exact", "exact")
    np.testing.assert_array_equal(new.weights(range(3)), old.weights(range(3)))


@pytest.mark.parametrize("kind", ["missing", "empty", "embeddings", "units", "network", "size"])
def test_what_cannot_be_aligned_is_refused(run, store, tmp_path, kind):
    path, told = store, ""
    if kind == "missing":
        path, told = tmp_path / "no.zarr", "is not there"
    elif kind == "empty":
        path, told = make_store(tmp_path / "e.zarr", count=0), "holds no fitted field"
    elif kind == "embeddings":
        opened, told = open_store(path, mode="a"), "holds no fitted field"
        opened.update(range(COUNT), status=[Status.EMBEDDED] * COUNT)
    else:
        group = zarr.open_group(path, mode="a")
        change, told = {
            "units": ({"activation": "tanh"}, "'tanh' units"),
            "network": ({"gates": 3}, "not known"),
            "size": ({"hidden": 64}, "damaged"),
        }[kind]
        network = SPEC.as_dict() | change
        group.update_attributes({"network": network})
        if kind != "size":  # as a store says that was made so
            group.update_attributes({"init_hash": init_hash(group["init"][:], network)})
    before = state(tmp_path)

    outcome = run("align", path, *ONE)

    assert outcome.exit_code == 4
    assert told in outcome.stderr
    assert outcome.stdout == ""
    assert state(tmp_path) == before


def test_the_store_may_be_the_folder_that_one_is_in(run, store, tmp_path, monkeypatch):
    monkeypatch.chdir(store)

    found = result(run("align", ".", *ONE, "--json"))

    assert found["store"] == str(tmp_path / "ds-aligned.zarr")
    assert run("align", ".", "--out", ".", *ONE).exit_code == 4


@pytest.mark.parametrize("out", ["aligned.zarr", "runs/aligned.zarr", "runs/../a.zarr"])
def test_nothing_is_made_inside_the_store(run, store, tmp_path, out):
    before = state(tmp_path)

    outcome = run("align", store, "--out", store / out, *ONE)

    assert outcome.exit_code == 4
    assert "would lie in each other" in outcome.stderr
    assert state(tmp_path) == before


@pytest.mark.parametrize("there", ["itself", "fields", "folder", "file"])
def test_what_is_there_is_never_replaced(run, store, tmp_path, there):
    out = tmp_path / "out.zarr"
    if there == "itself":
        out = store
    elif there == "fields":
        make_store(out)
    elif there == "folder":
        out.mkdir()
        (out / "mine.txt").write_text("kept")
    else:
        out.write_text("kept")
    before = state(tmp_path)

    outcome = run("align", store, "--out", out, "--force", *ONE)

    assert outcome.exit_code == 4
    assert "--out" in outcome.stderr
    assert state(tmp_path) == before


@pytest.mark.parametrize("made", ["embeddings", "encoders", "heads/classify"])
def test_what_was_made_from_aligned_fields_is_never_lost(run, store, tmp_path, made):
    """No run tells of it; what the store had learned itself is no reason to keep the copy."""
    save_state(open_store(store, mode="a"), made, "old", {"a": np.zeros(1)})
    result(run("align", store, *ONE, "--json"))
    out = tmp_path / "ds-aligned.zarr"
    assert result(run("align", store, *ONE, "--force", "--json"))["written"]
    save_state(open_store(out, mode="a"), made, "new", {"a": np.zeros(1)})
    before = state(tmp_path)

    same = result(run("align", store, *ONE, "--json"))
    others = [
        run("align", store, *ONE, *more)
        for more in (("--force",), ("--set", "seed=1"), ("--set", "seed=1", "--force"))
    ]

    assert not same["written"]
    for other in others:
        assert other.exit_code == 4
        assert f"{made}/new" in other.stderr
        assert "ds-aligned-2.zarr" in other.stderr
        assert "--force" not in other.stderr
    assert state(tmp_path) == before


def test_settings_are_checked(run, store):
    assert run("align", store, "--set", "gate=2").exit_code == 3
    assert run("align", store, "--set", "tolerance=0").exit_code == 3


KILLED = """
import os, sys
from nf2vec_cli.tasks.aligned_store import AlignedStore
AlignedStore.finish = lambda *_: os.kill(os.getpid(), 9)
from nf2vec_cli.cli import app
app(sys.argv[1:], prog_name="nf2vec")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_nothing_that_counts(run, store, tmp_path):
    before = state(store)
    line = ["align", str(store), *ONE, "--json"]

    child = subprocess.run([sys.executable, "-c", KILLED, *line], capture_output=True, check=False)

    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "ds-aligned.zarr").exists()
    assert result(run(*line))["written"]
    assert state(store) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
