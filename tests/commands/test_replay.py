"""Objects refitted from their record: the same bits, or what differs and why."""

import json

import numpy as np
import pytest
import torch
from ball_views import ball_views
from near_init import make_store

from nf2vec_cli.core import sine
from nf2vec_cli.shapes.views import write_views
from nf2vec_cli.store.codec import digests
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks import spread


def told(outcome):
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def replay(run, store, *words):
    return run("replay", store, *words, "--jobs", "1", "--json")


def test_the_record_gives_the_same_bits_of_copies_and_crops_too(run, folder, quick, tmp_path):
    store = tmp_path / "ds.zarr"
    words = ["--field", "udf", "--store", store, "--augment", "1", "--set", "crop=0.6"]
    run("fit", folder / "lamp", *words, *quick)
    before = open_store(store).column("digest").tobytes()

    outcome = replay(run, store, "lamp", "lamp+1")

    assert outcome.exit_code == 0, outcome.stderr
    assert [(row["id"], row["verdict"], row["versions"]) for row in told(outcome)] == [
        ("lamp", "same", ""),
        ("lamp+1", "same", ""),
    ]
    assert open_store(store).column("digest").tobytes() == before
    assert len(open_store(store).runs()) == 1


def test_what_differs_is_told(run, fitted, monkeypatch):
    """One store, which is tampered with more and more."""
    folder, moved = fitted.parent / "shapes", fitted.parent / "moved"
    with monkeypatch.context() as patched:
        here = "numba" if not sine.fused_sine_available() else "torch"
        patched.setattr("nf2vec_cli.tasks.fit.fused_sine_available", lambda: here == "numba")
        patched.setattr(sine, "_fused", lambda: None)
        other_sine = replay(run, fitted, "lamp")
    folder.rename(moved)
    gone = replay(run, fitted, "lamp")
    found = replay(run, fitted, "lamp", "--sources", moved)

    assert (other_sine.exit_code, gone.exit_code, found.exit_code) == (0, 7, 0)
    assert told(other_sine)[0]["verdict"] in ("same", "close")
    assert told(other_sine)[0]["versions"].startswith("sine ")
    assert "its source 'lamp/lamp.ply' is gone: `--sources DIR`" in told(gone)[0]["problem"]
    assert told(found)[0]["verdict"] == "same"

    moved.rename(folder)
    store = open_store(fitted, mode="a")
    rows = store.find(["chair", "lamp", "sofa"])
    source = folder / "chair" / "chair.ply"
    source.write_bytes(source.read_bytes() + b"\n")
    store.update(rows[1:2], seed=[5])
    theta = store.weights(rows[2:])
    theta[:, -1] += 9  # the last bias: all is far and outside
    store.commit(rows[2:], theta)  # another field, whole and under its own digest
    outcome = replay(run, fitted, "chair", "lamp", "sofa")

    changed, seed, other = told(outcome)
    assert outcome.exit_code == 7
    assert "3 of 3 objects were not reproduced, 'chair/chair' first" in outcome.stderr
    assert [row["verdict"] for row in (changed, seed, other)] == [*["impossible"] * 2, "different"]
    assert "has changed since it was fitted" in changed["problem"]
    assert "its row says seed 5, its id and the settings say" in seed["problem"]
    assert other["weights"] > 8
    assert other["share"] > 0.5
    assert other["field"] == pytest.approx(other["share"] * other["error"])

    store.update(rows[1:], digest=[b"0" * 16] * 2)
    (damaged,) = told(replay(run, fitted, "sofa"))
    store.update(rows[2:], digest=digests(store.stored(rows[2:])))
    store.group.update_attributes({"config": store.config | {"muon_rate": 0.1}})
    (settings,) = told(replay(run, fitted, "sofa"))
    assert "its weights are not those that were stored" in damaged["problem"]
    assert "settings or init are not those that it was fitted by" in settings["problem"]


def test_fields_that_nothing_tells_the_fit_of_are_refused(run, tmp_path):
    store = make_store(tmp_path / "ds.zarr", count=8)

    outcome = replay(run, store, "shape/1")
    unknown = replay(run, store, "shape/99")

    assert outcome.exit_code == 7
    assert "it was fitted elsewhere" in told(outcome)[0]["problem"]
    assert unknown.exit_code == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdf", "occ"])
@pytest.mark.parametrize("codec", ["compact", "exact"])
def test_default_settings_give_the_same_bits_with_any_number_of_workers(
    run, folder, tmp_path, kind, codec
):
    store = tmp_path / "ds.zarr"
    words = ["--field", kind, "--store", store, "--set", f"codec={codec}", "--set", "steps=40"]
    run("fit", folder, *words, "--jobs", "2")

    (one, two), outcome = ("chair", "lamp"), replay(run, store, "chair", "lamp")
    parallel = run("replay", store, one, two, "--jobs", "2", "--json")

    assert [row["verdict"] for row in told(outcome)] == ["same", "same"]
    assert [row["verdict"] for row in told(parallel)] == ["same", "same"]


@pytest.mark.slow
def test_two_threads_and_another_sine_stay_within_the_tolerance(run, folder, tmp_path, monkeypatch):
    store = tmp_path / "ds.zarr"
    run("fit", folder, "--field", "sdf", "--store", store, "--jobs", "1")

    with monkeypatch.context() as patched:
        patched.setattr(spread, "one_thread", lambda: Threads(2))
        threads = told(replay(run, store, "chair", "lamp", "sofa"))
    with monkeypatch.context() as patched:
        patched.setattr(sine, "_fused", lambda: None)
        other = told(replay(run, store, "chair", "lamp", "sofa"))

    for row in threads + other:
        assert row["verdict"] in ("same", "close"), row


@pytest.mark.slow
def test_radiance_is_replayed_with_its_grid(run, tmp_path):
    write_views(ball_views(seed=0), tmp_path / "views" / "ball")
    store = tmp_path / "n.zarr"
    sizes = {"hidden": 16, "layers": 2, "octaves": 4, "grid": 32, "samples": 64, "steps": 60}
    words = [w for k, v in sizes.items() for w in ("--set", f"{k}={v}")]
    run("fit", tmp_path / "views", "--field", "nerf", "--store", store, *words, "--jobs", "1")

    same = replay(run, store, "ball")
    opened = open_store(store, mode="a")
    theta = opened.weights([0])
    theta[0] *= np.float32(1.5)
    opened.commit([0], theta)
    other = replay(run, store, "ball")

    assert (same.exit_code, told(same)[0]["verdict"]) == (0, "same")
    assert (other.exit_code, told(other)[0]["verdict"]) == (7, "different")
    assert told(other)[0]["field"] > told(other)[0]["error"]


class Threads:
    """So many threads of torch inside the block."""

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.count)

    def __exit__(self, *_):
        torch.set_num_threads(self.before)
