"""Run a plan's jobs here or in local worker processes, in order, whatever a worker does."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

import torch

WAITING = 2  # jobs handed out ahead, for each worker


class WorkerDied(Exception):
    """A worker process ended in the middle of a job: out of memory, or a crash in a library."""


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[Any], Any], jobs: Iterable[Any], *, workers: int) -> Iterator[Any]:
    """Yield `work(job)` for each job, in the order of the jobs.

    Each job runs with one thread, since two threads of one fit get in each other's way and two
    processes do not, so a result is the same bits for any number of workers. A job whose worker
    died yields WorkerDied; the others go on.
    """
    if workers <= 1:
        with one_thread():
            for job in jobs:
                yield work(job)
        return
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
    from threading import Thread

    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Wait for the parent's end: a worker of a run that was killed would wait for work for ever."""
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
