"""Write a mesh, a cloud or voxels to a file; the suffix says how."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import trimesh

from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.voxels import Voxels, write_binvox

# file types of each form, the usual one first
FORMATS = {
    "mesh": ("ply", "obj", "stl", "off", "glb"),
    "cloud": ("ply", "xyz", "npy", "npz"),
    "voxels": ("npz", "npy", "binvox"),
}


def write_shape(shape: Shape, file: Path) -> None:
    """Write a shape; under another name first, so that a killed run leaves no half file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(_encoded(shape, file.suffix[1:]))
    part.replace(file)


def _encoded(shape: Shape, suffix: str) -> bytes:
    buffer = BytesIO()
    if isinstance(shape, Mesh):
        mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
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
    return _encoded_cloud(shape, suffix)


def _encoded_cloud(cloud: Cloud, suffix: str) -> bytes:
    buffer = BytesIO()
    if suffix == "ply":
        return _bytes(trimesh.PointCloud(cloud.points).export(file_type="ply"))
    if suffix == "xyz":
        np.savetxt(buffer, cloud.points, fmt="%.9g")
    elif suffix == "npy":
        np.save(buffer, cloud.points)
    else:
        np.savez_compressed(buffer, points=cloud.points)
    return buffer.getvalue()


def _bytes(data: object) -> bytes:
    return data if isinstance(data, bytes) else str(data).encode()
