"""Ray parity: a point is inside if a ray from it crosses the surface an odd number of times.

Faces need not agree on a side, which is what the winding number cannot do without.
"""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.orient import Faces, Vertices
from nf2vec_cli.shapes.sample import Points

LINES = 5  # each is two rays, up and down
BLOCK = 20_000  # rays cast at once: their hits come as lists
PROBES, LAYERS = 64, 200  # rays cast first, and the faces that one may cross on the mean
SAME = 1e-6  # crossings of a ray this close, by faces that look one way, are one (hits are float32)


@dataclass(frozen=True)
class Parity:
    """inside [M] bool: what most lines say; sure [M] bool: enough lines say it."""

    inside: NDArray[np.bool_]
    sure: NDArray[np.bool_]


def parity(vertices: Vertices, faces: Faces, points: Points, *, lines: int = LINES) -> Parity:
    """Tell inside from outside at points [M, 3] by the vote of several lines through each.

    A line that crosses the surface an odd number of times in all went through a hole: it has no
    vote. A point is sure if at least half of its lines vote and three of four of those agree.

    Raises:
        InputError: rays cross hundreds of faces: to count all would take hours and gigabytes.
    """
    faces = faces.astype(np.int64)
    tree = igl.AABB()
    tree.init(vertices, faces)
    _refuse_layers(tree, vertices, faces, points)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    odd = np.zeros(len(points), np.int64)
    votes = np.zeros(len(points), np.int64)
    for direction in _directions(lines):
        front = normals @ direction > 0
        above, below = (
            _crossings(tree, vertices, faces, points, way, front) for way in (direction, -direction)
        )
        whole = (above + below) % 2 == 0
        votes += whole
        odd += whole & (above % 2 == 1)
    most = np.maximum(odd, votes - odd)
    return Parity(2 * odd > votes, (2 * votes >= lines) & (4 * most >= 3 * votes))


def _refuse_layers(tree: igl.AABB, vertices: Vertices, faces: Faces, points: Points) -> None:
    some = points[:: max(1, len(points) // PROBES)]
    ways = np.tile(_directions(1), (len(some), 1))
    layers = sum(map(len, tree.intersect_ray(vertices, faces, some, ways))) / max(1, len(some))
    if layers > LAYERS:
        raise InputError(
            f"its faces lie over each other in hundreds of layers (a ray crosses {layers:.0f}): "
            "that is no surface"
        )


def _directions(count: int) -> NDArray[np.float64]:  # [count, 3]
    """Spread directions over the half sphere, none along an axis."""
    k = np.arange(count)
    z, turn = (k + 0.5) / count, np.pi * (3 - np.sqrt(5)) * k + 0.3
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)


def _crossings(
    tree: igl.AABB,
    vertices: Vertices,
    faces: Faces,
    points: Points,
    way: NDArray[np.float64],
    front: NDArray[np.bool_],
) -> NDArray[np.int64]:  # [M]
    """Count the surfaces that a ray from each point crosses; coincident faces count once."""
    found = np.zeros(len(points), np.int64)
    for start in range(0, len(points), BLOCK):
        some = points[start : start + BLOCK]
        hits = tree.intersect_ray(vertices, faces, some, np.tile(way, (len(some), 1)))
        ray = np.repeat(np.arange(len(some)), [len(each) for each in hits])
        if not len(ray):
            continue
        face, along = np.array([(hit[0], hit[1]) for each in hits for hit in each]).T
        side = front[face.astype(np.int64)]
        order = np.lexsort((along, side, ray))
        ray, side, along = ray[order], side[order], along[order]
        fresh = np.ones(len(ray), bool)
        fresh[1:] = (ray[1:] != ray[:-1]) | (side[1:] != side[:-1]) | (np.diff(along) > SAME)
        found[start : start + BLOCK] = np.bincount(ray[fresh], minlength=len(some))
    return found
