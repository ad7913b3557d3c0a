import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nf2vec_cli.errors import LockedError
from nf2vec_cli.store import lock
from nf2vec_cli.store.lock import DEAD, NAME, holder, store_lock

HOLD = """
import sys, time
from nf2vec_cli.store.lock import store_lock
with store_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_a_live_lock_names_its_holder(tmp_path, other):
    with pytest.raises(LockedError) as caught, store_lock(tmp_path):
        pass

    assert caught.value.exit_code == 8
    assert f"process {other.pid}" in str(caught.value)
    assert os.uname().nodename in str(caught.value)
    assert "--wait" in caught.value.hint
    assert holder(tmp_path)["stale"] is False


def test_a_dead_holders_lock_is_taken_over(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / NAME).exists()
    assert holder(tmp_path)["stale"] is True

    with store_lock(tmp_path):
        assert holder(tmp_path)["pid"] == os.getpid()
    assert not (tmp_path / NAME).exists()


def test_waiting_ends_when_the_holder_does(tmp_path, other):
    started = time.monotonic()
    with pytest.raises(LockedError), store_lock(tmp_path, wait=0.5):
        pass
    assert time.monotonic() - started >= 0.5
    other.kill()

    with store_lock(tmp_path, wait=20):
        pass


def test_another_hosts_lock_counts_while_it_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WATCHED", 0.5)
    path = tmp_path / NAME
    path.write_text(json.dumps({"owner": "ann", "host": "far", "pid": 7, "started": 0}))

    with pytest.raises(LockedError, match="ann on far, process 7"), store_lock(tmp_path):
        pass

    old = time.time() - DEAD - 5
    os.utime(path, (old, old))
    with store_lock(tmp_path):
        assert holder(tmp_path)["host"] == os.uname().nodename


def test_a_lock_file_of_nonsense_is_no_lock(tmp_path):
    (tmp_path / NAME).write_text("?")

    with store_lock(tmp_path):
        pass


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(ValueError, match="x"), store_lock(tmp_path):
        raise ValueError("x")

    with store_lock(tmp_path):
        pass
