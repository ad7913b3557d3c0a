"""Where an object is, from the silhouettes in its pictures: its visual hull, and the hull's box."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

CELLS = 64  # along each axis of the cube that is carved
FINEST = 128  # pixels of a silhouette's longer side: cells are no smaller
MARGIN = 1.05
FAINT = 8  # of 255: alpha that does not count, as programs that cut objects out leave some about
SHARE = 0.5  # of the views that see the best seen cell: fewer, and a cell does not count
SCENE = (0.0, 0.0, 0.0, 1.5)  # the cube of the synthetic NeRF scenes: centre and half side
PASSES = 3  # each carves the cube that the one before has found
Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class _Silhouettes:
    """Pictures that show something: each pixel's distance to the silhouette, and their cameras.

    step: pixels that are one in `away`; shape: height and width of the pictures.
    """

    away: list[Floats]
    poses: Floats
    focal: Floats
    shape: tuple[int, ...]
    step: int


def carved_grid(
    alpha: NDArray[np.uint8],  # [V, H, W]
    poses: Floats,  # [V, 3, 4]
    focal: NDArray[np.floating],  # [V]
    *,
    cells: int,
) -> NDArray[np.bool_]:  # [cells, cells, cells]
    """Find the cells of [-1, 1]^3 that lie in the visual hull, by cameras in that space.

    A cell counts if many views see it, and in each of them the silhouette comes within the cell's
    own size and one pixel.

    Args:
        alpha: coverage; pictures without any are not looked at.
        poses: camera to world, OpenGL axes.
        focal: in pixels.
        cells: along each axis.
    """
    known = _silhouettes(alpha, poses, focal)
    grid, views = _carved(np.array([0.0, 0, 0, 1]), cells, known)
    # what no more see is not the object: it is where cameras that contradict each other do not look
    return grid if views >= SHARE * len(known.away) else np.zeros_like(grid)


def carved_box(
    alpha: NDArray[np.uint8],  # [V, H, W]
    poses: Floats,  # [V, 3, 4]
    focal: NDArray[np.floating],  # [V]
) -> tuple[Floats | None, str]:  # [4]
    """Find the cube around the visual hull, and say how.

    As `carved_grid` does it. The cube of the synthetic scenes is tried first; if the hull fills it
    to its walls, or is not in it, the cube that all cameras look into.

    Args:
        alpha, poses, focal: as there.

    Returns:
        Centre and half side, or None if no cell counts; and a note.
    """
    known = _silhouettes(alpha, poses, focal)
    best: Floats | None = None
    for start in (np.array(SCENE), _looked_at(known.poses)):
        hull, touches = _hull(start, known)
        if hull is None or (best is not None and touches):
            continue
        best = hull
        if not touches:
            break
    if best is None:
        return None, ""
    for _ in range(PASSES - 1):
        finer, _ = _hull(best, known)
        best = best if finer is None else finer
    x, y, z, half = best
    note = f"box from silhouettes: centre {x:.3g} {y:.3g} {z:.3g}, half side {half:.3g}"
    return best, note


def _silhouettes(
    alpha: NDArray[np.uint8], poses: Floats, focal: NDArray[np.floating]
) -> _Silhouettes:
    some = (alpha > FAINT).any(axis=(1, 2))
    step = ceil(max(alpha.shape[1:]) / FINEST)
    away = [_distance(picture, step) for picture in alpha[some]]
    return _Silhouettes(away, poses[some], focal[some].astype(float), alpha.shape[1:], step)


def _distance(alpha: NDArray[np.uint8], step: int) -> Floats:
    """Give each pixel's distance to the silhouette [pixels], at a step of several pixels."""
    height, width = alpha.shape
    padded = np.zeros((-(-height // step) * step, -(-width // step) * step), bool)
    padded[:height, :width] = alpha > FAINT
    coarse = padded.reshape(len(padded) // step, step, -1, step).any(axis=(1, 3))
    found: Floats = distance_transform_edt(~coarse) * step
    return found


def _looked_at(poses: Floats) -> Floats:
    """Give the cube around the point nearest to all optical axes that reaches to the cameras."""
    axes = poses[:, :, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    places = poses[:, :, 3]
    centre = np.linalg.lstsq(across.sum(0), (across @ places[:, :, None]).sum(0)[:, 0], rcond=None)
    half = float(np.linalg.norm(places - centre[0], axis=1).max())
    return np.array([*centre[0], max(half, 1e-9)])


def _hull(box: Floats, known: _Silhouettes) -> tuple[Floats | None, bool]:
    """Carve a cube: give the one around what is left, and whether that touches the walls."""
    side = 2 * box[3] / CELLS
    left = np.argwhere(_carved(box, CELLS, known)[0])
    if not len(left):
        return None, False
    low, high = left.min(0) * side - box[3], (left.max(0) + 1) * side - box[3]
    touches = bool(max(-low.min(), high.max()) > box[3] - side / 2)
    return np.array([*(box[:3] + (low + high) / 2), MARGIN * (high - low).max() / 2]), touches


def _carved(box: Floats, cells: int, known: _Silhouettes) -> tuple[NDArray[np.bool_], int]:
    """Carve the cells of a cube: what is left, as a grid, and how many views see the best seen."""
    side = 2 * box[3] / cells
    radius = side * 3**0.5 / 2
    along = (np.arange(cells) + 0.5) * side - box[3]
    places = np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)
    (height, width), step = known.shape, known.step
    number, seen = np.arange(len(places)), np.zeros(len(places), np.int64)
    for distance, pose, length in zip(known.away, known.poses, known.focal, strict=True):
        x, y, z = ((places + (box[:3] - pose[:, 3])) @ pose[:, :3]).T
        depth = np.maximum(-z, 1e-9 * box[3])
        u, v = width / 2 + length * x / depth, height / 2 - length * y / depth
        inside = (z < 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        rows, columns = ((w[inside] // step).astype(np.int64) for w in (v, u))
        kept = ~inside
        kept[inside] = distance[rows, columns] <= radius * length / depth[inside] + step
        seen += inside
        places, number, seen = places[kept], number[kept], seen[kept]
    found = np.zeros(cells**3, bool)
    if seen.any():
        found[number[_judged(number, seen, cells)]] = True
    return found.reshape(cells, cells, cells), int(seen.max(initial=0))


def _judged(number: Whole, seen: Whole, cells: int) -> NDArray[np.bool_]:
    """Tell which of the cells that are left count, from their numbers and how many views see them.

    Between the cameras are cells that few of them see, so that few can carve them. They count only
    in one piece with cells that more views see than any others.
    """
    enough = seen >= SHARE * seen.max()
    grid = np.zeros(cells**3, bool)
    grid[number[enough]] = True
    piece = label(grid.reshape(cells, cells, cells), np.ones((3, 3, 3)))[0].reshape(-1)[number]
    found: NDArray[np.bool_] = enough & np.isin(piece, piece[seen == seen.max()])
    return found
