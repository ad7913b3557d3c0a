"""Run a plan's jobs as tasks of a Ray cluster (extra `cluster`), in order, whatever a worker does.

This process plans, hands out jobs and writes what comes back: it is the only one that writes to
the store, so every chunk has one owner. Workers read shapes, and `encode` weights, by their paths.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess  # nosec B404 - see below
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import torch

from nf2vec_cli import __version__
from nf2vec_cli.errors import DeviceError, Nf2vecError, UsageFault
from nf2vec_cli.tasks.spread import WAITING, WorkerDied, available_cores, one_thread

RETRIES = 3  # times that a job is given to another worker when its own died
REACHED = 3.0  # seconds in which an address has to answer
JOINED = 12.0  # seconds in which a cluster has to take us in
SETTINGS = {  # unless the user has set them
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as Ray will have it; else it warns
    "RAY_task_oom_retries": str(RETRIES),  # without end, if it is not told
}
# Ray prints that a worker died on stdout, which is for data: all its lines are left out
QUIET = {"RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
PROBE = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"


@contextmanager
def open_cluster(
    address: str | None, *, device: str = "auto", jobs: int = 0
) -> Iterator[Cluster | None]:
    """Connect to a Ray cluster, and leave it at the end.

    Args:
        address: "auto": that of RAY_ADDRESS, or one that runs on this machine; "local": one of
            this process's own, which ends with it; or HOST:PORT. None: no cluster.
        device: as `open_device` takes it; it is the workers' device.
        jobs: CPUs of a local cluster; 0: this machine's. Clusters that are there have their own.

    Raises:
        UsageFault: Ray is not installed, the address is none, or other things exclude each other.
        DeviceError: no cluster answers, or it has no such device.
    """
    if address is None:
        yield None
        return
    if jobs and address != "local":
        raise UsageFault(
            f"`--ray {address}` and `--jobs {jobs}` both say how many workers there are",
            hint="leave out `--jobs`: a cluster has as many as it has CPUs or GPUs; "
            "`--ray local --jobs N` starts one of N",
        )
    os.environ.update(SETTINGS | dict(os.environ) | QUIET)
    ray = _ray()
    options: dict[str, Any] = {"address": address}
    if address == "local":
        options |= {
            "num_cpus": jobs or available_cores(),
            "num_gpus": 0 if device == "cpu" else None,
            "include_dashboard": False,
        }
    else:
        _check_reachable(address)
    try:
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:  # it raises all kinds, a bare one if its processes are slow
            raise _unreachable(f"Ray did not start: {error}") from error
        yield Cluster(ray, _device(ray, device))
    finally:
        ray.shutdown()


class Cluster:
    """A cluster that we are connected to. device: what a worker computes on."""

    def __init__(self, ray: Any, device: torch.device) -> None:
        self._ray, self.device = ray, device
        self._on_cpu = ray.remote(num_cpus=1, max_retries=RETRIES)(_do)
        self._on_gpu = ray.remote(num_cpus=1, num_gpus=1, max_retries=RETRIES)(_do_prepared)
        self._lost = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.ObjectLostError,
        )

    @property
    def versions(self) -> dict[str, str]:
        """Name the engine, for the record of a run."""
        return {"ray": self._ray.__version__}

    def spread(self, work: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        """Yield `work(job)` for each job, in the order of the jobs, as `spread.spread` does.

        Each job has a CPU, or a GPU if that is the device. A job whose worker died is given to
        another, and yields WorkerDied when that has happened too often.
        """
        shared = self._ray.put(work)
        if self.device.type == "cuda":
            return self._in_order(lambda job: self._on_gpu.remote(__version__, shared, job), jobs)
        return self._in_order(lambda job: self._on_cpu.remote(__version__, shared, job), jobs)

    def spread_batches(
        self,
        prepare: Callable[[Any], Any],
        work: Callable[[list[Any], list[Any]], Any],
        batches: Iterable[Sequence[Any]],
    ) -> Iterator[Any]:
        """Yield `work(batch, [prepare(job) for job in batch])` for each batch, in their order.

        Jobs are prepared on CPUs, wherever there is one, and a batch has a GPU to itself.
        """
        first, second = self._ray.put(prepare), self._ray.put(work)

        def submit(batch: Sequence[Any]) -> Any:
            ready = [self._on_cpu.remote(__version__, first, job) for job in batch]
            return self._on_gpu.remote(__version__, second, list(batch), *ready)

        return self._in_order(submit, batches)

    def _in_order(self, submit: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        waiting: deque[Any] = deque()
        queue = iter(jobs)
        try:
            while True:
                # few at a time: a plan of a million jobs must not lie in the cluster's memory
                waiting += map(submit, islice(queue, max(0, self._most() - len(waiting))))
                if not waiting:
                    return
                yield self._result(waiting[0])
                waiting.popleft()
        finally:
            if self._ray.is_initialized():  # else they have ended with it
                for task in waiting:
                    with suppress(Exception):  # it may be done
                        self._ray.cancel(task, force=True)

    def _most(self) -> int:
        """Count the jobs that are handed out at once; a cluster may grow and shrink."""
        kind = "GPU" if self.device.type == "cuda" else "CPU"
        return WAITING * max(1, int(self._ray.cluster_resources().get(kind, 1)))

    def _result(self, task: Any) -> Any:
        try:
            return self._ray.get(task)
        except self._lost:
            return WorkerDied()
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, self._lost):  # it waited for one whose worker died
                return WorkerDied()
            if isinstance(cause, ImportError):
                raise DeviceError(
                    f"a worker of the cluster cannot import nf2vec: {cause}",
                    hint=f"`pip install nf2vec=={__version__}` on each machine of the cluster",
                ) from error
            raise cause from None


def _do(version: str, work: Callable[[Any], Any], job: Any) -> Any:
    """Do one job in a worker."""
    _check_version(version)
    with one_thread():
        return work(job)


def _do_prepared(version: str, work: Callable[..., Any], job: Any, *prepared: Any) -> Any:
    """Do one job, or a batch that others have prepared, in a worker with a GPU."""
    _check_version(version)
    return work(job, list(prepared)) if prepared else work(job)


def _check_version(version: str) -> None:
    if version != __version__:
        raise DeviceError(
            f"a worker on {socket.gethostname()} has nf2vec {__version__}, this process {version}",
            hint=f"`pip install nf2vec=={version}` on each machine of the cluster",
        )


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageFault(
            "`--ray` needs Ray, which is not installed",
            hint="`pip install 'nf2vec[cluster]'`, or `--jobs N` on this machine alone",
        ) from error
    return ray


def _device(ray: Any, name: str) -> torch.device:
    gpus = ray.cluster_resources().get("GPU", 0)
    if name not in ("auto", "cpu", "cuda"):
        raise UsageFault(
            f"device {name!r}: the cluster says which GPU a worker has", hint="`--device cuda`"
        )
    if name == "cuda" and not gpus:
        raise DeviceError("the Ray cluster has no GPU", hint="`--device cpu`")
    return torch.device("cuda" if gpus and name != "cpu" else "cpu")


def _check_reachable(address: str) -> None:
    """See that a cluster takes us in: Ray itself would try for two minutes, and end the process."""
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if named not in ("", "auto"):
        host, _, port = named.rpartition(":")
        if "/" in host or not host or not port.isdigit():
            raise UsageFault(
                f"{named!r} is no address of a Ray cluster: it is HOST:PORT, without ray://",
                hint="`--ray HOST:6379`, on a machine of the cluster",
            )
        try:
            socket.create_connection((host, int(port)), timeout=REACHED).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(f"no Ray cluster answers at {named}: {error}") from error
    line = [sys.executable, "-c", PROBE, address]
    try:
        probe = subprocess.run(  # nosec B603 - this interpreter and our own text
            line, timeout=JOINED, check=False, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(
            f"no Ray cluster answers at {named or address} in {JOINED:.0f} s"
        ) from error
    if probe.returncode:
        raise _refused(named or address, probe.stderr)


def _refused(address: str, told: str) -> Nf2vecError:
    if "AuthToken" in told or "AuthenticationError" in told:
        return DeviceError(
            f"the Ray cluster at {address} wants a token",
            hint="`export RAY_AUTH_MODE=token`, with the cluster's token in ~/.ray/auth_token",
        )
    reason = told.strip().rpartition("\n")[2]
    if address == "auto":
        return _unreachable("no Ray cluster runs on this machine, and RAY_ADDRESS names none")
    return _unreachable(f"the Ray cluster at {address} does not take us in: {reason}")


def _unreachable(text: str) -> DeviceError:
    return DeviceError(
        text, hint="`ray start --head` starts one here, `--ray local` one for this run alone"
    )
