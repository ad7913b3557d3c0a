import json
import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from painted import block, corners, project
from PIL import Image

from nf2vec_cli.errors import ConfigError, InputError
from nf2vec_cli.shapes.pictures import colour_of
from nf2vec_cli.shapes.render_views import render_mesh
from nf2vec_cli.shapes.views import Views, load_views, write_views

SIZE, ANGLE = 32, 0.7


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Views:
    path = tmp_path_factory.mktemp("mesh") / "block.ply"
    block().export(path)
    return render_mesh(path, views=16, size=SIZE, seed=0)


def ring(count, distance=4.0):
    """Give poses [count, 4, 4] that look at the origin from a ring, z up."""
    poses = []
    for turn in np.arange(count) * 2 * np.pi / count:
        back = np.array([np.cos(turn), np.sin(turn), 0.4])
        back /= np.linalg.norm(back)
        right = np.array([-np.sin(turn), np.cos(turn), 0])
        pose = np.eye(4)
        pose[:3, :4] = np.column_stack([right, np.cross(back, right), back, distance * back])
        poses.append(pose)
    return np.array(poses)


def disc(size=SIZE, radius=0.3):
    """Draw a ball at the origin, nearly: a green disc in the middle."""
    x = (np.arange(size) + 0.5) / size - 0.5
    inside = x[:, None] ** 2 + x[None] ** 2 < radius**2
    picture = np.zeros((size, size, 4), np.uint8)
    picture[inside] = (10, 200, 30, 255)
    return picture


@pytest.fixture
def scene(tmp_path):
    """Write a folder of ten pictures; `change` may alter its JSON, `mode` its pictures."""

    def write(change=None, *, name="transforms.json", count=10, picture=None, **keys) -> Path:
        folder = tmp_path / "scene"
        folder.mkdir(exist_ok=True)
        picture = Image.fromarray(disc()) if picture is None else picture
        stem = Path(name).stem
        frames = []
        for number, pose in enumerate(ring(count)):
            picture.save(folder / f"{stem}_{number}.png")
            frames.append({"file_path": f"./{stem}_{number}", "transform_matrix": pose.tolist()})
        tree = {"camera_angle_x": ANGLE, "frames": frames} | keys
        if change is not None:
            tree = change(tree) or tree
        (folder / name).write_text(json.dumps(tree))
        return folder

    return write


def refused(folder, **settings) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            load_views(folder, **settings)
    return str(caught.value)


# what is read


def test_written_views_are_read_as_they_were(taken, tmp_path):
    folder = tmp_path / "block"

    write_views(taken, folder)
    found = load_views(folder)

    assert (found.pixels == taken.pixels).all()
    assert (found.held == taken.held).all()
    np.testing.assert_allclose(found.poses, taken.poses, atol=1e-12)
    np.testing.assert_allclose(found.focal, taken.focal, rtol=1e-6)
    np.testing.assert_allclose(found.box, taken.box, rtol=1e-12)
    assert found.notes == ()
    kinds = [found.pixels.dtype, found.poses.dtype, found.focal.dtype, found.held.dtype]
    assert kinds == [np.uint8, np.float64, np.float32, bool]
    assert [path.name for path in tmp_path.iterdir()] == ["block"]  # nothing half made is left


def test_views_of_several_focal_lengths_are_written_and_read(taken, tmp_path):
    focal = np.linspace(30, 60, len(taken.focal)).astype(np.float32)
    write_views(Views(taken.pixels, taken.poses, focal, taken.held, taken.box), tmp_path / "v")

    np.testing.assert_allclose(load_views(tmp_path / "v").focal, focal)


def test_views_are_not_written_over_what_is_there(taken, tmp_path):
    (tmp_path / "v").mkdir()

    with pytest.raises(InputError, match="there already"):
        write_views(taken, tmp_path / "v")


def test_what_is_read_back_shows_the_corners_where_they_are(taken, tmp_path):
    write_views(taken, tmp_path / "v")
    views = load_views(tmp_path / "v")

    for pixels, pose, focal in zip(views.pixels, views.poses, views.focal, strict=True):
        rows, columns = np.nonzero(pixels[..., 3])
        places = project(corners(), pose, focal, SIZE)
        np.testing.assert_allclose([columns.min(), rows.min()], places.min(0), atol=1)
        np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], places.max(0), atol=1)


def test_train_is_fitted_and_test_and_val_are_held_out(scene):
    for name, count in (("train", 5), ("val", 2), ("test", 3)):
        folder = scene(name=f"transforms_{name}.json", count=count, aabb=[-1, -1, -1, 1, 1, 1])

    views = load_views(folder)

    assert views.held.tolist() == [False] * 5 + [True] * 5
    assert views.notes == ()


@pytest.mark.parametrize(("count", "apart"), [(7, []), (8, [7]), (15, [7]), (16, [7, 15])])
def test_every_eighth_view_is_held_out_where_no_file_says_which(scene, count, apart):
    views = load_views(scene(count=count))

    assert np.flatnonzero(views.held).tolist() == apart
    assert "held out" in views.notes[0] or "hold any out" in views.notes[0]


@pytest.mark.parametrize("name", ["r_{}.png", "./r_{}.png", "r_{}", "sub\\..\\r_{}"])
def test_a_picture_is_found_with_and_without_suffix(scene, name):
    def change(tree):
        for number, frame in enumerate(tree["frames"]):
            frame["file_path"] = name.format(number)

    folder = scene(change)
    (folder / "sub").mkdir()
    for number in range(10):
        (folder / f"transforms_{number}.png").rename(folder / f"r_{number}.png")

    assert len(load_views(folder).pixels) == 10


def test_the_focal_length_comes_from_the_nearest_of_its_four_keys(scene):
    def change(tree):
        tree |= {"fl_x": 50.0, "w": 2 * SIZE}
        tree["frames"][1]["camera_angle_x"] = 0.5
        tree["frames"][2]["fl_x"] = 80.0
        tree["frames"][3] |= {"fl_x": 80.0, "w": SIZE}

    focal = load_views(scene(change)).focal

    angle = 0.5 * SIZE / np.tan(0.25)
    np.testing.assert_allclose(focal[:5], [25, angle, 40, 80, 25], rtol=1e-6)
    np.testing.assert_allclose(load_views(scene()).focal, 0.5 * SIZE / np.tan(ANGLE / 2), rtol=1e-6)


def test_a_uniform_scale_of_the_axes_is_taken_away(scene):
    def change(tree):
        for frame in tree["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, :3] *= 2.5
            frame["transform_matrix"] = matrix.tolist()

    np.testing.assert_allclose(load_views(scene(change)).poses, ring(10)[:, :3], atol=1e-12)


def test_an_aabb_gives_the_box_by_its_longest_side(scene):
    flat = load_views(scene(aabb=[-1, -2, 0, 1, 0.4, 1])).box
    nested = load_views(scene(aabb=[[-1, -2, 0], [1, 0.4, 1]])).box

    np.testing.assert_allclose(flat, [0, -0.8, 0.5, 1.2])
    np.testing.assert_allclose(nested, flat)


def test_without_an_aabb_the_box_is_that_of_the_silhouettes(scene):
    views = load_views(scene(count=24))

    # the disc's rim at the cameras' distance
    radius = 4.0 * 0.3 * 2 * np.tan(ANGLE / 2)
    assert np.abs(views.box[:2]).max() < 0.1 * radius
    assert radius < views.box[3] < 1.5 * radius
    assert "box from silhouettes" in views.notes[-1]


def test_the_box_is_found_for_scenes_of_any_size_and_place(scene):
    def change(tree):
        for frame in tree["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, 3] = 100 * matrix[:3, 3] + [5000, 0, -300]
            frame["transform_matrix"] = matrix.tolist()

    small, large = load_views(scene(count=24)).box, load_views(scene(change, count=24)).box

    np.testing.assert_allclose(large[:2], [5000, 0], atol=20)
    assert large[3] == pytest.approx(100 * small[3], rel=0.3)


def test_a_picture_that_is_named_twice_is_kept_once_and_held_out(scene):
    box = [-1, -1, -1, 1, 1, 1]
    folder = scene(name="transforms_train.json", aabb=box)
    tree = json.loads((folder / "transforms_train.json").read_text())
    tree["frames"] = tree["frames"][:2]
    (folder / "transforms_test.json").write_text(json.dumps(tree))

    views = load_views(folder)

    assert views.held.sum() == 2
    assert len(views.held) == 10
    assert "2 frames left out" in views.notes[0]


def test_what_a_lens_does_is_noted(scene):
    notes = load_views(scene(k1=0.1, cx=20.0, w=SIZE, cy=16.0, h=SIZE)).notes

    assert any("distortion" in note for note in notes)
    assert any("cx is +4.0 pixels" in note for note in notes)
    assert not any("cy" in note for note in notes)


# pictures


def as_mode(mode):
    image = Image.fromarray(disc())
    if mode == "P":
        return image.quantize(4)  # with transparency in its palette
    if mode == "LA":
        return image.convert("LA")
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_pictures_with_alpha_of_any_kind_are_read(scene, mode):
    pixels = load_views(scene(picture=as_mode(mode))).pixels

    assert (pixels[..., 3] == disc()[..., 3]).all()
    shown = pixels[0][disc()[..., 3] > 0][:, :3]
    wanted = (10, 200, 30) if mode != "LA" else (124, 124, 124)
    np.testing.assert_allclose(shown, np.tile(wanted, (len(shown), 1)), atol=2)


def sixteen_bits(channels):
    """Make a PNG of 16 bits a channel, which Pillow cannot write: on nothing, or on white."""
    inside = disc()[..., 3] > 0
    kind = {1: 0, 2: 4, 4: 6}[channels]
    values = np.zeros((SIZE, SIZE, channels), ">u2")
    if channels == 1:
        values[...] = np.where(inside, 0x80FF, 0xFFFF)[..., None]
    else:
        values[inside] = (*[0x80FF] * (channels - 1), 0xFFFF)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_sixteen_bits_are_read(scene, channels):
    folder = scene()
    for path in folder.glob("*.png"):
        path.write_bytes(sixteen_bits(channels))

    pixels = load_views(folder, background=(255, 255, 255)).pixels

    assert (pixels[..., 3] == disc()[..., 3]).all()
    np.testing.assert_allclose(pixels[0][disc()[..., 3] > 0][:, :3], 128, atol=1)


@pytest.mark.parametrize("text", ["white", "black", "#102030", "FFFFFF"])
def test_a_background_becomes_transparent(scene, text):
    colour = colour_of(text)
    picture = disc()
    flat = np.where(picture[..., 3:] > 0, picture[..., :3], np.array(colour, np.uint8))
    pixels = load_views(scene(picture=Image.fromarray(flat)), background=colour).pixels

    assert (pixels[..., 3] == picture[..., 3]).all()
    assert (pixels[0][picture[..., 3] > 0][:, :3] == (10, 200, 30)).all()


def test_jpegs_are_read_with_a_background(scene):
    def change(tree):
        for frame in tree["frames"]:
            frame["file_path"] += ".jpg"

    folder = scene(change)
    flat = np.where(disc()[..., 3:] > 0, disc()[..., :3], np.uint8(255))
    for path in list(folder.glob("*.png")):
        Image.fromarray(flat).save(path.with_suffix(".jpg"), quality=100, subsampling=0)
        path.unlink()

    pixels = load_views(folder, background=(255, 255, 255)).pixels

    assert ((pixels[..., 3] > 0) == (disc()[..., 3] > 0)).mean() > 0.97


@pytest.mark.parametrize("text", ["", "blue", "#12345", "#12345g", "# 12345", "rgb(1,2,3)"])
def test_what_is_no_colour_is_refused(text):
    with pytest.raises(ConfigError, match="no colour"):
        colour_of(text)


def test_alpha_is_taken_though_a_background_is_named(scene):
    pixels = load_views(scene(), background=(10, 200, 30)).pixels

    assert (pixels[0] == disc()).all()


# what is refused


def of_frame(**keys):
    """Alter the third frame."""

    def change(tree):
        tree["frames"][2] |= keys

    return change


def with_turn(turn):
    def change(tree):
        matrix = np.array(tree["frames"][2]["transform_matrix"])
        matrix[:3, :3] = turn(matrix[:3, :3])
        tree["frames"][2]["transform_matrix"] = matrix.tolist()

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.pop("frames") and None, "transforms.json: it has no frames"),
        (lambda tree: tree | {"frames": []}, "transforms.json: it has no frames"),
        (lambda tree: tree | {"frames": {"a": 1}}, "transforms.json: it has no frames"),
        (lambda tree: tree | {"frames": [1]}, "frame 0: it is no JSON object"),
        (lambda tree: [tree], "transforms.json: it is no JSON object"),
        (lambda tree: tree.pop("camera_angle_x") and None, "frame 0 .*neither a camera_angle_x"),
        (lambda tree: tree | {"camera_angle_x": 0}, "frame 0 .*camera_angle_x is 0"),
        (lambda tree: tree | {"camera_angle_x": 4}, "camera_angle_x is 4"),
        (lambda tree: tree | {"camera_angle_x": "wide"}, "camera_angle_x is 'wide'"),
        (lambda tree: tree | {"camera_angle_x": float("nan")}, "camera_angle_x is nan"),
        (lambda tree: tree | {"fl_x": -5}, "fl_x and w must be more than 0"),
        (lambda tree: tree | {"fl_x": 10**400}, "fl_x is 10000"),
        (lambda tree: tree | {"fl_x": 50, "fl_y": 60}, "pixels must be square"),
        (lambda tree: tree | {"aabb": [0, 0, 0, 1]}, "its aabb is no box"),
        (lambda tree: tree | {"aabb": [0, 0, 0, 1, 1, -1]}, "its aabb is no box"),
        (lambda tree: tree | {"aabb": "large"}, "its aabb is no box"),
        (lambda tree: tree | {"camera_model": "OPENCV_FISHEYE"}, "no pinhole"),
        (of_frame(file_path=None), "frame 2: its file_path is None"),
        (of_frame(file_path=7), "frame 2: its file_path is 7"),
        (of_frame(file_path=""), "frame 2: its file_path is ''"),
        (of_frame(file_path="a\0b"), "frame 2: its file_path"),
        (of_frame(file_path="./gone"), "frame 2: its picture './gone' is not there"),
        (of_frame(file_path="x" * 5000), "frame 2: its picture 'xxx.* is not there"),
        (of_frame(file_path="."), "frame 2: its picture '.' lies outside the folder"),
        (of_frame(file_path="sub"), "frame 2: its picture 'sub' is not there"),
        (of_frame(file_path="../secret.png"), "frame 2: its picture .* outside the folder"),
        (of_frame(file_path="..\\secret"), "frame 2: its picture .* outside the folder"),
        (of_frame(file_path="/etc/hostname"), "frame 2: its picture .* outside the folder"),
        (of_frame(file_path="link"), "frame 2: its picture 'link' lies outside the folder"),
        (of_frame(file_path="loop"), "frame 2: its picture 'loop' is not there"),
        (of_frame(file_path="pipe.png"), "frame 2: its picture 'pipe.png' is not there"),
        (of_frame(transform_matrix=None), "frame 2 .* no 4 x 4 matrix"),
        (of_frame(transform_matrix=[[1, 2], [3]]), "frame 2 .* no 4 x 4 matrix"),
        (of_frame(transform_matrix=[[{}] * 4] * 4), "frame 2 .* no 4 x 4 matrix"),
        (of_frame(transform_matrix=[[10**400] * 4] * 4), "frame 2 .* no 4 x 4 matrix"),
        (of_frame(transform_matrix=np.full((4, 4), np.nan).tolist()), "frame 2 .* NaN"),
        (of_frame(transform_matrix=np.ones((4, 4)).tolist()), "frame 2 .* last row"),
        (with_turn(lambda turn: turn @ np.diag([1, 1, 1.01])), "frame 2 .* no rotation"),
        (with_turn(lambda turn: turn * 0), "frame 2 .* no rotation"),
        (with_turn(lambda turn: turn * 1e200), "frame 2 .* no rotation"),
        (with_turn(lambda turn: turn @ np.diag([1, 1, -1])), "frame 2 .* left-handed"),
    ],
)
def test_json_that_cannot_be_used_is_refused_by_frame(scene, tmp_path, change, words):
    Image.fromarray(disc()).save(tmp_path / "secret.png")
    folder = scene(change)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe.png")

    assert re.search(words, refused(folder))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"null"])
def test_what_is_no_json_is_refused(scene, text):
    folder = scene()
    (folder / "transforms.json").write_bytes(text)

    assert refused(folder).startswith("transforms.json: it")


def test_json_that_is_too_big_or_elsewhere_is_refused(scene, tmp_path, monkeypatch):
    folder = scene()
    monkeypatch.setattr("nf2vec_cli.shapes.transforms.HEAVIEST", 100)
    assert "too big" in refused(folder)
    (folder / "transforms.json").rename(tmp_path / "t.json")
    (folder / "transforms.json").symlink_to(tmp_path / "t.json")
    assert "no file inside its folder" in refused(folder)


def test_a_folder_without_cameras_and_no_folder_are_refused(tmp_path):
    assert "transforms_train.json" in refused(tmp_path)
    assert "no folder" in refused(tmp_path / "gone")


def test_views_that_are_all_held_out_are_refused(scene):
    folder = scene(name="transforms_test.json")
    assert "none is left to fit" in refused(folder)
    (folder / "transforms_train.json").write_bytes((folder / "transforms_test.json").read_bytes())
    assert "name the same pictures" in refused(folder)


def test_two_boxes_of_one_object_are_refused(scene):
    scene(name="transforms_train.json", aabb=[-1, -1, -1, 1, 1, 1])
    folder = scene(name="transforms_test.json", aabb=[-2, -1, -1, 1, 1, 1])

    assert refused(folder).startswith("transforms_test.json: its aabb is another")


def bomb(width, height):
    """Make a PNG that promises many pixels and holds none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + head
        + struct.pack(">I", zlib.crc32(b"IHDR" + head))
        + struct.pack(">I", 1 << 20)
        + b"IDAT"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"no picture", "no PNG or JPEG"),
        (b"GIF89a", "no PNG or JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no PNG or JPEG"),
        (bomb(60_000, 60_000), "corrupt, cut short|pixels"),
        (bomb(12_000, 12_000), "12000 x 12000 pixels"),
        (bomb(20, 4097), "20 x 4097 pixels"),
        (bomb(32, 32), "corrupt, cut short or no PNG"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused_by_frame(scene, content, words):
    folder = scene()
    (folder / "transforms_2.png").write_bytes(content)

    assert re.search(rf"^transforms.json frame 2 \(./transforms_2\): .*({words})", refused(folder))


def test_a_picture_that_is_cut_short_is_refused(scene):
    folder = scene()
    path = folder / "transforms_2.png"
    path.write_bytes(path.read_bytes()[:-40])

    assert "frame 2" in refused(folder)


def test_a_picture_that_may_not_be_read_is_refused_by_frame(scene, monkeypatch):
    folder = scene()
    plain = Path.read_bytes

    def shut(path):
        if path.name == "transforms_2.png":
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", shut)

    assert "frame 2 (./transforms_2): Permission denied" in refused(folder)


def test_pictures_without_alpha_need_a_background(scene):
    picture = Image.fromarray(disc()).convert("RGB")
    with pytest.raises(InputError, match=r"frame 0 .* no alpha") as caught:
        load_views(scene(picture=picture))
    assert "background=white" in caught.value.hint


def test_alpha_that_says_nothing_is_refused(scene):
    full, empty = disc(), disc()
    full[..., 3], empty[..., 3] = 255, 0

    assert "255 everywhere" in refused(scene(picture=Image.fromarray(full)))
    assert "show nothing" in refused(scene(picture=Image.fromarray(empty)))
    flat = Image.fromarray(full).convert("RGB")
    assert "colour of the background" in refused(scene(picture=flat), background=(1, 99, 99))


def test_a_single_empty_picture_is_noted_and_does_not_carve(scene):
    folder = scene(count=24)
    Image.fromarray(np.zeros_like(disc())).save(folder / "transforms_3.png")

    notes = load_views(folder).notes

    assert any("1 pictures show nothing" in note for note in notes)


def test_pictures_of_two_sizes_are_refused(scene):
    folder = scene()
    Image.fromarray(disc(24)).save(folder / "transforms_2.png")

    assert "frame 2 (./transforms_2): it is 24 x 24 pixels" in refused(folder)


def test_more_pixels_than_memory_should_hold_are_refused(scene, monkeypatch):
    monkeypatch.setattr("nf2vec_cli.shapes.views.MOST", 10 * SIZE * SIZE - 1)

    assert "more than 10,239 pixels" in refused(scene())


def test_a_camera_inside_the_box_is_refused(scene):
    assert "frame 0 (./transforms_0): its camera is inside" in refused(
        scene(aabb=[-5, -5, -5, 5, 5, 5])
    )


def test_cameras_of_another_convention_are_refused(scene):
    """In OpenCV's a camera looks along its +z, y down."""

    def change(tree):
        for frame in tree["frames"]:
            matrix = np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])
            frame["transform_matrix"] = matrix.tolist()

    picture = disc()
    picture = np.roll(picture, 6, axis=0)  # not symmetric
    assert "the cameras do not fit" in refused(scene(change, picture=Image.fromarray(picture)))
