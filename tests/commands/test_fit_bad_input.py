"""A folder with every kind of bad file in it: the good are fitted, the bad are told apart."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nf2vec_cli.shapes.mesh import load_mesh
from nf2vec_cli.store.store import open_store

BALL = trimesh.creation.icosphere(2)
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
DRACO = {
    "asset": {"version": "2.0"},
    "extensionsUsed": ["KHR_draco_mesh_compression"],
    "extensionsRequired": ["KHR_draco_mesh_compression"],
    "scenes": [{"nodes": [0]}],
    "nodes": [{"mesh": 0}],
    "meshes": [
        {
            "primitives": [
                {
                    "attributes": {"POSITION": 0},
                    "extensions": {
                        "KHR_draco_mesh_compression": {
                            "bufferView": 0,
                            "attributes": {"POSITION": 0},
                        }
                    },
                }
            ]
        }
    ],
    "accessors": [{"componentType": 5126, "count": 8, "type": "VEC3"}],
    "bufferViews": [{"buffer": 0, "byteLength": 4}],
    "buffers": [{"byteLength": 4, "uri": "data:;base64,AAAAAA=="}],
}


def gltf(uri: str) -> str:
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(trimesh.creation.box()))
    tree = json.loads(files["model.gltf"])
    for buffer in tree["buffers"]:
        buffer["uri"] = uri
    return json.dumps(tree)


def exported(kind: str) -> bytes:
    data = BALL.export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


def lying_ply() -> bytes:
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 900000000\n"
    return (head + "property float x\nproperty float y\nproperty float z\nend_header\n").encode()


NOISE = np.random.default_rng(0).bytes(4000)
# file name: content, and words of the reason
BAD: dict[str, tuple[bytes | str, str]] = {
    "empty.obj": ("# nothing in here\n", "no faces"),
    "empty.stl": ("solid nothing\nendsolid nothing\n", "no faces"),
    "zero_bytes.glb": (b"", "empty"),
    "blank.off": ("\n \n", "empty"),
    "cut_ascii.stl": (exported("stl_ascii")[:9000], "cut short"),
    "cut_binary.stl": (exported("stl")[:9000], "cut short"),
    "cut.glb": (exported("glb")[:2500], "cut short"),
    "cut.ply": (exported("ply")[:2500], "cut short"),
    "cut.off": (exported("off")[:2500], "cut short"),
    "noise.ply": (NOISE, "PLY"),
    "noise.glb": (NOISE, "GLB"),
    "noise.obj": (NOISE, "no faces"),
    "noise.stl": (NOISE, "STL"),
    "nan.obj": ("v 0 0 0\nv nan 1 0\nv 1 1 0\nf 1 2 3\n", "NaN"),
    "infinite.off": ("OFF\n3 1 0\n0 0 0\ninf 0 0\n0 1 0\n3 0 1 2\n", "infinite"),
    "no_area.obj": ("v 0 0 0\nv 1 1 1\nv 2 2 2\nf 1 2 3\n", "no area"),
    "one_point.obj": ("v 5 5 5\nv 5 5 5\nv 5 5 5\nf 1 2 3\n", "points are the same"),
    "flat.obj": (SQUARE + "f 1 2 3\nf 1 3 4\n", "open"),
    "flat_both_sides.obj": (SQUARE + "f 1 2 3\nf 1 3 4\nf 3 2 1\nf 4 3 1\n", "open"),
    "half.off": (trimesh.Trimesh(BALL.vertices, BALL.faces[::2]).export(file_type="off"), "open"),
    "draco.gltf": (json.dumps(DRACO), "draco"),
    "no_buffer.gltf": (gltf("lost.bin"), "lost.bin"),
    "thief.gltf": (gltf("../../secret.bin"), "outside its folder"),
    "cloud.ply": (trimesh.PointCloud(BALL.vertices).export(file_type="ply"), "cloud"),
    "cloud.obj": (SQUARE, "cloud"),
    "no_such_vertex.obj": (SQUARE + "f 1 2 9\n", "not there"),
    "no_such_vertex.off": ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "face"),
    "lies.ply": (lying_ply(), "cut short"),
    "other_suffix.ply": (exported("stl"), "PLY"),
    "too_large.obj": ("v 0 0 0\nv 1e200 0 0\nv 0 1e200 0\nf 1 2 3\n", "beyond"),
}


def placed(scale: float, offset: float) -> trimesh.Trimesh:
    return trimesh.Trimesh(BALL.vertices * scale + offset, BALL.faces, process=False)


def off(shape: trimesh.Trimesh) -> str:
    """Write OFF with every digit of the coordinates."""
    points = "\n".join(" ".join(map(repr, row)) for row in shape.vertices.tolist())
    faces = "\n".join(f"3 {a} {b} {c}" for a, b, c in shape.faces)
    return f"OFF\n{len(shape.vertices)} {len(shape.faces)} 0\n{points}\n{faces}\n"


GOOD: dict[str, tuple[float, float]] = {  # file name: radius and offset
    "good.off": (1, 0),
    "Stühle/ein bäll + copy.OFF": (1, 2),
    "tiny.off": (1e-6, 0),
    "tiny_and_off.off": (1e-6, 3),
    "huge.off": (1e9, 5e10),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "shapes"
    for name, (radius, offset) in GOOD.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(off(placed(radius, offset)))
    return folder


def spoil(folder: Path) -> None:
    for name, (content, _) in BAD.items():
        path = folder / "bad" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "bad" / "folder.obj").mkdir()
    (folder / "bad" / "gone.off").symlink_to(folder / "bad" / "nothing.off")
    os.mkfifo(folder / "bad" / "pipe.off")
    (folder.parent / "secret.bin").write_bytes(bytes(1000))


def fit(run, folder, tmp_path, *options):
    quick = ["--set", "steps=3", "--set", "pool=2000", "--set", "points=200", "--jobs", "1"]
    store = tmp_path / "ds.zarr"
    settings = [] if store.exists() else quick
    return run("fit", folder, "--field", "sdf", "--store", store, *settings, *options)


def failed(run, tmp_path) -> dict[str, str]:
    """Read source and reason of each failed object as `info` lists them."""
    outcome = run("info", tmp_path / "ds.zarr", "--failed", "--json")
    assert outcome.exit_code == 0
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert {row["status"] for row in rows} <= {"failed"}
    return {row["source"]: row["message"] for row in rows}


def test_good_files_are_fitted_and_each_bad_one_has_its_reason(run, folder, tmp_path):
    spoil(folder)

    outcome = fit(run, folder, tmp_path, "--json")

    assert outcome.exit_code == 7
    assert len(outcome.stdout.splitlines()) == 1
    result = json.loads(outcome.stdout)
    wanted = {f"bad/{name}": words for name, (_, words) in BAD.items()}
    wanted |= {"bad/gone.off": "not there", "bad/pipe.off": "no regular file"}
    assert (result["fitted"], result["failed"]) == (len(GOOD), len(wanted))
    assert "Traceback" not in outcome.stderr
    reasons = failed(run, tmp_path)
    assert reasons.keys() == wanted.keys()
    wrong = {
        name: reasons[name]
        for name, words in wanted.items()
        if not any(word in reasons[name] for word in words.split("|"))
    }
    assert wrong == {}
    assert {failure["reason"] for failure in result["failures"]} == set(reasons.values())
    for reason in reasons.values():
        assert not any(
            word in reason for word in ("Error", "NoneType", "object has", "invalid lit")
        )


def test_a_second_run_skips_what_failed_and_retry_tries_it_again(run, folder, tmp_path):
    spoil(folder)
    fit(run, folder, tmp_path)
    count = len(BAD) + 2

    again = fit(run, folder, tmp_path, "--json")
    (folder / "bad" / "nan.obj").unlink()
    retried = fit(run, folder, tmp_path, "--json", "--retry-failed")

    assert again.exit_code == 0
    first = json.loads(again.stdout)
    assert (first["fitted"], first["failed"], first["failed_before"]) == (0, 0, count)
    assert first["skipped"] == len(GOOD)
    assert retried.exit_code == 7
    assert json.loads(retried.stdout)["failed"] == count - 1


def test_a_failed_file_that_was_mended_is_fitted_without_being_asked(run, folder, tmp_path):
    (folder / "mended.off").write_text("OFF\n")
    assert fit(run, folder, tmp_path).exit_code == 7

    (folder / "mended.off").write_text(off(BALL))
    outcome = fit(run, folder, tmp_path, "--json")

    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["fitted"] == 1
    assert failed(run, tmp_path) == {}


def test_sizes_and_places_come_back_through_the_transform(run, folder, tmp_path):
    assert fit(run, folder, tmp_path).exit_code == 0

    store = open_store(tmp_path / "ds.zarr")
    for row in store.rows():
        radius, offset = GOOD[store.column("source")[row]]
        *centre, scale = store.column("transform")[row]
        np.testing.assert_allclose(centre, offset, atol=1e-9 * radius + 1e-15 * offset)
        assert scale == pytest.approx(radius, rel=1e-6)
        assert store.column("watertight")[row] == 1


def test_names_keep_their_letters(run, folder, tmp_path):
    fit(run, folder, tmp_path)

    store = open_store(tmp_path / "ds.zarr")
    (row,) = store.find(["ein bäll + copy"])
    assert store.column("id")[row] == "Stühle/ein bäll + copy"
    assert store.column("class")[row] == "Stühle"


def test_two_files_with_one_name_are_two_objects(run, folder, tmp_path):
    (folder / "good.stl").write_bytes(exported("stl"))
    (folder / "Stühle" / "good.off").write_text(off(BALL))

    assert fit(run, folder, tmp_path).exit_code == 0

    found = set(open_store(tmp_path / "ds.zarr").column("id"))
    assert {"good", "good.stl", "Stühle/good"} <= found


def test_a_name_that_is_not_utf8_is_written_with_escapes(run, folder, tmp_path):
    path = os.fsencode(folder) + b"/b\xe4ll.off"
    try:
        with open(path, "w") as file:  # noqa: PTH123
            file.write(off(BALL))
    except OSError:
        pytest.skip("this file system takes no such name")

    first, second = fit(run, folder, tmp_path, "--json"), fit(run, folder, tmp_path, "--json")

    assert json.loads(first.stdout)["fitted"] == len(GOOD) + 1
    assert json.loads(second.stdout)["skipped"] == len(GOOD) + 1
    assert r"b\xe4ll" in open_store(tmp_path / "ds.zarr").column("id")


def test_a_file_that_may_not_be_read_fails_alone(run, folder, tmp_path, monkeypatch):
    (folder / "secret.off").write_text(off(BALL))
    (folder / "secret.off").chmod(0)
    if os.access(folder / "secret.off", os.R_OK):  # root may read anything
        read = Path.read_bytes

        def refuse(path: Path) -> bytes:
            if path.name == "secret.off":
                raise PermissionError(13, "Permission denied")
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", refuse)

    outcome = fit(run, folder, tmp_path)

    assert outcome.exit_code == 7
    assert failed(run, tmp_path) == {"secret.off": "the file cannot be read: Permission denied"}


def test_a_list_with_a_missing_path_and_a_folder_goes_on(run, folder, tmp_path):
    (folder / "dir.obj").mkdir()
    (folder / "list.txt").write_text("good.off\nlost.off\ndir.obj\n")

    outcome = fit(run, folder / "list.txt", tmp_path, "--json")

    assert outcome.exit_code == 7
    assert json.loads(outcome.stdout)["fitted"] == 1
    reasons = failed(run, tmp_path)
    assert reasons["lost.off"] == "the file is not there"
    assert "it is a folder" in reasons["dir.obj"]


def test_an_almost_closed_mesh_is_fitted_with_a_warning(run, folder, tmp_path):
    ball = trimesh.creation.icosphere(4)
    hole = trimesh.Trimesh(ball.vertices, ball.faces[1:], process=False)
    (folder / "hole.off").write_text(off(hole))
    assert not load_mesh(folder / "hole.off").watertight

    outcome = fit(run, folder, tmp_path, "--json")

    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["open_surfaces"] == 1
    assert "warning: 1 fitted shapes are open" in outcome.stderr
    listed = run("info", tmp_path / "ds.zarr", "--open", "--json")
    (row,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert row["id"] == "hole"
    assert row["watertight"] is False
    assert "open" in row["message"]


def test_a_folder_of_bad_files_alone_makes_a_store_of_reasons(run, tmp_path):
    folder = tmp_path / "shapes"
    folder.mkdir()
    (folder / "a.stl").write_bytes(struct.pack("<80sI", b"", 5))

    outcome = fit(run, folder, tmp_path, "--json")

    assert outcome.exit_code == 7
    assert json.loads(outcome.stdout)["fitted"] == 0
    assert "cut short" in failed(run, tmp_path)["a.stl"]
    assert run("check", tmp_path / "ds.zarr").exit_code == 0
