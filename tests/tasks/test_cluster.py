"""Jobs on a Ray cluster: who may connect, and that nothing is lost on the way."""

import os
import signal
import socket
import sys
import time

import pytest
import torch

from nf2vec_cli.errors import DeviceError, UsageFault
from nf2vec_cli.tasks.cluster import open_cluster
from nf2vec_cli.tasks.spread import WorkerDied, spread


def open_and_close(address, **options):
    with open_cluster(address, **options):
        pass


def test_no_address_is_no_cluster():
    with open_cluster(None) as cluster:
        assert cluster is None


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(UsageFault, match="Ray, which is not installed") as caught:
        open_and_close("local")

    assert "nf2vec[cluster]" in caught.value.hint


def test_a_cluster_has_its_own_number_of_workers():
    with pytest.raises(UsageFault, match="both say how many workers"):
        open_and_close("auto", jobs=2)


class TestAddresses:
    @pytest.fixture(autouse=True)
    def _ray(self, monkeypatch):
        pytest.importorskip("ray")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)

    @pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", ":6379"])
    def test_what_is_no_address_is_wrong_usage(self, address):
        with pytest.raises(UsageFault, match="HOST:PORT"):
            open_and_close(address)

    @pytest.mark.parametrize("named_by", ["option", "variable"])
    def test_a_cluster_that_is_gone_is_a_clear_error_at_once(self, named_by, monkeypatch):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address if named_by == "variable" else "")
        started = time.monotonic()

        with pytest.raises(DeviceError, match=f"no Ray cluster answers at {address}") as caught:
            open_and_close(address if named_by == "option" else "auto")

        assert time.monotonic() - started < 15
        assert "--ray local" in caught.value.hint
        assert caught.value.exit_code == 6

    @pytest.mark.slow
    def test_what_answers_and_is_no_cluster_is_a_clear_error_soon(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            started = time.monotonic()
            with pytest.raises(DeviceError, match="no Ray cluster answers"):
                open_and_close(f"127.0.0.1:{other.getsockname()[1]}")

        assert time.monotonic() - started < 20

    @pytest.mark.slow
    def test_auto_without_a_cluster_says_how_to_get_one(self):
        with pytest.raises(DeviceError, match="no Ray cluster runs on this machine") as caught:
            open_and_close("auto")

        assert "`ray start --head`" in caught.value.hint


def double(job):
    return 2 * job


def die(job):
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * job


def die_once(job):
    """Kill the worker that is the first at a job; the next one does it."""
    number, marks = job
    if number % 3 == 1:
        try:
            (marks / str(number)).mkdir()
        except FileExistsError:
            return 2 * number
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def complain(_job):
    raise DeviceError("no", hint="go")


def add_up(batch, prepared):
    return [job + ready for job, ready in zip(batch, prepared, strict=True)]


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs, and two GPUs that are not there: Ray counts them, it does not look at them."""
    ray = pytest.importorskip("ray")
    init = ray.init
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", lambda **options: init(**options | {"num_gpus": 2}))
        with open_cluster("local", jobs=2, device="cpu") as cluster:
            yield cluster


@pytest.mark.slow
class TestLocal:
    def test_results_come_in_order_and_few_jobs_are_handed_out(self, cluster):
        taken = []

        def jobs():
            for job in range(40):
                taken.append(job)
                yield job

        found = spread(double, jobs(), workers=cluster)

        assert next(found) == 0
        assert len(taken) == 4
        assert list(found) == [2 * job for job in range(1, 40)]

    def test_a_job_whose_worker_was_killed_is_done_by_another(self, cluster, tmp_path):
        jobs = [(number, tmp_path) for number in range(8)]

        assert list(spread(die_once, jobs, workers=cluster)) == [2 * n for n in range(8)]
        assert sorted(mark.name for mark in tmp_path.iterdir()) == ["1", "4", "7"]

    def test_a_job_that_kills_every_worker_costs_itself_only(self, cluster):
        found = list(spread(die, range(6), workers=cluster))

        assert isinstance(found.pop(3), WorkerDied)
        assert found == [0, 2, 4, 8, 10]

    def test_an_error_of_the_work_is_raised_here_as_it_was(self, cluster):
        with pytest.raises(DeviceError, match="no") as caught:
            list(spread(complain, range(3), workers=cluster))

        assert caught.value.hint == "go"

    def test_batches_are_prepared_on_cpus_and_done_on_gpus(self, cluster, monkeypatch):
        monkeypatch.setattr(cluster, "device", torch.device("cuda"))

        found = list(cluster.spread_batches(double, add_up, [[1, 2], [5], [7, 8, 9]]))
        lost = list(cluster.spread_batches(die, add_up, [[1, 2], [3, 4]]))
        each = list(spread(gpu, range(2), workers=cluster))

        assert found == [[3, 6], [15], [21, 24, 27]]
        assert lost[0] == [3, 6]
        assert isinstance(lost[1], WorkerDied)
        assert set(each) <= {"0", "1"}


def gpu(_job):
    return os.environ["CUDA_VISIBLE_DEVICES"]
