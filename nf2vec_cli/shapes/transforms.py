"""The cameras of a folder of pictures: `transforms*.json` as in the synthetic NeRF scenes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite, pi, tan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError

PATTERN = "transforms*.json"  # a folder that holds one is one shape
WHOLE = "transforms.json"
HELD = {"transforms_train.json": False, "transforms_val.json": True, "transforms_test.json": True}
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")  # tried after a frame's name
HEAVIEST = 32 << 20  # bytes of a JSON file
ROUNDING = 1e-3  # of a rotation's columns: how far they may be from orthonormal
Floats = NDArray[np.float64]
Tree = dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """One picture: what to call it, its file, and the camera that took it.

    pose: [3, 4], camera to world. focal: focal length, measured where a picture is `unit` pixels
    wide; None: in the picture's own pixels.
    """

    name: str
    picture: Path
    pose: Floats
    focal: float
    unit: float | None
    held: bool


@dataclass(frozen=True)
class Listing:
    """The frames of one object, its box (centre and half side) if it is told, and remarks."""

    frames: tuple[Frame, ...]
    box: Floats | None
    notes: tuple[str, ...]


def names_views(names: list[str]) -> bool:
    """Tell from the names in a folder whether it holds the pictures of one object."""
    return any(fnmatchcase(name, PATTERN) for name in names)


def is_view_folder(path: Path) -> bool:
    """Tell whether a path is a folder that holds the pictures of one object."""
    return path.is_dir() and any(path.glob(PATTERN))


def read_transforms(folder: Path) -> Listing:
    """Read the frames of `transforms_train/val/test.json`, or else of `transforms.json`.

    Raises:
        InputError: one is no such file, or a frame of it is wrong; it says which.
    """
    held = {name: value for name, value in HELD.items() if (folder / name).exists()}
    if not held:
        held = {WHOLE: False}
        if not (folder / WHOLE).exists():
            wanted = ", ".join((WHOLE, *HELD))
            raise InputError(f"the folder holds none of {wanted}")
    frames: list[Frame] = []
    boxes: dict[str, Floats] = {}
    notes: list[str] = []
    for name, apart in held.items():
        tree = read_tree(folder, name)
        frames += _frames(folder, name, tree, held=apart)
        box = _box(name, tree)
        if box is not None:
            boxes[name] = box
        notes += [note for note in _left_out(tree) if note not in notes]
    if all(frame.held for frame in frames):
        raise InputError(f"{', '.join(held)}: all views are held out, none is left to fit")
    first = next(iter(boxes.values()), None)
    for name, box in boxes.items():
        if first is not None and not np.allclose(box, first):
            raise InputError(f"{name}: its aabb is another than that of {next(iter(boxes))}")
    return Listing(*_once(frames, notes, first))


def named_pictures(folder: Path) -> list[Path]:
    """List the files that make a view folder: its JSON files and the pictures they name, sorted.

    What is wrong with them is not said here: what cannot be read or lies outside is left out.
    """
    files: set[Path] = set()
    for name in (WHOLE, *HELD):
        try:
            tree = read_tree(folder, name)
        except (InputError, OSError):
            if _inside(folder, folder / name):
                files.add(folder / name)
            continue
        files.add(folder / name)
        frames = tree.get("frames")
        for frame in frames if isinstance(frames, list) else []:
            try:
                files.add(_picture(folder, frame.get("file_path"), ""))
            except (InputError, AttributeError):
                continue
    return sorted(files)


def _once(
    frames: list[Frame], notes: list[str], box: Floats | None
) -> tuple[tuple[Frame, ...], Floats | None, tuple[str, ...]]:
    """Keep a picture that is named more than once only once, held out if any frame says so."""
    last: dict[Path, Frame] = {}
    for frame in frames:  # those held out come last
        last[frame.picture] = frame
    if len(last) < len(frames):
        notes.append(f"{len(frames) - len(last)} frames left out that name a picture again")
    if all(frame.held for frame in last.values()):
        raise InputError("all views are held out: the frames to fit name the same pictures")
    return tuple(last.values()), box, tuple(notes)


def read_tree(folder: Path, name: str) -> Tree:
    """Read a JSON object from a file that lies inside a folder."""
    file = folder / name
    if not _inside(folder, file):
        raise InputError(f"{name}: it is no file inside its folder")
    if file.stat().st_size > HEAVIEST:
        raise InputError(f"{name}: it is too big ({file.stat().st_size >> 20} MiB)")
    try:
        tree = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: its JSON cannot be read") from error
    if not isinstance(tree, dict):
        raise InputError(f"{name}: it is no JSON object")
    return tree


def _frames(folder: Path, name: str, tree: Tree, *, held: bool) -> list[Frame]:
    found = []
    for where, frame in listed_frames(name, tree):
        path = frame.get("file_path")
        picture = _picture(folder, path, where)
        named = f"{where} ({path})"
        pose = rigid(frame.get("transform_matrix"), named)
        found.append(Frame(named, picture, pose, *focal_of(frame, tree, named), held))
    return found


def listed_frames(name: str, tree: Tree) -> Iterator[tuple[str, Tree]]:
    """Yield the frames of a file's JSON, and what to call them."""
    listed = tree.get("frames")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{name}: it has no frames")
    model = str(tree.get("camera_model", "")).upper()
    if "FISHEYE" in model or "EQUIRECT" in model or "ORTHO" in model:
        raise InputError(f"{name}: its camera_model {model!r} is no pinhole camera")
    for number, frame in enumerate(listed):
        where = f"{name} frame {number}"
        if not isinstance(frame, dict):
            raise InputError(f"{where}: it is no JSON object")
        yield where, frame


def _picture(folder: Path, name: object, where: str) -> Path:
    """Find a frame's file, with or without suffix; it must lie in the folder."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise InputError(f"{where}: its file_path is {name!r:.80}, which is no path")
    plain = folder / name.replace("\\", "/")
    for suffix in SUFFIXES:
        target = plain.with_name(plain.name + suffix) if plain.name else plain
        try:
            if not target.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{where}: its picture {name!r} lies outside the folder")
            if target.is_file():
                return target
        except (OSError, RuntimeError, ValueError):  # a link to itself, or a name that is too long
            continue
    raise InputError(f"{where}: its picture {name!r:.200} is not there")


def _inside(folder: Path, file: Path) -> bool:
    try:
        return file.is_file() and file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def rigid(rows: object, where: str) -> Floats:  # [3, 4]
    """Check a camera's pose; a uniform scale of its axes is taken away."""
    try:
        matrix = np.array(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise InputError(f"{where}: its transform_matrix is no 4 x 4 matrix of numbers")
    if not np.isfinite(matrix).all():
        raise InputError(f"{where}: its transform_matrix has a NaN or an infinite number")
    if len(matrix) == 4 and not np.allclose(matrix[3], (0, 0, 0, 1), atol=ROUNDING):
        raise InputError(f"{where}: the last row of its transform_matrix is not 0 0 0 1")
    with np.errstate(all="ignore"):
        scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
        turn = matrix[:3, :3] / scale
        off = np.abs(turn.T @ turn - np.eye(3)).max()
    if scale < 0:
        raise InputError(f"{where}: its transform_matrix mirrors: it is left-handed")
    if not off <= ROUNDING:
        raise InputError(f"{where}: its transform_matrix is no rotation with a place")
    left, _, right = np.linalg.svd(turn)
    return np.column_stack([left @ right, matrix[:3, 3]])


def focal_of(frame: Tree, tree: Tree, where: str) -> tuple[float, float | None]:
    """Give the focal length and the width of the picture that it is measured in."""
    for facts in (frame, tree):
        length = number_of(facts, "fl_x", where)
        if length is not None:
            width = number_of(facts, "w", where) or number_of(tree, "w", where)
            high = number_of(facts, "fl_y", where) or length
            if not (length > 0 and (width is None or width > 0)):
                raise InputError(f"{where}: its fl_x and w must be more than 0")
            if abs(high / length - 1) > 0.01:
                raise InputError(f"{where}: its fl_x and fl_y differ: pixels must be square")
            return length, width
        angle = number_of(facts, "camera_angle_x", where)
        if angle is not None:
            if not 0 < angle < pi:
                raise InputError(f"{where}: its camera_angle_x is {angle:g}, not between 0 and pi")
            return 0.5 / tan(angle / 2), 1.0
    raise InputError(f"{where}: there is neither a camera_angle_x nor a fl_x")


def number_of(facts: Tree, key: str, where: str) -> float | None:
    """Read a number; None if there is none of that name."""
    value = facts.get(key)
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float) else float("nan")
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise InputError(f"{where}: its {key} is {value!r:.80}, which is no number")
    return number


def _box(name: str, tree: Tree) -> Floats | None:  # [4]
    if tree.get("aabb") is None:
        return None
    try:
        low, high = np.array(tree["aabb"], np.float64).reshape(2, 3)
    except (TypeError, ValueError, OverflowError):
        low, high = np.full(3, np.nan), np.full(3, np.nan)
    if not (np.isfinite([low, high]).all() and (low < high).all()):
        raise InputError(f"{name}: its aabb is no box: x0, y0, z0, x1, y1, z1 with x0 < x1 ...")
    return np.array([*((low + high) / 2), (high - low).max() / 2])


def _left_out(tree: Tree) -> list[str]:
    """Tell what a lens does beyond a pinhole, which we do not model."""
    notes = []
    if any(tree.get(key) for key in ("k1", "k2", "k3", "k4", "p1", "p2")):
        notes.append("the distortion of the lens is not undone")
    for key, side in (("cx", "w"), ("cy", "h")):
        middle, size = tree.get(key), tree.get(side)
        if (
            isinstance(middle, int | float)
            and isinstance(size, int | float)
            and abs(middle - size / 2) > 1
        ):
            notes.append(f"{key} is {middle - size / 2:+.1f} pixels off the middle, which is taken")
    return notes
