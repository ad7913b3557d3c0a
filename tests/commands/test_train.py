import json
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from near_init import SPEC, make_store, options, result

from nf2vec_cli.models.network import siren_init
from nf2vec_cli.store.products import (
    CHECKPOINTS,
    EMBEDDINGS,
    ENCODERS,
    Embeddings,
    keys,
    load_state,
    newest_checkpoint,
    save_checkpoint,
)
from nf2vec_cli.store.store import open_store


@pytest.fixture
def store(tmp_path):
    """A store of 20 fields near its init, 14 of them to train on."""
    return make_store(tmp_path / "ds.zarr")


@pytest.mark.parametrize("arch", ["aligned", "paper"])
@pytest.mark.parametrize("kind", ["sdf", "udf", "occ"])
def test_train_and_encode_each_kind_by_each_architecture(run, tmp_path, arch, kind):
    store = make_store(tmp_path / "ds.zarr", kind=kind)

    trained = result(run("train", store, "--encoder-arch", arch, *options(), "--json"))
    encoded = result(run("encode", store, "--json"))

    opened = open_store(store)
    assert trained["steps"] == 12
    assert (trained["train_objects"], trained["val_objects"]) == (14, 3)
    assert keys(opened, ENCODERS) == [trained["encoder"]]
    assert keys(opened, CHECKPOINTS) == []
    assert (encoded["encoder"], encoded["encoded"]) == (trained["encoder"], 20)
    kept = Embeddings(opened, trained["encoder"])
    assert np.isfinite(kept.read(kept.current())).all()
    assert np.ptp(kept.read(kept.current()), axis=0).max() > 0
    curve = load_state(opened, ENCODERS, trained["encoder"])[1]["curve"]
    assert curve["steps"] == [4, 8, 12]
    assert len(curve["losses"]) == len(curve["looks"]) == 3


def test_training_lowers_the_error_on_val(run, store):
    before = result(run("train", store, *options(steps=1, validate_every=1), "--json"))
    after = result(
        run("train", store, *options(steps=300, learning_rate=0.01, validate_every=50), "--json")
    )

    assert after["error"] < 0.8 * before["error"]


def test_what_is_trained_is_not_trained_again_and_what_is_encoded_is_skipped(run, store):
    first = result(run("train", store, *options(), "--json"))
    again = result(run("train", store, *options(), "--json"))
    other = result(run("train", store, *options(seed=1), "--json"))
    run("encode", store, "--encoder", first["encoder"])

    skipped = result(run("encode", store, "--encoder", first["encoder"], "--json"))

    assert again == first
    assert other["encoder"] != first["encoder"]
    assert (skipped["encoded"], skipped["skipped"]) == (0, 20)


@pytest.mark.slow  # tests/torture kills `train` in every run
def test_a_run_that_is_killed_goes_on_to_the_same_losses(run, store, tmp_path):
    twin = tmp_path / "twin.zarr"
    shutil.copytree(store, twin)
    long = options(steps=400, validate_every=100, checkpoint_every=5)
    line = [sys.executable, "-m", "nf2vec_cli", "train", str(store), *long]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and child.poll() is None:
        if (store / "checkpoints").is_dir() and keys(open_store(store), CHECKPOINTS):
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    _, talk = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, talk
    resumed_from = load_state(
        open_store(store), CHECKPOINTS, keys(open_store(store), CHECKPOINTS)[0]
    )

    resumed = result(run("train", store, *long, "--json"))
    whole = result(run("train", twin, *long, "--json"))

    assert 0 < resumed_from[1]["step"] < 400
    assert {k: v for k, v in resumed.items() if k != "seconds"} == {
        k: v for k, v in whole.items() if k != "seconds"
    }
    ours, theirs = (
        load_state(open_store(path), ENCODERS, whole["encoder"]) for path in (store, twin)
    )
    assert ours[1]["curve"]["losses"] == theirs[1]["curve"]["losses"]
    for name, values in ours[0].items():
        np.testing.assert_array_equal(values, theirs[0][name], name)


def test_an_embedding_does_not_depend_on_the_others(run, store):
    for arch in ("aligned", "paper"):
        key = result(run("train", store, "--encoder-arch", arch, *options(), "--json"))["encoder"]
        result(run("encode", store, "--encoder", key, "--json"))
        opened = open_store(store, mode="a")
        kept = Embeddings(opened, key)
        whole = kept.read(range(20))
        kept.write([3, 17], np.zeros((2, 16), np.float32))
        digest = np.asarray(opened.group[f"{EMBEDDINGS}/{key}/digest"])
        digest[[3, 17]] = 0
        opened.group[f"{EMBEDDINGS}/{key}/digest"][...] = digest

        again = result(run("encode", store, "--encoder", key, "--json"))

        assert again["encoded"] == 2
        np.testing.assert_array_equal(Embeddings(open_store(store), key).read(range(20)), whole)


def test_an_encoder_travels_as_safetensors_and_decodes_where_it_arrives(run, store, tmp_path):
    file = tmp_path / "encoder.safetensors"
    key = result(run("train", store, *options(), "--out", file, "--json"))["encoder"]
    run("encode", store)
    other = make_store(tmp_path / "other.zarr")

    by_file = result(run("encode", other, "--encoder", file, "--json"))
    store.rename(tmp_path / "gone.zarr")
    outcome = run(
        *("reconstruct", other, "--from", "embeddings", "--ids", "shape/3", "--as", "voxels"),
        *("--out", tmp_path / "out", "--resolution", "16", "--jobs", "1", "--json"),
    )

    assert by_file["encoder"] == key
    home, away = (
        Embeddings(open_store(path), key).read(range(20))
        for path in (tmp_path / "gone.zarr", other)
    )
    np.testing.assert_array_equal(home, away)
    assert json.loads(outcome.stdout)["id"] == "shape/3"


@pytest.mark.slow
def test_samples_are_measured_on_the_sources_and_teach_as_the_fields_do(run, fitted):
    sizes = options(batch=2, components=1, steps=2)
    labels = fitted.parent / "labels.csv"
    rows = ("chair/chair,chair,train", "lamp/lamp,lamp,train", "sofa/sofa,sofa,val")
    labels.write_text("\n".join(("name,class,split", *rows)))
    folder = fitted.parent / "shapes"
    run("fit", folder, "--field", "sdf", "--store", fitted, "--labels", labels)

    found = result(run("train", fitted, "--supervise", "samples", *sizes, "--json"))
    folder.rename(fitted.parent / "moved")
    lost = run("train", fitted, "--supervise", "samples", *sizes, "--set", "seed=5")
    moved = run(
        *("train", fitted, "--supervise", "samples", *sizes, "--set", "seed=5"),
        *("--sources", fitted.parent / "moved"),
    )

    assert found["steps"] == 2
    assert lost.exit_code == 4
    assert "--supervise field" in lost.stderr
    assert moved.exit_code == 0, moved.stderr


def test_fields_from_another_init_or_of_another_kind_are_refused(run, store, tmp_path):
    result(run("train", store, *options(), "--json"))
    other_init = make_store(tmp_path / "init.zarr", seed=7)
    other_kind = make_store(tmp_path / "kind.zarr", kind="udf")

    for path, word in ((other_init, "init"), (other_kind, "udf")):
        outcome = run("encode", path, "--encoder", store)

        assert outcome.exit_code == 4
        assert word in outcome.stderr
        assert f"nf2vec train {path}" in outcome.stderr
        assert not (path / "embeddings").exists()


def test_fields_that_left_the_init_are_counted_and_the_others_embedded(run, store):
    result(run("train", store, *options(), "--json"))
    opened = open_store(store, mode="a")
    stranger = siren_init(SPEC, seed=9).numpy()
    opened.commit([4], stranger[None], surface=opened.surface([4]), error=[0.0])

    outcome = run("encode", store, "--json")

    assert outcome.exit_code == 7
    assert json.loads(outcome.stdout)["encoded"] == 19
    assert json.loads(outcome.stdout)["strangers"] == ["shape/4"]


def test_fields_that_are_not_finite_are_skipped_and_counted(run, tmp_path):
    store = make_store(tmp_path / "nan.zarr", spoil=[2, 15])

    assert result(run("train", store, *options(), "--json"))["skipped"] == 2
    assert json.loads(run("encode", store, "--json").stdout)["failed"] == 2


def test_too_few_fields_and_no_val_are_refused_with_the_way_on(run, store, tmp_path):
    few = run("train", store, *options(batch=15))
    empty = make_store(tmp_path / "few.zarr", count=6)
    none = run("train", empty, *options())

    assert few.exit_code == none.exit_code == 4
    assert "--set batch=14" in few.stderr
    assert not (store / "encoders").exists()


@pytest.mark.parametrize("how", ["pickle", "torch", "cut", "other", "json"])
def test_a_file_that_is_no_encoder_is_refused_and_runs_no_code(run, store, tmp_path, how):
    file, trap = tmp_path / "encoder.safetensors", tmp_path / "trap"
    result(run("train", store, *options(), "--out", file, "--json"))
    if how == "pickle":
        file.write_bytes(pickle.dumps(_Trap(str(trap))))
    elif how == "torch":
        torch.save({"weight": torch.zeros(3)}, file)
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif how == "json":
        file.write_text("{}")
    else:
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(3)}, file)

    outcome = run("encode", store, "--encoder", file)

    assert outcome.exit_code == 5
    assert not trap.exists()
    assert not (store / "embeddings").exists()


def test_weights_of_another_architecture_are_refused(run, store):
    key = result(run("train", store, *options(), "--json"))["encoder"]
    opened = open_store(store, mode="a")
    group = opened.group[f"{ENCODERS}/{key}"]
    group.update_attributes({"config": {**group.attrs["config"], "hidden": 24}})

    outcome = run("encode", store)

    assert outcome.exit_code == 4
    assert "architecture" in outcome.stderr


def test_a_damaged_checkpoint_is_refused_and_force_begins_again(run, store):
    line = [sys.executable, "-m", "nf2vec_cli", "train", str(store), *options(steps=2000)]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not keys(open_store(store), CHECKPOINTS):
        time.sleep(0.05)
    child.kill()
    child.communicate(timeout=60)
    chunks = list(store.glob("checkpoints/*/state/c/*"))
    assert chunks
    for chunk in chunks:
        chunk.write_bytes(chunk.read_bytes()[:5])

    damaged = run("train", store, *options(steps=2000))

    assert damaged.exit_code == 4
    assert "--force" in damaged.stderr


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(store):
    opened = open_store(store, mode="a")
    save_checkpoint(opened, "run", {"x": np.arange(3)}, step=3)
    save_checkpoint(opened, "other", {"x": np.arange(3)}, step=9)
    half = opened.group[CHECKPOINTS].create_group("run-6")
    half.create_array("state", shape=(4,), dtype="uint8")

    left = newest_checkpoint(open_store(store), "run")
    save_checkpoint(opened, "run", {"x": np.arange(5)}, step=12)

    assert left == "run-3"
    assert sorted(keys(opened, CHECKPOINTS)) == ["other-9", "run-12"]
    assert not (store / "checkpoints" / "run-6").exists()


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_an_option_counts_over_a_config_file_and_set_over_both(run, store, tmp_path):
    file = tmp_path / "train.toml"
    file.write_text("seed = 3\nsteps = 4\n")

    made = result(run("train", store, *options(steps=6), "--config", file, "--seed", "5", "--json"))

    facts = load_state(open_store(store), ENCODERS, made["encoder"])[1]
    assert (facts["config"]["seed"], facts["config"]["steps"]) == (5, 6)


@pytest.mark.parametrize("verb", ["train", "encode", "classify"])
def test_a_path_that_is_no_store_is_refused_and_no_folder_is_left(run, tmp_path, verb):
    outcome = run(verb, tmp_path / "none.zarr")

    assert outcome.exit_code == 4
    assert "is not there" in outcome.stderr
    assert not (tmp_path / "none.zarr").exists()
