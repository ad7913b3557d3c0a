"""What a store keeps beside a field of radiance: its occupancy grid, and its views' cameras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.store.schema import CAMERA_NUMBERS, CAMERAS, CAMERAS_KEPT, GRID
from nf2vec_cli.store.store import Store

FITTED, HELD = 1.0, 2.0  # last number of a camera; 0: there is none


@dataclass(frozen=True)
class Cameras:
    """Cameras of one object, in unit space.

    poses: [V, 3, 4], camera to world, OpenGL axes; focal: [V], in pixels; size: [V, 2], width and
    height; held: [V], whether its picture was held out of the fit.
    """

    poses: NDArray[np.float32]
    focal: NDArray[np.float32]
    size: NDArray[np.int64]
    held: NDArray[np.bool_]


def pack_grid(grid: NDArray[np.bool_]) -> NDArray[np.uint8]:  # [G, G, G] -> [G^3 / 8]
    """Pack occupied cells, 8 to a byte, x slowest."""
    return np.packbits(grid.reshape(-1))


def unpack_grids(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:  # [B, G^3 / 8] -> [B, G, G, G]
    """Undo `pack_grid`, of several rows."""
    side = round((8 * packed.shape[1]) ** (1 / 3))
    return np.unpackbits(packed, axis=1).astype(bool).reshape(-1, side, side, side)


def pack_cameras(cameras: Cameras) -> NDArray[np.float32]:  # -> [CAMERAS_KEPT * CAMERA_NUMBERS]
    """Pack cameras; of more than CAMERAS_KEPT, some are kept, evenly."""
    count = len(cameras.poses)
    some = np.linspace(0, count - 1, min(count, CAMERAS_KEPT)).astype(int)
    packed = np.zeros((CAMERAS_KEPT, CAMERA_NUMBERS), np.float32)
    packed[: len(some), :12] = cameras.poses[some].reshape(-1, 12)
    packed[: len(some), 12] = cameras.focal[some]
    packed[: len(some), 13:15] = cameras.size[some]
    packed[: len(some), 15] = np.where(cameras.held[some], HELD, FITTED)
    return packed.reshape(-1)


def read_grids(store: Store, rows: Iterable[int]) -> NDArray[np.bool_]:  # -> [B, G, G, G]
    """Read the occupancy grids of some rows.

    Raises:
        StoreError: the store keeps none, or they are damaged.
    """
    return unpack_grids(store.packed(GRID, rows))


def read_cameras(store: Store, rows: Iterable[int]) -> list[Cameras]:
    """Read the cameras of some rows.

    Raises:
        StoreError: the store keeps none, or they are damaged.
    """
    packed = store.packed(CAMERAS, rows).reshape(-1, CAMERAS_KEPT, CAMERA_NUMBERS)
    found = []
    for one in packed:
        used = one[one[:, 15] > 0]
        found.append(
            Cameras(
                used[:, :12].reshape(-1, 3, 4),
                used[:, 12],
                used[:, 13:15].astype(np.int64),
                used[:, 15] == HELD,
            )
        )
    return found
