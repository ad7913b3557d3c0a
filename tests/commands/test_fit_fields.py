"""`fit` for every kind of field: what it takes, refuses and keeps."""

import json
import shutil

import numpy as np
import pytest

from nf2vec_cli.store.store import open_store


@pytest.fixture
def scans(tmp_path):
    """A folder of an open sheet, a cloud, two voxel grids and what is none of these."""
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "sheet.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3\nf 1 3 4\n")
    points = np.random.default_rng(0).normal(size=(500, 3))
    np.savetxt(folder / "cloud.xyz", np.r_[points, points[:3], [[np.nan] * 3]])
    grid = np.zeros((12, 10, 8), bool)
    grid[3:9, 2:8, 2:6] = True
    np.save(folder / "grid.npy", grid)
    np.save(folder / "full.npy", np.ones((8, 8, 8), bool))
    (folder / "one.xyz").write_text("0 0 0\n")
    np.savetxt(folder / "ten.xyz", points[:10])
    return folder


def fit(run, source, kind, store, quick, *more):
    outcome = run("fit", source, "--field", kind, "--store", store, *quick, *more, "--json")
    return outcome, json.loads(outcome.stdout) if outcome.stdout else None


def messages(store):
    opened = open_store(store)
    names, texts = opened.column("id"), opened.column("message")
    return {names[row]: texts[row] for row in opened.rows()}


def test_udf_takes_clouds_and_open_meshes(run, scans, quick, tmp_path):
    store = tmp_path / "udf.zarr"

    outcome, result = fit(run, scans, "udf", store, quick)

    assert outcome.exit_code == 7
    assert (result["fitted"], result["failed"], result["open_surfaces"]) == (3, 3, 0)
    told = messages(store)
    assert "1 points that are not finite dropped; 3 doubled points dropped" in told["cloud"]
    assert "at least 4 make a shape" in told["one"]
    assert "--field occ" in told["grid"]
    assert open_store(store).field == "udf"


def test_occ_takes_everything_with_a_surface(run, scans, quick, tmp_path):
    store = tmp_path / "occ.zarr"

    outcome, result = fit(run, scans, "occ", store, quick, "--voxels", "16")

    assert outcome.exit_code == 7
    assert (result["fitted"], result["failed"]) == (4, 2)
    opened, told = open_store(store), messages(store)
    assert "no surface in it" in told["full"]
    cells = dict(zip(opened.column("id"), opened.column("cells"), strict=True))
    # a grid keeps its own cells, padded to a cube; the others get what was asked for
    assert (cells["grid"], cells["cloud"], cells["sheet"]) == (12, 16, 16)
    row = opened.find(["grid"])[0]
    np.testing.assert_allclose(opened.column("transform")[row], [6, 5, 4, 6])


def test_a_voxel_grid_comes_back_in_its_own_units(run, scans, tmp_path):
    store = tmp_path / "occ.zarr"
    settings = ["--set", "pool=1728", "--set", "points=600", "--set", "steps=100", "--jobs", "1"]
    run("fit", scans / "grid.npy", "--field", "occ", "--store", store, *settings)

    outcome = run("reconstruct", store, "--out", tmp_path / "out", "--json")

    row = json.loads(outcome.stdout)
    assert row["iou"] > 0.9
    with np.load(row["file"]) as found:
        corner = np.argwhere(found["voxels"]).min(0) * found["pitch"] + found["origin"]
    assert np.abs(corner - [3, 2, 2]).max() <= 1


@pytest.mark.parametrize("kind", ["udf", "occ"])
def test_a_store_of_another_kind_is_refused_with_the_option_that_fits(
    run, fitted, folder, quick, kind
):
    outcome = run("fit", folder, "--field", kind, "--store", fitted, *quick)

    assert outcome.exit_code == 4
    assert "--field sdf" in outcome.stderr


@pytest.mark.parametrize("setting", ["init_seed=3", "hidden=64", "omega=20.0"])
def test_another_init_is_refused(run, fitted, folder, quick, setting):
    outcome = run("fit", folder, "--field", "sdf", "--store", fitted, *quick, "--set", setting)

    assert outcome.exit_code == 4
    assert "another init" in outcome.stderr
    assert "--store" in outcome.stderr


def test_copies_stay_with_their_object(run, folder, quick, tmp_path):
    store = tmp_path / "ds.zarr"
    labels = tmp_path / "labels.csv"
    labels.write_text("name,class,split\nchair,chair,train\nlamp,lamp,test\nsofa,sofa,train\n")

    outcome, result = fit(run, folder, "sdf", store, quick, "--labels", labels, "--augment", "2")

    assert outcome.exit_code == 0
    assert result["fitted"] == 7
    opened = open_store(store)
    parents, copies = opened.column("parent"), opened.column("copy")
    names, splits = opened.column("id"), opened.column("split")
    found = {names[r]: (parents[r], copies[r], splits[r]) for r in opened.rows()}
    assert found["chair/chair+2"] == ("chair/chair", 2, "train")
    assert found["lamp/lamp"] == ("lamp/lamp", 0, "test")
    assert "lamp/lamp+1" not in found
    # copies differ from their object and from each other
    rows = opened.find(["chair/chair", "chair/chair+1", "chair/chair+2"])
    transform = opened.column("transform")[rows]
    assert len({tuple(row) for row in transform.round(6).tolist()}) == 3

    # a new table moves the chair, and its copies with it, though no copy is asked for now
    labels.write_text("name,class,split\nchair,chair,test\nlamp,lamp,test\nsofa,sofa,train\n")
    _, again = fit(run, folder, "sdf", store, [], "--labels", labels)
    opened = open_store(store)
    names, splits = opened.column("id"), opened.column("split")
    assert again["fitted"] == 0
    assert {splits[r] for r in opened.rows() if names[r].startswith("chair")} == {"test"}


@pytest.mark.slow
def test_copies_can_be_added_later_and_are_compared_with_themselves(run, folder, tmp_path):
    store, chair = tmp_path / "ds.zarr", folder / "chair" / "chair.ply"
    settings = ["--set", "hidden=64", "--set", "steps=60", "--set", "pool=10000", "--jobs", "1"]
    run("fit", chair, "--field", "sdf", "--store", store, *settings, "--set", "points=1000")

    _, result = fit(run, chair, "sdf", store, ["--jobs", "1"], "--augment", "1")
    outcome = run("reconstruct", store, "--out", tmp_path / "m", "--resolution", "48", "--json")

    assert (result["fitted"], result["skipped"]) == (1, 1)
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["chair", "chair+1"]
    assert all(row["chamfer"] < 0.05 for row in rows)


def test_a_fit_that_is_good_enough_stops(run, folder, tmp_path):
    store = tmp_path / "ds.zarr"
    settings = ["--set", "steps=40", "--set", "pool=3000", "--set", "points=300", "--jobs", "1"]

    outcome, _ = fit(run, folder, "sdf", store, settings, "--target-error", "0.5")

    assert outcome.exit_code == 0
    opened = open_store(store)
    assert set(opened.column("steps")[opened.rows()]) == {10}


def test_the_way_of_telling_inside_is_kept(run, folder, quick, tmp_path):
    store = tmp_path / "ds.zarr"

    fit(run, folder, "sdf", store, quick, "--sign", "winding")

    opened = open_store(store)
    assert {opened.column("sign")[row] for row in opened.rows()} == {"winding"}
    assert (opened.column("disagreement")[opened.rows()] < 0.05).all()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_field_is_the_same_bits_whatever_runs_beside_it(run, folder, quick, tmp_path, jobs):
    whole, alone = tmp_path / "whole.zarr", tmp_path / "alone.zarr"
    exact = [*quick[:-2], "--jobs", jobs, "--codec", "exact"]
    fit(run, folder, "udf", whole, exact)
    shutil.rmtree(folder / "chair")
    shutil.rmtree(folder / "lamp")
    fit(run, folder, "udf", alone, [*quick, "--codec", "exact"])

    a, b = open_store(whole), open_store(alone)

    one, other = a.weights(a.find(["sofa/sofa"])), b.weights(b.find(["sofa/sofa"]))
    assert np.array_equal(one.view(np.uint32), other.view(np.uint32))


def test_a_store_of_before_a_column_was_reads_and_grows(run, fitted, folder):
    shutil.rmtree(fitted / "parent")
    shutil.rmtree(fitted / "sign")
    shutil.rmtree(fitted / "cells")

    before = open_store(fitted)
    shutil.copytree(folder / "chair", folder / "stool")
    outcome = run("fit", folder, "--field", "sdf", "--store", fitted, "--jobs", "1", "--json")

    assert before.column("parent")[0] == before.column("id")[0]
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["fitted"] == 1
    after = open_store(fitted)
    parents, names = after.column("parent"), after.column("id")
    assert all(parents[row] == names[row] for row in after.rows())
    assert run("check", fitted).exit_code == 0
