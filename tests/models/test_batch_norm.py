"""Two threads in the place of two processes: what they say to each other is one sum."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn

from nf2vec_cli.core.ranks import Ranks
from nf2vec_cli.models.batch_norm import BatchNorm, share_norms


class Threads(Ranks):
    """One of several threads that add up tensors."""

    def __init__(self, rank, table, barrier):
        super().__init__(torch.device("cpu"), rank, len(table))
        self.table, self.barrier = table, barrier

    def add(self, values):
        self.table[self.rank] = values.clone()
        self.barrier.wait(timeout=30)
        total = sum(self.table)
        self.barrier.wait(timeout=30)
        return values.copy_(total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shares_are_normalised_as_the_whole_batch_is(dtype):
    torch.manual_seed(0)
    x = (5 + 0.1 * torch.randn(70, 6)).to(dtype)
    wanted = torch.randn(70, 6)
    whole = nn.BatchNorm1d(6)
    nn.init.uniform_(whole.weight)
    nn.init.uniform_(whole.bias)
    barrier, table = Barrier(2), [None, None]

    def learn(rank):
        norm = BatchNorm(6)
        norm.load_state_dict(whole.state_dict())
        share_norms(nn.Sequential(norm), Threads(rank, table, barrier))
        part = slice(0, 30) if rank == 0 else slice(30, 70)
        mine = x[part].clone().requires_grad_()
        found = norm(mine)
        ((found.float() - wanted[part]).square().sum() / x.numel()).backward()
        return found, mine.grad, norm

    with ThreadPoolExecutor(2) as pool:
        (low, low_grad, one), (high, high_grad, two) = pool.map(learn, (0, 1))
    x.requires_grad_()
    found = whole(x)
    ((found.float() - wanted).square().sum() / x.numel()).backward()

    close = {"rtol": 1e-4, "atol": 5e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    assert low.dtype == dtype
    torch.testing.assert_close(torch.cat([low, high]), found, **close)
    torch.testing.assert_close(torch.cat([low_grad, high_grad]), x.grad, **close)
    torch.testing.assert_close(one.weight.grad + two.weight.grad, whole.weight.grad, **close)
    torch.testing.assert_close(one.bias.grad + two.bias.grad, whole.bias.grad, **close)
    for norm in (one, two):
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_alone_and_after_training_it_is_that_of_torch():
    torch.manual_seed(0)
    x = torch.randn(9, 4)
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)

    assert torch.equal(ours(x), theirs(x))
    ours.ranks = Threads(0, [None, None], None)  # nobody to talk to

    assert torch.equal(ours.eval()(x), theirs.eval()(x))
