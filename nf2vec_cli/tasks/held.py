"""What training reads again and again: sound fields only, in memory where they fit."""

from __future__ import annotations

import numpy as np
import torch

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.core.ranks import ALONE, Ranks
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.blocks import Rows, grouped
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.store import Store

HELD_BYTES = 2 << 30  # of weights that are kept in memory; above, each batch is read from the store


class HeldFields:
    """Weights and surface points by row. `rows`: those asked for whose weights are all finite.

    Each of several `ranks` reads its share of the shards, to tell which rows are sound, and later
    what its shares of batches need; what fits is kept.
    """

    def __init__(
        self, store: Store, rows: Rows, *, progress: Progress, ranks: Ranks = ALONE
    ) -> None:
        self.store = store
        size = len(store.init)
        self._fits = len(rows) * (size + SURFACE_POINTS * 3) * 4 <= HELD_BYTES
        room = len(rows) if self._fits else 0
        self._held = np.empty((room, size), np.float32)
        self._surface = np.empty((room, SURFACE_POINTS, 3), np.float32)
        self._known = np.zeros(len(rows), bool)
        self._place = np.full(store.slots, -1, np.int64)
        self._place[rows] = np.arange(len(rows))
        sound = np.zeros(len(rows), np.int32)
        with ranks.together():
            shards = grouped(rows, store.batch)
            shards = shards[ranks.share(len(shards)).at]
            progress.start(sum(map(len, shards)), "read")
            for at in shards:
                theta = store.weights(rows[at])
                sound[at] = np.isfinite(theta).all(1)
                if self._fits:
                    self._keep(rows[at], theta)
                progress.advance(len(at))
        self.rows: Rows = rows[ranks.add(torch.from_numpy(sound)).numpy().astype(bool)]

    def take(self, rows: Rows) -> Floats:
        """Give the weights of some rows, [B, P]."""
        if not self._fits:
            return self.store.weights(rows)
        self._read(rows)
        found: Floats = self._held[self._place[rows]]
        return found

    def surface(self, rows: Rows) -> Floats:
        """Give points on the surfaces of some rows, [B, SURFACE_POINTS, 3]."""
        if not self._fits:
            return self.store.surface(rows)
        self._read(rows)
        found: Floats = self._surface[self._place[rows]]
        return found

    def _read(self, rows: Rows) -> None:
        """Read what another process has looked at."""
        missing = rows[~self._known[self._place[rows]]]
        if len(missing):
            self._keep(missing, self.store.weights(missing))

    def _keep(self, rows: Rows, theta: Floats) -> None:
        place = self._place[rows]
        self._held[place], self._surface[place] = theta, self.store.surface(rows)
        self._known[place] = True
