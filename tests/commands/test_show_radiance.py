"""What shows fields, on stores of radiance: reconstruct, interpolate, view, sheets, info, check."""

import json
import re
import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh
from ball_views import ball_views
from near_init import make_store, options, result
from near_radiance import RAYS, make_radiance_store
from PIL import Image

from nf2vec_cli.shapes.views import write_views
from nf2vec_cli.store.schema import CAMERAS, GRID, Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks import turntable

ONE = ("--ids", "one/0", "--jobs", "1")
TINY = ("--count", "2", "--size", "16")
SMALL = {"hidden": 16, "octaves": 4, "grid": 32, "samples": 64, "steps": 60, "step_samples": 2_000}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two dozen dense balls of radiance, embedded."""
    from typer.testing import CliRunner

    from nf2vec_cli.cli import app

    path = make_radiance_store(tmp_path_factory.mktemp("made") / "n.zarr", count=24, dense=300.0)
    whole = open_store(path, mode="a")
    whole.update(whole.rows(), transform=[[0.0, 0, 0, 1]] * 24)
    for line in (["train", str(path), *options(**RAYS)], ["encode", str(path)]):
        outcome = CliRunner().invoke(app, line)
        assert outcome.exit_code == 0, outcome.output
    return path


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made, tmp_path / "n.zarr")


def rows(outcome):
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def opened(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("renderer", ["auto", "torch", "nerfacc"])
def test_pictures_are_made_of_weights(run, made, tmp_path, renderer):
    if renderer == "nerfacc":
        pytest.importorskip("nerfacc")

    (told,) = rows(
        run("reconstruct", made, "--out", tmp_path, *ONE, *TINY, "--renderer", renderer, "--json")
    )

    assert (told["pictures"], told["psnr"], told["problem"]) == (2, None, None)
    assert told["file"] == str(tmp_path / "one" / "0")
    assert opened(tmp_path / "one" / "0" / "001.png").shape == (16, 16, 3)


def test_embeddings_are_decoded_to_pictures(run, made, tmp_path):
    run("reconstruct", made, "--out", tmp_path / "w", *ONE, *TINY)
    line = ("reconstruct", made, "--out", tmp_path / "e", *ONE, *TINY, "--from", "embeddings")
    (told,) = rows(run(*line, "--json"))

    if told["file"]:  # a decoder of twelve steps may see nothing at all
        decoded = opened(tmp_path / "e" / "one" / "0" / "000.png")
        assert (decoded != opened(tmp_path / "w" / "one" / "0" / "000.png")).any()
    else:
        assert "nothing" in told["problem"]


def test_cameras_of_a_file(run, made, tmp_path):
    pose = np.eye(4)
    pose[2, 3] = 4
    file = tmp_path / "cameras.json"
    frame = {"transform_matrix": pose.tolist()}
    file.write_text(json.dumps({"fl_x": 30, "w": 24, "h": 18, "frames": [frame] * 3}))

    (told,) = rows(run("reconstruct", made, "--out", tmp_path, *ONE, "--camera", file, "--json"))

    assert told["pictures"] == 3
    assert opened(tmp_path / "one" / "0" / "002.png").shape == (18, 24, 3)


def test_a_turntable_on_another_ground(run, made, tmp_path):
    words = ("--format", "gif", "--background", "#ff0000", *TINY)

    (told,) = rows(run("reconstruct", made, "--out", tmp_path, *ONE, *words, "--json"))

    with Image.open(tmp_path / "one" / "0.gif") as gif:
        assert gif.n_frames == told["pictures"] == 2
        assert gif.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_a_mesh_has_colours_and_is_in_the_users_units(run, store, tmp_path):
    line = ("reconstruct", store, *ONE, "--as", "mesh", "--resolution", 32, "--json", "--out")

    (told,) = rows(run(*line, tmp_path / "unit"))
    open_store(store, mode="a").update([0], transform=[[10.0, 0, 0, 2]])
    (placed,) = rows(run(*line, tmp_path / "user"))

    unit, user = trimesh.load_mesh(told["file"]), trimesh.load_mesh(placed["file"])
    assert told["count"] == len(unit.faces) > 100
    np.testing.assert_allclose(user.vertices, 2 * unit.vertices + [10, 0, 0], atol=1e-4)
    assert unit.volume > 0
    assert len(np.unique(np.asarray(unit.visual.vertex_colors)[:, :3], axis=0)) > 10


def test_an_object_of_which_nothing_is_left_is_a_problem_and_others_go_on(run, store, tmp_path):
    opened_store = open_store(store, mode="a")
    opened_store.group[GRID][0] = np.zeros(opened_store.group[GRID].shape[1], np.uint8)
    ids = ("--ids", "one/0", "--ids", "two/1", "--jobs", "1")

    for words in (TINY, ("--as", "mesh", "--resolution", "16")):
        outcome = run("reconstruct", store, "--out", tmp_path / words[1], *ids, *words, "--json")

        bad, good = rows(outcome)
        assert outcome.exit_code == 7
        assert "nothing" in bad["problem"]
        assert bad["file"] is None
        assert Path(good["file"]).exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--background", "mauve"), "--background mauve"),
        (("--background", "none", "--format", "gif"), "no alpha"),
        (("--camera", "FILE", "--count", "3"), "--camera"),
        (("--as", "mesh", "--count", "3"), "--as pictures"),
        (("--format", "stl"), "png, gif, mp4"),
        (("--transform", "rotate=z:90"), "radiance"),
        (("--renderer", "cuda"), "renderer"),
    ],
)
def test_what_does_not_go_together_is_refused(run, made, tmp_path, words, told):
    cameras = tmp_path / "cameras.json"
    frame = {"transform_matrix": np.eye(4).tolist()}
    cameras.write_text(json.dumps({"camera_angle_x": 1.0, "frames": [frame]}))
    words = [str(cameras) if word == "FILE" else word for word in words]

    outcome = run("reconstruct", made, "--out", tmp_path / "out", *ONE, *words)

    assert outcome.exit_code == 2
    assert told in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_none_of_cameras_is_refused(run, made, tmp_path):
    file = tmp_path / "cameras.json"
    file.write_text('{"frames": []}')

    outcome = run("reconstruct", made, "--out", tmp_path / "out", "--camera", file)

    assert outcome.exit_code == 5
    assert "no frames" in outcome.stderr


def test_shapes_have_no_pictures_taken(run, tmp_path):
    store = make_store(tmp_path / "ds.zarr", count=7)

    outcome = run("reconstruct", store, "--out", tmp_path / "out", "--as", "pictures")

    assert outcome.exit_code == 2
    assert "sdf" in outcome.stderr


def test_the_extra_for_mp4_is_named(run, made, tmp_path, monkeypatch):
    monkeypatch.setattr(turntable, "find_spec", lambda _: None)

    outcome = run("reconstruct", made, "--out", tmp_path / "out", *ONE, "--format", "mp4")

    assert outcome.exit_code == 2
    assert "nf2vec[video]" in outcome.stderr


def test_a_fit_is_compared_with_its_views_and_drawn_beside_them(run, tmp_path):
    for number in range(2):
        views = ball_views(count=8, held=2, size=24, seed=number)
        write_views(views, tmp_path / "views" / "ball" / f"{number}")
    settings = [w for key, value in SMALL.items() for w in ("--set", f"{key}={value}")]
    store, sheet = tmp_path / "n.zarr", tmp_path / "sheet.png"
    line = ("fit", tmp_path / "views", "--field", "nerf", "--store", store, *settings)
    assert result(run(*line, "--jobs", "1", "--json"))["fitted"] == 2
    words = ("--out", tmp_path / "out", *TINY, "--sheet", sheet, "--jobs", "1", "--json")

    told = rows(run("reconstruct", store, *words))
    views = tmp_path / "views" / "ball" / "0" / "test" / "r_0.png"
    Image.fromarray(np.zeros((24, 24, 4), np.uint8)).save(views)
    changed = rows(run("reconstruct", store, *words))

    known = open_store(store).column("psnr")
    for row, value in zip(told, known[:2], strict=True):
        assert row["psnr"] == pytest.approx(float(value), abs=0.02)
        assert row["psnr"] > 15
    assert [row["psnr"] is None for row in changed] == [True, False]
    assert opened(sheet).shape[1] > 1200


def test_pictures_between_two_objects(run, made, tmp_path):
    line = ("interpolate", made, "one/0", "two/1", "--out", tmp_path, "--steps", "3")

    told = rows(run(*line, "--from", "weights", "--jobs", "1", "--json"))

    assert [row["share"] for row in told] == [0, 0.5, 1]
    assert all(row["count"] > 0 for row in told)
    assert opened(tmp_path / "weights" / "1.png").shape == (220, 220, 3)
    assert opened(tmp_path / "interpolation.png").shape[1] > 3 * 220


def test_between_weights_both_grids_count_and_at_the_ends_one(made):
    from nf2vec_cli.config import Origin
    from nf2vec_cli.store.radiance import read_grids
    from nf2vec_cli.tasks.open_fields import open_fields

    store = open_store(made)
    fields = open_fields(store, Origin.weights)
    a, b = (grid for grid in read_grids(store, [0, 1]))

    assert (fields.between(0, 1, 0.5).grid.numpy() == (a | b)).all()
    assert (fields.between(0, 1, 0.0).grid.numpy() == a).all()
    assert (fields.between(0, 1, 1.0).grid.numpy() == b).all()


def page_of(file):
    text = file.read_text(encoding="utf-8")
    script = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    shapes = re.search(r'<script type="text/plain" id="shapes">(.*?)</script>', text, re.DOTALL)
    return json.loads(script[1]), shapes[1].split("\n")


def test_a_page_shows_pictures_and_coloured_meshes(run, made, tmp_path):
    out = tmp_path / "page.html"

    told = result(run("view", made, "--out", out, "--resolution", 24, "--jobs", "1", "--json"))

    data, shapes = page_of(out)
    assert told["objects"] == len(data["pictures"]) == len(shapes) == 24
    assert data["psnr"] == [30.0] * 24
    with Image.open(BytesIO(b64decode(data["pictures"][0]))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (112, 112))
        assert np.ptp(np.asarray(picture).astype(int)) > 50
    numbers = np.frombuffer(b64decode(next(filter(None, shapes))), "<u2")
    vertices, faces = numbers[:2].astype(int)
    assert len(numbers) == 2 + 3 * vertices + 3 * faces + vertices  # a colour for each
    assert len(np.unique(numbers[-vertices:])) > 5
    assert sum(map(len, shapes)) / 24 < 20_000


def test_embeddings_alone_are_shown_as_their_store_had_them(run, store, tmp_path):
    new, out = tmp_path / "gen.zarr", tmp_path / "page.html"
    quick = ("--set", "steps=5", "--set", "validate_every=5", "--set", "width=8", "--jobs", "1")
    result(run("generate", store, "--class", "one", "--count", "3", "--out", new, *quick, "--json"))

    told = result(run("view", new, "--out", out, "--resolution", 16, "--jobs", "1", "--json"))

    assert told["objects"] == 3
    assert page_of(out)[0]["psnr"] == [None] * 3
    assert open_store(new).group.attrs["up"] == "y"
    assert result(run("check", new, "--json"))["sound"]


def test_hits_are_rendered(run, made, tmp_path):
    sheet, page = tmp_path / "hits.png", tmp_path / "hits.html"

    outcome = run(
        *("retrieve", made, "--query", "one/0", "-k", 2, "--out", sheet, "--html", page),
        *("--jobs", "1"),
    )

    assert outcome.exit_code == 0, outcome.stderr
    drawn = opened(sheet)
    assert np.ptp(drawn[:220, :220].astype(int), axis=(0, 1)).min() > 20  # no grey of a mesh
    assert page.read_text().count("data:image/png") == 3


def test_info_words_a_network_of_radiance(run, made):
    told = result(run("info", made, "--json"))

    assert told["network"].startswith("ReLU 18-16x3-4, 3 octaves, no biases")
    assert told["psnr"] == {"median": 30.0, "p5": 30.0, "worst": 30.0}
    assert "samples on rays" in told["recipe"]
    one = rows(run("info", made, "--objects", "--json"))[0]
    assert one["psnr"] == 30.0
    assert "watertight" not in one


@pytest.mark.parametrize("name", [GRID, CAMERAS])
def test_a_damaged_grid_or_camera_is_found_and_set_aside(run, store, name):
    shard = store / name / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 0x10
    shard.write_bytes(bytes(data))

    found = run("check", store, "--json")
    repaired = result(run("check", store, "--repair", "--json"))

    (finding,) = json.loads(found.stdout)["findings"]
    assert found.exit_code == 4
    assert "cannot be read" in finding["text"]
    assert repaired["sound"]
    status = open_store(store).column("status")
    assert (status == Status.QUARANTINED).sum() == 1
    assert result(run("check", store, "--json"))["sound"]


def test_a_grid_of_another_size_is_found(run, store):
    shutil.rmtree(store / GRID)
    shutil.copytree(store / CAMERAS, store / GRID)

    outcome = run("check", store, "--json")

    findings = json.loads(outcome.stdout)["findings"]
    assert [finding["where"] for finding in findings] == [GRID]
