import json
import shutil

import pytest


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
    import trimesh

    assert len(trimesh.load_mesh(row["file"]).faces) == row["faces"]


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
