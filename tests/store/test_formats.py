"""Stores that earlier programs wrote open, pass the check, decode to the same numbers, and grow."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.products import ENCODERS, Embeddings, keys
from nf2vec_cli.store.schema import COLUMNS, SURFACE, Entry, Status
from nf2vec_cli.store.store import open_store

HERE = Path(__file__).parent / "fixtures"
FIXTURES = sorted(file.name.removesuffix(".tar.xz") for file in HERE.glob("*.tar.xz"))
EARLIER = ("first", "before-surfaces", "before-radiance")
FITTED = (*EARLIER, "sdf-compact", "udf-exact", "occ", "nerf")


@pytest.fixture
def unpacked(tmp_path):
    """Give a store of the folder as a folder of its own."""

    def unpack(name):
        with tarfile.open(HERE / f"{name}.tar.xz") as packed:
            packed.extractall(tmp_path, filter="data")
        return tmp_path / f"{name}.zarr"

    return unpack


def numbers(path):
    """What a store decodes to, by id: four numbers of a field's weights, or of an embedding."""
    store = open_store(path)
    rows = store.rows()
    if (store.column("status")[rows] == Status.EMBEDDED).all():
        (key,) = keys(store, ENCODERS)
        kept = Embeddings(store, key)
        assert kept.current().tolist() == rows.tolist()
        values = kept.read(rows)
    else:
        values = store.weights(rows)
    ids = store.column("id")
    return {
        ids[row]: [float(v.sum(dtype=np.float64)), float(np.abs(v).max()), *map(float, v[[0, -1]])]
        for row, v in zip(rows, values, strict=True)
    }


def test_no_state_of_the_format_is_without_a_store():
    assert set(FIXTURES) == {*FITTED, "embedded", "imported"}


@pytest.mark.parametrize("name", FIXTURES)
def test_a_store_decodes_to_the_numbers_that_were_written(unpacked, name):
    path = unpacked(name)

    report = check_store(path)

    assert (report.sound, report.objects, report.findings) == (True, 2, ())
    told = json.loads((HERE / "decoded.json").read_text())[name]
    found = numbers(path)
    assert found.keys() == told.keys()
    for key, values in told.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-6)


@pytest.mark.parametrize("name", EARLIER)
def test_columns_that_came_later_read_as_what_they_are_taken_for(unpacked, name):
    store = open_store(unpacked(name))
    rows = store.rows()

    assert [store.column("parent")[row] for row in rows] == [store.column("id")[r] for r in rows]
    assert (store.column("copy")[rows] == 0).all()
    assert np.isnan(store.column("psnr")[rows]).all()
    assert (store.surface(rows).any() and SURFACE in store.group) == (name == "before-radiance")


@pytest.mark.parametrize("name", FITTED)
def test_a_fit_adds_to_a_store(run, unpacked, tmp_path, name):
    path = unpacked(name)
    before = numbers(path)
    (tmp_path / "more").mkdir()
    trimesh.creation.icosphere(2).export(tmp_path / "more" / "ball.off")

    field = open_store(path).field
    outcome = run("fit", tmp_path / "more", "--field", field, "--store", path, "--jobs", 1)

    assert outcome.exit_code == 0, outcome.stderr
    after = numbers(path)
    assert after.keys() == {*before, "ball"}
    assert {key: after[key] for key in before} == before
    store = open_store(path)
    assert set(COLUMNS) <= set(store.group.array_keys())
    assert check_store(path).sound


def test_what_was_imported_or_embedded_takes_objects_too(unpacked):
    path = unpacked("imported")
    with store_lock(path):
        store = open_store(path, mode="a")
        rows = store.register([Entry("new", "new")])
        columns = {"error": [0.0], "transform": [[0.0, 0.0, 0.0, 1.0]]}
        store.commit(rows, store.init[None] + np.float32(0.01), **columns)
    assert check_store(path).sound
    assert len(numbers(path)) == 3

    path = unpacked("embedded")
    with store_lock(path):
        store = open_store(path, mode="a")
        (key,) = keys(store, ENCODERS)
        kept = Embeddings.open_or_make(store, key, Embeddings(store, key).size)
        rows = store.register([Entry("new", "")])
        kept = Embeddings.open_or_make(store, key, kept.size)
        kept.write_alone(rows, np.ones((1, kept.size), np.float32))
    assert check_store(path).sound
    assert len(numbers(path)) == 3


@pytest.mark.parametrize(
    "line",
    ["info {}", "check {}", "check {} --repair", "encode {}", "fit {0}/.. --store {0} --field sdf"],
)
def test_a_newer_format_is_refused_kindly(run, unpacked, shapes, line):
    path = unpacked("first")
    shutil.copy(shapes / "lamp" / "lamp.ply", path.parent)
    file = path / "zarr.json"
    file.write_text(file.read_text().replace('"format_version": 1', '"format_version": 2'))
    before = {entry: entry.stat().st_mtime_ns for entry in path.rglob("*")}

    outcome = run(*line.format(path).split())

    assert outcome.exit_code == 4
    assert "has format 2, this program reads up to 1" in outcome.stderr
    assert "pip install -U nf2vec" in outcome.stderr
    assert {
        e: e.stat().st_mtime_ns for e in path.rglob("*") if e.is_file() and ".nf2vec" not in e.name
    } == {e: t for e, t in before.items() if e.is_file()}
