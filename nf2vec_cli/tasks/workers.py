"""Local worker processes that may hang, crash or eat memory without harm to the run."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context, parent_process
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

LOOK = 0.5  # seconds between looks at the clock and at the memory
MOST = 0.85  # share of the machine's memory that the workers may take, all together
PAGE = os.sysconf("SC_PAGE_SIZE")


class WorkerDied(Exception):
    """A worker process ended in the middle of a job, or had to be ended; the text says why."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(
            reason or "its worker process died (out of memory, or a crash in a library)"
        )


class Workers:
    """Processes that take one job after the other; each is killed and replaced when it must be.

    A thread of this process minds each of them, so that a limit holds whatever the caller is at.

    Args:
        work: called with a job, in a worker.
        count: of processes.
        limit: seconds that a job may take; None: any.
    """

    def __init__(
        self, work: Callable[[Any], Any], count: int, *, limit: float | None = None
    ) -> None:
        self._work, self._limit = work, limit
        self._minders = ThreadPoolExecutor(count)
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)  # started when there is a job for it
        self._all: set[_Worker] = set()
        self._memory = MOST * memory_there()
        self._closed = False

    def submit(self, job: Any) -> Future[Any]:
        """Hand out a job; what comes of it is `work(job)`, its error, or a WorkerDied."""
        return self._minders.submit(self._done, job)

    def close(self) -> None:
        """End all processes, whatever they are at."""
        self._closed = True
        self._minders.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._all):
            worker.process.kill()
        self._minders.shutdown()
        for worker in list(self._all):
            self._end(worker)

    def _done(self, job: Any) -> Any:
        worker = self._idle.get()
        try:
            if worker is None:
                worker = _Worker(self._work)
                self._all.add(worker)
            answer = self._answer(worker, job)
        except WorkerDied as died:
            assert worker is not None
            self._end(worker)
            worker, answer = None, died
        finally:
            self._idle.put(worker)
        if isinstance(answer, _Raised):
            raise answer.error
        return answer

    def _answer(self, worker: _Worker, job: Any) -> Any:
        """Wait for what a worker makes of a job.

        Raises:
            WorkerDied: it ended, or has to.
        """
        try:
            worker.pipe.send(job)
            began: float | None = time.monotonic() if worker.up else None
            while not self._closed:
                if worker.pipe.poll(LOOK):
                    answer = worker.pipe.recv()
                    if worker.up:
                        return answer
                    worker.up, began = True, time.monotonic()
                elif self._limit and began and time.monotonic() - began > self._limit:
                    raise WorkerDied(f"it took longer than {self._limit:.0f} s, and was given up")
                self._mind_memory(worker)
        except (OSError, EOFError) as error:
            raise WorkerDied from error
        raise WorkerDied

    def _mind_memory(self, worker: _Worker) -> None:
        """End the largest worker before the system runs out of memory and may end this process."""
        sizes = {one: one.memory() for one in list(self._all)}
        if sum(sizes.values()) > self._memory and sizes[worker] == max(sizes.values()):
            raise WorkerDied(f"it took {sizes[worker] / 2**30:.1f} GiB of memory, and was given up")

    def _end(self, worker: _Worker) -> None:
        self._all.discard(worker)
        worker.process.kill()
        worker.process.join()
        worker.process.close()
        worker.pipe.close()


class _Raised:
    """What `work` raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Worker:
    """A process, and this end of the pipe to it; up: it has told that it can begin."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = get_context("spawn")  # a forked torch may hang in its thread pool
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.up = False

    def memory(self) -> int:
        """Count the bytes that it holds in memory; 0 where the system does not tell."""
        with suppress(OSError, ValueError, IndexError):  # it has ended, or there is no /proc
            return PAGE * int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return 0


def _serve(pipe: Any, work: Callable[[Any], Any]) -> None:
    """Do jobs until the other end of the pipe is closed. Runs in a worker."""
    import signal
    from threading import Thread

    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            job = pipe.recv()
            try:
                answer = work(job)
            except Exception as error:
                error.add_note(f"in a worker process:\n{traceback.format_exc()}")
                answer = _Raised(error)
            pipe.send(answer)


def _end_with_parent() -> None:
    """End when the parent does: killed, it cannot end its workers, which would go on for long."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def memory_there() -> float:
    """Count the bytes of memory that this process and those it starts may take."""
    most = float(PAGE * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # "max", or no such file: there is no limit of its own
        most = min(most, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return most
