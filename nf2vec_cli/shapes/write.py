"""Write a mesh, a cloud or voxels to a file; the suffix says how."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.voxels import Voxels, write_binvox

# file types of each form, the usual one first
FORMATS = {
    "mesh": ("ply", "obj", "stl", "off", "glb"),
    "cloud": ("ply", "xyz", "npy", "npz"),
    "voxels": ("npz", "npy", "binvox"),
    "pictures": ("png", "gif", "mp4"),
}
Colours = NDArray[np.uint8]  # [M, 3], of vertices or points, sRGB
# of a class's parts, in turn (Tableau's ten)
COLOURS = np.array(
    [
        (31, 119, 180),
        (255, 127, 14),
        (44, 160, 44),
        (214, 39, 40),
        (148, 103, 189),
        (140, 86, 75),
        (227, 119, 194),
        (127, 127, 127),
        (188, 189, 34),
        (23, 190, 207),
    ],
    np.uint8,
)


def write_shape(shape: Shape, file: Path, *, colours: Colours | None = None) -> None:
    """Write a shape; under another name first, so that a killed run leaves no half file.

    colours: of a mesh's vertices or a cloud's points, left out by file types that have none (STL,
    OFF, XYZ, NPY).
    """
    write_bytes(_encoded(shape, file.suffix[1:], colours), file)


def write_parts(
    points: NDArray[np.floating], parts: NDArray[np.int64], names: Sequence[str], file: Path
) -> None:  # [M, 3], [M]
    """Write a cloud as PLY with each point's part, as a number (property `part`) and a colour.

    parts: places in `names`; comments of the file say which number and colour is which part.
    """
    rows = np.empty(
        len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3), ("part", "<i4")]
    )  # packed, as the header says
    rows["xyz"], rows["part"] = points, parts
    rows["rgb"] = COLOURS[parts % len(COLOURS)]
    legend = [
        f"comment part {number} colour {' '.join(map(str, COLOURS[number % len(COLOURS)]))} {name}"
        for number, name in enumerate(names)
    ]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(line.encode("ascii", "backslashreplace").decode() for line in legend),
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {colour}" for colour in ("red", "green", "blue")),
        "property int part",
        "end_header",
    ]
    write_bytes("\n".join([*header, ""]).encode("ascii") + rows.tobytes(), file)


def write_bytes(data: bytes, file: Path) -> None:
    """Write a file under another name first, so that a killed run leaves no half file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(data)
    part.replace(file)


def _encoded(shape: Shape, suffix: str, colours: Colours | None) -> bytes:
    buffer = BytesIO()
    if isinstance(shape, Mesh):
        mesh = trimesh.Trimesh(
            shape.vertices, shape.faces, vertex_colors=_stored(colours, suffix), process=False
        )
        return _bytes(mesh.export(file_type=suffix))
    if isinstance(shape, Voxels):
        if suffix == "binvox":
            write_binvox(buffer, shape.grid, shape.origin, shape.pitch)
        elif suffix == "npy":
            np.save(buffer, shape.grid)
        else:
            np.savez_compressed(
                buffer, voxels=shape.grid, origin=shape.origin, pitch=np.float64(shape.pitch)
            )
        return buffer.getvalue()
    return _encoded_cloud(shape, suffix, colours)


def _stored(colours: Colours | None, suffix: str) -> Colours | None:
    """Give colours as a file type wants them: those of glTF are linear."""
    if colours is None or suffix != "glb":
        return colours
    light = colours / 255
    linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    stored: Colours = np.rint(linear * 255).astype(np.uint8)
    return stored


def _encoded_cloud(cloud: Cloud, suffix: str, colours: Colours | None) -> bytes:
    buffer = BytesIO()
    if suffix == "ply":
        return _bytes(trimesh.PointCloud(cloud.points, colors=colours).export(file_type="ply"))
    if suffix == "xyz":
        np.savetxt(buffer, cloud.points, fmt="%.9g")
    elif suffix == "npy":
        np.save(buffer, cloud.points)
    else:
        beside: dict[str, Any] = {} if colours is None else {"colours": colours}
        np.savez_compressed(buffer, points=cloud.points, **beside)
    return buffer.getvalue()


def _bytes(data: object) -> bytes:
    return data if isinstance(data, bytes) else str(data).encode()
