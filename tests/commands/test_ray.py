"""Work on a Ray cluster of the command's own: the same bits, and nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nf2vec_cli.store.create import holds_store
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store

TINY = ["--set", "hidden=16", "--set", "layers=2", "--set", "batch=2"]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _ray():
    pytest.importorskip("ray")


def start(*line):
    return subprocess.Popen(
        [sys.executable, "-m", "nf2vec_cli", *map(str, line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def digests(store):
    opened = open_store(store)
    return {row: opened.column("digest")[row].tobytes() for row in opened.rows(Status.DONE)}


def family(pid):
    """Find the processes that a process has started, and those that they have: pid -> name."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            name = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if entry.name.isdigit():
            found[int(entry.name)] = (int(stat[1]), name)
    mine = {pid}
    for _ in range(8):
        mine |= {child for child, (parent, _) in found.items() if parent in mine}
    return {child: found[child][1] for child in mine - {pid} if child in found}


def wait_for(child, condition, seconds=240):
    until = time.monotonic() + seconds
    while time.monotonic() < until and child.poll() is None:
        if found := condition():
            return found
        time.sleep(0.05)
    child.kill()
    raise AssertionError(f"it did not come to that: {child.communicate()}")


def test_a_cluster_gives_the_bits_of_one_process_though_a_worker_is_killed(
    run, shapes, tmp_path, quick
):
    plain, spread = tmp_path / "plain.zarr", tmp_path / "ray.zarr"
    line = ["fit", shapes, "--field", "sdf", "--json", *quick[:-2], *TINY, "--set", "steps=400"]
    run(*line, "--store", plain, "--jobs", "1")

    child = start(*line, "--store", spread, "--ray", "local", "--jobs", "2")
    wait_for(child, lambda: holds_store(spread) and len(digests(spread)) >= 2)
    worker = wait_for(child, lambda: [p for p, n in family(child.pid).items() if "ray::_do" in n])
    os.kill(worker[0], signal.SIGKILL)
    out, talk = child.communicate(timeout=300)

    assert child.returncode == 0, talk
    assert json.loads(out)["fitted"] == 12
    assert "raylet" not in talk
    assert digests(spread) == digests(plain)
    assert open_store(spread).runs()[-1]["versions"]["ray"]
    assert run("check", spread).exit_code == 0


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(run, shapes, tmp_path, quick):
    store = tmp_path / "ds.zarr"
    line = ["fit", shapes, "--field", "sdf", "--store", store, "--json", *quick[:-2], *TINY]
    line += ["--set", "steps=2000"]

    child = start(*line, "--ray", "local", "--jobs", "2")
    wait_for(child, lambda: holds_store(store) and len(digests(store)) >= 2)
    started = family(child.pid)
    kept = digests(store)
    child.send_signal(signal.SIGINT)
    out, talk = child.communicate(timeout=60)

    assert (child.returncode, out) == (130, ""), talk
    assert "interrupted" in talk
    assert any("raylet" in name for name in started.values())
    time.sleep(1)
    left = {pid: name for pid, name in started.items() if Path(f"/proc/{pid}/cmdline").exists()}
    assert not [name for pid, name in left.items() if Path(f"/proc/{pid}/cmdline").read_text()]
    assert 2 <= len(kept) <= len(digests(store)) < 12
    assert run("check", store).exit_code == 0


def test_embeddings_and_meshes_are_the_same_bits_too(run, folder, tmp_path, quick):
    plain = tmp_path / "plain.zarr"
    fit = ["fit", folder, "--field", "sdf", "--store", plain, *quick, "--set", "batch=1"]
    fit += ["--set", "steps=100"]  # until there is a surface
    assert run(*fit).exit_code == 0
    (folder / "lamp" / "lamp.ply").unlink()
    spread = shutil.copytree(plain, tmp_path / "ray.zarr")
    key = json.loads(run("encode", plain, "--json", "--jobs", "1").stdout)["encoder"]
    build = ["--resolution", "32", "--json"]
    here = run("reconstruct", plain, "--out", tmp_path / "a", *build, "--jobs", "1")
    assert here.exit_code == 0, here.stderr

    encode = run("encode", spread, "--json", "--ray", "local", "--jobs", "2")
    rebuild = run(
        *("reconstruct", spread, "--out", tmp_path / "b", *build), "--ray", "local", "--jobs", "2"
    )

    assert (encode.exit_code, rebuild.exit_code) == (0, 0), encode.stderr + rebuild.stderr
    rows = open_store(plain).rows(Status.DONE)
    one, other = (Embeddings(open_store(store), key).read(rows) for store in (plain, spread))
    assert np.array_equal(one, other)
    files = [
        {file.name: file.read_bytes() for file in (tmp_path / name).rglob("*.ply")} for name in "ab"
    ]
    assert len(files[0]) == 3
    assert files[0] == files[1]
    assert sum(row["chamfer"] is None for row in map(json.loads, rebuild.stdout.splitlines())) == 1


def test_a_shape_that_a_worker_does_not_find_fails_with_the_reason(
    run, folder, tmp_path, quick, monkeypatch
):
    from nf2vec_cli.tasks import fit as fit_task

    store, plain = tmp_path / "ds.zarr", fit_task.by_shard

    def by_shard(*given):
        (folder / "lamp" / "lamp.ply").unlink()  # as if it were on another machine's disk
        return plain(*given)

    monkeypatch.setattr(fit_task, "by_shard", by_shard)
    outcome = run(
        *("fit", folder, "--field", "sdf", "--store", store, "--json", *quick[:-2]),
        *("--ray", "local", "--jobs", "2"),
    )

    assert outcome.exit_code == 7
    result = json.loads(outcome.stdout)
    assert result["fitted"] == 2
    assert result["failures"] == [{"id": "lamp/lamp", "reason": "the file is not there"}]
