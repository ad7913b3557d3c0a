"""The embeddings that a retrieval searches, and the search itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.core.device import open_device
from nf2vec_cli.core.neighbours import measured, nearest
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.tasks.ann import ApproximateIndex
from nf2vec_cli.tasks.queries import Queries

EXACT_BATCH = 4096  # queries that share one pass over the gallery
ANN_BATCH = 64  # queries whose candidates are read from the store at once


class Metric(StrEnum):
    """How far two embeddings are from each other."""

    cosine = "cosine"
    euclidean = "euclidean"


@dataclass(frozen=True)
class Ranking:
    """What one query found: rows of the store and their distances [K], the nearest first."""

    number: int  # of the query
    rows: Rows
    distances: NDArray[np.float64]


@dataclass(frozen=True)
class Gallery:
    """Embeddings of some rows of a store.

    rows: rising. approximate: they are searched by a graph, not by looking at each. part: numbers
    of an embedding that are compared; a graph compares all.
    """

    kept: Embeddings
    rows: Rows
    metric: Metric = Metric.cosine
    approximate: bool = False
    part: slice = field(default_factory=lambda: slice(None))

    def among(self, rows: Rows) -> Rows:
        """List those of some rows that are in the gallery."""
        places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        found: Rows = rows[self.rows[places] == rows]
        return found

    def rank(
        self, queries: Queries, k: int, *, device: str = "auto", progress: Progress | None = None
    ) -> Iterator[Ranking]:
        """Rank the k nearest rows for each query, in the order of the queries.

        As many more are looked for as the rows that must not answer, and those are taken out by
        what they are: a query need not be its own nearest neighbour, since equal objects exist.
        """
        target, teller = open_device(device), progress or Silent()
        barred = [self.among(rows) for rows in queries.barred]
        if self.approximate:
            found = self._by_graph(queries, k, barred, teller)
        else:
            found = self._by_all(queries, k, barred, target, teller)
        for number, (distances, rows) in enumerate(found):
            keep = ~np.isin(rows, barred[number])
            yield Ranking(number, rows[keep][:k], distances[keep][:k])

    def _by_all(
        self,
        queries: Queries,
        k: int,
        barred: list[Rows],
        device: torch.device,
        teller: Progress,
    ) -> Iterator[tuple[NDArray[np.float64], Rows]]:
        batches = range(0, len(queries), EXACT_BATCH)
        teller.start(len(batches) * len(self.rows), "search")
        for start in batches:
            stop = min(start + EXACT_BATCH, len(queries))
            z = torch.from_numpy(queries.embeddings(self.kept, start, stop)[:, self.part])
            z = z.contiguous().to(device)
            wanted = k + max(map(len, barred[start:stop]))
            distances, rows = nearest(
                z, self._blocks(teller), wanted, cosine=self.metric is Metric.cosine
            )
            yield from zip(distances.cpu().numpy(), rows.cpu().numpy(), strict=True)

    def _blocks(self, teller: Progress) -> Iterator[tuple[Tensor, Tensor]]:
        for rows, values in self.kept.blocks(self.rows):
            yield torch.from_numpy(rows), torch.from_numpy(values[:, self.part]).contiguous()
            teller.advance(len(rows))

    def _by_graph(
        self, queries: Queries, k: int, barred: list[Rows], teller: Progress
    ) -> Iterator[tuple[NDArray[np.float64], Rows]]:
        cosine = self.metric is Metric.cosine
        graph = ApproximateIndex(self.kept, self.rows, cosine=cosine, progress=teller)
        teller.start(len(queries), "search")
        for start in range(0, len(queries), ANN_BATCH):
            stop = min(start + ANN_BATCH, len(queries))
            z = queries.embeddings(self.kept, start, stop)
            wanted = k + max(map(len, barred[start:stop]))
            found = graph.search(z, wanted)
            known = np.unique(np.concatenate(found))
            values = torch.from_numpy(self.kept.read(known))
            for query, near in zip(torch.from_numpy(z), found, strict=True):
                rows = np.sort(near)
                there = values[np.searchsorted(known, rows)]
                distances = measured(query[None], there[None], cosine)[0].numpy()
                order = np.argsort(distances, kind="stable")
                yield distances[order], rows[order]
                teller.advance()
