"""A point cloud from a file: read safely, cleaned, or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import LARGEST
from nf2vec_cli.shapes.numbers import named, read_arrays, read_table, shapes_of
from nf2vec_cli.shapes.pcd import read_pcd
from nf2vec_cli.shapes.precheck import prechecked
from nf2vec_cli.shapes.reasons import reasons
from nf2vec_cli.shapes.whole import whole

CLOUD_SUFFIXES = (".ply", ".xyz", ".pts", ".pcd", ".npy", ".npz")
POINT_KEYS = ("points", "pcd", "pos", "xyz", "coords", "vertices", "pts")
NORMAL_KEYS = ("normals", "normal", "normals_")
FEWEST, MOST = 4, 50_000_000  # points that make a shape; the most that are read
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Cloud:
    """Points [M, 3] float64, unit normals [M, 3] or None; notes: what cleaning changed."""

    points: Points
    normals: Points | None = None
    notes: tuple[str, ...] = ()


def load_cloud(path: Path) -> Cloud:
    """Read a cloud in the user's units: PLY, XYZ, PTS, PCD, NPY, NPZ.

    Columns after x y z are normals if there are just three of them, else they are left out.

    Raises:
        InputError: the file is empty, cut short, corrupt, of another kind, or not a shape.
        OSError: it cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix not in CLOUD_SUFFIXES:
        raise InputError(f"{path.suffix or 'a file without suffix'} is no cloud format we read")
    data = whole(path)
    with reasons(suffix):
        return cloud_of(*_parsed(data, suffix))


def _parsed(data: bytes, suffix: str) -> tuple[Points, Points | None]:
    if suffix == ".ply":
        return _from_ply(prechecked(data, suffix))
    if suffix == ".pcd":
        return read_pcd(data)
    if suffix in (".npy", ".npz"):
        arrays = read_arrays(data, suffix)
        return points_of(arrays)
    return _columns(read_table(data))


def _from_ply(data: bytes) -> tuple[Points, Points | None]:
    found = trimesh.load(BytesIO(data), file_type="ply", process=False)
    points = np.asarray(getattr(found, "vertices", np.empty((0, 3))), float)
    raw = getattr(found, "metadata", {}).get("_ply_raw", {}).get("vertex", {}).get("data")
    names = getattr(getattr(raw, "dtype", None), "names", None) or ()
    if raw is not None and {"nx", "ny", "nz"} <= set(names) and len(raw) == len(points):
        normals = np.stack([np.asarray(raw[n], float).reshape(-1) for n in ("nx", "ny", "nz")], 1)
        return points, normals
    return points, None


def points_of(arrays: dict[str, NDArray[np.generic]]) -> tuple[Points, Points | None]:
    """Find points and normals among the arrays of an NPY or NPZ file."""
    flat = {k: a for k, a in arrays.items() if a.ndim == 2 and a.shape[1] >= 3}
    table = named(flat, POINT_KEYS)
    if table is None:
        raise InputError(f"it holds no array of points [M, 3], but {shapes_of(arrays)}")
    if table.dtype.kind not in "fiu":
        raise InputError(f"its points are of type {table.dtype}, not numbers")
    refuse_many(len(table))
    points, normals = _columns(table[:, :7].astype(float))
    given = next((arrays[key] for key in NORMAL_KEYS if key in arrays), None)
    if given is not None and given.shape == points.shape and given.dtype.kind in "fiu":
        normals = given.astype(float)
    return points, normals


def refuse_many(count: int) -> None:
    """Refuse a cloud that would fill the memory."""
    if count > MOST:
        raise InputError(f"it has {count:,} points, and {MOST:,} are the most")


def _columns(table: Points) -> tuple[Points, Points | None]:
    if table.ndim != 2 or table.shape[1] < 3:
        raise InputError("its rows have fewer than three numbers")
    return table[:, :3], table[:, 3:6] if table.shape[1] == 6 else None


def cloud_of(points: Points, normals: Points | None = None) -> Cloud:
    """Clean a cloud: drop and count rows that are not finite and points that are there twice.

    Raises:
        InputError: fewer than four points are left, or they are beyond what numbers can hold.
    """
    count = len(points)
    if not count:
        raise InputError("the cloud has no points")
    refuse_many(count)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"its points are of the shape {points.shape[1:]}, not three numbers each")
    notes = []
    finite = np.asarray(np.isfinite(points).all(axis=1))
    points, normals = _kept(points, normals, finite)
    if len(points) < count:
        notes.append(f"{count - len(points)} points that are not finite dropped")
    if len(points):
        first = _first_of_equal(points)
        if len(first) < len(points):
            notes.append(f"{len(points) - len(first)} doubled points dropped")
            points, normals = points[first], None if normals is None else normals[first]
    if len(points) < FEWEST:
        left = "1 distinct point" if len(points) == 1 else f"{len(points)} distinct points"
        raise InputError(f"the cloud has {left} of {count}: at least {FEWEST} make a shape")
    with np.errstate(over="ignore"):
        size = float(np.ptp(points, axis=0).max())
    if not 1 / LARGEST < size < LARGEST:
        raise InputError(f"its size ({size:g}) is beyond what numbers can hold")
    if normals is not None:
        normals = _unit(normals)
        if normals is None:
            notes.append("normals without a direction left out")
    return Cloud(points, normals, tuple(notes))


def _kept(
    points: Points, normals: Points | None, which: NDArray[np.bool_]
) -> tuple[Points, Points | None]:
    if which.all():
        return points, normals
    return points[which], None if normals is None else normals[which]


def _first_of_equal(points: Points) -> NDArray[np.int64]:
    """Give the row of each distinct point, in the order of the file."""
    keys = (np.ascontiguousarray(points) + 0.0).view(np.int64)  # + 0.0 makes -0.0 and 0.0 one
    order = np.lexsort(keys.T)
    ordered = keys[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first: NDArray[np.int64] = np.sort(order[fresh])
    return first


def _unit(normals: Points) -> Points | None:
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        return None
    unit: Points = normals / length
    return unit
