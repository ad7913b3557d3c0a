"""Ctrl-C and SIGTERM at random instants: what is finished is kept, and workers end too."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worlds import committed, faults

CODE = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize(
    ("number", "times"),
    [
        (signal.SIGTERM, 1),
        *(pytest.param(number, 20, marks=pytest.mark.slow) for number in CODE),
    ],
)
def test_a_run_that_is_told_to_stop(warm, victims, world, tell, number, times):
    fit, rng = victims["fit"].line, random.Random(int(number))
    twin = world / f"{number.name}.twin.zarr"
    whole = warm.run(*fit(twin))
    assert whole.code == 0, whole.stderr
    wanted, stopped, lost, unsaved = committed(twin), 0, 0, []
    shutil.rmtree(twin)
    round_ = 0
    while stopped < times:
        round_ += 1
        store = world / f"stop.{number}.{round_}.zarr"
        before = {}
        while stopped < times:
            child = warm.start(*fit(store))
            child.kill_after(rng.uniform(0.1, whole.seconds), number)
            ended = child.wait()
            if ended.code == 0:
                break
            stopped += 1
            assert ended.code == CODE[number], (ended.code, ended.stderr)
            assert "what was committed is kept" in ended.stderr
            assert "Traceback" not in ended.stderr
            assert not (store / ".nf2vec.lock").exists()
            now = committed(store)
            assert not faults(store)
            lost += sum(now.get(name) != value for name, value in before.items())
            unsaved.append(ended.work - (len(now) - len(before)))
            before = now
        last = warm.run(*fit(store))
        assert last.code == 0, last.stderr
        assert committed(store) == wanted
        shutil.rmtree(store)
    tell(
        {
            "what": f"{number.name} in fit",
            "times": stopped,
            "lost": lost,
            "finished fits that were not kept": sum(unsaved),
            "most for a stop": max(unsaved),
        }
    )
    assert lost == 0
    assert max(unsaved) <= 1  # of the instant between a fit's end and its being counted


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_run(victims, tmp_path, tell, number):
    line = [*victims["fit"].line(tmp_path / "ds.zarr"), "--jobs", "2", "--set", "steps=4000"]
    child = subprocess.Popen(
        [sys.executable, "-m", "nf2vec_cli", *map(str, line)],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    until = time.monotonic() + 60
    while len(_children(child.pid)) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(8)  # they import torch, and begin
    workers = _children(child.pid)

    child.send_signal(number)
    child.communicate(timeout=60)
    until = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)

    left = sum(_alive(pid) for pid in workers)
    tell({"what": f"{number.name} of fit --jobs 2", "workers": len(workers), "left alive": left})
    for pid in workers:
        if _alive(pid):
            os.kill(pid, signal.SIGKILL)
    assert len(workers) >= 2
    assert left == 0


def _children(pid):
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found.append(int(folder.name))
    return found


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
