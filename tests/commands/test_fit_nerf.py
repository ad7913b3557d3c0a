"""Radiance by the command line: folders of pictures, coloured meshes, and bad ones."""

import json
import shutil

import numpy as np
import pytest
import trimesh
from ball_views import CENTRE, RADIUS, ball_views
from PIL import Image

from nf2vec_cli.shapes.views import write_views
from nf2vec_cli.store.radiance import read_cameras, read_grids
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store

SMALL = [
    *("--set", "hidden=16", "--set", "layers=2", "--set", "octaves=4", "--set", "grid=32"),
    *("--set", "samples=64", "--set", "step_samples=1000", "--jobs", "1"),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two balls in two classes, as folders of pictures."""
    root = tmp_path_factory.mktemp("views")
    for number, name in enumerate(("ball/train/one", "other/test/two")):
        (root / name).parent.mkdir(parents=True)
        write_views(ball_views(seed=number), root / name)
    return root


def fit(run, folder, store, *options, steps=60):
    return run(
        "fit",
        *(folder, "--field", "nerf", "--store", store, "--set", f"steps={steps}"),
        *SMALL,
        *options,
        "--json",
    )


def test_folders_of_pictures_are_fitted_and_measured_on_views_held_out(run, pictures, tmp_path):
    outcome = fit(run, pictures, tmp_path / "n.zarr")

    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["fitted"] == 2
    store = open_store(tmp_path / "n.zarr")
    rows = store.rows(Status.DONE)
    assert [store.column("id")[row] for row in rows] == ["ball/train/one", "other/test/two"]
    assert [store.column("class")[row] for row in rows] == ["ball", "other"]
    assert [store.column("split")[row] for row in rows] == ["train", "test"]
    assert (store.column("psnr")[rows] > 15).all()
    assert (store.column("error")[rows] < 0.1).all()
    cameras = read_cameras(store, rows)
    assert [len(one.poses) for one in cameras] == [15, 15]
    assert [one.held.sum() for one in cameras] == [3, 3]
    # fitted in the box that the silhouettes were carved into: back in the pictures' own units
    for row, points, grid in zip(rows, store.surface(rows), read_grids(store, rows), strict=True):
        transform = store.column("transform")[row]
        away = np.linalg.norm(points * transform[3] + transform[:3] - CENTRE, axis=1)
        assert abs(np.median(away) - RADIUS) < 0.1
        assert 0 < grid.mean() < 0.7

    again = fit(run, pictures, tmp_path / "n.zarr")
    assert json.loads(again.stdout) | {"seconds": 0} == {
        **json.loads(outcome.stdout),
        "fitted": 0,
        "skipped": 2,
        "seconds": 0,
    }


def test_a_changed_picture_is_fitted_again(run, pictures, tmp_path):
    folder = tmp_path / "views"
    shutil.copytree(pictures, folder)
    fit(run, folder, tmp_path / "n.zarr", steps=2)
    write = ball_views(seed=5)
    shutil.rmtree(folder / "ball/train/one")
    write_views(write, folder / "ball/train/one")

    outcome = fit(run, folder, tmp_path / "n.zarr", steps=2)

    assert json.loads(outcome.stdout)["fitted"] == 1


def test_pictures_are_taken_of_a_coloured_mesh_and_kept(run, tmp_path):
    mesh = trimesh.creation.box((1, 0.6, 0.4))
    mesh.visual.face_colors = [200, 30, 30, 255]
    (tmp_path / "box").mkdir()
    mesh.export(tmp_path / "box" / "red.ply")
    options = ("--views", 10, "--size", 32)

    outcome = fit(run, tmp_path / "box", tmp_path / "n.zarr", *options, steps=120)

    assert outcome.exit_code == 0, outcome.stderr
    store = open_store(tmp_path / "n.zarr")
    assert store.column("psnr")[0] > 12
    points = np.abs(store.surface([0])[0] * store.column("transform")[0, 3])
    assert np.median(np.abs((points - [0.5, 0.3, 0.2]).max(1))) < 0.05  # on the sides of the box
    kept = list((tmp_path / "n.views").iterdir())
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    forced = fit(run, tmp_path / "box", tmp_path / "n.zarr", *options, "--force", steps=120)
    assert json.loads(forced.stdout)["fitted"] == 1
    assert kept[0].stat().st_mtime_ns == before


def test_bad_folders_are_reported_and_the_others_go_on(run, pictures, tmp_path):
    folder = tmp_path / "views"
    shutil.copytree(pictures, folder)
    for name in ("clear", "gone", "nan"):
        shutil.copytree(pictures / "ball/train/one", folder / "ball/train" / name)
    for file in (folder / "ball/train/clear/train").glob("*.png"):
        Image.new("RGBA", (32, 32)).save(file)
    next((folder / "ball/train/gone/train").glob("*.png")).unlink()
    listed = folder / "ball/train/nan/transforms_train.json"
    text = json.loads(listed.read_text())
    text["frames"][0]["transform_matrix"][0][0] = float("nan")
    listed.write_text(json.dumps(text))

    outcome = fit(run, folder, tmp_path / "n.zarr", steps=2)

    assert outcome.exit_code == 7
    found = json.loads(outcome.stdout)
    assert found["fitted"] == 2
    reasons = {one["id"].rpartition("/")[2]: one["reason"] for one in found["failures"]}
    assert set(reasons) == {"clear", "gone", "nan"}
    assert "transparent" in reasons["clear"]
    assert "is not there" in reasons["gone"]
    assert "transform_matrix" in reasons["nan"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--augment", 2), 3, "a copy of other proportions has no pictures"),
        (("--target-error", 0.01), 3, "fits of nerf take all their steps"),
        (("--crop", 0.5), 3, "nerf is fitted to pictures"),
        (("--background", "blueish"), 3, "'blueish' is no colour"),
        (("--set", "octaves=40"), 3, "octaves"),
    ],
)
def test_settings_without_meaning_are_refused(run, pictures, tmp_path, options, code, said):
    outcome = fit(run, pictures, tmp_path / "n.zarr", *options)

    assert outcome.exit_code == code
    assert said in outcome.stderr
    assert not (tmp_path / "n.zarr").exists()


def test_a_folder_without_cameras_holds_no_shape(run, tmp_path):
    (tmp_path / "views" / "train").mkdir(parents=True)
    Image.new("RGBA", (8, 8)).save(tmp_path / "views" / "train" / "r_0.png")

    outcome = fit(run, tmp_path / "views", tmp_path / "n.zarr")

    assert outcome.exit_code == 5
    assert "holds no shape" in outcome.stderr
    assert "transforms*.json" in outcome.stderr


def test_bench_compares_ways_to_fit_and_to_render(run, pictures):
    small = [option for option in SMALL if option not in ("--jobs", "1")]
    outcome = run("bench", "radiance", pictures, "--steps", 3, *small, "--json")

    assert outcome.exit_code == 0, outcome.stderr
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    ways = {(row["work"], row["way"]): row for row in rows}
    one, together = ways["fit", "one by one"], ways["fit", "together"]
    assert together["difference"] < 1e-3
    assert together["rays"] == one["rays"]
    assert ways["fit", "without a grid"]["samples"] > 2 * one["samples"]
    if ("render", "nerfacc") in ways:
        assert ways["render", "nerfacc"]["difference"] < 1e-4


@pytest.mark.parametrize("verb", ["fit", "alignment"])
def test_benchmarks_of_shapes_refuse_radiance(run, shapes, verb):
    outcome = run("bench", verb, shapes, "--field", "nerf")

    assert outcome.exit_code == 2
    assert "nf2vec bench radiance" in outcome.stderr
