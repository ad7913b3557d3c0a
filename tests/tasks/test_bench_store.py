import json

import pytest
from zarr.storage import LocalStore

from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.schema import COLUMN_CHUNK
from nf2vec_cli.tasks import bench_store
from nf2vec_cli.tasks.bench_store import synthetic_store
from nf2vec_cli.tasks.info import store_info
from nf2vec_cli.tasks.plan import plan_objects


@pytest.mark.slow
def test_the_synthetic_store_is_a_store(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_store, "REPEATS", 1)

    made = synthetic_store(tmp_path / "s.zarr", 150)

    assert check_store(made.path).sound
    assert [encoder.embedded for encoder in store_info(made.path).encoders] == [150]
    wall, cpu, room = bench_store._use(made.path)
    assert wall.keys() == cpu.keys() == {*wall} >= {"open", "info", "append", "check"}
    assert room["files"] > 20
    assert check_store(made.path).objects == 150 + bench_store.APPENDED
    _, cpu, _ = bench_store._plan(made.path, 150)
    assert cpu["plan"] > 0


@pytest.mark.parametrize("rows", ["", "a", "0", "20,10", "10,10"])
def test_sizes_that_do_not_rise_are_refused(run, rows):
    outcome = run("bench", "store", "--rows", rows)

    assert outcome.exit_code == 2
    assert "no rising sizes" in outcome.stderr


@pytest.mark.slow
def test_stores_of_two_sizes_are_measured(run, tmp_path):
    outcome = run("bench", "store", "--rows", "100,400", "--folder", tmp_path, "--json")

    found = json.loads(outcome.stdout)
    assert [row["rows"] for row in found["seconds"]] == [100, 400]
    assert found["room"][0]["files"] < found["room"][1]["files"]
    assert {"open", "plan", "files", "peak_mb"} <= found["growth"].keys()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_hundred_thousand_rows_cost_an_append_no_more_reads(tmp_path, monkeypatch):
    reads, get = [], LocalStore.get

    async def counted(self, key, *args, **kwargs):
        reads.append(key)
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", counted)
    appends = []
    for rows in (1_000, 100_000):
        made = synthetic_store(tmp_path / f"{rows}.zarr", rows)
        reads.clear()
        bench_store._append(made.path, 0)
        appends.append(len([key for key in reads if "/c/" in key]))
    assert appends[0] <= appends[1] <= appends[0] + 12  # rows may lie across two chunks

    chunks = -(-made.slots // COLUMN_CHUNK) + 1
    reads.clear()
    refs = [bench_store.shape_ref(row, tmp_path / "none.ply") for row in range(100_000)]
    assert plan_objects(refs, made).skipped == 100_000
    assert len([key for key in reads if "/c/" in key]) <= 9 * chunks
    reads.clear()
    assert store_info(made.path).objects == 100_064
    assert len([key for key in reads if "/c/" in key]) <= 9 * chunks
