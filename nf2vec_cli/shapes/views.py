"""Pictures of one object with their cameras, from a folder and back into one."""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass
from math import atan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.carve import carved_box
from nf2vec_cli.shapes.pictures import Colour, Pixels, read_picture
from nf2vec_cli.shapes.transforms import Frame, read_transforms

MOST = 1 << 28  # pixels of all pictures of an object: 400 of 800 x 800 fit, as 1 GiB
UNFIT = (
    "the cameras do not fit the pictures (a camera looks along its -z, and y is up, as in OpenGL)"
)
EVERY = 8  # of the views, one is held out where no file says which
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Views:
    """Pictures of one object and the cameras that took them.

    pixels: [V, H, W, 4] uint8, straight (not premultiplied) colours and alpha. poses: [V, 3, 4]
    float64, camera to world, OpenGL axes: a camera looks along -z, y is up. focal: [V] float32, in
    pixels; the principal point is the picture's middle, W/2, H/2. held: [V] bool, held out of the
    fit. box: [4] float64, centre x, y, z and half side of the cube that holds the object. Poses
    and box are in the user's units. notes: what was changed or left out, in words.
    """

    pixels: Pixels
    poses: Floats
    focal: NDArray[np.float32]
    held: NDArray[np.bool_]
    box: Floats
    notes: tuple[str, ...] = ()


def load_views(folder: Path, *, background: Colour | None = None) -> Views:
    """Read a folder of pictures as the synthetic NeRF scenes are laid out.

    `transforms_train.json` names what is fitted, `transforms_val.json` and `transforms_test.json`
    what is held out; `transforms.json` alone names all, and every 8th view is held out. The box is
    that of the key `aabb`, else that of the silhouettes' visual hull and 5 %.

    Args:
        folder: of one object.
        background: RGB of what is behind the object in pictures without alpha.

    Raises:
        InputError: it is no such folder; what is wrong is named by file and frame.
        OSError: a file cannot be opened.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("it is no folder of pictures")
    listing = read_transforms(folder)
    frames = listing.frames
    pixels = _pixels(frames, background)
    focal = np.array([_pixels_long(frame, pixels.shape[2]) for frame in frames], np.float32)
    poses = np.stack([frame.pose for frame in frames])
    held, told = _held(frames)
    notes = [*listing.notes, *told, *_emptiness(pixels, background)]
    box = listing.box
    if box is None:
        box, note = carved_box(pixels[~held, ..., 3], poses[~held], focal[~held])
        if box is None:
            raise InputError(f"the silhouettes of its pictures do not meet anywhere: {UNFIT}")
        notes.append(note)
    for frame in frames:
        if (np.abs(frame.pose[:, 3] - box[:3]) < box[3]).all():
            why = "" if listing.box is not None else f", as its silhouettes say: {UNFIT}"
            raise InputError(f"{frame.name}: its camera is inside the object's box{why}")
    return Views(pixels, poses, focal, held, box, tuple(notes))


def write_views(views: Views, folder: Path) -> None:
    """Write views as a folder that `load_views` reads, under another name first.

    Raises:
        InputError: there is something of that name.
        OSError: it cannot be written.
    """
    if folder.exists():
        raise InputError(f"{str(folder)!r} is there already")
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    part.mkdir(parents=True)
    try:
        for name, chosen in (("train", ~views.held), ("test", views.held)):
            if chosen.any():
                _write_split(views, np.flatnonzero(chosen), part, name)
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _pixels(frames: tuple[Frame, ...], background: Colour | None) -> Pixels:
    pixels: Pixels | None = None
    for number, frame in enumerate(frames):
        try:
            picture = read_picture(frame.picture, background)
        except (InputError, OSError) as error:
            told = error.message if isinstance(error, InputError) else error.strerror or str(error)
            hint = error.hint if isinstance(error, InputError) else None
            raise InputError(f"{frame.name}: {told}", hint=hint) from error
        if pixels is None:
            if len(frames) * picture.shape[0] * picture.shape[1] > MOST:
                raise InputError(f"its {len(frames)} pictures have more than {MOST:,} pixels")
            pixels = np.empty((len(frames), *picture.shape), np.uint8)
        if picture.shape != pixels.shape[1:]:
            here, first = (f"{w} x {h}" for h, w, _ in (picture.shape, pixels.shape[1:]))
            raise InputError(f"{frame.name}: it is {here} pixels, {frames[0].name} is {first}")
        pixels[number] = picture
    assert pixels is not None  # a listing has a frame
    return pixels


def _pixels_long(frame: Frame, width: int) -> float:
    return frame.focal * (width / frame.unit if frame.unit else 1)


def _held(frames: tuple[Frame, ...]) -> tuple[NDArray[np.bool_], list[str]]:
    held = np.array([frame.held for frame in frames])
    if held.any():
        return held, []
    held[EVERY - 1 :: EVERY] = True
    if not held.any():
        return held, [f"{len(held)} views, too few to hold any out"]
    return held, [f"{held.sum()} of {len(held)} views held out, every {EVERY}th"]


def _emptiness(pixels: Pixels, background: Colour | None) -> list[str]:
    """Refuse pictures of which none, or nothing but, shows the object."""
    shown = pixels[..., 3].any(axis=(1, 2))
    if not shown.any():
        raise InputError("all its pictures are transparent: they show nothing")
    if (pixels[..., 3] == 255).all():
        if background is not None:
            raise InputError("no pixel has the colour of the background")
        raise InputError(
            "the alpha of its pictures is 255 everywhere: nothing says where the object ends",
            hint="save them without alpha and name the colour behind: `--set background=white`",
        )
    return [] if shown.all() else [f"{(~shown).sum()} pictures show nothing"]


def _write_split(views: Views, chosen: NDArray[np.int64], folder: Path, name: str) -> None:
    height, width = views.pixels.shape[1:3]
    low, high = views.box[:3] - views.box[3], views.box[:3] + views.box[3]
    tree: dict[str, Any] = {"w": width, "h": height, "aabb": [*low.tolist(), *high.tolist()]}
    same = bool((views.focal == views.focal[0]).all())
    if same:
        tree["camera_angle_x"] = 2 * atan(0.5 * width / float(views.focal[0]))
    tree["frames"] = []
    (folder / name).mkdir()
    for number, view in enumerate(chosen.tolist()):
        path = f"{name}/r_{number}"
        pose = [*views.poses[view].tolist(), [0.0, 0.0, 0.0, 1.0]]
        frame: dict[str, Any] = {"file_path": f"./{path}", "transform_matrix": pose}
        if not same:
            frame["fl_x"] = float(views.focal[view])
        tree["frames"].append(frame)
        Image.fromarray(views.pixels[view]).save(folder / f"{path}.png")
    (folder / f"transforms_{name}.json").write_text(json.dumps(tree, indent=1))
