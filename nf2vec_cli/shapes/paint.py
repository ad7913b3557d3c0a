"""A mesh with its colours: of vertices, faces, materials and textures, read safely."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import refuse_nonsense, used_vertices
from nf2vec_cli.shapes.mesh import Faces, Vertices, content, parsed, placed_parts
from nf2vec_cli.shapes.off_colours import off_colours
from nf2vec_cli.shapes.pictures import TEXTURES, Pixels, rgba_of
from nf2vec_cli.shapes.reasons import reasons
from nf2vec_cli.shapes.side_files import SideFiles

GREY = 0.7  # of what has no colour
LARGEST = 8192  # pixels of a texture's side in its file
FINEST = 1024  # and in memory: a picture shows no more
Floats = NDArray[np.float64]
Corners = NDArray[np.float32]


@dataclass(frozen=True)
class Painted:
    """Triangles with colours, as sRGB in [0, 1].

    vertices: [V, 3] and faces: [F, 3]. colours: [F, 3, 3], of each face's corners. skin: [F], the
    number of the texture that it is multiplied by, or -1. uv: [F, 3, 2], where in the texture the
    corners are, its lower left corner 0, 0 and its upper right one 1, 1. skins: textures
    [H, W, 4]. cut: [F], whether the face has holes where its texture's alpha is less than a half.
    notes: what is left out, in words.
    """

    vertices: Vertices
    faces: Faces
    colours: Corners
    skin: NDArray[np.int64]
    uv: Corners
    skins: tuple[Pixels, ...]
    cut: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def load_painted(path: Path) -> Painted:
    """Read a mesh file with its colours, in the user's units.

    Side files (.mtl, textures) are read from the file's own folder only. Where a texture cannot be
    had, its material's colour is taken, and noted. What has no colour is grey. Transparency is not
    drawn, save holes that a texture cuts.

    Raises:
        InputError: as `load_mesh`, or a side file lies outside the folder.
        OSError: it cannot be opened.
    """
    path = Path(path)
    data, suffix = content(path)
    side = SideFiles.of_colours(path)
    with reasons(suffix):
        scene = parsed(data, suffix, side, materials=True)
        if side.refused:  # trimesh goes on without it
            raise side.refused[0]
        skins = _Skins()
        parts = [
            _part(part, vertices, faces, skins, linear=suffix in (".glb", ".gltf"))
            for part, vertices, faces in placed_parts(scene)
        ]
        whole = _joined(parts, skins)
        if suffix == ".off":
            whole = _coloured(whole, off_colours(data, len(whole.vertices), len(whole.faces)))
    missing = [f"{name!r} cannot be read: a plain colour in its place" for name in side.missing]
    if b'"baseColorTexture"' in data and not (missing or whole.skins or whole.notes):
        missing = ["its textures cannot be read: plain colours in their place"]
    whole = replace(whole, notes=tuple(dict.fromkeys([*missing, *whole.notes])))
    return _without_nothing(whole)


class _Skins:
    """The textures met so far; each is decoded once."""

    def __init__(self) -> None:
        self.found: list[Pixels] = []
        self.notes: list[str] = []
        self._places: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no other picture gets the same id

    def place(self, image: Any) -> int:
        """Give the number of a texture, or -1 if it cannot be decoded."""
        if id(image) not in self._places:
            self._kept.append(image)
            self._places[id(image)] = self._decoded(image)
        return self._places[id(image)]

    def _decoded(self, image: Any) -> int:
        try:
            kind = str(getattr(image, "format", None))
            if kind not in TEXTURES:
                raise InputError(f"{kind} is no format that we read")
            with reasons("." + kind.lower()):
                pixels, _ = rgba_of(image, LARGEST)
        except InputError as error:
            self.notes.append(f"a texture is left out: {error.message}")
            return -1
        step = ceil(max(pixels.shape[:2]) / FINEST)
        if step > 1:
            pixels = np.array(Image.fromarray(pixels).reduce(step), np.uint8)
        self.found.append(pixels)
        return len(self.found) - 1


def _part(part: Any, vertices: Vertices, faces: Faces, skins: _Skins, *, linear: bool) -> Painted:
    """Bring one mesh's visuals into our form; its skins are in `skins`."""
    visual = part.visual
    count = len(faces)
    colours: NDArray[np.floating] = np.full((count, 3, 3), GREY, np.float32)
    skin, uv, cut = -1, np.zeros((count, 3, 2), np.float32), False
    if visual.kind == "face":
        colours = np.repeat(_unit(visual.face_colors)[:, None], 3, axis=1)
    elif visual.kind == "vertex":
        colours = _unit(visual.vertex_colors)[faces]
    elif visual.kind == "texture":
        image, factor, cut = _material(visual.material)
        places = np.asarray(np.empty((0, 2)) if visual.uv is None else visual.uv, np.float64)
        fits = places.ndim == 2 and places.shape[1] >= 2 and len(places) == len(vertices)
        if image is not None and fits:
            skin = skins.place(image)
            uv = np.nan_to_num(places[:, :2][faces], posinf=0, neginf=0).astype(np.float32)
        if factor is None:
            factor = np.full(3, 1.0 if skin >= 0 else GREY)
        own = visual.vertex_attributes.get("color")
        by_vertex = np.ones((1, 3)) if own is None or len(own) != len(vertices) else _unit(own)
        shade = by_vertex[faces] if len(by_vertex) == len(vertices) else by_vertex[None]
        colours = np.broadcast_to(factor * shade, colours.shape).astype(np.float32)
    if linear and visual.kind in ("vertex", "texture"):  # glTF's factors are linear light
        colours = _encoded(colours)
    return Painted(
        vertices,
        faces,
        colours.astype(np.float32),
        np.full(count, skin),
        uv,
        (),
        np.full(count, cut and skin >= 0),
    )


def _material(material: Any) -> tuple[Any, Floats | None, bool]:
    """Give a material's texture, colour and whether its alpha cuts holes."""
    materials = getattr(material, "materials", None)
    if materials:
        material = materials[0]
    if hasattr(material, "baseColorFactor"):
        factor = material.baseColorFactor
        colour = np.ones(3) if factor is None else _unit(factor).reshape(-1)[:3]
        return material.baseColorTexture, colour, material.alphaMode in ("MASK", "BLEND")
    image = getattr(material, "image", None)
    told = getattr(material, "kwargs", {})
    # many programs write black beside a texture, and draw the texture alone
    plain = image is None and "kd" in told
    return image, _unit(material.diffuse).reshape(-1)[:3] if plain else None, "map_d" in told


def _unit(colours: Any) -> Floats:
    """Bring colours of any type into [0, 1], without alpha."""
    found = np.asarray(colours)
    most = np.iinfo(found.dtype).max if found.dtype.kind in "iu" else 1.0
    return np.nan_to_num(found[..., :3].astype(np.float64) / most).clip(0, 1)


def _encoded(linear: NDArray[np.floating]) -> Corners:
    """Encode linear light as sRGB (IEC 61966-2-1)."""
    low, high = 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high).astype(np.float32)


def _joined(parts: list[Painted], skins: _Skins) -> Painted:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])[:-1]
    return Painted(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.colours for part in parts]),
        np.concatenate([part.skin for part in parts]),
        np.concatenate([part.uv for part in parts]),
        tuple(skins.found),
        np.concatenate([part.cut for part in parts]),
        tuple(skins.notes),
    )


def _coloured(painted: Painted, colours: tuple[str, Floats] | None) -> Painted:
    """Put colours of vertices or faces, in [0, 1], on a mesh."""
    if colours is None:
        return painted
    what, values = colours
    corners = values[painted.faces] if what == "vertex" else np.repeat(values[:, None], 3, axis=1)
    return replace(painted, colours=corners.astype(np.float32))


def _without_nothing(painted: Painted) -> Painted:
    """Leave out vertices that no face names, and faces of which two corners are one point.

    This is what cleaning a mesh does to its extent, so that it has the same unit sphere here.
    """
    refuse_nonsense(*used_vertices(painted.vertices, painted.faces))
    a, b, c = (painted.vertices[painted.faces[:, k]] for k in range(3))
    kept = ~((a == b).all(1) | (b == c).all(1) | (c == a).all(1))
    vertices, faces = used_vertices(painted.vertices, painted.faces[kept])
    return replace(
        painted,
        vertices=vertices,
        faces=faces,
        colours=painted.colours[kept],
        skin=painted.skin[kept],
        uv=painted.uv[kept],
        cut=painted.cut[kept],
    )
