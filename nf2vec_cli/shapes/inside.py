"""Inside or outside of a mesh that is not clean: several ways to tell, and which to trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import igl
import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.parity import parity
from nf2vec_cli.shapes.sample import Points, surface_points
from nf2vec_cli.shapes.wrap import Wrap, wrap

Sign = Literal["auto", "parity", "winding", "wrap"]
Way = Literal["normal", "parity", "winding", "wrap"]
Signs = NDArray[np.bool_]

SAMPLE = 4000  # points near the surface on which the ways are compared
SPREAD = (0.003, 0.015, 0.05)  # standard deviations of their offset from it
SAME = 0.001  # normals and winding may differ on this share: rounding at the surface itself
CONTRADICTED = 0.01  # rays contradict the winding number on more than this: do not believe it
CONFIRMED = 0.003  # rays may differ from the wrap on this share, a cell or more from the surface
OPEN = 0.05  # above this share of doubtful points a mesh is wrapped, if it can be
# a winding number farther than this from 0, 1, 2... is doubtful: with 5 % of the faces missing at
# random that is 2 to 4 % of the points, on half a sphere 90 %
WHOLE = 0.15
SURE = 0.95  # rays alone decide if this share of the points has a clear vote


@dataclass(frozen=True)
class Inside:
    """How a mesh's inside is told.

    mesh: what distances are taken to: the mesh, or its wrap; way: how the sign is told there;
    doubt: share of near-surface points where that way has no clear answer; disagreement: share
    where clear votes of rays contradict the winding number; note: what was done, in words.
    """

    mesh: Mesh
    way: Way
    doubt: float
    disagreement: float
    note: str = ""


def tell_inside(mesh: Mesh, *, sign: Sign = "auto", rng: np.random.Generator) -> Inside:
    """Choose how inside is told for a cleaned mesh in unit space, on 4,000 points around it.

    A closed surface (`watertight`) has whole winding numbers whose parity is that of rays, so the
    winding number decides; normals do where they say the same, at a quarter of the cost. An open
    one is believed where its winding number is nearly whole and rays do not contradict it. What
    is left is wrapped; rays keep the exact surface if they agree with the wrap a cell away from it.

    Raises:
        InputError: rays and winding number contradict each other (`auto`), or `wrap` was asked
            for, and the surface cannot be wrapped.
    """
    points, signed = _around(mesh, rng)
    turns = winding(mesh, points)
    doubt = float(((np.abs(turns - np.round(turns)) > WHOLE) | (turns < -WHOLE)).mean())
    if sign == "auto" and mesh.watertight and doubt <= OPEN:
        agree = np.mean((turns > 0.5) != (signed < 0)) <= SAME
        return Inside(mesh, "normal" if agree else "winding", doubt, 0.0)
    rays = parity(mesh.vertices, mesh.faces, points)
    disagreement = float((rays.sure & (rays.inside != (np.round(turns) % 2 == 1))).mean())
    if sign == "parity":
        return Inside(mesh, "parity", float(1 - rays.sure.mean()), disagreement)
    if sign == "winding" or (sign == "auto" and doubt <= OPEN and disagreement <= CONTRADICTED):
        return Inside(mesh, "winding", doubt, disagreement)
    try:
        wrapped = wrap(mesh, rng=rng)
    except InputError as error:
        if sign == "auto" and disagreement <= CONTRADICTED:
            return Inside(mesh, "winding", doubt, disagreement, str(error))
        cause = f"rays and winding number differ at {disagreement:.0%} of the points near it; "
        raise InputError((cause if sign == "auto" else "") + str(error)) from error
    if sign == "auto" and rays.sure.mean() >= SURE:
        far = np.abs(signed) > wrapped.cell
        differs = (winding(wrapped.mesh, points[far]) > 0.5) != rays.inside[far]
        if far.any() and differs.mean() <= CONFIRMED:
            return Inside(mesh, "parity", float(1 - rays.sure.mean()), disagreement)
    return Inside(wrapped.mesh, "wrap", 0.0, disagreement, _wrapped_note(wrapped))


def signed_distance(told: Inside, points: Points) -> NDArray[np.float64]:  # [M, 3] -> [M]
    """Measure exact distances to the surface, negative inside."""
    mesh = told.mesh
    faces = mesh.faces.astype(np.int64)
    if told.way == "normal":
        return _by_normals(mesh, points)
    distance = np.sqrt(igl.point_mesh_squared_distance(points, mesh.vertices, faces)[0])
    if told.way == "parity":
        inside = parity(mesh.vertices, mesh.faces, points).inside
    else:
        inside = winding(mesh, points) > 0.5
    signed: NDArray[np.float64] = np.where(inside, -distance, distance)
    return signed


def winding(mesh: Mesh, points: Points) -> NDArray[np.float64]:  # [M, 3] -> [M]
    """Measure how often the surface goes around each point (Barill et al. 2018, fast, to 1e-2)."""
    turns: NDArray[np.float64] = igl.fast_winding_number(
        mesh.vertices, mesh.faces.astype(np.int64), points
    )
    return turns


def _around(mesh: Mesh, rng: np.random.Generator) -> tuple[Points, NDArray[np.float64]]:
    """Draw points near the surface, without those too near for any way; distances by normals."""
    points = surface_points(mesh.vertices, mesh.faces, SAMPLE, rng=rng)
    points = points + rng.choice(SPREAD, (SAMPLE, 1)) * rng.standard_normal(points.shape)
    signed = _by_normals(mesh, points)
    kept = np.abs(signed) > 1e-4
    return points[kept], signed[kept]


def _by_normals(mesh: Mesh, points: Points) -> NDArray[np.float64]:
    """Take the sign from the angle-weighted normal at the nearest point (Baerentzen 2005)."""
    kind = igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL
    faces = mesh.faces.astype(np.int64)
    signed: NDArray[np.float64] = igl.signed_distance(points, mesh.vertices, faces, sign_type=kind)[
        0
    ]
    return signed


def _wrapped_note(wrapped: Wrap) -> str:
    return f"wrapped: surface within {wrapped.within:.2%} of the radius from the source's"
