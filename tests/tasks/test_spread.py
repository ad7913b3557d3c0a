import multiprocessing
import os
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from nf2vec_cli.tasks import workers
from nf2vec_cli.tasks.spread import WorkerDied, spread


def double(job):
    time.sleep(0.05 * (job % 3))
    if job == 13:
        os._exit(9)
    return 2 * job


def threads(_job):
    return torch.get_num_threads()


def complain(_job):
    raise ValueError("no")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    assert list(spread(double, range(8), workers=workers)) == [2 * job for job in range(8)]


def test_a_worker_that_dies_costs_its_own_job_only():
    found = list(spread(double, [11, 12, 13, 14, 15], workers=2))

    assert [f for f in found if not isinstance(f, WorkerDied)] == [22, 24, 28, 30]
    assert isinstance(found[2], WorkerDied)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_job_has_one_thread(workers):
    before = torch.get_num_threads()

    assert list(spread(threads, range(2), workers=workers)) == [1, 1]
    assert torch.get_num_threads() == before


def pid_and_wait(marks):
    (marks / str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    parent = get_context("spawn").Process(target=begin, args=(tmp_path,))
    parent.start()
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    parent.kill()
    parent.join()

    until = time.monotonic() + 30
    left = [int(mark.name) for mark in tmp_path.iterdir()]
    while left and time.monotonic() < until:
        left = [pid for pid in left if alive(pid)]
    assert not left


def begin(marks):
    list(spread(pid_and_wait, [marks, marks], workers=2))


def alive(pid):
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_text())  # of a zombie it is empty
    except OSError:
        return False


def test_an_error_of_the_work_is_raised_here():
    with pytest.raises(ValueError, match="no"):
        list(spread(complain, range(3), workers=2))


def misbehave(job):
    if job == "hang":
        time.sleep(600)
    if job == "eat":
        eaten = []
        while True:
            eaten.append(b"x" * (64 << 20))
    return job


def test_a_job_that_hangs_is_given_up_and_the_others_go_on():
    found = list(spread(misbehave, ["a", "hang", "b"], workers=1, limit=1))

    assert (found[0], found[2]) == ("a", "b")
    assert isinstance(found[1], WorkerDied)
    assert "longer than 1 s" in str(found[1])


@pytest.mark.slow  # each worker takes seconds to start
def test_a_job_that_takes_all_memory_is_ended_before_the_system_ends_something(monkeypatch):
    monkeypatch.setattr(workers, "memory_there", lambda: 2 << 30)

    found = list(spread(misbehave, ["a", "eat", "b"], workers=1, limit=60))

    assert (found[0], found[2]) == ("a", "b")
    assert "of memory, and was given up" in str(found[1])


def large(job):
    return job[::-1]


@pytest.mark.slow  # each worker takes seconds to start
def test_jobs_and_results_larger_than_a_pipe_holds_do_not_wait_for_each_other():
    jobs = [bytes([n]) * (1 << 20) for n in range(12)]

    assert list(spread(large, jobs, workers=2)) == jobs


@pytest.mark.slow  # each worker takes seconds to start
def test_nothing_is_left_running_when_the_caller_stops_early():
    found = spread(double, range(100), workers=2)
    next(found)
    found.close()

    assert not [child for child in multiprocessing.active_children() if child.is_alive()]
