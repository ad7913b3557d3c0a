import os
import time

import pytest
import torch

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


def test_an_error_of_the_work_is_raised_here():
    with pytest.raises(ValueError, match="no"):
        list(spread(complain, range(3), workers=2))
