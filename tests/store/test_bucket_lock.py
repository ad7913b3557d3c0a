import json
import subprocess
import sys
import threading

import pytest
from bucket_proxy import Proxy

from nf2vec_cli.errors import BucketError, LockedError
from nf2vec_cli.store import bucket_lock, lock
from nf2vec_cli.store.bucket_store import open_bucket
from nf2vec_cli.store.lock import holder, store_lock
from nf2vec_cli.store.place import place

HOLD = """
import sys, time
from nf2vec_cli.store.lock import store_lock
with store_lock(sys.argv[1], make=True):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(bucket):
    return place(f"{bucket}/ds.zarr")


def lock_of(home):
    return home / lock.NAME


def sign(home, **facts):
    """Put a lock as another machine's run would."""
    known = lock.signature() | {"host": "far", "pid": 7, "owner": "ann", "process": "far", **facts}
    lock_of(home).write(json.dumps(known).encode())


def write(home, name):
    """Put an object as a commit does."""
    import asyncio

    from zarr.core.buffer import default_buffer_prototype

    data = default_buffer_prototype().buffer.from_bytes(b"data")
    asyncio.run(open_bucket(home, read_only=False).set(name, data))


def test_a_second_writer_is_told_who_holds_the_store(home, run):
    with store_lock(home, make=True):
        with pytest.raises(LockedError) as caught, store_lock(home, make=True):
            pass
        assert holder(home)["stale"] is False

    assert caught.value.exit_code == 8
    assert str(home) in str(caught.value)
    assert holder(home) is None
    sign(home)
    refused = run("fit", "examples/shapes/chair", "--field", "sdf", "--store", home)
    assert refused.exit_code == 8
    assert "ann on far, process 7" in refused.stderr


@pytest.mark.slow
def test_a_killed_runs_lock_is_free_at_once_on_its_own_machine(home):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    with pytest.raises(LockedError), store_lock(home):
        pass
    child.kill()
    child.communicate()

    assert holder(home)["stale"] is True
    with store_lock(home):
        assert holder(home)["stale"] is False
    assert not lock_of(home).exists()


def test_the_age_of_another_machines_lock_is_told_by_the_buckets_clock(home, monkeypatch):
    sign(home)
    with monkeypatch.context() as patch:
        patch.setattr(lock.time, "time", lambda: 4e9)  # a clock that is far ahead
        with pytest.raises(LockedError), store_lock(home):
            pass

    monkeypatch.setattr(lock, "DEAD", 0.0)
    assert holder(home) is not None
    with store_lock(home):
        assert json.loads(lock_of(home).read_bytes())["host"] != "far"


@pytest.mark.slow
def test_of_many_takers_of_a_stale_lock_one_gets_it(home, endpoint, monkeypatch):
    proxy = Proxy(endpoint)  # which makes conditional puts atomic, as a bucket's are
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(bucket_lock, "_stale", lambda *_: True)
    sign(home)
    start, got = threading.Barrier(6), []

    def take():
        start.wait()
        got.append(bucket_lock._try(home))

    # all read the same old lock before one of them replaces it
    read = bucket_lock._read
    seen = threading.Barrier(6)

    def read_together(where):
        found = read(where)
        seen.wait()
        return found

    monkeypatch.setattr(bucket_lock, "_read", read_together)
    takers = [threading.Thread(target=take) for _ in range(6)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    proxy.close()

    assert sum(held is not None for held in got) == 1


def test_a_lost_lock_stops_the_writer_before_it_writes(home, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bucket_lock, "_now", lambda: clock[0])
    with store_lock(home, make=True):
        write(home, "first")
        sign(home)  # another took over while this run was stopped
        write(home, "second")  # the lock was renewed a moment ago, and nobody can have it yet
        clock[0] += 3 * lock.BEAT

        with pytest.raises(LockedError, match="taken over") as caught:
            write(home, "third")

    assert caught.value.exit_code == 8
    assert {key for key in home.walk() if not key.startswith(".")} == {"first", "second"}
    assert holder(home)["owner"] == "ann"  # and its lock stays


def test_a_lock_is_renewed_and_survives_a_bucket_that_is_away(home, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bucket_lock, "_now", lambda: clock[0])
    with store_lock(home, make=True):
        held, tag = bucket_lock._held[home], lock_of(home).stat().tag

        clock[0] += 3 * lock.BEAT
        held.check()
        assert lock_of(home).stat().tag not in (tag, None)
        assert held.renewed == clock[0]

        clock[0] += 3 * lock.BEAT
        with monkeypatch.context() as patch:

            def away(*_):
                raise BucketError("the bucket does not answer")

            patch.setattr(type(home), "write_if", away)
            with pytest.raises(BucketError):
                write(home, "data")
        write(home, "data")
    assert not lock_of(home).exists()


def test_the_heartbeat_renews(home, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with store_lock(home, make=True):
        held, first = bucket_lock._held[home], bucket_lock._held[home].tag
        for _ in range(100):
            if held.facts["beat"] >= 2:
                break
            threading.Event().wait(0.05)
        assert held.facts["beat"] >= 2
        assert held.tag != first
    assert not lock_of(home).exists()


def test_a_put_whose_answer_was_lost_still_takes_the_lock(home, endpoint, monkeypatch):
    proxy = Proxy(endpoint, share=1.0, faults=("late error",))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    fault = proxy.fault
    once = iter([True])
    monkeypatch.setattr(proxy, "fault", lambda method: fault(method) if next(once, False) else None)

    with store_lock(home, make=True):
        assert proxy.counted["late error"] == 1
        assert holder(home)["stale"] is False
    proxy.close()
