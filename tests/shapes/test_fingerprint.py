import json
import os
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from nf2vec_cli.shapes.fingerprint import fingerprint, glance

OFF = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def test_a_fingerprint_is_the_content_the_size_and_the_time(tmp_path):
    path = tmp_path / "a.off"
    path.write_text(OFF)
    os.utime(path, ns=(5, 1_234_567_890_123_456_789))

    digest, size, mtime = fingerprint(path)

    assert digest == sha256(OFF.encode()).digest()
    assert (size, mtime) == (len(OFF), 1_234_567_890_123_456_789)


def test_a_change_in_the_buffer_of_a_gltf_changes_its_fingerprint(tmp_path):
    path = tmp_path / "x.gltf"
    path.write_text('{"buffers": [{"uri": "my%20side.bin"}, {"uri": "data:,abc"}, {}]}')
    (tmp_path / "my side.bin").write_bytes(b"1")
    before = fingerprint(path)[0]

    (tmp_path / "my side.bin").write_bytes(b"2")

    assert fingerprint(path)[0] != before


@pytest.mark.parametrize(
    "text", ["no json", "[]", "{}", '{"buffers": null}', '{"buffers": [1]}', "[" * 100_000]
)
def test_a_corrupt_gltf_has_a_fingerprint_all_the_same(tmp_path, text):
    path = tmp_path / "x.gltf"
    path.write_text(text)

    assert fingerprint(path)[0] == sha256(text.encode()).digest()


def test_a_fingerprint_reads_nothing_outside_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.gltf"
    path.write_text('{"buffers": [{"uri": "../secret.bin"}]}')
    (tmp_path / "secret.bin").write_bytes(b"1")

    assert fingerprint(path)[0] == sha256(path.read_bytes()).digest()


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.off")

    with pytest.raises(OSError, match="no regular file"):
        fingerprint(tmp_path / "pipe.off")


@pytest.fixture
def folder(tmp_path):
    """A folder of two pictures, of which JSON names one, and one that JSON does not name."""
    folder = tmp_path / "v"
    (folder / "train").mkdir(parents=True)
    for name in ("train/a.png", "train/b.png", "other.png"):
        Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(folder / name)
    frames = [{"file_path": "train/b.png"}, {"file_path": "./train/a"}]
    (folder / "transforms_train.json").write_text(json.dumps({"frames": frames}))
    return folder


def changed(folder, file, data=b"changed") -> bool:
    before = fingerprint(folder, kind="nerf")[0]
    (folder / file).write_bytes(data)
    return fingerprint(folder, kind="nerf")[0] != before


@pytest.mark.parametrize("file", ["train/a.png", "train/b.png", "transforms_train.json"])
def test_a_change_of_cameras_or_pictures_is_seen(folder, file):
    assert changed(folder, file)


@pytest.mark.parametrize("file", ["transforms_test.json", "transforms_val.json"])
def test_new_cameras_are_seen(folder, file):
    assert changed(folder, file, b'{"frames": []}')


def test_what_the_cameras_do_not_name_does_not_count(folder):
    assert not changed(folder, "other.png")
    assert not changed(folder, "notes.txt")


def test_a_missing_picture_is_another_content(folder):
    before = fingerprint(folder)[0]
    (folder / "train" / "a.png").unlink()

    assert fingerprint(folder)[0] != before


def test_pictures_that_change_places_are_seen(folder):
    before = fingerprint(folder)[0]
    (folder / "train" / "a.png").write_bytes(b"1")
    (folder / "train" / "b.png").write_bytes(b"2")
    one = fingerprint(folder)[0]
    (folder / "train" / "a.png").write_bytes(b"2")
    (folder / "train" / "b.png").write_bytes(b"1")

    assert len({before, one, fingerprint(folder)[0]}) == 3


def test_the_size_is_the_sum_and_the_time_that_of_the_latest(folder):
    files = [folder / name for name in ("transforms_train.json", "train/a.png", "train/b.png")]
    for number, file in enumerate(files):
        os.utime(file, ns=(0, 10**18 + number))

    _, size, mtime = fingerprint(folder, kind="nerf")

    assert size == sum(file.stat().st_size for file in files)
    assert mtime == 10**18 + 2
    assert glance(folder, kind="nerf") == (size, mtime)


def test_the_place_of_a_folder_does_not_count(folder):
    before = fingerprint(folder)[0]

    assert fingerprint(folder.rename(folder.with_name("w")))[0] == before


def test_nothing_outside_the_folder_is_read(folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"1")
    frames = [{"file_path": name} for name in ("../secret.png", "link.png")]
    (folder / "transforms.json").write_text(json.dumps({"frames": frames}))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    before = fingerprint(folder)[0]
    (tmp_path / "secret.png").write_bytes(b"2")

    assert fingerprint(folder)[0] == before


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"frames": 1}', '{"frames": [1, {}]}'])
def test_corrupt_cameras_have_a_fingerprint_all_the_same(folder, text):
    assert changed(folder, "transforms_train.json", text.encode())


def test_a_folder_without_cameras_is_no_source(tmp_path):
    for look in (fingerprint, glance):
        with pytest.raises(OSError, match="folder without"):
            look(tmp_path)


@pytest.fixture
def painted(tmp_path):
    """An OBJ with a material, which names a texture."""
    (tmp_path / "x.obj").write_text("mtllib my x.mtl\nv 0 0 0\nusemtl a\n")
    (tmp_path / "my x.mtl").write_text("newmtl a\n  map_Kd -clamp on tex\\wood.png\n")
    (tmp_path / "tex").mkdir()
    (tmp_path / "tex" / "wood.png").write_bytes(b"1")
    return tmp_path


@pytest.mark.parametrize("file", ["x.obj", "my x.mtl", "tex/wood.png"])
def test_materials_and_textures_count_for_radiance_only(painted, file):
    path = painted / "x.obj"
    nerf, plain = fingerprint(path, kind="nerf"), fingerprint(path, kind="sdf")
    (painted / file).write_bytes((painted / file).read_bytes() + b"\n")

    assert fingerprint(path, kind="nerf")[0] != nerf[0]
    assert (fingerprint(path, kind="sdf")[0] == plain[0]) == (file != "x.obj")


def test_a_texture_of_a_gltf_counts_for_radiance_only(tmp_path):
    path = tmp_path / "x.gltf"
    path.write_text('{"buffers": [{"uri": "a.bin"}], "images": [{"uri": "b.png"}]}')
    (tmp_path / "a.bin").write_bytes(b"1")
    (tmp_path / "b.png").write_bytes(b"1")
    nerf, plain = fingerprint(path, kind="nerf")[0], fingerprint(path)[0]
    (tmp_path / "b.png").write_bytes(b"2")

    assert fingerprint(path, kind="nerf")[0] != nerf
    assert fingerprint(path)[0] == plain


def test_a_texture_of_a_ply_counts(tmp_path):
    path = tmp_path / "x.ply"
    path.write_text("ply\nformat ascii 1.0\ncomment TextureFile a.png\nend_header\n")
    (tmp_path / "a.png").write_bytes(b"1")
    before = fingerprint(path, kind="nerf")[0]
    (tmp_path / "a.png").write_bytes(b"2")

    assert fingerprint(path, kind="nerf")[0] != before


def test_a_mesh_without_side_files_has_one_fingerprint_for_all_kinds(tmp_path):
    path = tmp_path / "x.off"
    path.write_text(OFF)

    assert fingerprint(path, kind="nerf") == fingerprint(path)
    assert fingerprint(path)[0] == sha256(OFF.encode()).digest()


@pytest.mark.parametrize(
    ("name", "kind", "tells"),
    [
        ("x.off", "nerf", True),
        ("x.glb", "nerf", True),
        ("x.obj", "sdf", True),
        ("x.ply", "udf", True),
        ("x.obj", "nerf", False),
        ("x.PLY", "nerf", False),
        ("x.gltf", "sdf", False),
    ],
)
def test_size_and_time_tell_only_where_there_are_no_side_files(tmp_path, name, kind, tells):
    path = tmp_path / name
    path.write_text(OFF)

    stat = path.stat()
    assert glance(path, kind=kind) == ((stat.st_size, stat.st_mtime_ns) if tells else None)
