"""Cameras without pictures: any `transforms*.json` as the synthetic NeRF scenes have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.transforms import focal_of, listed_frames, number_of, read_tree, rigid

MOST = 10_000  # cameras of a file
LARGEST = 4096  # pixels of a picture's side


@dataclass(frozen=True)
class Shots:
    """Cameras and the size of the pictures that they take, in the user's units.

    poses: [V, 3, 4], camera to world, OpenGL axes; focal: [V], in pixels; size: [V, 2], width and
    height.
    """

    poses: NDArray[np.float64]
    focal: NDArray[np.float64]
    size: NDArray[np.int64]


def read_cameras(file: Path, *, size: int | None = None, usual: int) -> Shots:
    """Read the cameras of a file; the pictures that it may name are not looked for.

    Args:
        file: JSON with `frames`, and `camera_angle_x` or `fl_x`.
        size: pixels of a picture's width; None: as the file says by `w`.
        usual: width where neither says it. Pictures are square where the file has no `w` and `h`.

    Raises:
        InputError: it is no such file, or a frame of it is wrong; it says which.
        OSError: it cannot be opened.
    """
    tree = read_tree(file.parent, file.name)
    poses, focal, sizes = [], [], []
    for where, frame in listed_frames(file.name, tree):
        length, unit = focal_of(frame, tree, where)
        told = {
            key: number_of(frame, key, where) or number_of(tree, key, where) for key in ("w", "h")
        }
        width = size or round(told["w"] or usual)
        if unit is None and size is not None:
            raise InputError(f"{where}: its fl_x is in pixels, and no w says of how many")
        height = round(width * told["h"] / told["w"]) if told["w"] and told["h"] else width
        if not (1 <= width <= LARGEST and 1 <= height <= LARGEST):
            raise InputError(f"{where}: {width} x {height} pixels are no size of a picture")
        poses.append(rigid(frame.get("transform_matrix"), where))
        focal.append(length * width / unit if unit else length)
        sizes.append((width, height))
    if len(poses) > MOST:
        raise InputError(f"{file.name}: it has {len(poses):,} cameras, {MOST:,} are the most")
    return Shots(np.stack(poses), np.array(focal), np.array(sizes, np.int64))
