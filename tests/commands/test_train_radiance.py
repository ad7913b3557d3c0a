import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from near_init import make_store, options, result
from near_radiance import RADIANCE, RAYS, make_radiance_store

from nf2vec_cli.models.network import radiance_init
from nf2vec_cli.store.products import CHECKPOINTS, ENCODERS, Embeddings, keys, load_state
from nf2vec_cli.store.store import open_store


@pytest.fixture
def store(tmp_path):
    """A store of 20 radiance fields, 14 of them to train on."""
    return make_radiance_store(tmp_path / "n.zarr")


def quick(**changed):
    return options(**(RAYS | changed))


@pytest.mark.parametrize("arch", ["aligned", "paper"])
def test_train_and_encode_by_each_architecture(run, store, arch):
    trained = result(run("train", store, "--encoder-arch", arch, *quick(), "--json"))
    encoded = result(run("encode", store, "--json"))

    opened = open_store(store)
    assert (trained["train_objects"], trained["val_objects"]) == (14, 3)
    assert trained["psnr"] > 0
    assert trained["chamfer"] is None
    assert (encoded["encoder"], encoded["encoded"]) == (trained["encoder"], 20)
    kept = Embeddings(opened, trained["encoder"])
    z = kept.read(kept.current())
    assert np.isfinite(z).all()
    assert len(np.unique(z, axis=0)) == 20
    looks = load_state(opened, ENCODERS, trained["encoder"])[1]["curve"]["looks"]
    assert [sorted(look) for look in looks] == [["error", "psnr"]] * 3


@pytest.mark.slow
def test_training_comes_nearer_to_the_stored_fields(run, store):
    more = {"learning_rate": 0.01, "hidden": 32, "rays": 40, "step_samples": 400}
    before = result(run("train", store, *quick(steps=1, validate_every=1), "--json"))
    after = result(run("train", store, *quick(steps=150, validate_every=50, **more), "--json"))

    assert after["error"] < 0.8 * before["error"]
    assert after["psnr"] > before["psnr"] + 3


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_losses(run, store, tmp_path):
    twin = tmp_path / "twin.zarr"
    shutil.copytree(store, twin)
    long = quick(steps=120, validate_every=40, checkpoint_every=5)
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

    resumed = result(run("train", store, *long, "--json"))
    whole = result(run("train", twin, *long, "--json"))

    assert resumed["encoder"] == whole["encoder"]
    ours, theirs = (
        load_state(open_store(path), ENCODERS, whole["encoder"]) for path in (store, twin)
    )
    assert ours[1]["curve"]["losses"] == theirs[1]["curve"]["losses"]
    for name, values in ours[0].items():
        np.testing.assert_array_equal(values, theirs[0][name], name)


def test_settings_of_radiance_are_the_defaults_for_it_and_for_nothing_else(run, store, tmp_path):
    paper = ["--preset", "paper", *quick(batch=4), "--set", "octaves=24"]
    key = result(run("train", store, *paper, "--json"))["encoder"]
    shapes = make_store(tmp_path / "ds.zarr")
    other = result(run("train", shapes, "--preset", "paper", *options(), "--json"))["encoder"]

    ours = load_state(open_store(store), ENCODERS, key)[1]["config"]
    theirs = load_state(open_store(shapes), ENCODERS, other)[1]["config"]

    assert (ours["coding"], theirs["coding"]) == ("turns", "radians")
    printed = run("config", "train", "--preset", "paper", "--field", "nerf", "--json").stdout
    settings = {row["key"]: row["value"] for row in map(json.loads, printed.splitlines())}
    assert (settings["rays"], settings["coding"]) == (512, "turns")


def test_sources_cannot_teach_radiance(run, store):
    outcome = run("train", store, "--supervise", "samples", *quick())

    assert outcome.exit_code == 2
    assert "--supervise field" in outcome.stderr


def test_an_encoder_from_another_store_embeds_and_fields_from_elsewhere_are_refused(
    run, store, tmp_path
):
    key = result(run("train", store, *quick(), "--json"))["encoder"]
    result(run("encode", store, "--json"))
    same = make_radiance_store(tmp_path / "same.zarr")
    other = make_radiance_store(tmp_path / "other.zarr", seed=3)

    moved = result(run("encode", same, "--encoder", store, "--json"))
    refused = run("encode", other, "--encoder", store)

    assert moved["encoder"] == key
    np.testing.assert_array_equal(
        *(Embeddings(open_store(path), key).read(range(20)) for path in (store, same))
    )
    assert refused.exit_code == 4
    assert "init" in refused.stderr


def test_fields_that_left_the_init_are_counted_and_the_others_embedded(run, store):
    result(run("train", store, *quick(), "--json"))
    opened = open_store(store, mode="a")
    stranger = radiance_init(RADIANCE, seed=9).numpy()
    opened.commit([4], stranger[None], surface=opened.surface([4]), error=[0.0])

    outcome = run("encode", store, "--json")

    assert outcome.exit_code == 7
    assert json.loads(outcome.stdout)["encoded"] == 19
    assert json.loads(outcome.stdout)["strangers"] == ["one/4"]
