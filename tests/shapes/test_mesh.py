import json
import struct
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.mesh import load_mesh, normalise

FORMATS = ["obj", "off", "ply", "stl", "glb", "gltf"]


@pytest.fixture
def part() -> trimesh.Trimesh:
    """An L of boxes: no symmetry hides a wrong axis."""
    return l_shape()


def l_shape() -> trimesh.Trimesh:
    outline = np.array([[0, 0], [3, 0], [3, 1], [1, 1], [1, 2], [0, 2]], float)
    corners = [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5)]
    n = len(outline)
    low, high = (np.column_stack([outline, np.full(n, z)]) for z in (0.0, 0.5))
    sides = [((i, (i + 1) % n, n + (i + 1) % n), (i, n + (i + 1) % n, n + i)) for i in range(n)]
    faces = [c[::-1] for c in corners] + [tuple(n + i for i in c) for c in corners]
    faces += [face for pair in sides for face in pair]
    return trimesh.Trimesh(np.concatenate([low, high]), faces, process=False)


def volume(mesh) -> float:
    corners = mesh.vertices[mesh.faces] - mesh.vertices.mean(0)
    return float(np.linalg.det(corners).sum() / 6)


def save_gltf(shape: trimesh.Trimesh, folder: Path, name: str) -> Path:
    """Write NAME.gltf and the buffers beside it."""
    for file, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(shape)).items():
        (folder / file.replace("model.gltf", f"{name}.gltf")).write_bytes(data)
    return folder / f"{name}.gltf"


def save(shape: trimesh.Trimesh, folder: Path, suffix: str) -> Path:
    if suffix == "gltf":
        return save_gltf(shape, folder, "shape")
    path = folder / f"shape.{suffix}"
    shape.export(path)
    return path


def refused(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            load_mesh(path)
    return str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("upper", [False, True])
def test_every_format_gives_the_same_closed_mesh(part, tmp_path, suffix, upper):
    path = save(part, tmp_path, suffix)
    if upper:
        path = path.rename(path.with_suffix(f".{suffix.upper()}"))

    mesh = load_mesh(path)

    assert mesh.watertight
    assert (len(mesh.vertices), len(mesh.faces)) == (12, 20)
    assert volume(mesh) == pytest.approx(2.0)
    order = np.lexsort(np.round(mesh.vertices, 4).T)
    expected = part.vertices[np.lexsort(part.vertices.T)]
    np.testing.assert_allclose(mesh.vertices[order], expected, atol=1e-6)


@pytest.mark.parametrize("suffix", ["obj", "glb", "ply"])
def test_vertices_split_along_seams_are_merged(tmp_path, suffix):
    whole = trimesh.creation.icosphere(2)
    corners = np.asarray(whole.faces).reshape(-1)
    loose = trimesh.Trimesh(
        whole.vertices[corners], np.arange(len(corners)).reshape(-1, 3), process=False
    )

    mesh = load_mesh(save(loose, tmp_path, suffix))

    assert mesh.watertight
    assert len(mesh.vertices) == len(whole.vertices)


def test_ascii_stl_of_two_solids_is_one_mesh_of_two_bodies(tmp_path):
    solids = [trimesh.creation.box(bounds=[[x, 0, 0], [x + 1, 1, 1]]) for x in (0, 3)]
    text = "\n".join(trimesh.exchange.stl.export_stl_ascii(solid) for solid in solids)
    path = tmp_path / "two.stl"
    path.write_text(text)

    mesh = load_mesh(path)

    assert mesh.watertight
    assert volume(mesh) == pytest.approx(2)


def test_points_of_two_numbers_are_refused(part, tmp_path):
    path = save(part, tmp_path, "gltf")
    path.write_text(path.read_text().replace('"VEC3"', '"VEC2"'))

    assert "has 2 numbers" in refused(path)


def test_scene_nodes_are_placed_by_their_transforms_and_a_mirror_stays_closed(part, tmp_path):
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])
    turn[:3, 3] = [10, 0, 0]
    mirror = np.diag([-2.0, 1, 1, 1])
    mirror[0, 3] = -5
    scene = trimesh.Scene()
    scene.add_geometry(part, node_name="plain", geom_name="part")
    scene.graph.update(frame_to="turned", geometry="part", matrix=turn)
    scene.graph.update(frame_to="mirrored", frame_from="plain", geometry="part", matrix=mirror)
    path = tmp_path / "scene.glb"
    scene.export(path)

    mesh = load_mesh(path)

    assert mesh.watertight
    assert len(mesh.faces) == 60
    assert volume(mesh) == pytest.approx(2 + 2 + 4, rel=1e-5)
    expected = np.concatenate(
        [
            part.vertices,
            trimesh.transform_points(part.vertices, turn),
            trimesh.transform_points(part.vertices, mirror),
        ]
    )
    np.testing.assert_allclose(mesh.vertices.min(0), expected.min(0), atol=1e-5)
    np.testing.assert_allclose(mesh.vertices.max(0), expected.max(0), atol=1e-5)


@pytest.mark.parametrize("suffix", ["obj", "off"])
@pytest.mark.parametrize("coding", ["utf-16", "utf-8-sig"])
def test_text_with_a_byte_order_mark_is_read(part, tmp_path, suffix, coding):
    path = save(part, tmp_path, suffix)
    path.write_bytes(path.read_text().encode(coding))

    assert load_mesh(path).watertight


@pytest.mark.parametrize(
    ("suffix", "line"), [("obj", b"o K\xf6rper\n"), ("off", b"OFF # K\xf6rper\n"), ("ply", b"")]
)
def test_names_and_comments_in_an_old_code_page_do_no_harm(part, tmp_path, suffix, line):
    path = save(part, tmp_path, suffix)
    data = path.read_bytes()
    if suffix == "ply":
        data = data.replace(b"1.0\n", b"1.0\ncomment K\xf6rper\n", 1)
    path.write_bytes(line + data.removeprefix(b"OFF\n"))

    assert load_mesh(path).watertight


def test_an_ascii_stl_may_be_named_in_an_old_code_page(part, tmp_path):
    path = tmp_path / "x.stl"
    text = trimesh.exchange.stl.export_stl_ascii(part).replace("solid ", "solid K\xf6rper", 1)
    path.write_bytes(text.encode("latin-1"))

    assert load_mesh(path).watertight


@pytest.mark.parametrize("extra", [b"\n", b"\xff" * 90])
def test_bytes_after_the_last_triangle_of_a_binary_stl_are_left_out(part, tmp_path, extra):
    path = save(part, tmp_path, "stl")
    path.write_bytes(path.read_bytes() + extra)

    assert load_mesh(path).watertight


def test_a_binary_stl_whose_header_begins_like_text_is_read(part, tmp_path):
    path = save(part, tmp_path, "stl")
    path.write_bytes(b"solid facet endsolid".ljust(80) + path.read_bytes()[80:])

    assert load_mesh(path).watertight


def test_polygons_and_counting_from_the_end_are_read(tmp_path):
    corners = [(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    quads = [(1, 3, 4, 2), (5, 6, 8, 7), (1, 2, 6, 5), (3, 7, 8, 4), (1, 5, 7, 3), (2, 4, 8, 6)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    lines += ["f " + " ".join(str(i - 9) for i in quad) for quad in quads]
    path = tmp_path / "box.obj"
    path.write_text("\n".join(lines))

    mesh = load_mesh(path)

    assert mesh.watertight
    assert volume(mesh) == pytest.approx(1)


def test_an_obj_reads_no_material_file(part, tmp_path):
    path = save(part, tmp_path, "obj")
    path.write_text("mtllib ../../secret.mtl\nusemtl gold\n" + path.read_text())

    assert load_mesh(path).watertight


def glb(tree: dict, payload: bytes = b"") -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    payload += b"\0" * (-len(payload) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    if payload:
        chunks += struct.pack("<II", len(payload), 0x004E4942) + payload
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def one_part(**primitive) -> dict:
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, **primitive}]}],
        "accessors": [{"componentType": 5126, "count": 3, "type": "VEC3"}],
    }


@pytest.mark.parametrize(
    ("tree", "word"),
    [
        (one_part() | {"extensionsRequired": ["KHR_draco_mesh_compression"]}, "draco"),
        (one_part() | {"extensionsRequired": ["EXT_meshopt_compression"]}, "EXT_meshopt"),
        (one_part(extensions={"KHR_draco_mesh_compression": {}}), "compressed"),
        (one_part(mode=6), "fans"),
        (one_part() | {"accessors": [{"count": 10**13, "type": "VEC3"}]}, "sparse"),
        (one_part() | {"extensionsRequired": [1]}, "corrupt"),
        (one_part() | {"accessors": []}, "not there"),
        ({"buffers": [{"uri": "side.bin", "byteLength": 4}]} | one_part(), "compressed or sparse"),
        ([1, 2], "corrupt"),
        ({}, "corrupt|no faces"),
    ],
)
@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_a_gltf_that_would_load_as_zeros_or_not_at_all_is_refused(tmp_path, suffix, tree, word):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(glb(tree) if suffix == "glb" else json.dumps(tree).encode())

    assert any(w in refused(path) for w in word.split("|"))


def test_json_nested_beyond_reason_is_refused(tmp_path):
    path = tmp_path / "deep.gltf"
    path.write_text("[" * 200_000)

    assert "JSON" in refused(path)


@pytest.mark.parametrize("uri", ["../secret.bin", "/etc/hostname", "%2e%2e/secret.bin", "link.bin"])
def test_a_gltf_reads_no_file_outside_its_folder(part, tmp_path, uri):
    folder = tmp_path / "inner"
    folder.mkdir()
    path = save_gltf(part, folder, "x")
    tree = json.loads(path.read_text())
    side = folder / tree["buffers"][0]["uri"]
    side.rename(tmp_path / "secret.bin")
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    tree["buffers"][0]["uri"] = uri
    path.write_text(json.dumps(tree))

    assert "outside its folder" in refused(path)


def test_a_glb_reads_no_other_file(part, tmp_path):
    gltf = save_gltf(part, tmp_path, "x")
    path = tmp_path / "y.glb"
    path.write_bytes(glb(json.loads(gltf.read_text())))

    assert "needs another file" in refused(path)


def test_a_gltf_whose_buffer_is_missing_says_which(part, tmp_path):
    path = save_gltf(part, tmp_path, "x")
    name = json.loads(path.read_text())["buffers"][0]["uri"]
    (tmp_path / name).unlink()

    assert name in refused(path)


def test_a_gltf_side_file_may_have_a_space_in_its_name(part, tmp_path):
    path = save_gltf(part, tmp_path, "x")
    tree = json.loads(path.read_text())
    for buffer in tree["buffers"]:
        (tmp_path / buffer["uri"]).rename(tmp_path / f"my {buffer['uri']}")
        buffer["uri"] = f"my%20{buffer['uri']}"
    path.write_text(json.dumps(tree))

    assert load_mesh(path).watertight


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("ply\nformat ascii 1.0\nelement vertex 3\n", "0 0 0\n1 0 0\n0 1 0\n"),
        ("ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\n", "abc"),
    ],
)
def test_a_ply_without_faces_or_with_a_false_promise_is_refused(tmp_path, header, body):
    path = tmp_path / "x.ply"
    properties = "property float x\nproperty float y\nproperty float z\nend_header\n"
    path.write_text(header + properties + body)

    assert any(word in refused(path) for word in ("cloud", "corrupt"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_file_is_read_or_refused_but_nothing_else(part, tmp_path, suffix):
    """Cut it anywhere, or change bytes anywhere: there is no traceback, no endless loop."""
    good = save(part, tmp_path, suffix).read_bytes()
    rng = np.random.default_rng(7)
    path = tmp_path / f"damaged.{suffix}"
    for attempt in range(120):
        data = bytearray(good[: rng.integers(1, len(good))] if attempt % 3 == 0 else good)
        for _ in range(attempt % 5):
            data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with suppress(InputError):
                load_mesh(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_random_bytes_are_refused_with_a_reason(tmp_path, suffix):
    path = tmp_path / f"noise.{suffix}"
    path.write_bytes(np.random.default_rng(1).bytes(5000))

    assert refused(path)


def test_another_kind_of_file_is_refused_by_its_suffix(tmp_path):
    path = tmp_path / "notes.xyz"
    path.write_text("0 0 0")

    assert ".xyz" in refused(path)


@pytest.mark.slow
def test_a_million_faces_are_read(tmp_path):
    """About 6 s of CPU time and 1.1 GB."""
    path = save(trimesh.creation.icosphere(8), tmp_path, "stl")

    mesh = load_mesh(path)

    assert mesh.watertight
    assert len(mesh.faces) == 1_310_720


@pytest.mark.parametrize("how", ["box", "vertices"])
@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1e-6, 3), (1e9, 5e10), (1e-30, 0)])
def test_normalised_vertices_fill_the_unit_sphere_and_come_back(part, how, scale, offset):
    vertices = part.vertices * scale + offset

    unit, centre, size = normalise(vertices, how=how)

    assert np.linalg.norm(unit, axis=1).max() == pytest.approx(1)
    np.testing.assert_allclose(unit * size + centre, vertices, rtol=1e-12, atol=1e-12 * scale)
    middle = unit.mean(0) if how == "vertices" else (unit.min(0) + unit.max(0)) / 2
    np.testing.assert_allclose(middle, 0, atol=1e-9 * (1 + offset / scale))
