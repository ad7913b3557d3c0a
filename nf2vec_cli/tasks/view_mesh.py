"""One object as the few kilobytes that a page shows of it: a mesh of some 600 faces, 16 bits."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.tasks.field_function import Askable
from nf2vec_cli.tasks.rebuild import Form, build

HIGHEST = 65_535  # the largest number of 16 bits: 1 in unit space; 0 is -1
FORMS = {"sdf": Form.mesh, "udf": Form.cloud, "occ": Form.mesh}


@dataclass(frozen=True)
class Glance:
    """One object to be looked at. Runs in a worker.

    faces: triangles of a mesh; a cloud has as many points. resolution: grid points an axis.
    """

    field: Askable
    kind: str
    resolution: int
    faces: int


def glance(chore: Glance) -> str:
    """Build an object's mesh or cloud and pack it; an empty text if nothing is there to see."""
    form = FORMS[chore.kind]
    shape = build(
        chore.field, chore.kind, form, resolution=chore.resolution, points=chore.faces
    ).shape
    if isinstance(shape, Cloud):
        return pack(shape.points, np.empty((0, 3), np.int64))
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


def pack(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> str:
    """Write vertices [V, 3] in [-1, 1]^3 and faces [F, 3] as base64 of 16 bit numbers.

    Little endian: V, F, the vertices, the faces; no faces: the vertices are a cloud. More than
    65,535 of either are nothing that a page can show: an empty text, as for no vertices.
    """
    if not 0 < len(vertices) <= HIGHEST or len(faces) > HIGHEST:
        return ""
    steps = np.rint((np.clip(vertices, -1, 1) + 1) / 2 * HIGHEST)
    parts = [np.array([len(vertices), len(faces)]), steps.ravel(), faces.ravel()]
    return base64.b64encode(np.concatenate(parts).astype("<u2").tobytes()).decode()
