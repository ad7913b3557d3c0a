"""What a run reads and writes beside its work follows its objects, not the rows of the store."""

import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from zarr.storage import LocalStore

from nf2vec_cli.store import blocks, check, create, products, store
from nf2vec_cli.store.blocks import grouped
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.create import shard_for
from nf2vec_cli.store.durable import DurableStore
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import COLUMN_CHUNK, COLUMNS, Entry, Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.store.text import decode_text

CHUNK = 8  # rows of a chunk of columns here, so that a few rows are many chunks


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    for module in (create, products, store, blocks):
        monkeypatch.setattr(module, "COLUMN_CHUNK", CHUNK)
    monkeypatch.setattr(blocks, "PART", 1)  # a chunk at a time


@pytest.fixture
def traffic(monkeypatch):
    """Count reads and writes of chunks, by array; cleared by whoever looks."""
    seen = Counter()
    get, put = LocalStore.get, DurableStore._set

    async def counted_get(self, key, *args, **kwargs):
        seen["read", key.partition("/c/")[0]] += "/c/" in key
        return await get(self, key, *args, **kwargs)

    async def counted_set(self, key, *args, **kwargs):
        seen["write", key.partition("/c/")[0]] += "/c/" in key
        return await put(self, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", counted_get)
    monkeypatch.setattr(DurableStore, "_set", counted_set)
    return seen


def entries(count, folder="c"):
    return [Entry(f"{folder}/x{i:04}", f"{folder}/x{i:04}.ply", "c", "train") for i in range(count)]


def filled_with(make, name, count, fields):
    """A store of `count` objects, all done."""
    made = make(name)
    rows = made.register(entries(count))
    for start in range(0, count, 4):
        part = rows[start : start + 4]
        made.commit(part, fields[: len(part)], transform=np.ones((len(part), 4)))
    return made


def append(made, fields):
    opened = open_store(made.path, mode="a")
    rows = opened.register(entries(4, "new"))
    opened.commit(rows, fields[:4], error=[0.1] * 4, transform=np.ones((4, 4)))
    Embeddings.open_or_make(opened, "one", 3).write(rows, np.ones((4, 3), np.float32))


def test_an_append_costs_the_same_whatever_the_store_holds(make, fields, traffic):
    costs = []
    for count in (8, 80):
        made = filled_with(make, f"{count}.zarr", count, fields)
        traffic.clear()
        append(made, fields)
        costs.append(+traffic)

    assert costs[0] == costs[1]
    assert costs[0]["write", "quantised"] == 1


def test_a_check_reads_columns_a_few_times_and_not_for_each_batch(
    make, fields, traffic, monkeypatch
):
    monkeypatch.setattr(check, "READ", 1)
    made = filled_with(make, "s.zarr", 80, fields)
    traffic.clear()

    assert check_store(made.path).sound

    chunks = 80 // CHUNK
    assert max(traffic["read", name] for name in COLUMNS) <= 5 * chunks


def test_objects_are_found_in_one_pass(make, fields, traffic):
    made = filled_with(make, "s.zarr", 80, fields)
    traffic.clear()

    assert made.find(["c/x0003", "c/x0071"]).tolist() == [3, 71]
    assert traffic["read", "id"] == 80 // CHUNK


def test_columns_of_some_rows_are_read_from_their_chunks(make, fields, traffic):
    made = filled_with(make, "s.zarr", 80, fields)
    traffic.clear()

    assert made.column("id", [70, 3, 3]) == ["c/x0070", "c/x0003", "c/x0003"]
    assert made.column("transform", [1]).shape == (1, 4)
    assert (traffic["read", "id"], traffic["read", "transform"]) == (2, 1)


def test_scattered_rows_are_updated_and_their_neighbours_stay(make, fields, traffic):
    made = filled_with(make, "s.zarr", 80, fields)
    traffic.clear()

    made.update([77, 1, 3], message=["last", "one", "three"], steps=[7, 1, 3])

    told = made.column("message")
    assert [told[row] for row in (0, 1, 2, 3, 76, 77)] == ["", "one", "", "three", "", "last"]
    assert made.column("steps")[[1, 3, 77]].tolist() == [1, 3, 7]
    assert traffic["write", "message"] == 2


def test_places_are_grouped_by_blocks():
    found = grouped(np.array([9, 0, 4, 1, 8]), 4)

    assert [part.tolist() for part in found] == [[1, 3], [2], [0, 4]]
    assert grouped(np.empty(0, np.int64), 4) == []


@pytest.mark.parametrize(
    ("objects", "codec", "radiance", "shard"),
    [
        (1_000, "compact", False, 64),
        (256_000, "compact", False, 64),
        (1_000_000, "compact", False, 256),
        (1_000_000, "exact", False, 256),
        (1_000_000, "compact", True, 512),
    ],
)
def test_a_million_objects_are_at_most_20000_files(objects, codec, radiance, shard):
    found = shard_for(objects, batch=64, codec=codec, radiance=radiance)

    arrays = (1 if codec == "exact" else 2) + (3 if radiance else 1)
    columns = (len(COLUMNS) + 1) * objects / COLUMN_CHUNK  # and the digests of embeddings
    assert found == shard
    assert arrays * objects / shard + columns + objects / products.EMBEDDED < 20_000


def test_a_longer_shard_is_filled_batch_by_batch(make, fields):
    made = make(shard_length=8)
    rows = made.register(entries(7))
    made.commit(rows[:4], fields[:4], transform=np.ones((4, 4)))
    made.commit(rows[4:], fields[4:7], transform=np.ones((3, 4)))

    opened = open_store(made.path, mode="a")
    assert len(list((made.path / "quantised" / "c").iterdir())) == 1
    assert np.abs(opened.weights(rows) - fields[:7]).max() < 1e-3
    assert opened.register(entries(1, "new")).tolist() == [8]  # a run begins a new shard
    assert check_store(made.path).sound


def test_a_shard_whose_index_is_damaged_is_made_again(make, fields):
    made = make(shard_length=8)
    rows = made.register(entries(8))
    made.commit(rows, fields[:8], transform=np.ones((8, 4)))
    shard = made.path / "quantised" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-7])

    lost = check_store(made.path, repair=True)
    again = open_store(made.path, mode="a")
    for start in (0, 4):
        part = rows[start : start + 4]
        again.commit(part, fields[part], transform=np.ones((4, 4)))

    assert len(lost.findings) == 8
    assert check_store(made.path).sound
    assert again.rows(Status.DONE).tolist() == list(range(8))


def test_a_shard_is_a_number_of_batches(make):
    with pytest.raises(ValueError, match="no multiple"):
        make(shard_length=6)


def test_a_store_of_before_has_shards_of_a_batch(make):
    made = make()
    attributes = dict(made.group.attrs)
    del attributes["shard_length"]

    assert store.Store(made.path, made.group, attributes).shard_length == made.batch


def test_files_are_looked_through_only_after_a_run_that_was_killed(make):
    made = make()
    left = made.path / "status" / "c" / "0.abc.partial"
    left.parent.mkdir()
    left.write_bytes(b"x")

    with store_lock(made.path):
        open_store(made.path, mode="a")
    assert left.exists()  # the run before ended well: this is nobody's

    line = "import sys,time\nfrom nf2vec_cli.store.lock import store_lock\n"
    line += "with store_lock(sys.argv[1]):\n    print(1, flush=True)\n    time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", line, str(made.path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "1\n"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    with store_lock(made.path):
        open_store(made.path, mode="a")
    assert not left.exists()


def test_texts_of_others_are_read_letter_by_letter():
    column = np.zeros((3, 6), np.uint8)
    column[0, :3] = list(b"a\0b")
    column[1, :2] = list("é".encode())
    column[2, :2] = [0xC3, 0x28]

    assert decode_text(column) == ["a\0b", "é", "\ufffd("]
    assert decode_text(column[:0]) == []
