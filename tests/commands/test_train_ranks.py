"""Training by several processes: the same curve as one, one writer, one voice, no hang."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import near_init
import numpy as np
import pytest
from near_init import make_store, result
from near_radiance import RAYS, make_radiance_store

from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.products import CHECKPOINTS, ENCODERS, keys, load_state
from nf2vec_cli.store.store import open_store

TOLERANCE = 1e-5  # of losses, relative: the order in which numbers are added
LOOKS = 1e-5  # of errors on val, relative
SECONDS = 600  # after which a run counts as hanging


def options(**changed):
    """Give settings in single precision: in bfloat16 looks differ by 2e-3."""
    return near_init.options(precision="float32", **changed)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "ds.zarr")


def command(size, *words):
    """Give a command line of torchrun, with a port of its own."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    return [sys.executable, *start, "-m", "nf2vec_cli", *map(str, words)]


def torchrun(size, *words):
    return subprocess.run(
        command(size, *words), capture_output=True, text=True, timeout=SECONDS, check=False
    )


@contextmanager
def begun(size, store, *words):
    """Start a run and wait until it has kept a state; nothing of it is left in the end."""
    line = command(size, "train", store, *words)
    pipe = subprocess.PIPE
    child = subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        until = time.monotonic() + SECONDS
        while not keys(open_store(store), CHECKPOINTS):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield child
    finally:
        kill_all(child)
        child.communicate(timeout=60)


def kill_all(child):
    for process in [*workers_of(child), child.pid]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def workers_of(child):
    """List the processes that torchrun has started, by rank: they began in this order."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(child.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (line.split(None, 1) for line in listed.stdout.splitlines())
    return sorted(int(pid) for pid, args in lines if "nf2vec_cli" in args)


def trained(path):
    """Give the only encoder of a store: its state and facts."""
    opened = open_store(path)
    (key,) = keys(opened, ENCODERS)
    return key, *load_state(opened, ENCODERS, key)


def assert_same_curve(one, other, tolerance=TOLERANCE):
    (key, _, facts), (same_key, _, others) = trained(one), trained(other)
    assert key == same_key
    assert facts["config"] == others["config"]
    assert facts["curve"]["steps"] == others["curve"]["steps"]
    np.testing.assert_allclose(
        facts["curve"]["losses"], others["curve"]["losses"], rtol=tolerance, atol=0
    )
    for a, b in zip(facts["curve"]["looks"], others["curve"]["looks"], strict=True):
        np.testing.assert_allclose(a["error"], b["error"], rtol=LOOKS)


@pytest.mark.slow
def test_two_processes_have_the_curve_of_one_and_speak_with_one_voice(run, store, tmp_path):
    """Without torchrun itself, which takes 4 s to start: its environment alone."""
    twin = tmp_path / "twin.zarr"
    shutil.copytree(store, twin)
    settings = ["--encoder-arch", "paper", *options(batch=5), "--json"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "nf2vec_cli", "train", str(twin), *settings],
            env=os.environ | known | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    one = result(run("train", store, *settings))
    told = [child.communicate(timeout=SECONDS) for child in children]

    assert [child.returncode for child in children] == [0, 0], told
    two = json.loads(told[0][0])
    assert told[1] == ("", "")
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert two["encoder"] == one["encoder"]
    assert_same_curve(store, twin)
    assert keys(open_store(twin), CHECKPOINTS) == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "arch"), [("sdf", "aligned"), ("occ", "paper")])
def test_torchrun_of_one_and_two_has_the_curve_of_one_process(run, tmp_path, kind, arch):
    paths = [make_store(tmp_path / f"{n}.zarr", kind=kind) for n in range(3)]
    changed = {"steps": 40, "batch": 5, "validate_every": 10}
    changed |= {"dropout": 0.1} if arch == "aligned" else {}
    words = ["--encoder-arch", arch, *options(**changed), "--json"]

    result(run("train", paths[0], *words))
    for size in (1, 2):
        outcome = torchrun(size, "train", paths[size], *words)
        assert outcome.returncode == 0, outcome.stderr
        assert json.loads(outcome.stdout)["ranks"] == size

    assert_same_curve(paths[0], paths[1], tolerance=1e-12)
    assert_same_curve(paths[0], paths[2])


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["paper", "split"])
def test_radiance_has_the_curve_of_one_process(run, tmp_path, arch):
    one, two = (make_radiance_store(tmp_path / f"{n}.zarr") for n in "ab")
    words = ["--encoder-arch", arch, *options(**RAYS | {"batch": 5, "steps": 24}), "--json"]

    result(run("train", one, *words))
    outcome = torchrun(2, "train", two, *words)

    assert outcome.returncode == 0, outcome.stderr
    assert_same_curve(one, two)


@pytest.mark.slow
def test_three_processes_share_what_is_measured_on_the_sources(run, fitted, tmp_path):
    labels = tmp_path / "labels.csv"
    rows = ("chair/chair,chair,train", "lamp/lamp,lamp,train", "sofa/sofa,sofa,val")
    labels.write_text("\n".join(("name,class,split", *rows)))
    folder = tmp_path / "shapes"
    run("fit", folder, "--field", "sdf", "--store", fitted, "--labels", labels)
    twin = tmp_path / "twin.zarr"
    shutil.copytree(fitted, twin)
    words = ["--supervise", "samples", *options(batch=2, components=1, steps=6), "--json"]

    result(run("train", fitted, *words))
    two = torchrun(2, "train", twin, *words)
    three = torchrun(3, "train", twin, *words, "--force")
    (folder / "lamp" / "lamp.ply").unlink()
    gone = torchrun(2, "train", twin, *words, "--set", "seed=7")

    assert two.returncode == 0, two.stderr
    assert_same_curve(fitted, twin)
    assert three.stderr.count("error: a batch of 2 objects has no share") == 1
    assert gone.stderr.count("error: lamp/lamp.ply, the source of 'lamp/lamp', is gone") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "arch"), [(1, 2, "aligned"), (2, 1, "paper")])
def test_a_killed_run_goes_on_with_another_number(run, store, tmp_path, before, after, arch):
    twin = tmp_path / "twin.zarr"
    shutil.copytree(store, twin)
    words = ["--encoder-arch", arch]
    words += options(batch=5, steps=300, validate_every=50, checkpoint_every=20)
    with begun(before, store, *words) as child:
        kill_all(child)
    opened = open_store(store)
    step = load_state(opened, CHECKPOINTS, keys(opened, CHECKPOINTS)[-1])[1]["step"]

    resumed = torchrun(after, "train", store, *words, "--json")
    result(run("train", twin, *words, "--json"))

    assert 0 < step < 300
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["ranks"] == after
    assert_same_curve(store, twin)


@pytest.mark.slow
def test_a_locked_store_ends_all_with_one_message(store):
    with store_lock(store):
        outcome = torchrun(2, "train", store, *options())

    assert outcome.stderr.count("error: ") == 1
    assert f"error: {store} is being written by" in outcome.stderr
    assert outcome.stderr.count("exitcode  : 8") == 2 - outcome.stderr.count("exitcode  : -15")
    assert not keys(open_store(store), ENCODERS)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--set", "steps=0"], ["--device", "cuda:0"]])
def test_what_every_process_meets_is_said_once(store, words):
    outcome = torchrun(2, "train", store, *options(), *words)

    assert outcome.returncode != 0
    assert outcome.stderr.count("error: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_others_and_the_state_is_kept(run, store, rank):
    long = options(batch=5, steps=100_000, checkpoint_every=20)
    with begun(2, store, *long) as child:
        os.kill(workers_of(child)[rank], signal.SIGKILL)
        _, talk = child.communicate(timeout=SECONDS)

    assert child.returncode == 1
    assert talk.count("error: another process of this run ended") <= 1
    assert keys(open_store(store), CHECKPOINTS)
    with store_lock(store):
        pass
    assert json.loads(run("check", store, "--json").stdout)["findings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_keeps_its_state_and_the_store_is_free(store, number):
    long = options(batch=5, steps=100_000, checkpoint_every=20)
    with begun(2, store, *long) as child:
        os.killpg(child.pid, number)
        _, talk = child.communicate(timeout=SECONDS)

    assert child.returncode != 0
    assert talk.count("error: ") <= 1
    assert keys(open_store(store), CHECKPOINTS)
    with store_lock(store):
        pass
