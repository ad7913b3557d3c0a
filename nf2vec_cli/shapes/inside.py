"""Tell inside from outside of a mesh: several ways, and which of them to trust."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import igl
import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.sample import Points, surface_points
from nf2vec_cli.shapes.wrap import wrap

SAMPLE, RAYS = 4_000, 600  # points whose winding number, and whose ray parity, is looked at
NEAR = (1e-3, 0.05)  # distances from the surface at which points of the sample lie
AGREES = 0.001  # disagreement up to this share is rounding at the surface itself
DISPUTED = 0.01  # from here on ray parity and winding number are two opinions
# A winding number farther than this from 0, 1, 2..., or this much below 0, does not decide. Small
# holes leave both rare; outside of a bowl most points are below 0.
WHOLE, BELOW = 0.25, 0.1
# three odd directions: a ray that grazes an edge in one of them does not in the others
DIRECTIONS = np.array([[0.31, 0.17, 0.94], [0.89, -0.42, 0.19], [-0.23, 0.91, 0.35]])
SAME_HIT = 1e-7  # hits nearer than this along a ray are one: doubled faces, shared edges


class Way(StrEnum):
    """How inside is told from outside."""

    normal = "normal"  # the angle-weighted normal at the nearest point
    parity = "parity"
    winding = "winding"
    wrap = "wrap"


@dataclass(frozen=True)
class Verdict:
    """A mesh whose inside is known, and how.

    mesh: the mesh to measure distances to, which is another one if it was wrapped. doubt: share of
    near-surface points whose winding number is not a whole number from 0 up. disagreement: share
    where ray parity and winding number tell different things. note: what is to be said about it.
    """

    mesh: Mesh
    way: Way
    doubt: float
    disagreement: float
    note: str = ""


def judge(mesh: Mesh, sign: str, *, max_doubt: float, rng: np.random.Generator) -> Verdict:
    """Choose how to tell inside from outside of a cleaned mesh in unit space.

    `sign` is "auto" or the name of a way. "auto" takes the normal at the nearest point if it agrees
    with the winding number: exact for one clean closed surface, and it costs next to nothing. Else
    the winding number decides, which handles bodies that overlap and holes, unless it is in doubt
    at more than `max_doubt` of the points and ray parity contradicts it: then the mesh is wrapped.

    Raises:
        InputError: inside and outside cannot be told apart.
    """
    points = _near_points(mesh, rng)
    number = winding(mesh, points)
    doubt = float(np.mean((np.abs(number - np.round(number)) > WHOLE) | (number < -BELOW)))
    some = slice(0, RAYS)
    odd = np.round(number[some]).astype(np.int64) % 2 == 1
    disagreement = float(np.mean(parity(mesh, points[some]) != odd))
    if sign == Way.wrap:
        return _wrapped(mesh, doubt, disagreement)
    if sign != "auto":
        return Verdict(mesh, Way(sign), doubt, disagreement)
    if doubt > max_doubt:
        if disagreement > DISPUTED:
            return _wrapped(mesh, doubt, disagreement)
        raise InputError(_open(doubt))
    signed = _signed_by_normal(mesh, points)
    agrees = np.mean((number > 0.5) != (signed < 0)) <= AGREES
    return Verdict(mesh, Way.normal if agrees else Way.winding, doubt, disagreement)


def signed_distance(verdict: Verdict, points: Points) -> NDArray[np.float64]:  # [M, 3] -> [M]
    """Measure exact distances to the mesh, negative inside, in the way that was chosen."""
    signed = _signed_by_normal(verdict.mesh, points)
    if verdict.way in (Way.normal, Way.wrap):
        return signed
    if verdict.way is Way.winding:
        inside = winding(verdict.mesh, points) > 0.5
    else:
        inside = parity(verdict.mesh, points)
    return np.where(inside, -np.abs(signed), np.abs(signed))


def winding(mesh: Mesh, points: Points) -> NDArray[np.float64]:  # [M, 3] -> [M]
    """Measure the generalised winding number: 1 inside, 0 outside, between at an open surface."""
    found: NDArray[np.float64] = igl.fast_winding_number(
        mesh.vertices, mesh.faces.astype(np.int64), points
    )
    return found


def parity(mesh: Mesh, points: Points) -> NDArray[np.bool_]:  # [M, 3] -> [M]
    """Count what rays pass: inside if most of three rays pass an odd number of surfaces.

    It does not ask which way faces look, and it is misled by holes and by bodies that overlap.
    """
    tree = igl.AABB()
    faces = mesh.faces.astype(np.int64)
    tree.init(mesh.vertices, faces)
    votes = np.zeros(len(points), np.int64)
    for direction in DIRECTIONS:
        ways = np.tile(direction, (len(points), 1))
        hits = tree.intersect_ray(mesh.vertices, faces, points, ways)
        ray = np.repeat(np.arange(len(points)), [len(each) for each in hits])
        along = np.array([hit[3] for each in hits for hit in each])
        order = np.lexsort((along, ray))
        ray, along = ray[order], along[order]
        fresh = np.ones(len(ray), bool)
        fresh[1:] = (ray[1:] != ray[:-1]) | (along[1:] - along[:-1] > SAME_HIT)
        votes += np.bincount(ray[fresh], minlength=len(points)) % 2
    return votes >= 2


def _near_points(mesh: Mesh, rng: np.random.Generator) -> Points:
    base = rng.permutation(surface_points(mesh.vertices, mesh.faces, SAMPLE, rng=rng))
    away = rng.standard_normal(base.shape)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return base + away * rng.uniform(*NEAR, (len(base), 1))


def _signed_by_normal(mesh: Mesh, points: Points) -> NDArray[np.float64]:
    kind = igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL
    faces = mesh.faces.astype(np.int64)
    signed: NDArray[np.float64] = igl.signed_distance(points, mesh.vertices, faces, sign_type=kind)[
        0
    ]
    return signed


def _wrapped(mesh: Mesh, doubt: float, disagreement: float) -> Verdict:
    found, offset = wrap(mesh)
    note = f"wrapped: the surface lies within {offset:.2%} of the radius (19 of 20 points)"
    return Verdict(found, Way.wrap, doubt, disagreement, note)


def _open(doubt: float) -> str:
    return (
        f"the surface is open: for {doubt:.0%} of the points near it inside and outside "
        "cannot be told apart: fit it with `--field udf`, or close it"
    )
