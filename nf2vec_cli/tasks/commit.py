"""Commit fitted objects shard by shard, and count what became of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from nf2vec_cli.progress import Progress
from nf2vec_cli.store.durable import uninterrupted
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.fit_object import Failed, Fitted
from nf2vec_cli.tasks.plan import Item, Plan, Why

Outcome = Fitted | Failed


@dataclass(frozen=True)
class Failure:
    """An object that was not fitted, and the reason."""

    id: str
    reason: str


@dataclass(frozen=True)
class FitResult:
    """What a run of `fit` did. seconds: CPU seconds of the fits, added up."""

    fitted: int
    skipped: int
    failed: int
    failed_before: int
    open_surfaces: int
    seconds: float
    failures: tuple[Failure, ...] = ()


def by_shard(
    items: list[Item], outcomes: Iterator[Outcome], batch: int, progress: Progress
) -> Iterator[list[tuple[Item, Outcome]]]:
    """Collect outcomes until a shard's are complete: a shard is written once."""
    for _, group in groupby(items, key=lambda item: item.row // batch):
        done: list[tuple[Item, Outcome]] = []
        try:
            for item in group:
                outcome = next(outcomes)
                if isinstance(outcome, Failed):
                    progress.note(f"{item.ref.id}: {outcome.reason}")
                progress.advance(1, item.ref.id)
                done.append((item, outcome))
        except KeyboardInterrupt:
            if done:
                yield done  # what is finished is kept
            raise
        yield done
    for _ in outcomes:  # they end with the items, and then put away what they worked with
        raise ValueError("there are more outcomes than objects")


class Tally:
    """Commits batches to the store and counts what became of each object.

    shared: other runs write in between. What one of them has done meanwhile stays as it is.
    """

    def __init__(self, store: Store, *, shared: bool = False) -> None:
        self.store, self.shared, self.skipped = store, shared, 0
        self.fitted, self.open, self.seconds = 0, 0, 0.0
        self.failures: list[Failure] = []
        self.studies: list[dict[str, tuple[int, float]]] = []

    @uninterrupted()
    def commit(self, batch: list[tuple[Item, Outcome]]) -> None:
        """Write one batch: fields first, then the objects that failed, with their reasons."""
        if self.shared:
            batch = self._not_done(batch)
        fitted = [(i, o) for i, o in batch if isinstance(o, Fitted)]
        failed = [(i, o) for i, o in batch if isinstance(o, Failed)]
        if fitted:
            rows = np.array([item.row for item, _ in fitted])
            weights = np.stack([outcome.theta for _, outcome in fitted])
            surface = np.stack([outcome.surface for _, outcome in fitted])
            columns = _columns([outcome.columns for _, outcome in fitted])
            beside = {
                name: np.stack([outcome.beside[name] for _, outcome in fitted])
                for name in fitted[0][1].beside
            }
            self.store.commit(rows, weights, surface=surface, beside=beside, **columns)
        if failed:
            self._update(failed)
            self.store.fail([item.row for item, _ in failed], [o.reason for _, o in failed])
        self.failures += [Failure(item.ref.id, outcome.reason) for item, outcome in failed]
        self.fitted += len(fitted)
        if self.store.field == "sdf":  # where an open surface has no inside
            self.open += sum(not o.columns["watertight"] for _, o in fitted)
        self.seconds += sum(o.columns["seconds"] for _, o in fitted)
        self.studies += [o.study for _, o in fitted if o.study]

    def _not_done(self, batch: list[tuple[Item, Outcome]]) -> list[tuple[Item, Outcome]]:
        """Leave out objects that were to be done for the first time, and are done by now."""
        status, again = (
            self.store.column("status", [item.row for item, _ in batch]),
            (Why.changed, Why.forced),
        )
        pairs = zip(batch, status, strict=True)
        left = [(i, o) for (i, o), now in pairs if now != Status.DONE or i.why in again]
        self.skipped += len(batch) - len(left)
        return left

    def _update(self, failed: list[tuple[Item, Failed]]) -> None:
        """Keep what is known of failed objects; how much that is depends on how far they came."""
        self.store.reopen([item.row for item, _ in failed])
        alike: dict[tuple[str, ...], list[tuple[Item, Failed]]] = {}
        for item, outcome in failed:
            alike.setdefault(tuple(outcome.columns), []).append((item, outcome))
        for names, group in alike.items():
            if names:
                columns = _columns([outcome.columns for _, outcome in group])
                self.store.update([item.row for item, _ in group], **columns)

    def result(self, plan: Plan) -> FitResult:
        """Sum up the run."""
        return FitResult(
            self.fitted,
            plan.skipped + self.skipped,
            len(self.failures),
            plan.failed_before,
            self.open,
            self.seconds,
            tuple(self.failures),
        )

    def summary(self, result: FitResult) -> dict[str, Any]:
        """What the store keeps of the run: the counts, and each codec's mean bytes and error."""
        study = {
            name: {
                "bytes": float(np.mean([s[name][0] for s in self.studies])),
                "error": float(np.mean([s[name][1] for s in self.studies])),
                "objects": len(self.studies),
            }
            for name in (self.studies[0] if self.studies else ())
        }
        return {
            "fitted": result.fitted,
            "failed": result.failed,
            "skipped": result.skipped,
            "seconds": result.seconds,
            "codecs": study,
        }


def _columns(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [record[name] for record in records] for name in records[0]}
