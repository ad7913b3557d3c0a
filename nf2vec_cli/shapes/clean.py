"""Repair what is broken in the numbers of a mesh, never in its shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.orient import Faces, Vertices, open_edges, orient

# distances, relative to the bounding box's diagonal, within which vertices at open edges are one:
# the rounding of a 32-bit file, and that of a text file with five digits
MERGE = (2.5e-7, 1e-5)
BITS = 21  # of a grid's coordinate: the finest tolerance leaves 2 million cells along an axis
FOLDED = 0.01  # largest share of faces that may be taken for folded slivers
LARGEST = 1e100  # sizes beyond it, or below its inverse, overflow when they are squared


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

    Vertices are merged as little as it takes: equal ones first; a tolerance is tried only if the
    mesh is open without it, and kept only if it closes the mesh, since it can collapse thin walls.

    Raises:
        InputError: there is a NaN or infinity, or no area.
    """
    count = len(faces)
    vertices, faces = used_vertices(vertices, faces)
    refuse_nonsense(vertices, faces)
    vertices, faces = _merged(vertices, faces, _equal(vertices))
    if not len(faces):
        raise InputError("nothing is left of its faces once equal points are merged")
    best = _best(vertices, faces)
    diagonal = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    for tolerance in MERGE:
        if best.watertight:
            break
        loose = np.unique(open_edges(best.faces))
        group = _close(vertices, loose, tolerance * diagonal)
        points, kept = _merged(vertices, faces, group)
        if len(kept) and len(points) < len(vertices):
            mesh = _best(points, kept)
            best = mesh if mesh.watertight else best
    notes = best.notes
    if len(best.faces) < count:
        notes = (f"{count - len(best.faces)} doubled or collapsed faces dropped", *notes)
    return Mesh(*used_vertices(best.vertices, best.faces), best.watertight, notes)


def used_vertices(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Leave out the vertices that no face names: they may hold anything."""
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    if used.all():
        return vertices, faces
    return vertices[used], (np.cumsum(used) - 1)[faces]


def refuse_nonsense(vertices: Vertices, faces: Faces) -> None:
    finite = np.asarray(np.isfinite(vertices).all(axis=1))
    if not finite.all():
        wrong = len(faces) - int(finite[faces].all(axis=1).sum())
        raise InputError(f"{wrong} of its {len(faces)} faces have a NaN or infinite corner")
    with np.errstate(over="ignore"):
        size = float(np.ptp(vertices, axis=0).max())
    if size == 0:
        raise InputError("all its points are the same")
    if not 1 / LARGEST < size < LARGEST:
        raise InputError(f"its size ({size:g}) is beyond what numbers can hold")
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross((b - a) / size, (c - a) / size), axis=1).sum() / 2
    if area < 1e-9:
        raise InputError("its faces have no area")


def _equal(vertices: Vertices) -> NDArray[np.int64]:  # [V]
    """Number vertices so that equal ones have one number."""
    keys = (np.ascontiguousarray(vertices) + 0.0).view(np.int64)  # + 0.0 makes -0.0 and 0.0 one
    order = np.lexsort(keys.T)
    ordered = keys[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(fresh) - 1
    return group


def _close(
    vertices: Vertices, some: NDArray[np.int64], distance: float
) -> NDArray[np.int64]:  # [V]
    """Number vertices so that those of `some` that are within `distance` have one number.

    Rounding to a grid would part close points that lie on two sides of a line; of eight grids,
    each shifted by half a cell along some axes, at least one holds them in one cell.
    """
    moved = (vertices[some] - vertices[some].min(0)) / (2 * distance)
    links = []
    for shift in product((0, 0.5), repeat=3):
        x, y, z = np.floor(moved + shift).astype(np.int64).T
        cell = (x << 2 * BITS) | (y << BITS) | z
        order = np.argsort(cell)
        same = np.flatnonzero(cell[order[1:]] == cell[order[:-1]])
        links.append(np.stack([order[same], order[same + 1]]))
    ends = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(ends.shape[1], bool), (ends[0], ends[1])), shape=(len(some),) * 2)
    group = np.arange(len(vertices))
    group[some] = len(vertices) + connected_components(graph, directed=False)[1]
    return np.unique(group, return_inverse=True)[1]


def _merged(vertices: Vertices, faces: Faces, group: NDArray[np.int64]) -> tuple[Vertices, Faces]:
    """Make one vertex of each group, its first; drop the faces that collapse."""
    first = np.empty(int(group.max()) + 1, np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]
    faces = group[faces]
    a, b, c = faces.T
    whole = (a != b) & (b != c) & (c != a)
    return vertices[first], faces if whole.all() else faces[whole]


def _best(vertices: Vertices, faces: Faces) -> Mesh:
    """Drop doubled faces in the way that leaves a closed surface, if there is one."""
    fallback: Mesh | None = None
    for kept in _without_doubles(faces):
        turned, closed, notes = orient(vertices, kept)
        mesh = Mesh(vertices, turned, closed, tuple(notes))
        if mesh.watertight:
            return mesh
        fallback = fallback or mesh
    assert fallback is not None  # there is always a first way
    return fallback


def _without_doubles(faces: Faces) -> Iterator[Faces]:
    """Give ways to drop faces that have the same corners, the likeliest first.

    Those that look one way are the same face twice. Two that look opposite ways are a sheet with
    two sides, of which one is kept; or, where they are few, the wall between two bodies or a
    sliver that folded up when its corners were merged: they cancel, since one face alone would
    open the surface. At last each is kept as often as it is not cancelled, as where two bodies
    share a wall that they look at from the same side: this never opens what was closed.
    """
    corners = np.sort(faces, axis=1)
    order = np.lexsort((corners[:, 2], corners[:, 0] * (int(corners.max()) + 1) + corners[:, 1]))
    fresh = np.ones(len(order), bool)
    fresh[1:] = (corners[order][1:] != corners[order][:-1]).any(axis=1)
    if fresh.all():
        yield faces
        return
    starts = np.flatnonzero(fresh)
    way = np.where(_even(faces), 1, -1)
    net = np.add.reduceat(way[order], starts)
    first = order[starts]
    single = np.where((way[first] * net < 0)[:, None], faces[first][:, ::-1], faces[first])
    ways = [np.ones(len(net), np.int64), (net != 0).astype(np.int64)]
    if (net == 0).mean() <= FOLDED:
        ways.reverse()
    for copies in (*ways, np.abs(net)):
        if copies.any():
            yield np.repeat(single, copies, axis=0)


def _even(faces: Faces) -> NDArray[np.bool_]:
    """Tell which faces pass their corners in an even permutation of the sorted order."""
    a, b, c = faces.T
    even: NDArray[np.bool_] = (a < b) & (b < c) | (b < c) & (c < a) | (c < a) & (a < b)
    return even
