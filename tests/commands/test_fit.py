import json
import os
import shutil
import threading
import time

import numpy as np
import pytest

from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.store import open_store


def fit(run, folder, store, *options):
    outcome = run("fit", folder, "--field", "sdf", "--store", store, "--json", *options)
    return outcome, json.loads(outcome.stdout) if outcome.stdout else None


def counts(result):
    return tuple(result[key] for key in ("fitted", "skipped", "failed"))


def test_a_second_fit_does_nothing(run, folder, fitted):
    before = open_store(fitted).stored([0, 1, 2]).arrays["quantised"]

    outcome, result = fit(run, folder, fitted)

    assert outcome.exit_code == 0
    assert counts(result) == (0, 3, 0)
    assert np.array_equal(open_store(fitted).stored([0, 1, 2]).arrays["quantised"], before)


def test_what_is_added_is_fitted_and_no_shard_is_written_again(run, folder, fitted, shapes):
    shards = {p: p.stat().st_mtime_ns for p in (fitted / "quantised").rglob("c/*/*")}
    assert shards
    (folder / "animal").mkdir()
    shutil.copy(shapes / "animal" / "deer.glb", folder / "animal")

    outcome, result = fit(run, folder, fitted)

    assert outcome.exit_code == 0
    assert counts(result) == (1, 3, 0)
    assert {p: p.stat().st_mtime_ns for p in shards} == shards
    assert len(open_store(fitted).rows(2)) == 4


def test_a_changed_source_is_fitted_again_and_a_touched_one_is_not(run, folder, fitted, shapes):
    os.utime(folder / "lamp" / "lamp.ply")
    shutil.copy(shapes / "chip" / "DIP-14_W7.62mm_SMDSocket.ply", folder / "chair" / "chair.ply")

    _, result = fit(run, folder, fitted)

    assert counts(result) == (1, 2, 0)
    store = open_store(fitted)
    assert store.column("faces")[store.find(["chair/chair"])[0]] == 2174


def test_an_id_stays_with_its_source_when_a_namesake_comes(run, folder, fitted, shapes):
    lamp = open_store(fitted).stored([1]).arrays["quantised"]
    shutil.copy(shapes / "animal" / "deer.glb", folder / "lamp" / "lamp.glb")

    _, result = fit(run, folder, fitted)

    assert counts(result) == (1, 3, 0)
    store = open_store(fitted)
    assert store.column("source")[store.find(["lamp/lamp"])[0]] == "lamp/lamp.ply"
    assert store.column("source")[store.find(["lamp/lamp.glb"])[0]] == "lamp/lamp.glb"
    assert np.array_equal(store.stored([1]).arrays["quantised"], lamp)


def test_force_fits_everything_again(run, folder, fitted):
    _, result = fit(run, folder, fitted, "--force")

    assert counts(result) == (3, 0, 0)


def test_every_object_has_its_record(fitted):
    store = open_store(fitted)
    rows = store.find(["chair/chair", "lamp/lamp", "sofa/sofa"])

    assert [store.column("class")[row] for row in rows] == ["chair", "lamp", "sofa"]
    assert [store.column("source")[row] for row in rows][2] == "sofa/sofa.stl"
    for name in ("error", "seconds", "seed", "size", "mtime", "faces"):
        assert (store.column(name)[rows] > 0).all(), name
    assert (store.column("watertight")[rows] == 1).all()
    assert (store.column("transform")[rows, 3] > 0).all()
    assert len({bytes(key) for key in store.column("key")[rows]}) == 3
    assert len({bytes(digest) for digest in store.column("hash")[rows]}) == 3


def test_a_run_keeps_its_settings_and_versions(fitted):
    (run,) = open_store(fitted).runs()

    assert run["kind"] == "fit"
    assert run["config"]["steps"] == 3
    assert {"nf2vec", "torch", "device"} <= set(run["versions"])
    assert run["summary"]["fitted"] == 3


def test_a_dry_run_prints_the_plan_and_writes_nothing(run, folder, tmp_path):
    store = tmp_path / "new.zarr"

    outcome, plan = fit(run, folder, store, "--dry-run", "--preset", "paper")

    assert outcome.exit_code == 0
    assert plan["to_fit"] == 3
    assert plan["reasons"] == {"new": 3}
    assert plan["settings"]["hidden"] == 512
    assert [o["id"] for o in plan["objects"]] == ["chair/chair", "lamp/lamp", "sofa/sofa"]
    assert not store.exists()


def test_other_settings_than_the_stores_are_refused(run, folder, fitted):
    outcome, _ = fit(run, folder, fitted, "--set", "steps=7")

    assert outcome.exit_code == 3
    assert "steps" in outcome.stderr
    assert "3 there, 7 asked for" in outcome.stderr


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("steps=0", "steps: Input should be greater than 0 (got 0)"),
        ("stepps=3", "the nearest is steps"),
        ("points=200000", "cannot exceed pool"),
        ("shard_length=100", "no multiple of batch (64)"),
    ],
)
def test_a_bad_setting_is_code_3_and_makes_no_store(run, folder, tmp_path, setting, words):
    outcome, _ = fit(run, folder, tmp_path / "x.zarr", "--set", setting)

    assert outcome.exit_code == 3
    assert words in outcome.stderr
    assert "nf2vec config fit" in outcome.stderr
    assert not (tmp_path / "x.zarr").exists()


def test_a_preset_in_a_file_brings_its_sizes(run, folder, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('preset = "paper"\nsteps = 9\n')

    _, plan = fit(run, folder, tmp_path / "x.zarr", "--config", file, "--dry-run")

    assert (plan["settings"]["hidden"], plan["settings"]["steps"]) == (512, 9)


def test_an_empty_folder_is_code_5(run, tmp_path):
    outcome, _ = fit(run, tmp_path, tmp_path / "x.zarr")

    assert outcome.exit_code == 5
    assert ".stl" in outcome.stderr


@pytest.mark.parametrize(
    ("field", "code", "said"),
    [("sdf", 6, "need a CUDA device, not 'cpu'"), ("nerf", 2, "which no CUDA graph can hold")],
)
def test_graphs_are_refused_where_there_are_none(run, folder, tmp_path, field, code, said):
    store = tmp_path / "x.zarr"

    outcome = run(
        *("fit", folder, "--field", field, "--store", store, "--device", "cpu", "--cuda-graphs")
    )

    assert outcome.exit_code == code
    assert said in outcome.stderr
    assert not store.exists()


def test_a_device_that_is_not_there_is_code_6(run, folder, tmp_path, quick):
    outcome, _ = fit(run, folder, tmp_path / "x.zarr", "--device", "cuda:99", *quick)

    assert outcome.exit_code == 6
    assert "--device cpu" in outcome.stderr


def test_a_store_in_use_is_code_8_and_wait_waits(run, folder, fitted):
    held, free = threading.Event(), threading.Event()

    def hold():
        with store_lock(fitted):
            held.set()
            free.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    outcome, _ = fit(run, folder, fitted)
    threading.Timer(1.0, free.set).start()
    started = time.monotonic()
    waited, _ = fit(run, folder, fitted, "--wait", "15")
    thread.join()

    assert outcome.exit_code == 8
    assert str(os.getpid()) in outcome.stderr
    assert "--wait" in outcome.stderr
    assert waited.exit_code == 0
    assert time.monotonic() - started > 0.5


def test_labels_from_a_table(run, folder, tmp_path, quick):
    table = tmp_path / "labels.csv"
    table.write_text("name,class,split\nchair,seat,train\nsofa,seat,test\nlamp,light,valid\n")
    store = tmp_path / "l.zarr"

    fit(run, folder, store, "--labels", table, *quick)

    opened = open_store(store)
    rows = opened.find(["chair/chair", "lamp/lamp", "sofa/sofa"])
    assert [opened.column("class")[r] for r in rows] == ["seat", "light", "seat"]
    assert [opened.column("split")[r] for r in rows] == ["train", "val", "test"]


def test_new_labels_need_no_new_fit(run, folder, fitted, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("name,class,split\nchair,seat,train\n")

    _, result = fit(run, folder, fitted, "--labels", table)

    assert counts(result) == (0, 3, 0)
    store = open_store(fitted)
    assert store.column("class")[store.find(["chair/chair"])[0]] == "seat"


def test_paths_on_standard_input(run, folder, tmp_path, quick, monkeypatch):
    monkeypatch.chdir(folder)
    options = ["--field", "sdf", "--store", tmp_path / "in.zarr", "--json", *quick]

    outcome = run("fit", "-", *options, stdin="chair/chair.ply\nlamp/lamp.ply\n")

    assert counts(json.loads(outcome.stdout)) == (2, 0, 0)


def test_a_field_is_the_same_bits_alone_in_company_and_in_workers(run, folder, tmp_path, quick):
    exact = ["--codec", "exact"]
    alone, workers, all_in_one = (tmp_path / f"{name}.zarr" for name in "abc")
    fit(run, folder / "lamp", alone, *quick, *exact, "--root", folder)
    fit(run, folder, all_in_one, *quick, *exact)
    fit(run, folder, workers, *quick, *exact, "--jobs", "2")

    def lamp(path):
        store = open_store(path)
        return store.weights(store.find(["lamp/lamp"]))

    assert np.array_equal(lamp(alone), lamp(all_in_one))
    assert np.array_equal(lamp(workers), lamp(all_in_one))


def test_the_default_recipe_gives_the_shape_back_in_its_own_units(run, shapes, tmp_path):
    store, out = tmp_path / "ds.zarr", tmp_path / "out"
    lamp = shapes / "lamp" / "lamp.ply"

    fit(run, lamp, store, "--root", shapes, "--jobs", "1")
    outcome = run("reconstruct", store, "--out", out, "--json", "--jobs", "1")

    row = json.loads(outcome.stdout)
    assert row["f1"] > 0.98
    assert row["f025"] > 0.7
    assert row["evaluated"] < 0.2
    import trimesh

    source, result = trimesh.load(lamp), trimesh.load(row["file"])
    np.testing.assert_allclose(result.bounds, source.bounds, atol=0.02 * source.scale)
    assert abs(result.volume / source.volume - 1) < 0.05
