"""Voxel grids: read from a file, cut out of meshes and clouds, written as binvox."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import igl
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.numbers import named, read_arrays, shapes_of
from nf2vec_cli.shapes.reasons import reasons
from nf2vec_cli.shapes.sample import Points, surface_points
from nf2vec_cli.shapes.whole import whole

VOXEL_SUFFIXES = (".npy", ".npz", ".binvox")
GRID_KEYS = ("voxels", "grid", "occupancy", "vox", "array")
MOST = 512**3  # cells of a grid
BLOCK = 1 << 18  # cells whose inside is asked for at once
DENSE = 64.0  # surface samples for each cell face of area: 3 % of the cells crossed are missed
Grid = NDArray[np.bool_]


@dataclass(frozen=True)
class Voxels:
    """Occupied cells: grid [X, Y, Z] bool, corner of cell 0,0,0 [3], and the size of a cell."""

    grid: Grid
    origin: Points
    pitch: float
    notes: tuple[str, ...] = ()


def load_voxels(path: Path) -> Voxels:
    """Read a voxel grid: NPY and NPZ in units of a cell, binvox in its own.

    Raises:
        InputError: the file is corrupt, no grid, or has no surface in it.
        OSError: it cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix not in VOXEL_SUFFIXES:
        raise InputError(f"{path.suffix or 'a file without suffix'} is no voxel format we read")
    data = whole(path)
    with reasons(suffix):
        if suffix == ".binvox":
            return checked(*_from_binvox(data))
        return voxels_of(read_arrays(data, suffix))


def voxels_of(arrays: dict[str, NDArray[np.generic]]) -> Voxels:
    """Find the grid among the arrays of an NPY or NPZ file."""
    array = named(arrays, GRID_KEYS)
    if array is None:
        raise InputError(f"it holds no voxel grid [X, Y, Z], but {shapes_of(arrays)}")
    if array.ndim == 4 and 1 in (array.shape[0], array.shape[3]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 3:
        raise InputError(f"its array has shape {array.shape}: a voxel grid is [X, Y, Z]")
    _refuse_large(array.shape)
    if array.dtype.kind not in "biuf":
        raise InputError(f"its cells are of type {array.dtype}, not numbers")
    notes: tuple[str, ...] = ()
    if array.dtype.kind == "f":
        if not np.isfinite(array.astype(float)).all():
            raise InputError("some of its cells are NaN or infinite")
        notes = ("cells above 0.5 taken for occupied",)
    grid = array > 0.5 if array.dtype.kind == "f" else array != 0  # type: ignore[operator]
    origin, pitch = np.zeros(3), 1.0
    if "origin" in arrays and "pitch" in arrays:  # as `nf2vec reconstruct` writes them
        origin = np.asarray(arrays["origin"], float).reshape(3)
        pitch = float(np.asarray(arrays["pitch"], float).reshape(()))
    return checked(np.asarray(grid, bool), origin, pitch, notes)


def checked(grid: Grid, origin: Points, pitch: float, notes: tuple[str, ...] = ()) -> Voxels:
    """Refuse a grid that no field can be fitted to.

    Raises:
        InputError: it is empty, full, too thin or too large.
    """
    if min(grid.shape) < 2:
        raise InputError(f"its grid of {grid.shape} cells has an axis with fewer than two")
    _refuse_large(grid.shape)
    if not grid.any():
        raise InputError("none of its cells is occupied")
    if grid.all():
        raise InputError("all of its cells are occupied: there is no surface in it")
    if not (
        origin.shape == (3,) and np.isfinite(origin).all() and np.isfinite(pitch) and pitch > 0
    ):
        raise InputError("its place is not three finite numbers, or its scale none")
    return Voxels(grid, origin, pitch, notes)


def _refuse_large(shape: tuple[int, ...]) -> None:
    if max(shape) ** 3 > MOST:
        raise InputError(f"its grid of {shape} cells is larger than 512 along an axis")


def _from_binvox(data: bytes) -> tuple[Grid, Points, float]:
    head, found, body = data.partition(b"\ndata\n")
    lines = [line.split() for line in head.decode("latin-1").splitlines()]
    fields = {words[0]: words[1:] for words in lines if words}
    if not found or not data.startswith(b"#binvox") or "dim" not in fields:
        raise InputError("the file is no binvox, or cut short")
    shape = tuple(int(n) for n in fields["dim"])
    size = int(np.prod(shape, dtype=object))
    if len(shape) != 3 or not 0 < size <= MOST:
        raise InputError(f"its grid of {shape} cells cannot be used")
    runs = np.frombuffer(body, np.uint8)
    values, counts = runs[: len(runs) // 2 * 2 : 2], runs[1::2].astype(np.int64)
    if counts.sum() != size:
        raise InputError(f"the file is cut short: {counts.sum()} of {size} cells are there")
    flat = np.repeat(values != 0, counts)
    scale = float(fields.get("scale", ["1"])[0])
    origin = np.array([float(n) for n in fields.get("translate", ["0"] * 3)])
    # the file's order is x, z, y, and its scale is the size of the longest axis
    return flat.reshape(shape[0], shape[2], shape[1]).swapaxes(1, 2), origin, scale / max(shape)


def write_binvox(file: BinaryIO, grid: Grid, origin: Points, pitch: float) -> None:
    """Write a grid as binvox."""
    x, y, z = grid.shape
    place = " ".join(f"{n:.9g}" for n in origin)
    header = f"#binvox 1\ndim {x} {y} {z}\ntranslate {place}\nscale {pitch * max(x, y, z):.9g}\n"
    flat = grid.swapaxes(1, 2).reshape(-1).astype(np.uint8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    starts = np.r_[0, ends]
    lengths = np.diff(np.r_[starts, len(flat)])
    parts = -(-lengths // 255)  # a run is at most 255 cells
    counts = np.full(parts.sum(), 255, np.uint8)
    counts[np.cumsum(parts) - 1] = lengths - 255 * (parts - 1)
    runs = np.stack([np.repeat(flat[starts], parts), counts], axis=1)
    file.write(header.encode() + b"data\n" + runs.tobytes())


def shell_of_points(points: Points, cells: int) -> Grid:  # [M, 3] -> [n, n, n]
    """Mark the cells of [-1, 1]^3 that a point falls in (paper, III-A)."""
    index = np.clip(np.floor((points + 1) * (cells / 2)).astype(np.int64), 0, cells - 1)
    grid = np.zeros((cells,) * 3, bool)
    grid[tuple(index.T)] = True
    return grid


def shell_of_mesh(
    vertices: Points, faces: NDArray[np.int64], cells: int, *, rng: np.random.Generator
) -> Grid:
    """Mark the cells of [-1, 1]^3 that a mesh's surface passes through.

    By samples, as a cloud is, in equal slices of the area. A cell that the surface only touches at
    a corner can be missed; the shell has no hole for it.
    """
    edges = vertices[faces[:, 1:]] - vertices[faces[:, :1]]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2
    count = int(np.clip(DENSE * area * (cells / 2) ** 2, 1_000, 50_000_000))
    grid = np.zeros((cells,) * 3, bool)
    for left in range(count, 0, -1_000_000):
        some = surface_points(vertices, faces, min(left, 1_000_000), rng=rng)
        grid |= shell_of_points(some, cells)
    return grid


def solid_of_mesh(vertices: Points, faces: NDArray[np.int64], cells: int) -> Grid:
    """Mark the cells of [-1, 1]^3 whose centres are inside a mesh, by its winding number."""
    inside = np.empty(cells**3, bool)
    for start in range(0, len(inside), BLOCK):
        at = np.arange(start, min(start + BLOCK, len(inside)))
        index = np.stack(np.unravel_index(at, (cells,) * 3), axis=1)
        centres = (2 * index + 1) / cells - 1
        inside[at] = igl.fast_winding_number(vertices, faces.astype(np.int64), centres) > 0.5
    return inside.reshape((cells,) * 3)


def solid_of_shell(grid: Grid) -> Grid:
    """Fill what cannot be reached from outside."""
    filled: Grid = binary_fill_holes(grid)
    return filled
