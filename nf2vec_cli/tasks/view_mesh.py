"""One object as the few kilobytes that a page shows of it: a mesh of some 600 faces, 16 bits."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.tasks.rebuild import Form, Shown, build

HIGHEST = 65_535  # the largest number of 16 bits: 1 in unit space; 0 is -1
# a udf's mesh has two sheets; 800 faces take 9.4 KB as text
FACES = {"sdf": 600, "udf": 800, "occ": 600, "nerf": 1_000}  # colours need some more


@dataclass(frozen=True)
class Glance:
    """One object to be looked at. Runs in a worker.

    faces: triangles that are left. resolution: grid points along each axis.
    """

    field: Shown
    kind: str
    resolution: int
    faces: int


def glance(chore: Glance) -> str:
    """Build an object's mesh and pack it; an empty text if nothing is there to see.

    Of a udf it is the thin shell: light shows a form that as few points would not.
    """
    shape = build(chore.field, chore.kind, Form.mesh, resolution=chore.resolution, points=0).shape
    assert isinstance(shape, Mesh)
    return pack(*simplified(shape.vertices, shape.faces, chore.faces))


def simplified(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Collapse edges by quadric error until `most` faces are left (Garland and Heckbert, 1997).

    A mesh that is no manifold, or whose collapses would make it none, keeps more.
    """
    if len(faces) <= most:
        return vertices, faces
    try:
        fewer = igl.qslim(
            np.asfortranarray(vertices), np.asfortranarray(faces.astype(np.int32)), most
        )
    except (RuntimeError, ValueError):
        return vertices, faces
    return (fewer[0], fewer[1]) if len(fewer[1]) else (vertices, faces)


def pack(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    *,
    colours: NDArray[np.uint8] | None = None,
) -> str:
    """Write vertices [V, 3] in [-1, 1]^3 and faces [F, 3] as base64 of 16 bit numbers.

    Little endian: V, F, the vertices, the faces, and colours of the vertices if there are any,
    5 bits of red, 6 of green, 5 of blue. More than 65,535 of either are nothing that a
    page can show: an empty text, as for no faces.
    """
    if not len(faces) or len(vertices) > HIGHEST or len(faces) > HIGHEST:
        return ""
    steps = np.rint((np.clip(vertices, -1, 1) + 1) / 2 * HIGHEST)
    parts = [np.array([len(vertices), len(faces)]), steps.ravel(), faces.ravel()]
    if colours is not None:
        red, green, blue = colours.astype(np.int64).T
        parts.append(red >> 3 << 11 | green >> 2 << 5 | blue >> 3)
    return base64.b64encode(np.concatenate(parts).astype("<u2").tobytes()).decode()
