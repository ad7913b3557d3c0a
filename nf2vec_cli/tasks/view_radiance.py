"""One field of radiance as what a page shows of it: a small picture, and a mesh with colours."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from nf2vec_cli.tasks.look import picture_of_radiance
from nf2vec_cli.tasks.radiance_field import Renderable
from nf2vec_cli.tasks.radiance_shape import colours_at, radiance_surface
from nf2vec_cli.tasks.view_mesh import pack, simplified

PIXELS = 112  # of a picture's side: about 3 KB
QUALITY = 85  # of JPEG
TURN = [1, 2, 0]  # x, y, z with z up -> y up, as the page has it


@dataclass(frozen=True)
class LitGlance:
    """One field to be looked at. Runs in a worker.

    resolution: grid points along each axis. faces: triangles that are left. up: "y" or "z".
    """

    field: Renderable
    resolution: int
    faces: int
    up: str


def lit_glance(chore: LitGlance) -> tuple[str, str]:
    """Make a field's mesh and its picture, a JPEG as base64; an empty mesh if there is none."""
    surface = radiance_surface(chore.field, chore.resolution)
    vertices, faces = simplified(surface.vertices, surface.faces, chore.faces)
    mesh = ""
    if len(faces):
        # of the nearest place on the whole surface: a corner that was moved may lie in clear air
        nearest = cKDTree(surface.vertices).query(vertices)[1]
        colours = colours_at(chore.field, surface.vertices[nearest])
        placed = vertices if chore.up == "y" else vertices[:, TURN]
        mesh = pack(placed, faces, colours=colours)
    picture = picture_of_radiance(chore.field, size=PIXELS, up=chore.up)
    return mesh, base64.b64encode(_jpeg(picture)).decode()


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    stream = BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()
