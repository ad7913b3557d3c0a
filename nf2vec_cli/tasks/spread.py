"""Run jobs here, in local worker processes or on a cluster, in order, whatever a worker does."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Protocol

import torch

WAITING = 2  # jobs handed out ahead, for each worker


class WorkerDied(Exception):
    """A worker process ended in the middle of a job: out of memory, or a crash in a library."""


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
    work: Callable[[Any], Any], jobs: Iterable[Any], *, workers: int | Engine
) -> Iterator[Any]:
    """Yield `work(job)` for each job, in the order of the jobs.

    Each job runs with one thread, since two threads of one fit get in each other's way and two
    processes do not, so a result is the same bits for any number of workers. A job whose worker
    died yields WorkerDied; the others go on.
    """
    if not isinstance(workers, int):
        yield from workers.spread(work, jobs)
        return
    if workers <= 1:
        with one_thread():
            for job in jobs:
                yield work(job)
        return
    yield from _in_processes(work, jobs, workers)


def _in_processes(work: Callable[[Any], Any], jobs: Iterable[Any], workers: int) -> Iterator[Any]:
    pool = _pool(workers)
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    queue = iter(jobs)
    try:
        while True:
            for job in queue:
                waiting.append((job, _submit(pool, work, job)))
                if len(waiting) >= workers * WAITING:
                    break
            if not waiting:
                return
            job, future = waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:
                # any job under way may be to blame: run each alone to find out
                suspects = [job, *(other for other, _ in waiting)]
                waiting.clear()
                pool.shutdown(wait=False, cancel_futures=True)
                for suspect in suspects:
                    yield _alone(work, suspect)
                pool = _pool(workers)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()


def _submit(pool: ProcessPoolExecutor, work: Callable[[Any], Any], job: Any) -> Future[Any]:
    try:
        return pool.submit(work, job)
    except BrokenProcessPool as error:
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


def _alone(work: Callable[[Any], Any], job: Any) -> Any:
    with _pool(1) as pool:
        try:
            return pool.submit(work, job).result()
        except BrokenProcessPool:
            return WorkerDied()


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn: a forked torch may hang in its thread pool
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """End when the parent does: killed, it cannot end its workers, which would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
