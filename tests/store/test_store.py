import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.errors import InputError, StoreError
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.create import create_store
from nf2vec_cli.store.schema import COLUMNS, Entry, Status
from nf2vec_cli.store.store import open_store

PAGE = (Path(__file__).parents[2] / "docs" / "store-format.md").read_text(encoding="utf-8")
PORTABLE = {"bytes", "blosc", "zstd", "crc32c", "sharding_indexed"}


def listing(path):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in path.rglob("*")}


def test_fields_come_back(filled, fields):
    back = open_store(filled.path).weights(range(4))

    assert np.abs(back - fields[:4]).max() < (1e-3 if filled.codec == "compact" else 1e-12)
    assert filled.rows().tolist() == [0, 1, 2, 3, 4, 5]
    assert filled.rows(Status.DONE).tolist() == [0, 1, 2, 3]
    assert filled.column("status").tolist() == [2, 2, 2, 2, 3, 1, 0, 0]
    assert filled.column("message")[4] == "no faces"
    assert filled.weights([]).shape == (0, 600)


def test_the_pages_example_reads_a_store(filled, monkeypatch):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    monkeypatch.chdir(filled.path.parent)
    names: dict = {}

    exec(code.replace("ds.zarr", filled.path.name), names)

    assert names["names"] == [f"c/x{i}" for i in range(4)]
    assert np.array_equal(names["theta"], filled.weights([0])[0])


def test_the_pages_table_is_the_schema():
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+)( text)? \| \[N(?:, (\d+))?\] \| .*? \| (.*) \|$", PAGE, re.M
    )

    assert [
        (name, dtype, bool(text), int(width or 1), meaning)
        for name, dtype, text, width, meaning in rows
    ] == [(c.name, c.dtype, c.text, c.width, c.meaning) for c in COLUMNS.values()]


def test_surface_points_come_back(filled, fields):
    points = np.random.default_rng(0).uniform(-1, 1, (2, SURFACE_POINTS, 3))
    with_none = filled.surface([0, 3])

    filled.commit([1, 3], fields[[1, 3]], surface=points)

    back = open_store(filled.path).surface([0, 1, 3])
    assert not with_none.any()
    assert not back[0].any()
    assert np.abs(back[1:] - points).max() < 1e-4


def test_a_store_without_surface_points_is_read_and_grows(filled, fields):
    shutil.rmtree(filled.path / "surface")

    store = open_store(filled.path)
    assert not store.surface([0, 1]).any()
    grown = open_store(filled.path, mode="a")
    grown.commit([1], fields[[1]], surface=np.full((1, SURFACE_POINTS, 3), 0.5))

    assert np.allclose(open_store(filled.path).surface([1]), 0.5, atol=1e-4)
    assert check_store(filled.path).sound


def test_only_portable_codecs_are_used(filled):
    found = set()

    def collect(node):
        if isinstance(node, dict):
            if {"name", "configuration"} & set(node) and isinstance(node.get("name"), str):
                found.add(node["name"])
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    for file in filled.path.rglob("zarr.json"):
        for codec in json.loads(file.read_text()).get("codecs", []):
            collect(codec)

    assert {"zstd", "crc32c", "sharding_indexed"} <= found <= PORTABLE


def test_reading_writes_nothing(filled):
    before = listing(filled.path)

    store = open_store(filled.path)
    store.weights([0, 1])
    for name in COLUMNS:
        store.column(name)
    store.storage()
    with pytest.raises((ValueError, PermissionError, OSError)):
        store.update([0], error=[9.0])

    assert listing(filled.path) == before


def test_adding_objects_writes_no_shard_again(filled, fields):
    shards = {p: s for p, s in listing(filled.path).items() if p.parts[-4] in ("quantised", "bits")}

    rows = filled.register([Entry("n", "n.ply")])
    filled.commit(rows, fields[8:9])

    assert rows.tolist() == [8]
    assert len(shards) >= 1
    now = listing(filled.path)
    assert {p: now[p] for p in shards} == shards
    assert filled.rows(Status.DONE).tolist() == [0, 1, 2, 3, 8]


def test_a_row_that_is_made_again_leaves_its_neighbours(filled, fields):
    before = filled.stored([0, 2, 3]).arrays

    filled.commit([1], fields[7:8])

    after = filled.stored([0, 2, 3]).arrays
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.abs(filled.weights([1]) - fields[7]).max() < 1e-3


def test_a_batch_may_reach_over_shards(make, fields):
    store = make()
    rows = store.register([Entry(str(i), str(i)) for i in range(9)])

    store.commit(rows, fields)

    assert np.abs(store.weights(rows) - fields).max() < 1e-3


def test_an_id_that_is_too_long_changes_nothing(filled):
    before = listing(filled.path)

    with pytest.raises(InputError, match="longer than 256 bytes"):
        filled.register([Entry("ok", "ok"), Entry("é" * 200, "x")])

    assert listing(filled.path) == before


def test_text_is_cut_between_letters_and_keeps_what_matters(make):
    store = make()
    row = store.register([Entry("ä/ö 日本", "é" * 600 + "/end.ply")])
    store.fail(row, ["ü" * 300])

    assert store.column("id")[0] == "ä/ö 日本"
    assert store.column("source")[0].endswith("é/end.ply")
    assert store.column("message")[0] == "ü" * 256


def test_objects_are_found_by_id_or_last_part(filled):
    assert filled.find(["c/x2", "x0"]).tolist() == [2, 0]
    with pytest.raises(StoreError, match="no object 'x9'") as caught:
        filled.find(["x9"])
    assert "x" in caught.value.hint


def test_a_short_name_that_two_objects_have_is_refused(make):
    store = make()
    store.register([Entry("a/x", "1"), Entry("b/x", "2")])

    with pytest.raises(StoreError, match="a/x or b/x"):
        store.find(["x"])


def test_runs_are_listed_oldest_first(filled):
    for steps in (1, 2, 3):
        filled.record_run("fit", config={"steps": steps}, summary={}, versions={})

    assert [run["config"]["steps"] for run in open_store(filled.path).runs()] == [1, 2, 3]


def test_storage_counts_every_file(filled):
    sizes = filled.storage()

    assert sum(sizes.values()) == sum(
        f.stat().st_size for f in filled.path.rglob("*") if f.is_file()
    )
    assert sizes["quantised" if filled.codec == "compact" else "bits"] > 1000


def test_a_store_that_was_half_made_is_made_anew(make, tmp_path):
    make()
    (tmp_path / "s.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')

    store = make()

    assert store.slots == 0


def test_what_is_no_store_is_refused(make, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")

    with pytest.raises(StoreError, match="is not there"):
        open_store(tmp_path / "none")
    with pytest.raises(StoreError, match=r"no zarr\.json"):
        open_store(tmp_path / "other")
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        make("other")
    with pytest.raises(StoreError, match="is a file"):
        make("file")
    make()
    with pytest.raises(StoreError, match="holds a store already"):
        make()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged"),
        ('{"zarr_format": 3, "node_type": "group", "attributes": {}}', "not a store of neural"),
    ],
)
def test_damaged_metadata_is_a_store_error(filled, text, words):
    (filled.path / "zarr.json").write_text(text)

    with pytest.raises(StoreError, match=words):
        open_store(filled.path)


def test_a_newer_format_is_refused_kindly(filled):
    file = filled.path / "zarr.json"
    root = json.loads(file.read_text())
    root["attributes"]["format_version"] = 99
    file.write_text(json.dumps(root))

    with pytest.raises(StoreError, match="format 99") as caught:
        open_store(filled.path)
    assert "pip install -U" in caught.value.hint


def test_blocks_must_cover_the_parameters(tmp_path, init):
    with pytest.raises(ValueError, match="cover 5 of 600"):
        create_store(
            tmp_path / "x",
            field="sdf",
            network={},
            init=init,
            blocks=[5],
            codec="exact",
            bits=8,
            batch=4,
            config={},
            versions={},
        )


def test_leftovers_are_swept_when_a_store_is_opened_for_writing(filled):
    left = filled.path / "status" / "c" / f"0.{'a' * 32}.partial"
    left.write_bytes(b"x")

    open_store(filled.path)
    assert left.exists()
    open_store(filled.path, mode="a")
    assert not left.exists()


def test_every_file_is_synced_before_it_takes_its_name(make, fields, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle)))
    store = make()
    rows = store.register([Entry("a", "a")])
    before = len(synced)

    store.commit(rows, fields[:1])

    # two arrays of weights, the digest, the status: file and folder each
    assert len(synced) - before >= 8
