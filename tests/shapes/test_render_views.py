import json
import struct
from base64 import b64encode
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import trimesh
from painted import COLOURS, HIGH, LOW, block, corners, project, sides, unshared
from PIL import Image

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.carve import carved_box
from nf2vec_cli.shapes.mesh import load_mesh, normalise
from nf2vec_cli.shapes.render_views import AMBIENT, SUN, TOWARDS_SUN, render_mesh

SIZE = 64


def rendered(path, **settings):
    return render_mesh(path, **{"views": 8, "size": SIZE, "seed": 3} | settings)


def saved(mesh, tmp_path, name):
    mesh.export(tmp_path / name)
    return tmp_path / name


@pytest.fixture
def views(tmp_path):
    return rendered(saved(block(), tmp_path, "block.ply"), views=12)


def shade(side):
    sun = TOWARDS_SUN / np.linalg.norm(TOWARDS_SUN)
    return AMBIENT + SUN * max(0.0, float(np.dot(side, sun)))


def looked_up(views, point, side):
    """Give the colours of a point of a side in the views that look at it from outside."""
    found = []
    for pixels, pose, focal in zip(views.pixels, views.poses, views.focal, strict=True):
        towards = pose[:, 3] - point
        if np.dot(towards / np.linalg.norm(towards), side) > 0.3:
            (x, y), *_ = project(point[None], pose, focal, SIZE)
            found.append(pixels[int(y), int(x)].astype(int))
    return found


def assert_six_colours(views, tolerance=3):
    for side, colour in COLOURS.items():
        middle = (LOW + HIGH) / 2 + np.array(side) * (HIGH - LOW) / 2
        seen = looked_up(views, middle, side)
        assert seen
        for pixel in seen:
            assert pixel[3] == 255
            np.testing.assert_allclose(
                pixel[:3], np.array(colour) * shade(side), atol=tolerance, err_msg=str(side)
            )


def test_silhouettes_are_where_the_cameras_put_the_corners(views):
    for pixels, pose, focal in zip(views.pixels, views.poses, views.focal, strict=True):
        rows, columns = np.nonzero(pixels[..., 3])
        places = project(corners(), pose, focal, SIZE)
        low, high = places.min(0), places.max(0)
        np.testing.assert_allclose([columns.min(), rows.min()], low, atol=1)
        np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], high, atol=1)


def test_each_side_shows_its_own_colour_in_its_own_place(views):
    assert_six_colours(views)


def test_cameras_stand_all_around_and_look_at_the_middle(views):
    middle, scale = views.box[:3], views.box[3]
    away = (views.poses[:, :, 3] - middle) / scale
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), 3)
    np.testing.assert_allclose(views.poses[:, :, 2], away / 3, atol=1e-12)
    turns = views.poses[:, :, :3]
    np.testing.assert_allclose(
        turns.transpose(0, 2, 1) @ turns, np.tile(np.eye(3), (16, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    assert (turns[:, 1, 1] > 0).all()  # y is up
    np.testing.assert_allclose(away[~views.held].mean(0), 0, atol=0.2)  # no side is left out


def test_the_box_is_the_unit_sphere_that_other_fields_have(tmp_path):
    # a stray vertex and a collapsed face far away, which cleaning drops
    vertices = [*corners(), (50, 50, 50), (60, 0, 0), (70, 0, 0)]
    faces = [*trimesh.creation.box().faces, (9, 9, 10)]
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    for how in ("box", "vertices"):
        path = saved(mesh, tmp_path, f"{how}.ply")
        _, centre, scale = normalise(load_mesh(path).vertices, how=how)

        np.testing.assert_array_equal(rendered(path, how=how).box, [*centre, scale])


def test_a_quarter_of_the_views_and_four_at_least_are_held_out_and_come_last(tmp_path):
    path = saved(block(), tmp_path, "block.ply")
    for count, apart in ((8, 4), (24, 6)):
        held = rendered(path, views=count, size=16).held
        assert held.tolist() == [False] * count + [True] * apart


def test_the_same_seed_gives_the_same_pictures_and_another_other_ones(tmp_path):
    path = saved(block(), tmp_path, "block.ply")
    one, two, other = (rendered(path, seed=seed) for seed in (1, 1, 2))

    assert (one.pixels == two.pixels).all()
    assert (one.poses == two.poses).all()
    assert not np.allclose(one.poses, other.poses)


def test_alpha_is_coverage_and_colours_are_not_mixed_with_the_ground(views):
    alpha = views.pixels[..., 3]
    assert {0, 64, 128, 191, 255} == set(np.unique(alpha).tolist())
    rim = views.pixels[(alpha > 0) & (alpha < 255)][:, :3].astype(int)
    darkest = min(min(colour) * shade(side) for side, colour in COLOURS.items())
    assert rim.min() >= darkest - 1


def test_faces_are_seen_from_both_sides(tmp_path):
    mesh = block()
    inside_out = block()
    inside_out.faces = mesh.faces[:, ::-1]
    inside_out.visual.face_colors = mesh.visual.face_colors

    one, two = (rendered(saved(m, tmp_path, f"{m.volume > 0}.ply")) for m in (mesh, inside_out))

    assert inside_out.volume < 0 < mesh.volume
    assert (one.pixels == two.pixels).all()


def test_the_hull_of_the_silhouettes_holds_the_block_closely(tmp_path):
    views = rendered(saved(block(), tmp_path, "block.ply"), views=36)

    box, _ = carved_box(views.pixels[..., 3], views.poses, views.focal)

    middle, half = (LOW + HIGH) / 2, (HIGH - LOW).max() / 2
    assert (np.abs(corners() - box[:3]).max(0) <= box[3]).all()
    np.testing.assert_allclose(box[:3], middle, atol=0.1 * half)
    assert half < box[3] < 1.2 * half


# colours by format


def with_face_colours_off(mesh):
    lines = ["OFF", f"{len(mesh.vertices)} {len(mesh.faces)} 0"]
    lines += [" ".join(map(str, vertex)) for vertex in mesh.vertices]
    for face, colour in zip(mesh.faces, mesh.visual.face_colors, strict=True):
        lines.append(f"3 {' '.join(map(str, face))}  {' '.join(map(str, colour))}")
    return "\n".join(lines)


def with_vertex_colours_off(mesh):
    loose = unshared(mesh)
    lines = [f"COFF  # colours of vertices\n\n{len(loose.vertices)} {len(loose.faces)} 0"]
    for vertex, colour in zip(loose.vertices, loose.visual.vertex_colors, strict=True):
        lines.append(" ".join(map(str, (*vertex, *(colour / 255.0)))))
    lines += [f"3 {' '.join(map(str, face))}" for face in loose.faces]
    return "\n".join(lines)


def with_materials_obj(mesh, folder, kd="Kd {} {} {}"):
    """Write an OBJ with a material for each side."""
    lines = ["mtllib ./the colours.mtl", *(f"v {x} {y} {z}" for x, y, z in mesh.vertices)]
    materials = []
    for number, (side, colour) in enumerate(COLOURS.items()):
        materials += [f"newmtl m{number}", kd.format(*(c / 255 for c in colour))]
        lines.append(f"usemtl m{number}")
        lines += [
            f"f {' '.join(str(v + 1) for v in face)}"
            for face, way in zip(mesh.faces, sides(mesh), strict=True)
            if way == side
        ]
    (folder / "the colours.mtl").write_text("\n".join(materials))
    (folder / "block.obj").write_text("\n".join(lines))
    return folder / "block.obj"


def linear(colour):
    """Give sRGB bytes as glTF's linear light."""
    value = np.array(colour) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def with_materials_glb(mesh, folder):
    scene = trimesh.Scene()
    for side, colour in COLOURS.items():
        chosen = [number for number, way in enumerate(sides(mesh)) if way == side]
        part = trimesh.Trimesh(mesh.vertices, mesh.faces[chosen], process=False)
        factor = [*linear(colour), 1.0]
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=factor)
        part.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(part)
    return saved(scene, folder, "block.glb")


def made(how, folder):
    mesh = block()
    if how == "off faces":
        (folder / "block.off").write_text(with_face_colours_off(mesh))
        return folder / "block.off"
    if how == "off vertices":
        (folder / "block.off").write_text(with_vertex_colours_off(mesh))
        return folder / "block.off"
    if how == "obj materials":
        return with_materials_obj(mesh, folder)
    if how == "obj vertices":
        return saved(unshared(mesh), folder, "block.obj")
    if how == "glb materials":
        return with_materials_glb(mesh, folder)
    if how == "ply vertices":
        return saved(unshared(mesh), folder, "block.ply")
    loose = unshared(mesh)
    loose.visual.vertex_colors = [
        (*np.rint(255 * linear(colour[:3])).astype(int), 255)
        for colour in loose.visual.vertex_colors
    ]
    return saved(loose, folder, "block.glb")


@pytest.mark.parametrize(
    ("how", "tolerance"),
    [
        ("ply vertices", 3),
        ("off faces", 3),
        ("off vertices", 3),
        ("obj materials", 3),
        ("obj vertices", 3),
        ("glb materials", 6),  # trimesh keeps linear light in eight bits
        ("glb vertices", 6),
    ],
)
def test_colours_of_each_format(tmp_path, how, tolerance):
    assert_six_colours(rendered(made(how, tmp_path), views=12), tolerance)


def test_what_has_no_colour_is_grey(tmp_path):
    for name in ("block.stl", "block.off", "block.glb"):
        views = rendered(saved(trimesh.creation.box(), tmp_path, name))
        shown = views.pixels[views.pixels[..., 3] == 255][:, :3]
        assert len(shown)
        assert (shown == shown[:, :1]).all()
        assert 90 < shown.min() <= shown.max() < 190


# textures

QUARTERS = np.array([[(220, 30, 30), (30, 220, 30)], [(30, 30, 220), (220, 220, 30)]], np.uint8)


def quarters(side=32, mode="RGB"):
    """Red and green above, blue and yellow below."""
    return Image.fromarray(np.repeat(np.repeat(QUARTERS, side, 0), side, 1)).convert(mode)


def textured_obj(folder, map_line="map_Kd quarters.png", kd="Kd 0 0 0"):
    """Write a square in the plane z = 0, u along x and v along y."""
    lines = ["mtllib square.mtl"]
    lines += [f"v {x} {y} 0" for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    lines += [
        "vt 0 0",
        "vt 1 0",
        "vt 1 1",
        "vt 0 1",
        "usemtl painted",
        "f 1/1 2/2 3/3",
        "f 1/1 3/3 4/4",
    ]
    (folder / "square.obj").write_text("\n".join(lines))
    (folder / "square.mtl").write_text(f"newmtl painted\n{kd}\n{map_line}\n")
    return folder / "square.obj"


def textured_gltf(folder, uri, mode="OPAQUE"):
    """Write the same square as a glTF, of which v runs down."""
    points = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], "<f4")
    uv = np.array([(0, 1), (1, 1), (1, 0), (0, 0)], "<f4")
    index = np.array([0, 1, 2, 0, 2, 3], "<u2")
    blob = points.tobytes() + uv.tobytes() + index.tobytes()
    starts = np.cumsum([0, points.nbytes, uv.nbytes, index.nbytes]).tolist()
    tree = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}
                ]
            }
        ],
        "buffers": [
            {
                "byteLength": len(blob),
                "uri": "data:application/octet-stream;base64," + b64encode(blob).decode(),
            }
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": low, "byteLength": high - low}
            for low, high in pairwise(starts)
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": 5126,
                "count": 4,
                "type": "VEC3",
                "min": [-1, -1, 0],
                "max": [1, 1, 0],
            },
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
        "images": [{"uri": uri}],
        "textures": [{"source": 0}],
        "materials": [
            {"alphaMode": mode, "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
        ],
    }
    (folder / "square.gltf").write_text(json.dumps(tree))
    return folder / "square.gltf"


def data_uri(image):
    stream = BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode()


def assert_quarters(views):
    for row, y in enumerate((0.5, -0.5)):
        for column, x in enumerate((-0.5, 0.5)):
            for side in ((0, 0, 1), (0, 0, -1)):
                seen = looked_up(views, np.array([x, y, 0.0]), side)
                assert seen
                for pixel in seen:
                    wanted = QUARTERS[row, column] * shade(side)
                    np.testing.assert_allclose(pixel[:3], wanted, atol=3)


@pytest.mark.parametrize("name", ["quarters.png", "quarters.jpg", "my quarters.bmp"])
def test_a_texture_of_an_obj_lies_the_right_way_up(tmp_path, name):
    quarters().save(tmp_path / name, quality=100)

    views = rendered(textured_obj(tmp_path, f"map_Kd {name}"), views=24)

    assert views.notes == ()
    assert_quarters(views)


def test_a_texture_of_a_gltf_lies_the_right_way_up(tmp_path):
    (tmp_path / "in").mkdir()
    quarters().quantize(8).save(tmp_path / "in" / "my quarters.png")

    for uri in ("in/my%20quarters.png", data_uri(quarters())):
        views = rendered(textured_gltf(tmp_path, uri), views=24)
        assert views.notes == ()
        assert_quarters(views)


def test_textures_are_mixed_between_texels_and_repeat_beyond_the_edge(tmp_path):
    Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).save(
        tmp_path / "quarters.png"
    )
    views = rendered(textured_obj(tmp_path), views=24)

    side = (0, 0, 1)
    for x, wanted in ((-0.5, 0), (0.0, 127), (0.5, 255), (0.9, 153)):
        for pixel in looked_up(views, np.array([x, 0.1, 0]), side):
            assert abs(pixel[0] - wanted * shade(side)) < 30


@pytest.mark.parametrize(
    "line",
    [
        "map_Kd C:\\Users\\me\\quarters.png",
        "map_Kd /home/me/quarters.png",
        "map_Kd .\\quarters.png",
        "map_Kd -s 1 1 1 quarters.png",
        'map_Kd "quarters.png"',
    ],
)
def test_names_as_other_computers_write_them_are_found_beside_the_file(tmp_path, line):
    quarters().save(tmp_path / "quarters.png")

    assert_quarters(rendered(textured_obj(tmp_path, line), views=24))


def test_holes_are_cut_where_a_texture_says_so(tmp_path):
    pixels = np.array(quarters(mode="RGBA"))
    pixels[:32, :32, 3] = 100  # the red quarter
    uri = data_uri(Image.fromarray(pixels))
    point, side = np.array([-0.5, 0.5, 0.0]), (0, 0, 1)

    for mode, alpha in (("MASK", 0), ("BLEND", 0), ("OPAQUE", 255)):
        views = rendered(textured_gltf(tmp_path, uri, mode), views=24)
        assert {pixel[3] for pixel in looked_up(views, point, side)} == {alpha}
        assert {pixel[3] for pixel in looked_up(views, -point, side)} == {255}


def test_what_is_behind_a_hole_is_seen_through_it(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    path = textured_gltf(tmp_path, data_uri(Image.fromarray(pixels)), "MASK")
    scene = trimesh.load_scene(path, process=False)
    wall = trimesh.creation.box(bounds=[[-1, -1, -0.9], [1, 1, -0.8]])
    wall = trimesh.Trimesh(wall.vertices, wall.faces, process=False)
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[1.0, 0.0, 0.0, 1.0])
    wall.visual = trimesh.visual.TextureVisuals(material=material)
    scene.add_geometry(wall)

    views = rendered(saved(scene, tmp_path, "both.glb"), views=24)

    side = (0, 0, 1)
    for pixel in looked_up(views, np.array([0.0, 0, -0.8]), side):
        np.testing.assert_allclose(pixel, [255 * shade(side), 0, 0, 255], atol=2)


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_without_its_texture_a_material_has_its_plain_colour_and_a_note(tmp_path, content):
    if content is not None:
        (tmp_path / "quarters.png").write_bytes(content)

    views = rendered(textured_obj(tmp_path, kd="Kd 0.2 0.4 0.8"), views=24)

    assert any("quarters.png" in note or "texture" in note for note in views.notes)
    side = (0, 0, 1)
    for pixel in looked_up(views, np.array([-0.5, 0.5, 0]), side):
        np.testing.assert_allclose(pixel[:3], np.array([51, 102, 204]) * shade(side), atol=2)


@pytest.mark.parametrize("name", ["square.gltf", "square.glb"])
def test_without_its_texture_a_gltf_says_so(tmp_path, name):
    for uri in ("gone.png", "data:image/png;base64,AAAA"):
        path = textured_gltf(tmp_path, uri)
        if name == "square.glb":
            path = as_glb(path)

        assert any("texture" in note or "gone.png" in note for note in rendered(path).notes)


def as_glb(path):
    text = path.read_bytes()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A)
    path.with_suffix(".glb").write_bytes(head + text)
    return path.with_suffix(".glb")


def test_without_its_materials_an_obj_is_grey_with_a_note(tmp_path):
    path = textured_obj(tmp_path)
    (tmp_path / "square.mtl").unlink()

    views = rendered(path)

    assert any("square.mtl" in note for note in views.notes)
    assert (np.ptp(views.pixels[..., :3], axis=-1) == 0).all()


@pytest.mark.parametrize("line", ["map_Kd ../quarters.png", "map_Kd in\\..\\..\\quarters.png"])
def test_a_texture_outside_the_folder_is_refused(tmp_path, line):
    quarters().save(tmp_path / "quarters.png")
    (tmp_path / "here").mkdir()

    with pytest.raises(InputError, match="outside its folder"):
        rendered(textured_obj(tmp_path / "here", line))
    with pytest.raises(InputError, match="outside its folder"):
        rendered(textured_gltf(tmp_path / "here", "../quarters.png"))


def test_a_texture_that_is_a_link_out_of_the_folder_is_refused(tmp_path):
    quarters().save(tmp_path / "secret.png")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "quarters.png").symlink_to(tmp_path / "secret.png")

    with pytest.raises(InputError, match="outside its folder"):
        rendered(textured_obj(tmp_path / "here"))


def test_a_texture_of_too_many_pixels_is_left_out(tmp_path):
    Image.new("1", (9000, 10)).save(tmp_path / "quarters.png")

    views = rendered(textured_obj(tmp_path))

    assert any("9000 x 10" in note for note in views.notes)


def test_a_fine_texture_is_seen_as_its_mean(tmp_path):
    checks = np.indices((1024, 1024)).sum(0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "quarters.png")

    views = rendered(textured_obj(tmp_path), views=24)

    side = (0, 0, 1)
    for x in (-0.61, -0.23, 0.17, 0.55):
        for pixel in looked_up(views, np.array([x, x / 2, 0.0]), side):
            np.testing.assert_allclose(pixel[:3], 127.5 * shade(side), atol=2)


def test_a_large_texture_is_drawn_all_the_same(tmp_path):
    quarters(side=1500).save(tmp_path / "quarters.png")

    assert_quarters(rendered(textured_obj(tmp_path), views=24))


# scenes and bad files


def test_parts_are_placed_by_the_scene(tmp_path):
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])
    turn[:3, 3] = [5, 0, 0]
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box(), node_name="plain", geom_name="part")
    scene.graph.update(frame_to="turned", geometry="part", matrix=turn)
    views = rendered(saved(scene, tmp_path, "scene.glb"))

    points = trimesh.creation.box().vertices
    points = np.concatenate([points, trimesh.transform_points(points, turn)])
    for pixels, pose, focal in zip(views.pixels, views.poses, views.focal, strict=True):
        rows, columns = np.nonzero(pixels[..., 3])
        places = project(points, pose, focal, SIZE)
        np.testing.assert_allclose([columns.min(), rows.min()], places.min(0), atol=1)
        np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], places.max(0), atol=1)


@pytest.mark.parametrize("name", ["a.obj", "a.off", "a.ply", "a.stl", "a.glb", "a.gltf", "a.png"])
@pytest.mark.parametrize("content", [b"", b"\0\1\2nonsense" * 50])
def test_what_is_no_mesh_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError):
        rendered(tmp_path / name)


def test_a_nan_and_a_cloud_are_refused(tmp_path):
    (tmp_path / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (tmp_path / "cloud.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")

    with pytest.raises(InputError, match="NaN"):
        rendered(tmp_path / "nan.obj")
    with pytest.raises(InputError, match="no faces"):
        rendered(tmp_path / "cloud.obj")
