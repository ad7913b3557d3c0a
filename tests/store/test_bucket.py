import asyncio
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from bucket_proxy import FAULTS, Proxy

from nf2vec_cli.errors import BucketError, UsageFault
from nf2vec_cli.store import bucket as module
from nf2vec_cli.store.archive import Archive
from nf2vec_cli.store.bucket import Bucket
from nf2vec_cli.store.bucket_store import BucketStore, open_bucket
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.create import create_store, free_name, holds_store
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import beside, place
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store


@pytest.fixture
def hasty(monkeypatch):
    """Little patience: what does not answer is given up at once."""
    for name, value in {"RETRIES": 1, "FIRST_PAUSE": 0.01, "TRIES": 2}.items():
        monkeypatch.setattr(module, name, value)
    module._client.cache_clear()
    yield
    module._client.cache_clear()


@pytest.fixture
def quick_pauses(monkeypatch):
    """Short waits between tries, as many tries as ever."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.05)
    module._client.cache_clear()
    yield
    module._client.cache_clear()


@pytest.fixture
def proxied(endpoint, monkeypatch):
    """Put a proxy before the bucket; gives it."""
    made = []

    def put(**options):
        made.append(Proxy(endpoint, **options))
        monkeypatch.setenv("AWS_ENDPOINT_URL", made[-1].url)
        return made[-1]

    yield put
    for proxy in made:
        proxy.close()


def settings(init, blocks):
    return {
        "field": "sdf",
        "network": {"hidden": 4, "layers": 2},
        "init": init,
        "blocks": blocks,
        "codec": "compact",
        "bits": 8,
        "batch": 4,
        "config": {"steps": 1},
        "versions": {"nf2vec": "0"},
    }


def fill(path, init, fields, *, blocks=(20,) * 25 + (100,)):
    """Make a store of fields, four in a shard, as `fit` does."""
    with store_lock(path, make=True):
        create_store(path, **settings(init, blocks))
        store = open_store(path, mode="a")
        names = [f"c/x{i}" for i in range(len(fields))]
        rows = store.register([Entry(name, f"{name}.ply", "c", "train") for name in names])
        for part in np.split(rows, range(4, len(rows), 4)):
            store.commit(
                part,
                fields[part],
                error=[0.1] * len(part),
                transform=np.ones((len(part), 4)),
            )
    return open_store(path)


def test_what_a_user_types_is_a_place(tmp_path):
    assert place("a/b.zarr") == type(tmp_path)("a/b.zarr")
    assert place(f"file://{tmp_path}/my%20ds.zarr") == tmp_path / "my ds.zarr"
    assert place("s3://bucket//pre/ds.zarr/") == Bucket("bucket", "pre/ds.zarr")
    assert str(place("S3://bucket/pre/ds.zarr")) == "s3://bucket/pre/ds.zarr"
    assert isinstance(place(tmp_path / "ds.zarr.zip"), Archive)
    (tmp_path / "folder.zip").mkdir()
    assert place(tmp_path / "folder.zip") == tmp_path / "folder.zip"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://bucket", "names no folder"),
        ("s3:///ds.zarr", "names no folder"),
        ("s3://bucket/../ds.zarr", r"a part \. or \.\."),
        ("s3://bucket/ds.zarr.zip", "read from a disk"),
        ("gs://bucket/ds.zarr", "no store can be at gs://"),
        ("https://host/ds.zarr", "no store can be at https://"),
        ("file://host/ds.zarr", "another host"),
        ("s3://me:hunter2@bucket/ds.zarr", r"\*\*\*@bucket"),
    ],
)
def test_an_address_where_no_store_can_be(address, reason):
    with pytest.raises(UsageFault, match=reason) as caught:
        place(address)

    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_what_lies_beside_a_bucket_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    one, other = (beside(place(f"s3://{name}/ds.zarr"), ".views") for name in ("a", "b"))

    assert one.parent == tmp_path / "nf2vec"
    assert one.name.startswith("ds-")
    assert one != other
    assert beside(place(tmp_path / "ds.zarr"), ".views") == tmp_path / "ds.views"


def test_a_bucket_speaks_like_a_path(bucket):
    home = place(f"{bucket}/pre/ds.zarr")
    (home / "a/b").write(b"12")
    (home / "c").write(b"3")

    assert (home.name, home.stem, home.suffix) == ("ds.zarr", "ds", ".zarr")
    assert home.exists()
    assert home.is_dir()
    assert not home.is_file()
    assert (home / "c").is_file()
    assert [inner.name for inner in home.iterdir()] == ["a", "c"]
    assert {key: stat.size for key, stat in home.walk().items()} == {"a/b": 2, "c": 1}
    assert not place(f"{bucket}/pre/ds").exists()
    assert free_name(home) == Bucket(home.bucket, "pre/ds-2.zarr")
    assert pickle.loads(pickle.dumps(home)) == home
    with pytest.raises(FileNotFoundError):
        (home / "none").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_a_store_in_a_bucket_has_the_bytes_of_one_in_a_folder(bucket, tmp_path, init, fields):
    path = f"{bucket}/ds.zarr"

    there, here = fill(path, init, fields), fill(tmp_path / "ds.zarr", init, fields)

    assert (there.column("digest") == here.column("digest")).all()
    assert (there.weights(range(9)) == here.weights(range(9))).all()
    assert there.storage() == here.storage()
    assert check_store(path, repair=True).sound
    objects = place(path).walk()
    files = {
        file.relative_to(tmp_path / "ds.zarr").as_posix(): file.read_bytes()
        for file in (tmp_path / "ds.zarr").rglob("*")
        if file.is_file()
    }
    assert {key: (place(path) / key).read_bytes() for key in objects} == files
    _damage_is_told_from_a_bucket_that_is_gone(path)


def _damage_is_told_from_a_bucket_that_is_gone(path):
    shard = place(path) / "quantised/c/1/0"
    data = bytearray(shard.read_bytes())
    data[10] ^= 0xFF
    shard.write(bytes(data))

    report = check_store(path)
    assert {finding.where for finding in report.findings} == {"c/x4"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(BucketError, match="does not answer"):
            check_store(path, repair=True)
    assert check_store(path, repair=True).findings == tuple(
        type(f)(f.kind, f.where, f.text, True) for f in report.findings
    )


def test_a_folder_that_is_half_removed_is_no_group(bucket, monkeypatch):
    path, removed = place(f"{bucket}/ds.zarr"), []
    for key in ("a/c/0", "a/zarr.json", "zarr.json"):
        (path / "group" / key).write(b"{}")

    async def delete(_, key):
        removed.append(key)

    monkeypatch.setattr(BucketStore, "delete", delete)
    asyncio.run(open_bucket(path, read_only=False).delete_dir("group"))

    assert removed == ["group/zarr.json", "group/a/zarr.json", "group/a/c/0"]


def test_a_half_made_store_is_none_yet(bucket, init):
    path = place(f"{bucket}/ds.zarr")
    (path / "init/zarr.json").write(b"{}")

    assert not holds_store(path)
    create_store(path, **settings(init, (600,)))
    assert holds_store(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer"),
        ({"AWS_ENDPOINT_URL": "http://me:planted-secret@127.0.0.1:9"}, "does not answer"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "needs credentials"),
    ],
)
@pytest.mark.usefixtures("hasty")
def test_a_bucket_that_cannot_be_reached_is_named_and_no_secret(
    bucket, run, monkeypatch, changes, reason
):
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)

    with pytest.raises(BucketError, match=reason):
        open_store(f"{bucket}/ds.zarr")
    outcome = run("--debug", "info", f"{bucket}/ds.zarr")

    assert outcome.exit_code == 4
    assert bucket.removeprefix("s3://") in outcome.stderr
    assert "hint:" in outcome.stderr
    assert "planted" not in outcome.stderr + outcome.stdout


def test_an_endpoint_that_is_no_address(bucket, run, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no url planted-secret")

    outcome = run("info", f"{bucket}/ds.zarr")

    assert outcome.exit_code == 4
    assert "AWS_ENDPOINT_URL is no address" in outcome.stderr
    assert "planted" not in outcome.stderr


@pytest.mark.slow
def test_a_bucket_that_is_not_there(bucket, run):
    outcome = run("info", f"{bucket}-not/ds.zarr")

    assert outcome.exit_code == 4
    assert "is not there" in outcome.stderr
    assert "AWS_ENDPOINT_URL" in outcome.stderr


def test_a_missing_extra_is_named(tmp_path):
    (tmp_path / "obstore.py").write_text("raise ImportError('not here')")
    child = subprocess.run(
        [sys.executable, "-m", "nf2vec_cli", "info", "s3://bucket/ds.zarr"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert child.returncode == 2
    assert "pip install 'nf2vec[s3]'" in child.stderr


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in ("late error", "cut answer") else pytest.mark.slow)
        for kind in FAULTS
    ],
)
@pytest.mark.usefixtures("quick_pauses")
def test_each_kind_of_fault_is_got_over(bucket, proxied, kind):
    proxy = proxied(share=0.5, faults=(kind,), seed=1)
    home, data = place(f"{bucket}/ds"), os.urandom(5000)

    for n in range(2):
        tag = (home / f"{n}").write_if(data + b"1", None)
        tag = (home / f"{n}").write_if(data, tag)
        assert (home / f"{n}").write_if(b"", "another") is None
        assert (home / f"{n}").read() == (data, (home / f"{n}").stat())
    assert set(home.walk()) == {"0", "1"}
    for n in range(2):
        (home / f"{n}").unlink()
    assert not home.exists()
    assert proxy.counted[kind] >= 3


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pauses")
def test_a_run_with_a_tenth_of_its_calls_failing_ends_whole(
    bucket, tmp_path, proxied, init, fields
):
    _one_round(bucket, tmp_path, proxied, init, fields[:4], seed=5)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pauses")
def test_many_runs_with_a_tenth_of_their_calls_failing(
    bucket, tmp_path, proxied, init, fields, capsys
):
    rounds = int(os.environ.get("NF2VEC_ROUNDS", "20"))
    total = sum(
        (
            _one_round(f"{bucket}/{n}", tmp_path / str(n), proxied, init, fields, seed=n)
            for n in range(rounds)
        ),
        start=type(Proxy("http://127.0.0.1").counted)(),
    )
    with capsys.disabled():
        print(f"\n{rounds} runs, lost 0, torn 0:", dict(total))  # noqa: T201


def _one_round(bucket, folder, proxied, init, fields, *, seed):
    proxy = proxied(share=0.1, seed=seed)
    path = f"{bucket}/ds.zarr"

    made = fill(path, init, fields)
    rows = range(len(fields))
    there = made.weights(rows)
    assert check_store(path).sound

    proxy.share = 0
    here = fill(folder / "ds.zarr", init, fields)
    assert (there == here.weights(rows)).all()
    assert open_store(path).storage() == here.storage()
    return proxy.counted
