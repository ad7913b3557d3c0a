"""A triangle mesh from a file: read safely, cleaned, or refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh, clean
from nf2vec_cli.shapes.precheck import prechecked
from nf2vec_cli.shapes.reasons import reasons
from nf2vec_cli.shapes.side_files import SideFiles
from nf2vec_cli.shapes.whole import whole

SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf")
COPIES = 10_000_000  # triangles that a scene may add by placing a mesh again and again
Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]


class CloudFile(InputError):
    """A mesh file that holds points and no faces."""

    def __init__(self, points: Vertices) -> None:
        super().__init__(f"the file holds {len(points)} points and no faces: a cloud, not a mesh")
        self.points = points


def load_mesh(path: Path) -> Mesh:
    """Read a mesh file in the user's units, as one cleaned mesh.

    Scene graphs are flattened with their transforms. No file but `path` is read, save the buffers
    of a .gltf, which must lie in its folder.

    Raises:
        InputError: the file is empty, cut short, corrupt, of another kind, or not a surface.
        OSError: it cannot be opened.
    """
    path = Path(path)
    data, suffix = content(path)
    with reasons(suffix):
        vertices, faces = _flatten(parsed(data, suffix, SideFiles.of_geometry(path)))
    return clean(vertices, faces)


def content(path: Path) -> tuple[bytes, str]:
    """Give a mesh file's bytes and its suffix, in small letters.

    Raises:
        InputError: it is empty or too big, or its suffix is not that of a mesh.
        OSError: it cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path.suffix or 'a file without suffix'} is not a mesh format we read")
    return whole(path), suffix


def parsed(data: bytes, suffix: str, side: SideFiles, *, materials: bool = False) -> Any:
    """Check a mesh file's bytes and read them into trimesh's scene graph; call it in `reasons`."""
    options: dict[str, Any] = {}
    if suffix in (".obj", ".glb", ".gltf"):
        options["skip_materials"] = not materials
    if materials or suffix in (".glb", ".gltf"):
        options["resolver"] = side
    return trimesh.load_scene(
        BytesIO(prechecked(data, suffix)), file_type=suffix[1:], process=False, **options
    )


def placed_parts(scene: Any) -> Iterator[tuple[Any, Vertices, Faces]]:
    """Give a scene's meshes, each moved by its place in the scene graph: vertices and faces.

    Raises:
        CloudFile: there are points only.
        InputError: there are no faces, one names a vertex that is not there, or a small file would
            fill the memory with copies.
    """
    found = False
    points: list[Vertices] = []
    spare = COPIES + sum(len(getattr(part, "faces", ())) for part in scene.geometry.values())
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        part = scene.geometry[name]
        if not isinstance(part, trimesh.Trimesh) or not len(part.faces):
            points.append(np.asarray(getattr(part, "vertices", np.empty((0, 3))), float))
            continue
        placed = np.asarray(part.vertices, np.float64)
        if placed.shape[1] != 3:
            raise InputError(f"the file is corrupt: a point of it has {placed.shape[1]} numbers")
        if not np.array_equal(matrix, np.eye(4)):
            with np.errstate(invalid="ignore", over="ignore"):
                placed = placed @ matrix[:3, :3].T + matrix[:3, 3]
        spare -= len(part.faces)
        if spare < 0:
            raise InputError(f"its scene places over {COPIES:,} copies of triangles")
        corners = np.asarray(part.faces, np.int64)
        if corners.min() < 0 or corners.max() >= len(placed):
            raise InputError("the file is corrupt: a face names a vertex that is not there")
        if np.linalg.det(matrix[:3, :3]) < 0:
            corners = corners[:, ::-1]
        found = True
        yield part, placed, corners
    if not found:
        if sum(map(len, points)):
            raise CloudFile(np.concatenate(points))
        raise InputError("the file holds no faces")


def normalise(
    vertices: Vertices,  # [V, 3]
    how: Literal["box", "vertices"] = "box",
) -> tuple[Vertices, Vertices, float]:
    """Move and scale vertices into the unit sphere.

    Args:
        vertices: in the user's units.
        how: the centre: of the bounding box, which does not depend on the tessellation, or the
            mean of the vertices, as the paper's authors do.

    Returns:
        Unit vertices, the centre [3] and the scale: user = unit * scale + centre.
    """
    low, high = vertices.min(0), vertices.max(0)
    centre = (low + high) / 2 if how == "box" else vertices.mean(0)
    moved = vertices - centre
    scale = float(np.linalg.norm(moved, axis=1).max())
    return moved / scale, centre, scale


def _flatten(scene: Any) -> tuple[Vertices, Faces]:
    """Concatenate a scene's meshes."""
    vertices: list[Vertices] = []
    faces: list[Faces] = []
    at = 0
    for _, placed, corners in placed_parts(scene):
        vertices.append(placed)
        faces.append(corners + at)
        at += len(placed)
    return np.concatenate(vertices), np.concatenate(faces)
