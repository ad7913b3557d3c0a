"""The kernel chooses what its twin chooses."""

import pytest
import torch

from nf2vec_cli.core import neighbours
from nf2vec_cli.core.gpu.neighbours import streamed_rows
from nf2vec_cli.core.neighbours import (
    best_rows_op,
    best_rows_twin,
    block_nearest,
    nearest_twin,
)


def problem(queries, rows, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    some = [torch.randn(n, size, generator=generator) for n in (queries, rows)]
    scale, shift = (
        torch.rand(rows, generator=generator) + 0.5,
        torch.randn(rows, generator=generator),
    )
    return *some, scale, shift


def chosen(ways, problem, k):
    return [way(*problem, k).sort(dim=1).values.tolist() for way in ways]


# more than a tile of queries; more than a part of rows; sizes that fill no tile; one of each
@pytest.mark.parametrize(
    ("queries", "rows", "size", "k"), [(67, 40, 5, 3), (3, 300, 37, 20), (1, 1, 1, 1)]
)
def test_the_kernel_chooses_what_the_twin_chooses(queries, rows, size, k):
    asked = problem(queries, rows, size)

    found, wanted = chosen((streamed_rows, best_rows_twin), asked, k)

    assert found == wanted


def test_no_queries_choose_nothing():
    asked = problem(0, 10, 4)

    assert streamed_rows(*asked, 3).shape == best_rows_twin(*asked, 3).shape == (0, 3)


def test_rows_may_lie_apart_in_memory():
    queries, gallery, scale, shift = problem(4, 30, 12)
    apart = (queries[:, ::2], gallery[:, ::2], scale, shift)

    found, wanted = chosen((streamed_rows, best_rows_twin), apart, 5)

    assert found == wanted


def test_of_equal_scores_the_first_rows_are_taken():
    queries = torch.ones(2, 4)
    gallery = torch.zeros(290, 4)  # in two parts
    gallery[[7, 280]] = 1
    scale, shift = torch.ones(290), torch.zeros(290)

    found = streamed_rows(queries, gallery, scale, shift, 5)

    assert found.sort(dim=1).values.tolist() == [[0, 1, 2, 7, 280]] * 2


@pytest.mark.parametrize("way", [streamed_rows, best_rows_twin])
def test_rows_and_queries_that_are_no_numbers_displace_no_others(way):
    queries, gallery, scale, shift = problem(3, 40, 6)
    lost = torch.arange(0, 40, 2)
    gallery[lost] = torch.nan
    shift[lost] = -torch.inf
    kept = torch.arange(1, 40, 2)
    wanted = best_rows_twin(queries, gallery[kept], scale[kept], shift[kept], 12)
    queries[1] = torch.nan

    found = way(queries, gallery, scale, shift, 12)

    for query in (0, 2):
        assert sorted(found[query].tolist()) == sorted(kept[wanted[query]].tolist())
    assert len(set(found[1].tolist())) == 12


@pytest.mark.parametrize("way", [streamed_rows, best_rows_twin])
def test_rows_that_are_no_numbers_are_there_when_all_are_wanted(way):
    queries, gallery, scale, shift = problem(2, 9, 3)
    gallery[2:8], shift[2:8] = torch.nan, -torch.inf

    assert way(queries, gallery, scale, shift, 9).sort(dim=1).values.tolist() == [[*range(9)]] * 2


@pytest.mark.parametrize("cosine", [True, False])
def test_the_nearest_of_a_block_are_those_of_the_reference(monkeypatch, cosine):
    asked = []

    def by_kernel(*arguments):
        asked.append(arguments[-1])
        return streamed_rows(*arguments)

    monkeypatch.setattr(neighbours, "best_rows", by_kernel)
    queries, gallery, *_ = problem(3, 50, 10)
    gallery[40] = gallery[11]
    queries[0] = gallery[11]
    wanted, there = nearest_twin(queries, gallery, 60, cosine=cosine)

    for k in (4, 60):  # more than there are: all
        found, places = block_nearest(queries, gallery, k, cosine)
        assert torch.equal(found, wanted[:, :k])
        assert torch.equal(places, there[:, :k])
    assert places[0, :2].tolist() == [11, 40]
    assert asked == [12, 50]


def test_the_op_keeps_its_promises():
    torch.library.opcheck(best_rows_op, (*problem(3, 20, 5), 4))
