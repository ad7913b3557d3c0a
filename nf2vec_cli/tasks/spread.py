"""Run jobs here, in local worker processes or on a cluster, in order, whatever a worker does."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from nf2vec_cli.tasks.workers import WorkerDied, Workers

__all__ = ["WorkerDied", "available_cores", "one_thread", "spread"]
WAITING = 2  # jobs handed out ahead, for each worker


class Engine(Protocol):
    """Workers elsewhere, which are found and kept alive by others: `cluster.Cluster`."""

    device: torch.device

    def spread(self, work: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        """Do as `spread` below."""

    def spread_batches(
        self,
        prepare: Callable[[Any], Any],
        work: Callable[[list[Any], list[Any]], Any],
        batches: Iterable[Sequence[Any]],
    ) -> Iterator[Any]:
        """Yield `work(batch, [prepare(job) for job in batch])` for each batch, on GPUs."""


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(count: int, jobs: int, engine: Engine | None) -> int | Engine:
    """Choose the workers of `count` jobs: an engine's, or `jobs` processes, 0 for one a core."""
    return engine or max(1, min(jobs or available_cores(), count))


def spread(
    work: Callable[[Any], Any],
    jobs: Iterable[Any],
    *,
    workers: int | Engine,
    limit: float | None = None,
) -> Iterator[Any]:
    """Yield `work(job)` for each job, in the order of the jobs.

    Each job runs with one thread, since two threads of one fit get in each other's way and two
    processes do not, so a result is the same bits for any number of workers. A job whose worker
    died yields WorkerDied; the others go on.

    Args:
        work: a function that a worker can import.
        jobs: its arguments, one each.
        workers: processes, or an engine that has its own.
        limit: seconds that a job may take before its process is killed; None: any, and one worker
            is this process, which shares the fate of its jobs.
    """
    if not isinstance(workers, int):
        yield from workers.spread(work, jobs)
        return
    if workers <= 1 and limit is None:
        with one_thread():
            for job in jobs:
                yield work(job)
        return
    pool = Workers(work, workers, limit=limit)
    waiting: deque[Future[Any]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) >= workers * WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.close()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
