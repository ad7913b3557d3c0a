"""Repair what is broken in the numbers of a mesh, never in its shape."""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]
# distances, relative to the bounding box's diagonal, within which vertices are one: equal; apart
# by the rounding of a 32-bit file; apart by the rounding of a text file with five digits
MERGE = (0.0, 1e-7, 1e-5)
FOLDED = 0.01  # largest share of faces that may be taken for folded slivers


@dataclass(frozen=True)
class Mesh:
    """Triangles: vertices [V, 3] float64 and faces [F, 3] int64.

    watertight: every edge is passed as often one way as the other, so that inside and outside
    are defined. notes: what cleaning changed, in words.
    """

    vertices: Vertices
    faces: Faces
    watertight: bool
    notes: tuple[str, ...] = ()


def clean(vertices: Vertices, faces: Faces) -> Mesh:
    """Merge vertices, drop doubled and collapsed faces, make windings agree and face outward.

    Vertices are merged as little as it takes: a tolerance is tried only if the mesh is open
    without it, and kept only if it closes the mesh, since it can collapse thin walls.

    Raises:
        InputError: there is a NaN or infinity, or no area.
    """
    _refuse_nonsense(vertices, faces)
    best: Mesh | None = None
    for tolerance in MERGE:
        mesh = _oriented(*_merged(vertices, faces, tolerance))
        if best is None or (mesh.watertight and not best.watertight):
            best = mesh
        if best.watertight:
            break
    assert best is not None  # MERGE is not empty
    notes = _changes(faces, best)
    return Mesh(best.vertices, best.faces, best.watertight, (*notes, *best.notes))


def _refuse_nonsense(vertices: Vertices, faces: Faces) -> None:
    used = vertices[faces]
    bad = ~np.isfinite(used).all(axis=(1, 2))
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of its {len(faces)} faces have a NaN or infinite corner"
        )
    extent = used.max(axis=(0, 1)) - used.min(axis=(0, 1))
    size = float(extent.max())
    if not np.isfinite(size):
        raise InputError("its size is beyond what numbers can hold")
    if size == 0:
        raise InputError("all its points are the same")
    edges = (used[:, 1:] - used[:, :1]) / size
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2
    if area < 1e-9:
        raise InputError("its faces have no area")


def _merged(vertices: Vertices, faces: Faces, tolerance: float) -> tuple[Vertices, Faces]:
    """Make vertices one that are closer than `tolerance` of the diagonal; drop what collapses."""
    used = np.unique(faces)
    low, high = vertices[used].min(0), vertices[used].max(0)
    moved = vertices - low
    if tolerance:
        cell = tolerance * float(np.linalg.norm(high - low))
        keys = np.round(moved / cell).astype(np.int64)
    else:
        keys = (moved + 0.0).view(np.int64)  # + 0.0 makes -0.0 and 0.0 one
    ordered = np.lexsort(keys.T)
    fresh = np.ones(len(ordered), bool)
    fresh[1:] = (np.diff(keys[ordered], axis=0) != 0).any(axis=1)
    group = np.empty(len(ordered), np.int64)
    group[ordered] = np.cumsum(fresh) - 1
    faces = group[faces]
    points = vertices[ordered[fresh]]
    collapsed = (faces == np.roll(faces, 1, axis=1)).any(axis=1)
    faces = faces[~collapsed]
    faces = _single(faces)
    kept = np.unique(faces)
    place = np.zeros(len(points), np.int64)
    place[kept] = np.arange(len(kept))
    return points[kept], place[faces]


def _single(faces: Faces) -> Faces:
    """Keep one of the faces that have the same corners.

    Two that look opposite ways cancel: merging corners leaves such pairs where a sliver folded
    up, and one face alone would open the surface. Where they are many they are a sheet with two
    sides, of which one is kept.
    """
    corners, first, member = np.unique(
        np.sort(faces, axis=1), axis=0, return_index=True, return_inverse=True
    )
    way = np.where(_even(faces), 1, -1)
    net = np.zeros(len(corners), np.int64)
    np.add.at(net, member.reshape(-1), way)
    cancelled = net == 0
    if cancelled.mean() > FOLDED:
        cancelled[:] = False
    return faces[np.sort(first[~cancelled])]


def _even(faces: Faces) -> NDArray[np.bool_]:
    """Tell which faces pass their corners in an even permutation of the sorted order."""
    a, b, c = faces.T
    return (a < b) & (b < c) | (b < c) & (c < a) | (c < a) & (a < b)


def _oriented(vertices: Vertices, faces: Faces) -> Mesh:
    if not len(faces):
        raise InputError("nothing is left of its faces once equal points are merged")
    notes = []
    if not _balanced(faces):
        turned, _ = igl.bfs_orient(faces)
        if _imbalance(turned) < _imbalance(faces):
            flipped = int((turned != faces).any(axis=1).sum())
            notes.append(f"{min(flipped, len(faces) - flipped)} faces turned")
            faces = turned
    faces, inverted = _outward(vertices, faces, keep_cavities=not notes)
    if inverted:
        notes.append(f"{inverted} inside-out bodies turned")
    return Mesh(vertices, faces, _balanced(faces), tuple(notes))


def _directed_edges(faces: Faces) -> NDArray[np.int64]:
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    size = int(faces.max()) + 1
    low, high = edges.min(axis=1), edges.max(axis=1)
    # an edge's number, and +1 or -1 for the way it is passed
    return np.stack([low * size + high, np.where(edges[:, 0] < edges[:, 1], 1, -1)], axis=1)


def _imbalance(faces: Faces) -> int:
    """Count the edges that are not passed as often one way as the other."""
    edges = _directed_edges(faces)
    order = np.argsort(edges[:, 0], kind="stable")
    names, ways = edges[order, 0], edges[order, 1]
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    return int((np.add.reduceat(ways, starts) != 0).sum())


def _balanced(faces: Faces) -> bool:
    return _imbalance(faces) == 0


def _outward(vertices: Vertices, faces: Faces, *, keep_cavities: bool) -> tuple[Faces, int]:
    """Turn bodies that are inside out; one that lies within another is a cavity and stays."""
    count, body = igl.facet_components(faces)
    unit = (vertices - vertices.min(0)) / np.ptp(vertices, axis=0).max()
    corners = unit[faces]
    volume = np.zeros(count)
    six = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    np.add.at(volume, body, six)
    negative = np.flatnonzero(volume < -1e-12)
    if not len(negative):
        return faces, 0
    if keep_cavities and len(negative) < count:
        others = faces[~np.isin(body, negative)]
        first = np.array([np.flatnonzero(body == b)[0] for b in negative])
        inside = igl.fast_winding_number(unit, others, corners[first].mean(axis=1)) > 0.5
        negative = negative[~inside]
    turn = np.isin(body, negative)
    faces = faces.copy()
    faces[turn] = faces[turn][:, ::-1]
    return faces, len(negative)


def _changes(faces: Faces, mesh: Mesh) -> list[str]:
    notes = []
    if len(mesh.faces) < len(faces):
        notes.append(f"{len(faces) - len(mesh.faces)} doubled or collapsed faces dropped")
    return notes
