"""One process's share of a plan that several work at without an engine: `--shard I/N`."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from nf2vec_cli.errors import UsageFault
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import Place

PATIENCE = 3600.0  # seconds that a process waits for the others' writes, if it is not told


@dataclass(frozen=True)
class Share:
    """Number `number` of `count` equal shares, from 1.

    Rows are dealt out by whole batches of the store, which are what is committed at once.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def owns(self, places: Any) -> Any:
        """Tell whose a place is, or many (an array): they are dealt out in turn."""
        return places % self.count == self.number - 1


def parse_share(text: str) -> Share:
    """Read I/N.

    Raises:
        UsageFault: it is no share.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    share = Share(int(found[1]), int(found[2])) if found else None
    if share is None or not 1 <= share.number <= share.count:
        raise UsageFault(
            f"`--shard {text}` is no share: they count from 1/N to N/N",
            hint="`--shard 1/4`; in a Slurm array `#SBATCH --array=1-4` and "
            "`--shard $SLURM_ARRAY_TASK_ID/4`",
        )
    return share


class Turns:
    """Who writes when: a run alone holds the store throughout, one of several only to write.

    Args:
        store: where the store is.
        share: what this process does of the plan; None: all.
        wait: seconds to wait for other writers; None: not at all, or with a share for an hour.
    """

    def __init__(self, store: Place, share: Share | None, wait: float | None) -> None:
        self._store, self._shared = store, share is not None
        self._wait = PATIENCE if wait is None and self._shared else wait

    def run(self, *, make: bool = False) -> AbstractContextManager[None]:
        """Hold the store for the run, if it is alone."""
        return nullcontext() if self._shared else self._lock(make)

    def write(self, *, make: bool = False) -> AbstractContextManager[None]:
        """Hold the store for what is written inside, if `run` does not."""
        return self._lock(make) if self._shared else nullcontext()

    def _lock(self, make: bool) -> AbstractContextManager[None]:
        return store_lock(self._store, wait=self._wait, make=make)
