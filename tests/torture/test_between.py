"""Each write of a run beside each read of another, and a kill before each write: none by chance."""

import json
import shutil

import numpy as np
import pytest
from near_init import make_store

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store import durable
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.codec import digests
from nf2vec_cli.store.durable import DurableStore
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import LATER, SURFACE, Entry, Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.info import object_rows, storage_info, store_info

KEY = "e"


def grow(path):
    """Do what a run of `fit` and one of `encode` write: nine objects in two shards."""
    store = open_store(path, mode="a")
    rows = store.register([Entry(f"new/{n}", f"new/{n}.ply", "new", "train") for n in range(9)])
    theta = np.tile(store.init, (9, 1)) + np.float32(0.01)
    columns = {"error": [0.5] * 9, "transform": np.ones((9, 4))}
    store.commit(rows[:8], theta[:8], **{name: c[:8] for name, c in columns.items()})
    store.commit(rows[8:], theta[8:], **{name: c[8:] for name, c in columns.items()})
    Embeddings.open_or_make(store, KEY, 4).write(rows, np.ones((9, 4), np.float32))
    store.record_run("fit", config={}, summary={}, versions={})


def read_embeddings(path):
    kept = Embeddings(open_store(path), KEY)
    rows = kept.current()
    values = kept.read(rows)
    assert (np.abs(values).sum(1) > 0).all()
    assert len(kept.stale()) == 0


def read_fields(path):
    store = open_store(path)
    for row in store.rows(Status.DONE):
        assert np.isfinite(store.weights([row])).all()
        store.surface([row])


def read_check(path):
    assert check_store(path).findings == ()


READERS = {
    "info": store_info,
    "storage": storage_info,
    "objects": lambda path: list(object_rows(path)),
    "embeddings": read_embeddings,
    "fields": read_fields,
    "check": read_check,
}


@pytest.fixture(scope="module")
def before(world):
    """A store of 12 fields with embeddings, while another run has its lock."""
    path = make_store(world / "before.zarr", count=12)
    store = open_store(path, mode="a")
    Embeddings.open_or_make(store, KEY, 4).write(range(12), np.ones((12, 4), np.float32))
    (path / ".nf2vec.lock").write_text(json.dumps({"host": "far", "pid": 1}))
    return path


@pytest.fixture(scope="module")
def writes(before, world):
    """What `grow` writes, file after file."""
    found = []
    twin = shutil.copytree(before, world / "twin.zarr")
    write = durable.write_synced

    def noted(path, data, *, exclusive=False):
        write(path, data, exclusive=exclusive)
        found.append((path.relative_to(twin), bytes(data)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "write_synced", noted)
        grow(twin)
    return found


class Between:
    """Lets some files of another run appear before the n-th read of this one."""

    def __init__(self, patch, path, writes):
        self.path, self.writes, self.reads = path, writes, 0
        read = DurableStore.get

        async def get(store, *args, **named):
            self.reads += 1
            if self.reads == self.at:
                self.write()
            return await read(store, *args, **named)

        patch.setattr(DurableStore, "get", get)

    def at_read(self, at, start, stop):
        self.reads, self.at, self.start, self.stop = 0, at, start, stop

    def write(self):
        for name, data in self.writes[self.start : self.stop]:
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


@pytest.mark.parametrize(
    ("reader", "stride"),
    [
        ("info", 7),
        ("check", 40),
        *(pytest.param(reader, 1, marks=pytest.mark.slow) for reader in READERS),
    ],
)
def test_a_reader_meets_a_writer(before, writes, world, monkeypatch, tell, reader, stride):
    """Before each read (of a stride) a part of the writes appears: to a third, two thirds, all."""
    path = world / f"{reader}.zarr"
    shutil.copytree(before, path)
    between = Between(monkeypatch, path, writes)
    between.at_read(0, 0, 0)
    READERS[reader](path)
    reads, times = between.reads, 0
    cuts = np.linspace(0, len(writes), 4 if stride == 1 else 2).astype(int)
    for at in range(1, reads + 1, stride):
        for cut in cuts[1:]:
            shutil.rmtree(path)
            shutil.copytree(before, path)
            between.at_read(at, 0, cut)
            READERS[reader](path)
            times += 1
    shutil.rmtree(path)
    tell(
        {
            "what": f"{reader} while another run writes, at {reads} reads",
            "times": times,
            "crashed or found half a row": 0,
        }
    )


@pytest.fixture
def killed(monkeypatch):
    """Let a process end, as far as its files go, before its n-th write: `killed(n)`."""
    write, left = durable.write_synced, [0]

    def dying(file, data, *, exclusive=False):
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedError("killed")
        write(file, data, exclusive=exclusive)

    def before(number):
        left[0] = number

    monkeypatch.setattr(durable, "write_synced", dying)
    return before


def each_kill(killed, start, path, work):
    """Do some work on copies of a store, killed before each of its writes; yield after each."""
    for number in range(1000):
        shutil.rmtree(path, ignore_errors=True)
        killed(10**9)
        shutil.copytree(start, path)
        killed(number)
        try:
            work(path)
        except StoreError:
            killed(10**9)
            yield number
            continue
        killed(10**9)
        return


def test_a_kill_before_each_write_of_a_field_that_is_fitted_anew(before, world, killed, tell):
    def refit(path):
        store = open_store(path, mode="a")
        store.commit([3], store.init[None] + np.float32(0.02), error=[0.7])
        store.fail([4], ["its source has changed, and is broken"])

    path, times = world / "anew.zarr", 0
    held = open_store(before).column("digest")
    for times in each_kill(killed, before, path, refit):  # noqa: B007
        store = open_store(path)
        done = store.rows(Status.DONE)
        assert set(range(12)) - {3, 4} <= set(done.tolist())
        digest = store.column("digest")
        assert (digests(store.stored(done)) == digest[done]).all()
        whole = [row for row in done.tolist() if row != 3]
        assert (digest[whole] == held[whole]).all()
    tell({"what": "a kill while a field is fitted anew", "times": times + 1, "lost": 0})
    assert times == 7


@pytest.mark.slow
def test_a_kill_before_each_write_of_the_columns_that_an_old_store_lacks(world, killed, tell):
    killed(10**9)
    old, path = make_store(world / "old.zarr", count=5), world / "older.zarr"
    for name in (*LATER, SURFACE):
        shutil.rmtree(old / name)
    wanted = {name: open_store(old).column(name) for name in LATER}
    times = 0
    for times in each_kill(killed, old, path, lambda path: open_store(path, mode="a")):  # noqa: B007
        open_store(path).surface([0, 1])
        for mode in ("r", "a"):
            opened = open_store(path, mode=mode)
            for name, values in wanted.items():
                np.testing.assert_array_equal(opened.column(name), values)
    tell(
        {"what": "a kill while an older store gets its new columns", "times": times + 1, "lost": 0}
    )
    assert times >= len(LATER)
