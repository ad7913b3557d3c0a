"""Several processes on one store, each with its share: `--shard I/N`."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nf2vec_cli.errors import UsageFault
from nf2vec_cli.store.create import holds_store
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks import encode as encode_task
from nf2vec_cli.tasks import fit as fit_task
from nf2vec_cli.tasks.fit_object import Failed
from nf2vec_cli.tasks.share import Share, parse_share

SMALL = ["--set", "batch=1", "--set", "hidden=16", "--set", "layers=2"]


def fit_line(folder, store, quick, *options):
    return ["fit", folder, "--field", "sdf", "--store", store, "--json", *quick, *SMALL, *options]


def digests(store):
    opened = open_store(store)
    names, found = opened.column("id"), opened.column("digest")
    return {names[row]: found[row].tobytes() for row in opened.rows(Status.DONE)}


def ids(outcome):
    return [row["id"] for row in map(json.loads, outcome.stdout.splitlines())]


@pytest.mark.parametrize("text", ["0/4", "5/4", "3/1", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_share_is_wrong_usage(text):
    with pytest.raises(UsageFault, match="no share") as caught:
        parse_share(text)

    assert "$SLURM_ARRAY_TASK_ID" in caught.value.hint


def test_shares_part_all_places_between_them():
    shares = [Share(number, 3) for number in (1, 2, 3)]

    owners = np.stack([share.owns(np.arange(10)) for share in shares])

    assert (owners.sum(0) == 1).all()
    assert owners[0].tolist() == [True, False, False] * 3 + [True]


def test_two_shares_in_any_order_are_one_plain_fit(run, folder, tmp_path, quick):
    plain, shared = tmp_path / "plain.zarr", tmp_path / "shared.zarr"
    run(*fit_line(folder, plain, quick))
    told = run(*fit_line(folder, shared, quick), "--shard", "2/2", "--dry-run")
    assert not shared.exists()

    second = run(*fit_line(folder, shared, quick), "--shard", "2/2")
    between = digests(shared)
    first = run(*fit_line(folder, shared, quick), "--shard", "1/2")
    again = run(*fit_line(folder, shared, quick), "--shard", "2/2")

    assert (first.exit_code, second.exit_code) == (0, 0), second.stderr
    assert {o["id"] for o in json.loads(told.stdout)["objects"]} == set(between)
    assert json.loads(told.stdout)["to_fit"] == len(between) == 1
    assert digests(shared) == digests(plain)
    done = [json.loads(outcome.stdout) for outcome in (second, first, again)]
    assert [(d["fitted"], d["skipped"]) for d in done] == [(1, 0), (2, 0), (0, 1)]
    runs = open_store(shared).runs()
    assert [r["summary"]["share"] for r in runs] == ["2/2", "1/2"]


def test_a_plain_fit_finishes_what_a_share_has_left(run, folder, tmp_path, quick):
    store = tmp_path / "ds.zarr"
    run(*fit_line(folder, store, quick), "--shard", "1/2")
    kept = digests(store)

    rest = run(*fit_line(folder, store, quick))

    assert json.loads(rest.stdout)["fitted"] == 1
    assert len(kept) == 2
    assert kept.items() <= digests(store).items()


def test_a_share_waits_for_a_writer_and_gives_up_with_code_8(run, folder, tmp_path, quick):
    store = tmp_path / "ds.zarr"
    with store_lock(store, make=True):
        outcome = run(*fit_line(folder, store, quick), "--shard", "1/2", "--wait", "0.3")

    assert outcome.exit_code == 8
    assert "--wait" in outcome.stderr


def test_the_store_is_free_while_a_share_fits(run, folder, tmp_path, quick, monkeypatch):
    """Another run writes in between; what it has done, a share that fails on it leaves alone."""
    store = tmp_path / "ds.zarr"
    run(*fit_line(folder, store, quick), "--shard", "2/2")
    plain = fit_task.fitter_of

    def fitter_of(_field):
        def fit(jobs, *_, **__):
            jobs = list(jobs)
            monkeypatch.setattr(fit_task, "fitter_of", plain)
            assert run(*fit_line(folder, store, quick)).exit_code == 0  # takes the lock
            for _job in jobs:
                yield Failed("the file is not there", {})

        return fit

    monkeypatch.setattr(fit_task, "fitter_of", fitter_of)
    outcome = run(*fit_line(folder, store, quick), "--shard", "1/2")

    assert outcome.exit_code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert (result["fitted"], result["skipped"], result["failed"]) == (0, 2, 0)
    assert len(digests(store)) == 3


@pytest.mark.slow
def test_encode_in_shares_is_a_plain_encode_though_a_field_changes_meanwhile(
    run, fitted, tmp_path, monkeypatch
):
    plain, store = fitted, shutil.copytree(fitted, tmp_path / "shared.zarr")
    key = json.loads(run("encode", plain, "--json").stdout)["encoder"]
    old = encode_task.ShardEncoder.encode

    def encode(self, rows, theta):
        with store_lock(store):  # the share does not hold it while it computes
            other = open_store(store, mode="a")
            other.commit(rows[:1], other.weights(rows[:1]) + np.float32(0.01))
        return old(self, rows, theta)

    line = ["encode", store, "--json", "--shard"]
    monkeypatch.setattr(encode_task.ShardEncoder, "encode", encode)
    counts = [json.loads(run(*line, f"{i}/2").stdout)["encoded"] for i in (2, 1)]

    assert counts == [0, 3]  # one shard, which is the first one's
    kept, was = Embeddings(open_store(store), key), Embeddings(open_store(plain), key)
    assert kept.stale().tolist() == [0]
    assert kept.current().tolist() == [1, 2]
    assert np.array_equal(kept.read([1, 2]), was.read([1, 2]))


def test_reconstruct_in_shares_makes_each_file_once(run, fitted, tmp_path):
    line = ["reconstruct", fitted, "--resolution", "16", "--json", "--jobs", "1", "--no-compare"]
    shares = [ids(run(*line, "--out", tmp_path / "out", "--shard", f"{i}/2")) for i in (1, 2)]

    assert sorted(name for share in shares for name in share) == [
        "chair/chair",
        "lamp/lamp",
        "sofa/sofa",
    ]
    assert sorted(map(len, shares)) == [1, 2]


def test_a_share_of_a_cluster_is_wrong_usage(run, folder, tmp_path, quick):
    outcome = run(*fit_line(folder, tmp_path / "x", quick), "--shard", "1/2", "--ray", "local")

    assert outcome.exit_code == 2
    assert "two ways" in outcome.stderr


@pytest.mark.slow
def test_three_processes_at_once_make_the_store_of_one(run, shapes, tmp_path, quick):
    plain, shared = tmp_path / "plain.zarr", tmp_path / "shared.zarr"
    run(*fit_line(shapes, plain, quick))
    line = [sys.executable, "-m", "nf2vec_cli", *map(str, fit_line(shapes, shared, quick))]

    for _ in range(2):  # the second time there is nothing to do
        children = [
            subprocess.Popen(
                [*line, "--shard", f"{i}/3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for i in (1, 2, 3)
        ]
        ended = [child.communicate(timeout=300) for child in children]
        assert [child.returncode for child in children] == [0, 0, 0], ended

    assert digests(shared) == digests(plain)
    assert sum(json.loads(out)["skipped"] for out, _ in ended) == 12
    assert run("check", shared).exit_code == 0


@pytest.mark.slow
def test_a_share_that_is_killed_is_made_up_for_by_the_same_line(run, shapes, tmp_path, quick):
    store = tmp_path / "ds.zarr"
    line = [sys.executable, "-m", "nf2vec_cli", *map(str, fit_line(shapes, store, quick))]
    children = [
        subprocess.Popen([*line, "--set", "steps=400", "--shard", f"{i}/2"]) for i in (1, 2)
    ]
    while not holds_store(store) or len(digests(store)) < 2:
        assert any(child.poll() is None for child in children)
    children[1].kill()
    assert children[0].wait(300) == 0
    children[1].wait()
    kept = digests(store)

    again = run(*fit_line(shapes, store, quick), "--set", "steps=400", "--shard", "2/2")

    assert again.exit_code == 0, again.stderr
    assert len(digests(store)) == 12
    assert kept.items() <= digests(store).items()
    assert run("check", store).exit_code == 0
