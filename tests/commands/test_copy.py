import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from itertools import pairwise

import pytest
from bucket_proxy import Proxy
from near_init import make_store, result

from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.create import holds_store
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import place
from nf2vec_cli.store.store import open_store


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "ds.zarr", count=8)


def contents(where):
    """Give the bytes of all files of a store."""
    from nf2vec_cli.store.transfer import listing

    where = place(where)
    return {key: (where / key).read_bytes() for key in listing(where)}


def test_a_store_goes_to_a_bucket_to_a_zip_and_back(run, store, bucket, tmp_path):
    stops = [store, f"{bucket}/ds.zarr", tmp_path / "ds.zarr.zip", tmp_path / "back.zarr"]
    for source, target in pairwise(stops):
        told = result(run("copy", source, target, "--json"))
        again = result(run("copy", source, target, "--json"))

        assert told["objects"] == 8
        assert told["copied"] == told["verified"] == told["files"] > 20
        assert again | {"copied": 0, "skipped": told["files"], "written": False} == again
        assert again["verified"] == told["files"]

    assert contents(stops[-1]) == contents(store)
    assert check_store(tmp_path / "back.zarr").sound
    assert not list(tmp_path.glob(".ds*"))


@pytest.mark.slow
def test_a_copy_follows_what_changed(run, store, bucket):
    target = f"{bucket}/ds.zarr"
    assert run("copy", store, target).exit_code == 0
    made = open_store(store, mode="a")
    made.update([0], error=[0.5])
    (store / "embeddings").mkdir()
    (store / "embeddings" / "zarr.json").write_text("{}")
    planned = result(run("copy", store, target, "--dry-run", "--json"))

    told = result(run("copy", store, target, "--json"))
    (store / "embeddings" / "zarr.json").unlink()
    last = result(run("copy", store, target, "--json"))

    assert (planned["copied"], planned["written"]) == (2, False)
    assert (told["copied"], told["removed"]) == (2, 0)
    assert (last["copied"], last["removed"]) == (0, 1)
    assert contents(target) == contents(store)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_killed_copy_is_no_store_and_is_gone_on_with(run, store, tmp_path, bucket, kind):
    target = str(tmp_path / "to.zarr") if kind == "folder" else f"{bucket}/to.zarr"
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(store), target], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "10\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not holds_store(target)
    opened = run("info", target)
    assert opened.exit_code == 4
    assert "a copy that was not finished" in opened.stderr

    told = result(run("copy", store, target, "--json"))

    assert told["skipped"] == 10
    assert contents(target) == contents(store)


SLOW = """
import sys, time
from nf2vec_cli.store import transfer
from nf2vec_cli.tasks.copy import copy_store
write, done = transfer._write, []
transfer.AT_ONCE = 1
def counted(target, key, data):
    if len(done) == 10:
        print(10, flush=True)
        time.sleep(600)
    write(target, key, data)
    if not key.startswith("."):
        done.append(key)
transfer._write = counted
copy_store(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
def test_what_is_at_the_target_is_not_lost(run, store, tmp_path):
    other = make_store(tmp_path / "other.zarr", seed=1, count=8)
    more = make_store(tmp_path / "more.zarr", count=9)
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "letter.txt").write_text("dear")

    for target, reason in (
        (other, "holds another store"),
        (more, "has objects that"),
        (tmp_path / "thing", "is no store"),
        (tmp_path / "thing" / "letter.txt", "is no store"),
        (store / "inner.zarr", "lie in each other"),
    ):
        before = sorted(target.rglob("*"))
        refused = run("copy", store, target)
        assert refused.exit_code in (2, 4), target
        assert reason in refused.stderr
        assert sorted(target.rglob("*")) == before
    assert run("copy", store, other, "--force").exit_code == 0
    assert run("copy", store, tmp_path / "thing", "--force").exit_code == 4
    assert contents(other) == contents(store)


def test_a_store_that_is_being_written_is_not_copied(run, store, tmp_path):
    with store_lock(store):
        refused = run("copy", store, tmp_path / "to.zarr")
    with store_lock(tmp_path / "to.zarr", make=True):
        also = run("copy", store, tmp_path / "to.zarr")

    assert (refused.exit_code, also.exit_code) == (8, 8)
    assert not holds_store(tmp_path / "to.zarr")


@pytest.mark.slow
def test_a_store_that_changes_meanwhile_makes_no_store(run, store, tmp_path, monkeypatch):
    from nf2vec_cli.store import transfer

    remove = transfer._remove

    def changing(target, key):
        if key == transfer.ROOT:
            open_store(store, mode="a").update([1], error=[0.7])
        remove(target, key)

    monkeypatch.setattr(transfer, "_remove", changing)
    stopped = run("copy", store, tmp_path / "to.zarr")
    monkeypatch.undo()

    assert stopped.exit_code == 4
    assert "changed while it was copied" in stopped.stderr
    assert not holds_store(tmp_path / "to.zarr")
    assert run("copy", store, tmp_path / "to.zarr").exit_code == 0
    assert contents(tmp_path / "to.zarr") == contents(store)


def test_a_file_that_comes_out_wrong_is_noticed(run, store, tmp_path, monkeypatch):
    from nf2vec_cli.store import transfer

    write = transfer._write
    monkeypatch.setattr(
        transfer,
        "_write",
        lambda target, key, data: write(target, key, data[:-1] if key == "id/c/0/0" else data),
    )

    wrong = run("copy", store, tmp_path / "to.zarr")

    assert wrong.exit_code == 4
    assert "'id/c/0/0' came out other than it was sent" in wrong.stderr
    assert not holds_store(tmp_path / "to.zarr")


def test_links_are_not_followed(run, store, tmp_path):
    (tmp_path / "secret").write_text("planted")
    (store / "runs").mkdir(exist_ok=True)
    (store / "runs" / "link").symlink_to(tmp_path / "secret")

    refused = run("copy", store, tmp_path / "to.zarr")

    assert refused.exit_code == 4
    assert "symbolic link" in refused.stderr
    assert not (tmp_path / "to.zarr" / "runs").exists()


def test_a_name_in_a_zip_that_leaves_the_folder_is_refused(run, store, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zarr.zip", "w") as made:
        made.writestr("../planted", b"x")
        made.writestr("zarr.json", (store / "zarr.json").read_bytes())

    refused = run("copy", tmp_path / "x.zarr.zip", tmp_path / "to.zarr")

    assert refused.exit_code == 4
    assert "leave its folder" in refused.stderr
    assert not (tmp_path / "planted").exists()


@pytest.mark.slow
def test_copies_with_a_tenth_of_their_calls_failing(
    run, store, bucket, endpoint, monkeypatch, capsys
):
    counted = []
    for seed in range(int(os.environ.get("NF2VEC_ROUNDS", "10"))):
        proxy = Proxy(endpoint, share=0.1, seed=seed)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        target = f"{bucket}/{seed}/ds.zarr"
        began = time.monotonic()
        assert run("copy", store, target).exit_code == 0
        seconds = time.monotonic() - began
        proxy.share = 0
        assert contents(target) == contents(store)
        counted.append((dict(proxy.counted), round(seconds, 1)))
        proxy.close()
    with capsys.disabled():
        print("\ncopies:", json.dumps(counted))  # noqa: T201
