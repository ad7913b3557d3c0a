"""A triangle mesh from a file: read safely, cleaned, or refused with a reason."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.resolvers import Resolver

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh, clean
from nf2vec_cli.shapes.precheck import prechecked
from nf2vec_cli.shapes.reasons import reasons

SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf")
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
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path.suffix or 'a file without suffix'} is not a mesh format we read")
    data = path.read_bytes()
    if not data or data.isspace():
        raise InputError("the file is empty")
    with reasons(suffix):
        vertices, faces = _flatten(_parse(prechecked(data, suffix), suffix, path.parent))
    return clean(vertices, faces)


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


def _parse(data: bytes, suffix: str, folder: Path) -> Any:
    options: dict[str, Any] = {}
    if suffix in (".obj", ".glb", ".gltf"):
        options["skip_materials"] = True
    if suffix in (".glb", ".gltf"):
        options["resolver"] = _FolderResolver(folder if suffix == ".gltf" else None)
    return trimesh.load_scene(BytesIO(data), file_type=suffix[1:], process=False, **options)


def _flatten(scene: Any) -> tuple[Vertices, Faces]:
    """Concatenate a scene's meshes, each moved by its place in the scene graph."""
    vertices: list[Vertices] = []
    faces: list[Faces] = []
    points: list[Vertices] = []
    at = 0
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        part = scene.geometry[name]
        if not isinstance(part, trimesh.Trimesh):
            points.append(np.asarray(getattr(part, "vertices", np.empty((0, 3))), float))
            continue
        if not len(part.faces):
            points.append(np.asarray(part.vertices, float))
            continue
        placed = np.asarray(part.vertices, np.float64)
        if not np.array_equal(matrix, np.eye(4)):
            with np.errstate(invalid="ignore", over="ignore"):
                placed = placed @ matrix[:3, :3].T + matrix[:3, 3]
        corners = np.asarray(part.faces, np.int64)
        if corners.min() < 0 or corners.max() >= len(placed):
            raise InputError("the file is corrupt: a face names a vertex that is not there")
        if np.linalg.det(matrix[:3, :3]) < 0:
            corners = corners[:, ::-1]
        vertices.append(placed)
        faces.append(corners + at)
        at += len(placed)
    if not faces:
        if sum(map(len, points)):
            raise CloudFile(np.concatenate(points))
        raise InputError("the file holds no faces")
    return np.concatenate(vertices), np.concatenate(faces)


class _FolderResolver(Resolver):
    """Opens the side files of a .gltf, from its own folder only; None: it may have none."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, name: str) -> bytes:
        """Read one side file."""
        if self.folder is None:
            raise InputError(f"it needs another file, {str(name)!r}: only a .gltf may")
        plain = PurePosixPath(unquote(str(name)))
        target = self.folder.joinpath(*plain.parts)
        outside = plain.is_absolute() or ".." in plain.parts
        if outside or not target.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"it names a file outside its folder: {str(name)!r}")
        try:
            return target.read_bytes()
        except OSError as error:
            raise InputError(f"its side file {str(name)!r} is not there") from error

    def namespaced(self, namespace: str) -> _FolderResolver:
        """A folder below; not used by the formats we read."""
        return _FolderResolver(self.folder and self.folder / namespace)

    def write(self, name: str, data: bytes) -> None:
        """Refuse: reading a mesh writes nothing."""
        raise InputError(f"a mesh file asks to write {name!r} ({len(data)} bytes)")

    def keys(self) -> list[str]:
        """List nothing: names come from the file itself."""
        return []
