"""Embeddings laid out in a plane, and who is next to whom among them."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import UsageFault
from nf2vec_cli.store.codec import Floats

LEAST = 5  # objects from which t-SNE and UMAP have neighbours to speak of
NEIGHBOURS = 15  # of each object in UMAP, its authors' default
PERPLEXITY = 30.0  # of t-SNE, its authors' default; a third of the objects where they are few
BLOCK = 1024  # objects whose neighbours are looked for at once
Plane = NDArray[np.float64]


class MapKind(StrEnum):
    """How embeddings come into the plane."""

    pca = "pca"
    tsne = "tsne"
    umap = "umap"


LINE = "nf2vec view STORE"  # a command without --map, for hints
NAMES = {MapKind.pca: "PCA", MapKind.tsne: "t-SNE", MapKind.umap: "UMAP"}
NEEDS = {MapKind.tsne: ("sklearn", "scikit-learn"), MapKind.umap: ("umap", "umap-learn")}


def require_map(kind: MapKind, line: str = LINE) -> None:
    """See that the package which a map needs is installed; line: the command without --map.

    Raises:
        UsageFault: it is not.
    """
    if kind not in NEEDS:
        return
    module, package = NEEDS[kind]
    if find_spec(module) is None:
        raise UsageFault(
            f"`--map {kind}` needs {package}, which is not installed",
            hint=f"`pip install 'nf2vec[view]'`, or `{line} --map pca`",
        )


def plane_of(z: Floats, kind: MapKind, *, seed: int, line: str = LINE) -> Plane:  # [N, E] -> [N, 2]
    """Lay embeddings out in the plane (paper, Fig. 9: t-SNE of the embeddings of a test set).

    Args:
        z: embeddings, each scaled to length 1 here, so that all maps and the neighbours go by the
            same cosine.
        kind: principal components, t-SNE or UMAP.
        seed: of t-SNE and UMAP; principal components draw nothing.
        line: the command without --map, for the hints.

    Raises:
        UsageFault: the package is not installed, or there are too few objects.
    """
    require_map(kind, line)
    unit = _unit(z)
    if kind is MapKind.pca:
        return _principal(unit)
    if len(unit) < LEAST:
        raise UsageFault(
            f"`--map {kind}` needs {LEAST} objects or more, there are {len(unit)}",
            hint=f"`{line} --map pca`",
        )
    if kind is MapKind.tsne:
        made = import_module("sklearn.manifold").TSNE(
            perplexity=min(PERPLEXITY, (len(unit) - 1) / 3), init="pca", random_state=seed
        )
    else:
        made = import_module("umap").UMAP(
            n_neighbors=min(NEIGHBOURS, len(unit) - 1),
            metric="cosine",
            random_state=seed,
            n_jobs=1,  # a seed asks for it
        )
    return np.asarray(made.fit_transform(unit), np.float64)


def nearest(z: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:  # [N, E] -> [N, k], [N, k]
    """Find the k most similar others of each object by cosine, the most similar first.

    Returns:
        Their places and cosines; fewer than k columns where there are fewer others.
    """
    unit = _unit(z)
    k = max(0, min(k, len(unit) - 1))
    places, scores = np.empty((len(unit), k), np.int64), np.empty((len(unit), k), np.float32)
    for start in range(0, len(unit), BLOCK):
        cosine = unit[start : start + BLOCK] @ unit.T
        mine = np.arange(len(cosine))
        cosine[mine, mine + start] = -np.inf
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        places[start : start + BLOCK] = best
        scores[start : start + BLOCK] = np.take_along_axis(cosine, best, axis=1)
    return places, scores


def _unit(z: Floats) -> Floats:
    length = np.linalg.norm(z, axis=1, keepdims=True)
    unit: Floats = z / np.maximum(length, np.finfo(np.float32).tiny)
    return unit


def _principal(unit: Floats) -> Plane:
    """Give the first two principal components; of each, the largest entry is positive."""
    centred = unit.astype(np.float64) - unit.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.vstack([axes, np.zeros((2, axes.shape[1]))])[:2]  # one object has one axis
    largest = axes[np.arange(2), np.abs(axes).argmax(1)]
    found: Plane = centred @ (axes * np.where(largest < 0, -1, 1)[:, None]).T
    return found
