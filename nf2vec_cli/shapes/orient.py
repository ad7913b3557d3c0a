"""Edges, windings and bodies of a triangle mesh: which way is out."""

from __future__ import annotations

import igl
import numpy as np
from numpy.typing import NDArray

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]
FLAT = 1e-6  # a body's volume over its area ** 1.5 below which it has no inside (a ball's is 0.09)
UNSURE = 0.25  # share of turned faces above which a body's own winding says nothing


def open_edges(faces: Faces) -> NDArray[np.int64]:  # [F, 3] -> [E, 2]
    """Give the edges that are not passed as often one way as the other, by their ends."""
    ends, net, _ = _edges(faces)
    uneven: NDArray[np.int64] = ends[net != 0]
    return uneven


def _edges(faces: Faces) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give each edge's ends [E, 2], passes one way less the other [E], and passes [E]."""
    size = int(faces.max()) + 1
    tails, heads = faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)
    # an edge's number, times two, plus the way that it is passed: one sort does for both
    number = np.minimum(tails, heads) * size + np.maximum(tails, heads)
    coded = np.sort(2 * number + (tails < heads))
    number, ways = coded >> 1, 2 * (coded & 1) - 1
    starts = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
    ends = np.stack(np.divmod(number[starts], size), axis=1)
    return ends, np.add.reduceat(ways, starts), np.diff(np.r_[starts, len(number)])


def orient(vertices: Vertices, faces: Faces) -> tuple[Faces, bool, list[str]]:
    """Make neighbouring faces agree, and closed bodies face outward.

    Returns:
        Faces; whether every edge is passed as often one way as the other, so that inside and
        outside are defined; and what was changed, in words.
    """
    notes = []
    ends, net, passes = _edges(faces)
    wrong = int((net != 0).sum())
    clash = np.unique(ends[(passes == 2) & (net != 0)])  # corners where two neighbours disagree
    unsure: NDArray[np.int64] | None = None
    if len(clash):
        turned, guessed = _agreed(faces, clash)
        left = len(open_edges(turned))
        if left < wrong:
            notes.append(f"{int((turned != faces).any(axis=1).sum())} faces turned")
            faces, wrong, unsure = turned, left, guessed
    faces, inverted = _outward(vertices, faces, unsure)
    if inverted:
        notes.append(f"{inverted} inside-out bodies turned")
    return faces, wrong == 0, notes


def _agreed(faces: Faces, clash: NDArray[np.int64]) -> tuple[Faces, NDArray[np.int64]]:
    """Make faces agree in the bodies at the vertices `clash`; the others cost time for nothing."""
    count, body = igl.facet_components(faces)
    marked = np.zeros(int(faces.max()) + 1, bool)
    marked[clash] = True
    rough = np.zeros(count, bool)
    rough[body[marked[faces].any(axis=1)]] = True
    part = np.flatnonzero(rough[body])
    turned, patch = igl.bfs_orient(faces[part])
    agreed = faces.copy()
    agreed[part], unsure = _like_most(turned, faces[part], patch)
    return agreed, part[unsure]


def _like_most(
    turned: Faces, faces: Faces, patch: NDArray[np.int64]
) -> tuple[Faces, NDArray[np.int64]]:
    """Wind each patch as most of its faces were; also give the faces where "most" is a guess."""
    differs = (turned != faces).any(axis=1)
    share = (np.bincount(patch, differs) / np.bincount(patch))[patch]
    turned = np.where((share > 0.5)[:, None], turned[:, ::-1], turned)
    # rows that came back are written as they were, corner for corner
    turned = np.where((differs == (share > 0.5))[:, None], faces, turned)
    return turned, np.flatnonzero(np.minimum(share, 1 - share) > UNSURE)


def _outward(
    vertices: Vertices, faces: Faces, unsure: NDArray[np.int64] | None
) -> tuple[Faces, int]:
    """Turn bodies that are inside out; one that lies within another is a cavity and stays.

    A cavity is told by its winding alone, so in a mesh whose windings were a guess (the faces
    `unsure`) a body is turned wherever it lies.
    """
    count, body = igl.facet_components(faces)
    unit = (vertices - vertices.min(0)) / np.ptp(vertices, axis=0).max()
    volume = _signed_volumes(unit, faces, body, count)
    negative = volume < 0
    turn = np.zeros(count, bool)
    if volume.sum() < 0:  # the whole is inside out, cavities too
        turn[:] = True
        negative = volume > 0
    if negative.any() and not negative.all():
        sure = np.ones(count, bool)
        if unsure is not None:
            sure[body[unsure]] = False
        first = np.unique(body, return_index=True)[1]
        probes = unit[faces[first]].mean(axis=1)
        hosts = faces[~negative[body]]
        if turn.any():
            hosts = hosts[:, ::-1]
        winding = np.zeros(count)
        winding[negative] = igl.fast_winding_number(unit, hosts, probes[negative])
        turn ^= negative & ~(sure & (winding > 0.5))
    elif negative.any():
        turn ^= negative
    turn &= volume != 0
    if not turn.any():
        return faces, 0
    return np.where(turn[body][:, None], faces[:, ::-1], faces), int(turn.sum())


def _signed_volumes(
    unit: Vertices, faces: Faces, body: NDArray[np.int64], count: int
) -> NDArray[np.float64]:  # [count]
    """Measure each body's volume, negative if it is inside out, 0 if it is too flat to tell.

    It is taken about the body's own middle: for an open one that is the best guess there is.
    """
    corners = [unit[faces[:, k]] for k in range(3)]
    size = np.bincount(body, minlength=count)
    middle = np.stack(
        [np.bincount(body, sum(c[:, axis] for c in corners), count) for axis in range(3)], axis=1
    ) / (3 * size[:, None])
    a, b, c = (corner - middle[body] for corner in corners)
    volume = np.bincount(body, np.einsum("ij,ij->i", a, np.cross(b, c)), count) / 6
    area = np.bincount(body, np.linalg.norm(np.cross(b - a, c - a), axis=1), count) / 2
    volume[np.abs(volume) < FLAT * area**1.5] = 0
    return volume
