"""The kernel finds the samples that its twin finds, to the last."""

import pytest
import torch

from nf2vec_cli.core import march as core
from nf2vec_cli.core.march import march, march_fields, march_op, pack_bits, unpack_bits


def problem(fields=3, rays=21, side=7, share=0.3, seed=0):
    """Rays from all around; some miss, one lies along an axis, one begins inside."""
    generator = torch.Generator().manual_seed(seed)
    origins = 3 * torch.nn.functional.normalize(
        torch.randn(fields, rays, 3, generator=generator), dim=-1
    )
    aims = 2.6 * torch.rand(fields, rays, 3, generator=generator) - 1.3
    if rays > 2:
        origins[:, 1] = torch.tensor([0.1, 0.2, 3])
        aims[:, 1] = torch.tensor([0.1, 0.2, 0])
        origins[:, 2] = torch.tensor([0.3, -0.2, 0.1])
    directions = torch.nn.functional.normalize(aims - origins, dim=-1)
    grids = torch.rand(fields, side, side, side, generator=generator) < share
    return origins, directions, pack_bits(grids), side, 90


@pytest.fixture
def both(monkeypatch):
    """Find samples by the kernel and by the twin."""

    def ways(*asked):
        wanted = march_fields(*asked)
        with monkeypatch.context() as patch:
            patch.setattr(core, "kernels_serve", lambda _: True)
            return march_fields(*asked), wanted

    return ways


def same(found, wanted):
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("side", [1, 5, 8])
def test_the_kernel_finds_what_the_twin_finds(both, side):
    found, wanted = both(*problem(side=side))

    assert same(found, wanted)
    assert 100 < len(found[0]) < 3 * 21 * 90
    assert len(found[0].unique()) < 63  # some rays have no samples


@pytest.mark.parametrize(("fields", "rays"), [(0, 5), (2, 0), (1, 1)])
def test_few_or_none(both, fields, rays):
    found, wanted = both(*problem(fields=fields, rays=rays))

    assert same(found, wanted)


def test_one_empty_grid_among_others(both):
    origins, directions, packed, side, samples = problem()
    packed[1] = 0

    found, wanted = both(origins, directions, packed, side, samples)

    assert same(found, wanted)
    assert set((found[0] // 21).tolist()) == {0, 2}
    packed[:] = 0
    found, _ = both(origins, directions, packed, side, samples)
    assert not len(found[0])


def test_a_ray_that_is_no_number_has_no_samples_and_changes_no_other(both):
    origins, directions, *rest = problem()
    before, _ = both(origins, directions, *rest)
    origins[0, 4, 1] = torch.nan
    directions[1, 7] = torch.inf

    found, wanted = both(origins, directions, *rest)

    kept = (before[0] != 4) & (before[0] != 21 + 7)
    assert same(found[:2], wanted[:2])
    assert same(found[:2], (before[0][kept], before[1][kept]))


def test_rays_and_grids_may_lie_apart_in_memory(both):
    origins, directions, packed, side, samples = problem(fields=4, rays=20)
    apart = (origins[::2, ::3], directions[::2, ::3], packed[::2], side, samples)

    found, wanted = both(*apart)

    assert same(found, wanted)
    assert len(found[0])


def test_one_field_is_the_batch_of_one(monkeypatch):
    origins, directions, packed, side, samples = problem(fields=1)
    rays, grid = core.Rays(origins[0], directions[0]), unpack_bits(packed, side)[0]
    wanted = march(rays, grid, samples)
    monkeypatch.setattr(core, "kernels_serve", lambda _: True)

    found = march(rays, grid, samples)

    assert same((found.ray, found.place, found.near), (wanted.ray, wanted.place, wanted.near))
    assert found.step == wanted.step


def test_the_op_keeps_its_promises():
    torch.library.opcheck(march_op, problem(rays=4))
