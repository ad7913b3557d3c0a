"""Files that a mesh file names: buffers, materials, textures; from its own folder only."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from trimesh.resolvers import Resolver

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.pictures import readable
from nf2vec_cli.shapes.whole import LARGEST

HEAVIEST = 256 << 20  # bytes of a side file
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tga", ".gif", ".webp")
# formats whose colours may be in other files
NAMING = (".obj", ".ply", ".gltf")


class SideFiles(Resolver):
    """Opens the side files of a mesh file, and remembers what was wrong with their names.

    trimesh goes on without a material or a texture whose file cannot be had, whatever the reason.

    Args:
        folder: where they lie; None: the file may have none.
        uri: whether names are URIs, as in a .gltf, or paths as programs write them.
    """

    def __init__(self, folder: Path | None, *, uri: bool) -> None:
        self.folder = folder
        self.uri = uri
        self.refused: list[InputError] = []
        self.missing: list[str] = []

    @classmethod
    def of_geometry(cls, path: Path) -> SideFiles:
        """Allow what a file's geometry may be in: the buffers of a .gltf."""
        return cls(path.parent if path.suffix.lower() == ".gltf" else None, uri=True)

    @classmethod
    def of_colours(cls, path: Path) -> SideFiles:
        """Allow materials and textures besides."""
        suffix = path.suffix.lower()
        return cls(path.parent if suffix in NAMING else None, uri=suffix == ".gltf")

    def get(self, name: str) -> bytes:
        """Read one side file."""
        if self.folder is None:
            self.missing.append(str(name))
            raise InputError(f"it needs another file, {str(name)!r}: only a .gltf may")
        try:
            target = side_file(self.folder, str(name), uri=self.uri)
        except InputError as error:
            self.refused.append(error)
            raise
        try:
            if target.is_file() and target.stat().st_size <= HEAVIEST:
                data = target.read_bytes()
                if target.suffix.lower() not in PICTURES or readable(data):
                    return data
        except OSError:
            pass
        self.missing.append(str(name))
        raise InputError(f"its side file {str(name)!r} is not there, or cannot be read")

    def namespaced(self, namespace: str) -> SideFiles:
        """A folder below; not used by the formats we read."""
        return SideFiles(self.folder and self.folder / namespace, uri=self.uri)

    def write(self, name: str, data: bytes) -> None:
        """Refuse: reading a mesh writes nothing."""
        raise InputError(f"a mesh file asks to write {name!r} ({len(data)} bytes)")

    def keys(self) -> list[str]:
        """List nothing: names come from the file itself."""
        return []


def side_file(folder: Path, name: str, *, uri: bool) -> Path:
    """Give the path of a side file, which may not be there.

    A path may have backslashes, options before it as in `map_Kd -s 1 1 1 wood.png`, or be that of
    another computer, of which only the file's name counts. A URI has none of these.

    Raises:
        InputError: it leads out of the folder.
    """
    if uri:
        plain = PurePosixPath(unquote(name))
    else:
        words = name.strip().strip('"')
        words = words.split()[-1] if words.startswith("-") else words
        windows = PureWindowsPath(words)
        if windows.drive or windows.root:
            windows = PureWindowsPath(windows.name)
        plain = PurePosixPath(windows.as_posix())
    target = folder.joinpath(*plain.parts)
    outside = plain.is_absolute() or ".." in plain.parts or "\0" in name
    try:
        outside = outside or not target.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        outside = True
    if outside:
        raise InputError(f"it names a file outside its folder: {name!r}")
    return target


def named_files(path: Path, *, colours: bool) -> list[Path]:
    """List the side files of a mesh file that are there, for its fingerprint.

    What is wrong with the file is not said here.

    Args:
        path: a mesh file.
        colours: whether materials and textures count, or geometry only.
    """
    suffix = path.suffix.lower()
    if path.stat().st_size > LARGEST:
        return []
    if suffix == ".gltf":
        return _there(path.parent, _of_gltf(path, colours=colours), uri=True)
    if not colours or suffix not in NAMING:
        return []
    data = path.read_bytes()
    if suffix == ".ply":
        header = data[: max(data.find(b"end_header"), 0)]
        return _there(path.parent, _after(rb"comment\s+texturefile", header), uri=False)
    libraries = _there(path.parent, _after(b"mtllib", data)[:1], uri=False)
    textures = [name for file in libraries for name in _after(b"map_kd", file.read_bytes())]
    return libraries + _there(path.parent, textures, uri=False)


def _after(word: bytes, data: bytes) -> list[str]:
    """Give what follows a word at the beginning of lines."""
    found = re.findall(
        rb"^[ \t]*" + word + rb"[ \t]+([^\r\n]+)", data, re.MULTILINE | re.IGNORECASE
    )
    return [name.decode("utf-8", "replace").strip() for name in found]


def _there(folder: Path, names: list[str], *, uri: bool) -> list[Path]:
    files = []
    for name in dict.fromkeys(names):
        try:
            file = side_file(folder, name, uri=uri)
            if file.is_file():
                files.append(file)
        except (InputError, OSError):
            continue
    return files


def _of_gltf(path: Path, *, colours: bool) -> list[str]:
    try:
        tree: Any = json.loads(path.read_bytes())
        listed = [*tree.get("buffers", []), *(tree.get("images", []) if colours else [])]
        names = [item.get("uri", "") for item in listed]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []
    return [
        name for name in names if isinstance(name, str) and name and not name.startswith("data:")
    ]
