"""What training reads again and again: sound fields only, in memory where they fit."""

from __future__ import annotations

import numpy as np

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.store import Rows, Store, grouped

HELD_BYTES = 2 << 30  # of weights that are kept in memory; above, each batch is read from the store


class HeldFields:
    """Weights and surface points by row. `rows`: those asked for whose weights are all finite."""

    def __init__(self, store: Store, rows: Rows, *, progress: Progress) -> None:
        self.store = store
        size = len(store.init)
        fits = len(rows) * (size + SURFACE_POINTS * 3) * 4 <= HELD_BYTES
        self._held = np.empty((len(rows) if fits else 0, size), np.float32)
        self._surface = np.empty((len(self._held), SURFACE_POINTS, 3), np.float32)
        self._place = np.full(store.slots, -1, np.int64)
        progress.start(len(rows), "read")
        sound: list[int] = []
        for at in grouped(rows, store.batch):
            part = rows[at]
            theta = store.weights(part)
            good = np.isfinite(theta).all(1)
            place = len(sound) + np.arange(good.sum())
            self._place[part[good]] = place
            if fits:
                self._held[place] = theta[good]
                self._surface[place] = store.surface(part[good])
            sound += part[good].tolist()
            progress.advance(len(part))
        self.rows: Rows = np.array(sound, np.int64)

    def take(self, rows: Rows) -> Floats:
        """Give the weights of some rows, [B, P]."""
        if not len(self._held):
            return self.store.weights(rows)
        found: Floats = self._held[self._place[rows]]
        return found

    def surface(self, rows: Rows) -> Floats:
        """Give points on the surfaces of some rows, [B, SURFACE_POINTS, 3]."""
        if not len(self._held):
            return self.store.surface(rows)
        found: Floats = self._surface[self._place[rows]]
        return found
