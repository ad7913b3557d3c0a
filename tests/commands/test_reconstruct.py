import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh


@pytest.fixture
def fitted(run, folder, tmp_path):
    """A store with three fields that have a surface: rough ones, in a moment."""
    store = tmp_path / "ds.zarr"
    sizes = ("hidden=64", "steps=60", "pool=10000", "points=1000", "batch=2")
    settings = [word for size in sizes for word in ("--set", size)]
    run("fit", folder, "--field", "sdf", "--store", store, "--jobs", "1", *settings)
    return store


def rows(outcome):
    return [json.loads(line) for line in outcome.stdout.splitlines()]


COARSE = ["--resolution", "32", "--jobs", "1", "--json"]


def test_one_mesh_for_each_object_at_its_id(run, fitted, tmp_path):
    outcome = run("reconstruct", fitted, "--out", tmp_path / "m", *COARSE)

    assert outcome.exit_code == 0
    assert [row["id"] for row in rows(outcome)] == ["chair/chair", "lamp/lamp", "sofa/sofa"]
    assert (tmp_path / "m" / "sofa" / "sofa.ply").is_file()
    assert all(row["chamfer"] is not None for row in rows(outcome))


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "off", "glb"])
def test_formats_and_ids(run, fitted, tmp_path, suffix):
    options = ["--ids", "lamp", "--format", suffix, "--no-compare"]

    outcome = run("reconstruct", fitted, "--out", tmp_path / "m", *options, *COARSE)

    (row,) = rows(outcome)
    assert row["file"].endswith(f"lamp/lamp.{suffix}")
    assert row["chamfer"] is None
    assert len(trimesh.load_mesh(row["file"]).faces) == row["count"]


def test_an_unknown_id_is_code_4_and_names_the_nearest(run, fitted, tmp_path):
    outcome = run("reconstruct", fitted, "--out", tmp_path / "m", "--ids", "lmap")

    assert outcome.exit_code == 4
    assert "lamp" in outcome.stderr
    assert not (tmp_path / "m").exists()


def test_sources_that_moved_are_found_by_option_and_changed_ones_are_not_compared(
    run, fitted, folder, tmp_path
):
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    options = ["--out", tmp_path / "m", "--ids", "lamp", *COARSE]

    lost = run("reconstruct", fitted, *options)
    found = run("reconstruct", fitted, *options, "--sources", moved)
    shutil.copy(moved / "chair" / "chair.ply", moved / "lamp" / "lamp.ply")
    changed = run("reconstruct", fitted, *options, "--sources", moved)

    assert rows(lost)[0]["chamfer"] is None
    assert rows(found)[0]["chamfer"] is not None
    assert rows(changed)[0]["chamfer"] is None


def test_ids_on_standard_input(run, fitted, tmp_path):
    options = ["--out", tmp_path / "m", "--ids", "-", "--no-compare", *COARSE]

    outcome = run("reconstruct", fitted, *options, stdin="lamp/lamp\nsofa/sofa\n")

    assert [row["id"] for row in rows(outcome)] == ["lamp/lamp", "sofa/sofa"]


@pytest.fixture
def fit_one(run, shapes, tmp_path):
    """Make a store of one rough field of a chair, of any kind."""

    def fit(kind):
        store = tmp_path / f"{kind}.zarr"
        sizes = (
            "hidden=64",
            "steps=80",
            "pool=10000",
            "points=1000",
            "voxels=32",
            "muon_rate=0.005",
        )
        settings = [word for size in sizes for word in ("--set", size)]
        source = shapes / "chair" / "chair.ply"
        run("fit", source, "--field", kind, "--store", store, "--jobs", "1", *settings)
        return store

    return fit


@pytest.mark.parametrize("kind", ["sdf", "udf", "occ"])
@pytest.mark.parametrize("form", ["mesh", "cloud", "voxels"])
def test_every_field_becomes_every_form(run, fit_one, tmp_path, kind, form):
    out = tmp_path / "out"

    outcome = run(
        "reconstruct", fit_one(kind), "--out", out, "--as", form, "--points", 500, *COARSE
    )

    assert outcome.exit_code == 0, outcome.stderr
    (row,) = rows(outcome)
    assert row["count"] > 100
    if form == "voxels":
        assert row["iou"] > 0.05
    else:
        assert row["chamfer"] < 0.1
    from nf2vec_cli.shapes.load import load_shape

    found = load_shape(out / Path(row["file"]).name, "occ")
    sizes = {"mesh": "faces", "cloud": "points", "voxels": "grid"}
    size = getattr(found, sizes[form])
    count = size.sum() if form == "voxels" else len(size)
    # reading drops the faces of a mesh that have collapsed
    assert 0.98 * row["count"] <= count <= row["count"]


def test_a_cloud_has_the_points_that_were_asked_for(run, fit_one, tmp_path):
    outcome = run("reconstruct", fit_one("udf"), "--out", tmp_path / "o", "--points", 777, "--json")

    assert rows(outcome)[0]["count"] == 777


@pytest.mark.parametrize("suffix", ["xyz", "npy", "npz"])
def test_cloud_formats_read_back(run, fit_one, tmp_path, suffix):
    options = ["--format", suffix, "--points", 300, "--json"]

    outcome = run("reconstruct", fit_one("udf"), "--out", tmp_path / "o", *options)

    from nf2vec_cli.shapes.cloud import load_cloud

    assert len(load_cloud(Path(rows(outcome)[0]["file"])).points) == 300


def test_a_format_of_another_form_is_refused_with_those_that_fit(run, fit_one, tmp_path):
    outcome = run("reconstruct", fit_one("occ"), "--out", tmp_path / "o", "--format", "stl")

    assert outcome.exit_code == 2
    assert "binvox" in outcome.stderr


def test_a_field_is_turned_in_its_weights_and_comes_out_turned(run, fit_one, tmp_path):
    import numpy as np

    store = fit_one("sdf")
    moves = ["--transform", "rotate=z:90", "--transform", "scale=0.5"]

    plain = run("reconstruct", store, "--out", tmp_path / "a", "--resolution", 64, "--json")
    turned = run(
        "reconstruct", store, "--out", tmp_path / "b", "--resolution", 64, *moves, "--json"
    )

    a, b = (trimesh.load_mesh(rows(outcome)[0]["file"]) for outcome in (plain, turned))
    from nf2vec_cli import open_store

    centre = open_store(store).column("transform")[0, :3]
    expected = (
        (np.asarray(a.vertices) - centre) * 0.5 @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    )
    gap = trimesh.proximity.ProximityQuery(b).vertex(expected + centre)[0]
    assert gap.mean() < 0.01 * np.ptp(np.asarray(b.vertices), axis=0).max()


def test_a_move_that_is_none_is_refused(run, fit_one, tmp_path):
    outcome = run("reconstruct", fit_one("sdf"), "--out", tmp_path, "--transform", "spin=3")

    assert outcome.exit_code == 2
    assert "rotate=z:90" in outcome.stderr


def test_a_sheet_shows_source_and_result(run, fitted, tmp_path):
    from PIL import Image

    sheet = tmp_path / "pictures" / "sheet.png"

    outcome = run("reconstruct", fitted, "--out", tmp_path / "m", "--sheet", sheet, *COARSE)

    assert outcome.exit_code == 0
    with Image.open(sheet) as picture:
        assert picture.size[0] > 1200
        dark = sum(picture.convert("L").histogram()[:128]) / (picture.size[0] * picture.size[1])
    assert 0.02 < dark < 0.6


def test_a_device_that_is_not_there_is_code_6(run, fitted, tmp_path):
    outcome = run("reconstruct", fitted, "--out", tmp_path / "out", "--device", "cuda:99")

    assert outcome.exit_code == 6
    assert "--device cpu" in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_rebuilds_what_a_cpu_does(run, fitted, tmp_path):
    for device in ("cpu", "cuda"):
        words = ("--as", "mesh", "--resolution", 32, "--no-compare", "--device", device)
        assert run("reconstruct", fitted, "--out", tmp_path / device, *words).exit_code == 0

    for file in (tmp_path / "cpu").rglob("*.ply"):
        one, other = (
            trimesh.load(path)
            for path in (file, tmp_path / "cuda" / file.relative_to(tmp_path / "cpu"))
        )
        np.testing.assert_allclose(one.bounds, other.bounds, atol=1e-3)
        assert abs(len(one.faces) - len(other.faces)) <= 0.01 * len(one.faces)
