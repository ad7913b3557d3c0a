"""A clock that jumps: no lock is broken, and the newest stays the newest."""

import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from near_init import make_store
from worlds import committed

from nf2vec_cli.errors import LockedError
from nf2vec_cli.store import lock, runs
from nf2vec_cli.store.products import ENCODERS, keys, save_state
from nf2vec_cli.store.store import open_store

DAY = 86_400.0


@pytest.fixture
def jump(monkeypatch):
    """Let clocks be wrong by some seconds."""

    def jumped(by):
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + by)

        class Wrong(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.fromtimestamp(right() + by, tz)

        monkeypatch.setattr(runs, "datetime", Wrong)

    return jumped


def sign_of_another_host(store):
    store.mkdir()
    path = store / lock.NAME
    path.write_text(json.dumps({"owner": "ann", "host": "far", "pid": 7, "started": 0}))
    return path


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_another_hosts_lock_that_is_touched_is_not_broken(tmp_path, monkeypatch, jump, by):
    path = sign_of_another_host(tmp_path / "ds.zarr")
    monkeypatch.setattr(lock, "WATCHED", 2.0)
    stop = threading.Event()
    beat = threading.Thread(
        target=lambda: [os.utime(path) for _ in iter(lambda: stop.wait(0.2), True)]
    )
    beat.start()
    jump(by)

    try:
        with pytest.raises(LockedError, match="ann on far"), lock.store_lock(path.parent):
            pass
    finally:
        stop.set()
        beat.join()


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_another_hosts_lock_that_nobody_touches_is_taken(tmp_path, monkeypatch, jump, by):
    path = sign_of_another_host(tmp_path / "ds.zarr")
    monkeypatch.setattr(lock, "WATCHED", 0.5)
    jump(by)

    with lock.store_lock(path.parent):
        assert lock.holder(path.parent)["host"] == os.uname().nodename


def test_runs_stay_in_order_when_the_clock_is_put_back(tmp_path, jump):
    store = open_store(make_store(tmp_path / "ds.zarr", count=0), mode="a")
    for number, by in enumerate((0, -DAY, 0, DAY, -DAY)):
        jump(by)
        store.record_run("fit", config={}, summary={"number": number}, versions={})

    assert [run["summary"]["number"] for run in store.runs()] == [0, 1, 2, 3, 4]


def test_the_newest_encoder_is_the_newest_though_the_clock_was_put_back(tmp_path):
    store = open_store(make_store(tmp_path / "ds.zarr", count=0), mode="a")
    for name, days in (("b", 0), ("c", -1), ("a", -2)):
        ended = (datetime.now(UTC) + timedelta(days=days)).isoformat()
        save_state(store, ENCODERS, name, {"x": np.zeros(3)}, ended=ended)

    assert keys(store, ENCODERS) == ["b", "c", "a"]


@pytest.mark.slow
def test_runs_under_a_clock_that_jumps_by_a_day(warm, victims, world, tell):
    for name in ("fit", "train", "encode"):
        victim = victims[name]
        stores = [world / f"{name}.{kind}.zarr" for kind in ("right", "jumping")]
        for store, by in zip(stores, (0, DAY), strict=True):
            if victim.start:
                shutil.copytree(victim.start, store)
            ended = warm.run(*victim.line(store), jump=by)
            assert ended.code == 0, ended.stderr
        right, jumping = (committed(store) for store in stores)
        assert right == jumping
        tell({"what": f"{name} while the clock jumps by a day", "times": 1, "lost": 0})
