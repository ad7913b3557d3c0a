"""Dirt on purpose: what the meshes of the wild have wrong, added to a clean one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Raw = tuple[NDArray[np.float64], NDArray[np.int64]]  # vertices [V, 3], faces [F, 3]
Dirt = Callable[[NDArray[np.float64], NDArray[np.int64], np.random.Generator], Raw]


def holes(vertices, faces, rng, share=0.05) -> Raw:
    """Some faces are missing."""
    return vertices, faces[rng.random(len(faces)) >= share]


def flipped(vertices, faces, rng, share=0.3) -> Raw:
    """Some faces look inward."""
    turn = rng.random(len(faces)) < share
    return vertices, np.where(turn[:, None], faces[:, ::-1], faces)


def doubled(vertices, faces, rng) -> Raw:
    """Every face is there twice."""
    return vertices, rng.permutation(np.concatenate([faces, faces]))


def two_sided(vertices, faces, rng) -> Raw:
    """Every face is there twice, once for each side."""
    return vertices, rng.permutation(np.concatenate([faces, faces[:, ::-1]]))


def _joined(vertices, faces, second) -> Raw:
    return np.concatenate([vertices, second]), np.concatenate([faces, faces + len(vertices)])


def _smaller(vertices, faces) -> NDArray[np.float64]:
    return 0.6 * vertices + 0.4 * vertices[faces].mean((0, 1))


def _moved(vertices, faces) -> NDArray[np.float64]:
    del faces
    return 0.8 * vertices + [0.1, 0.07, 0.05]


def inner_shell(vertices, faces, rng) -> Raw:
    """A smaller copy that looks outward: where it is inside the first it changes nothing."""
    del rng
    return _joined(vertices, faces, _smaller(vertices, faces))


def overlapping(vertices, faces, rng) -> Raw:
    """A second body, moved and made smaller, that overlaps the first."""
    del rng
    return _joined(vertices, faces, _moved(vertices, faces))


def duplicated(vertices, faces, rng) -> Raw:
    """The whole body twice, each with vertices of its own."""
    del rng
    return _joined(vertices, faces, vertices)


def soup(vertices, faces, rng) -> Raw:
    """No two faces share a vertex, and faces come in any order."""
    faces = rng.permutation(faces)
    return vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)


def inside_out(vertices, faces, rng) -> Raw:
    """Every face looks inward."""
    del rng
    return vertices, faces[:, ::-1]


def all_at_once(vertices, faces, rng) -> Raw:
    """Doubled, then flipped, then a soup."""
    return soup(*flipped(*doubled(vertices, faces, rng), rng), rng)


def holes_and_flips(vertices, faces, rng) -> Raw:
    """A soup with flipped faces and holes."""
    return soup(*flipped(*holes(vertices, faces, rng), rng), rng)


def torn(vertices, faces, rng, by=3e-4) -> Raw:
    """A soup with flipped faces whose corners do not quite meet."""
    vertices, faces = soup(*flipped(vertices, faces, rng), rng)
    return vertices + by * rng.uniform(-1, 1, vertices.shape), faces


DIRT: dict[str, Dirt] = {
    "none": lambda vertices, faces, rng: (vertices, faces),  # noqa: ARG005
    "5 % of faces missing": holes,
    "30 % of faces flipped": flipped,
    "doubled, same winding": doubled,
    "doubled, both windings": two_sided,
    "inner shell": inner_shell,
    "overlapping bodies": overlapping,
    "duplicated body": duplicated,
    "soup": soup,
    "inside out": inside_out,
    "doubled, flipped, soup": all_at_once,
    "missing, flipped, soup": holes_and_flips,
    "torn and flipped soup": torn,
}
# the vertices of the second body, where there is one
SECOND = {"inner shell": _smaller, "overlapping bodies": _moved}
