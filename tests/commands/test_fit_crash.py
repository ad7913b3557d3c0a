import json
import signal
import subprocess
import sys
import time

import pytest

from nf2vec_cli.store.codec import digests
from nf2vec_cli.store.create import holds_store
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store


def start(shapes, store, quick, *options):
    line = [sys.executable, "-m", "nf2vec_cli", "fit", shapes, "--field", "sdf", "--store", store]
    return subprocess.Popen(
        [*map(str, line), *quick, "--set", "batch=2", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job hands on that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def done(store):
    opened = open_store(store)
    rows = opened.rows(Status.DONE)
    return {row: opened.column("digest")[row].tobytes() for row in rows.tolist()}


def wait_for_fields(child, store, least):
    until = time.monotonic() + 60
    while time.monotonic() < until and child.poll() is None:
        if holds_store(store) and len(done(store)) >= least:
            return
        time.sleep(0.01)


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGTERM)),
    ],
)
def test_a_run_that_is_killed_loses_no_committed_object(run, shapes, tmp_path, quick, how):
    store = tmp_path / "ds.zarr"
    child = start(shapes, store, quick)
    wait_for_fields(child, store, 4)
    child.send_signal(how)
    _, talk = child.communicate(timeout=60)
    kept = done(store)

    outcome = run("fit", shapes, "--field", "sdf", "--store", store, "--json", "--jobs", "1")

    assert 4 <= len(kept) < 12, talk
    if how is signal.SIGINT:
        assert child.returncode == 130
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["fitted"] == 12 - len(kept)
    after = done(store)
    assert len(after) == 12
    assert {row: after[row] for row in kept} == kept
    opened = open_store(store)
    assert (digests(opened.stored(list(after))) == opened.column("digest")[list(after)]).all()
    assert not list(store.rglob("*.partial"))
