"""The nearest rows of a gallery that need not fit into memory: exact, one block after another."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nf2vec_cli.core.kernels import kernels_serve

KERNEL_K = 128  # rows that the kernel keeps a query; more go to its twin
SPARE = 8  # candidates beyond k that are measured exactly: the product's rounding swaps near equals
TILE_BYTES = 16 << 20  # of scores, or of candidates, that are held at once


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

    Products in single precision choose the best k + SPARE, which are measured in double precision,
    so that a row is at distance 0 from itself. Rows that are no numbers come last.
    """
    kept, asked = min(k, len(block)), min(k + SPARE, len(block))
    # in the order of the rows, so that a stable sort leaves equals in it
    candidates = best_rows(queries, block, *_ranking(block, cosine), asked).sort(dim=1).values
    distances = queries.new_empty(len(queries), kept, dtype=torch.float64)
    places = queries.new_empty(len(queries), kept, dtype=torch.int64)
    tile = max(1, TILE_BYTES // (8 * asked * block.shape[1] + 1))
    for start in range(0, len(queries), tile):
        part = slice(start, start + tile)
        exact = measured(queries[part], block[candidates[part]], cosine)
        found, order = exact.sort(dim=1, stable=True)
        distances[part] = found[:, :kept]
        places[part] = candidates[part].gather(1, order)[:, :kept]
    return distances, places


def _ranking(block: Tensor, cosine: bool) -> tuple[Tensor, Tensor]:  # [C, E] -> [C], [C]
    """Give factor and offset of each row's product with a query, so that the nearest is greatest.

    The query's own length changes no order. Rows whose length is no number get an offset of -inf.
    """
    norms = block.norm(dim=1)
    lost = torch.where(norms.isfinite(), 0.0, -torch.inf)
    if cosine:
        return 1 / norms.clamp_min(1e-30), lost
    return torch.ones_like(norms), lost - norms.square() / 2


def best_rows(
    queries: Tensor,  # [Q, E]
    gallery: Tensor,  # [N, E]
    scale: Tensor,  # [N]
    shift: Tensor,  # [N]
    k: int,
) -> Tensor:  # [Q, k] int64
    """Choose the k <= N rows of the greatest q g scale + shift, in single precision, in any order.

    Rows whose shift is not finite come last. The kernel holds no [Q, N] matrix; its twin holds one
    of a tile of queries. A plain function, and what programs call: the first call of an op of
    `torch.library` takes 1.3 CPU seconds (it imports the compiler), more than a search of 20,000
    rows.
    """
    if kernels_serve(queries) and k <= KERNEL_K:
        from nf2vec_cli.core.gpu.neighbours import streamed_rows

        return streamed_rows(queries, gallery, scale, shift, k)
    return best_rows_twin(queries, gallery, scale, shift, k)


def best_rows_twin(
    queries: Tensor, gallery: Tensor, scale: Tensor, shift: Tensor, k: int
) -> Tensor:
    """Choose rows as `best_rows` does, by matrix products."""
    lost = (~shift.isfinite()).nonzero()[:, 0]
    found = queries.new_empty(len(queries), k, dtype=torch.int64)
    tile = max(1, TILE_BYTES // (4 * len(gallery) + 1))
    for start in range(0, len(queries), tile):
        scores = queries[start : start + tile] @ gallery.T
        torch.addcmul(shift, scores, scale, out=scores)
        # no number is greater than all numbers to `topk`
        scores.index_fill_(1, lost, -torch.inf)
        found[start : start + tile] = scores.topk(k, dim=1, sorted=False).indices
    return found


# for tests by PyTorch's dispatcher: the program calls `best_rows`, without the compiler's import
best_rows_op = torch.library.custom_op("nf2vec::best_rows", best_rows, mutates_args=())


@best_rows_op.register_fake
def _(queries: Tensor, _gallery: Tensor, _scale: Tensor, _shift: Tensor, k: int) -> Tensor:
    return queries.new_empty(len(queries), k, dtype=torch.int64)


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
