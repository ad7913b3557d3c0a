"""The nearest rows of a gallery that need not fit into memory: exact, one block after another."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

SPARE = 8  # candidates beyond k that are measured exactly: the product's rounding swaps near equals
TILE_BYTES = 32 << 20  # of scores and candidates that are held at once


def nearest(
    queries: Tensor,  # [Q, E]
    blocks: Iterable[tuple[Tensor, Tensor]],  # places [C], rows [C, E]
    k: int,
    *,
    cosine: bool = True,
) -> tuple[Tensor, Tensor]:  # distances [Q, K], places [Q, K]
    """Find the k nearest rows of a gallery for each query; only a block is in memory at a time.

    Args:
        queries: float32, on the device that computes.
        blocks: the gallery, block by block: what each row is called, and the rows, float32.
        k: neighbours wanted; K is k, or the length of the gallery if that is less.
        cosine: 1 - cosine, in [0, 2], or else the Euclidean distance, in the embedding's unit.

    Returns:
        Distances, float64, rising, and the places of the rows; of equals the first comes first.
    """
    best = queries.new_empty(len(queries), 0, dtype=torch.float64)
    places = queries.new_empty(len(queries), 0, dtype=torch.int64)
    for named, rows in blocks:
        found, at = block_nearest(queries, rows.to(queries.device), k, cosine)
        best = torch.cat([best, found], dim=1)
        places = torch.cat([places, named.to(queries.device)[at]], dim=1)
        best, order = best.sort(dim=1, stable=True)
        best, places = best[:, :k], places.gather(1, order)[:, :k]
    return best, places


def block_nearest(
    queries: Tensor, block: Tensor, k: int, cosine: bool
) -> tuple[Tensor, Tensor]:  # [Q, E], [C, E] -> distances, places [Q, min(k, C)]
    """Find the nearest rows of one block.

    One matrix product ranks the block in single precision, then the best k + SPARE are measured in
    double precision, so that a row is at distance 0 from itself. A tile of queries at a time.
    A plain function: the first call of a `torch.library.custom_op` takes 1.3 CPU seconds (it
    imports the compiler), more than a search of 20,000 rows.
    """
    kept, asked = min(k, len(block)), min(k + SPARE, len(block))
    norms = block.norm(dim=1)
    tile = max(1, TILE_BYTES // (4 * len(block) + 8 * asked * block.shape[1] + 1))
    distances = queries.new_empty(len(queries), kept, dtype=torch.float64)
    places = queries.new_empty(len(queries), kept, dtype=torch.int64)
    for start in range(0, len(queries), tile):
        part = queries[start : start + tile]
        scores = part @ block.T
        if cosine:
            scores /= norms.clamp_min(1e-30)
        else:
            scores -= norms.square() / 2  # the query's own length changes no order
        # in the order of the rows, so that a stable sort leaves equals in it
        candidates = scores.topk(asked, dim=1, sorted=False).indices.sort(dim=1).values
        exact = measured(part, block[candidates], cosine)
        found, order = exact.sort(dim=1, stable=True)
        distances[start : start + tile] = found[:, :kept]
        places[start : start + tile] = candidates.gather(1, order)[:, :kept]
    return distances, places


def nearest_twin(
    queries: Tensor, gallery: Tensor, k: int, *, cosine: bool = True
) -> tuple[Tensor, Tensor]:  # [Q, E], [N, E] -> [Q, K], [Q, K]
    """Measure every pair in double precision and sort: what `nearest` must agree with."""
    pairs = gallery[None].expand(len(queries), *gallery.shape)
    found, order = measured(queries, pairs, cosine).sort(dim=1, stable=True)
    return found[:, :k], order[:, :k]


def measured(queries: Tensor, rows: Tensor, cosine: bool) -> Tensor:
    """Measure each query against rows of its own: [Q, E], [Q, C, E] -> [Q, C], float64."""
    there, here = rows.double(), queries.double().unsqueeze(1)
    if not cosine:
        length: Tensor = (there - here).square_().sum(2).sqrt_()
        return length
    product = (there * here).sum(2)
    lengths = there.norm(dim=2) * here.norm(dim=2)
    # a row without length is at a right angle to everything
    found: Tensor = (1 - product / lengths.clamp_min(1e-300)).clamp_(0, 2)
    return found
