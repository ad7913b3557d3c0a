"""The kernels add up, and differentiate, as their twin does."""

import pytest
import torch

from nf2vec_cli.core import composite as core
from nf2vec_cli.core.composite import (
    composite,
    composite_op,
    ray_slopes_twin,
    ray_sums_twin,
    slopes_op,
)


def problem(rays=37, most=70, dtype=torch.float32, seed=0):
    """Rays of many samples, of more than a tile, and of none, with air and walls on them."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, most, (rays,), generator=generator)
    if rays > 2:
        counts[[0, 5 % rays, rays - 1]] = 0
    ray = torch.repeat_interleave(torch.arange(rays), counts)
    size = len(ray)
    density = torch.exp(torch.rand(size, generator=generator, dtype=dtype) * 16 - 6)
    steps = torch.rand(size, generator=generator, dtype=dtype) * 0.01
    steps[::7] = 0  # samples that stand for nothing
    colours = torch.rand(size, 3, generator=generator, dtype=dtype)
    depths = 2 + torch.rand(size, generator=generator, dtype=dtype)
    return colours, density, depths, steps, ray, rays


def both_ways(monkeypatch, asked, seed=1):
    """Give sums and slopes, by the kernel and by the twin."""
    colours, density, depths, steps, ray, rays = asked
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(rays, 5, generator=generator)
    found = []
    for served in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(core, "kernels_serve", lambda _, served=served: served)
            c, d = colours.detach().requires_grad_(), density.detach().requires_grad_()
            backend = "auto" if served else "torch"  # not nerfacc's kernels, where they are
            seen = composite(c, d, depths, steps, ray, rays, backend=backend)
            sums = torch.cat([seen.colour, seen.opacity[:, None], seen.depth[:, None]], 1)
            found.append((sums.detach(), *torch.autograd.grad((sums * grad).sum(), (c, d))))
    return found


def agree(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_kernels_agree_with_the_twin(monkeypatch):
    asked = problem()

    found, wanted = both_ways(monkeypatch, asked)

    agree(found, wanted)
    assert wanted[0][:, 3].max() > 0.9
    assert not found[0][[0, 5, 36]].any()


def test_the_opacity_of_thin_fog_keeps_its_digits(monkeypatch):
    colours, density, depths, steps, ray, rays = problem()
    thin = density * 1e-6

    found, wanted = both_ways(monkeypatch, (colours, thin, depths, steps, ray, rays))

    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=0)


def test_a_wall_leaves_the_air_before_it_as_it_is(monkeypatch):
    density = torch.tensor([30.0, 1e9, 1.0])
    asked = (torch.eye(3), density, torch.ones(3), 0.01, torch.zeros(3, dtype=torch.int64), 1)

    found, wanted = both_ways(monkeypatch, asked)

    agree(found, wanted)
    assert found[0][0, 1].item() == pytest.approx(torch.tensor(-0.3).exp().item(), rel=1e-5)


@pytest.mark.parametrize(("rays", "most"), [(0, 1), (4, 1), (1, 200)])
def test_few_or_none(monkeypatch, rays, most):
    found, wanted = both_ways(monkeypatch, problem(rays, most))

    agree(found, wanted)


def test_samples_may_lie_apart_in_memory(monkeypatch):
    colours, density, depths, steps, ray, rays = problem()
    whole = torch.stack([*colours.T, density, depths, steps], 1)
    apart = (whole[:, :3], whole[:, 3], whole[:, 4], whole[:, 5], ray, rays)

    found, wanted = both_ways(monkeypatch, apart)

    agree(found, wanted)


def test_colours_in_half_have_slopes_in_half(monkeypatch):
    colours, *rest = problem()

    found, wanted = both_ways(monkeypatch, (colours.half(), *rest))

    assert found[1].dtype == wanted[1].dtype == torch.float16
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(found[2], wanted[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_sample_that_is_no_number_spoils_its_own_ray_only(monkeypatch, value):
    colours, density, depths, steps, ray, rays = problem()
    clean, _ = both_ways(monkeypatch, (colours, density, depths, steps, ray, rays))
    spoilt, at = 9, int((ray == 9).nonzero()[3, 0])
    density[at], steps[at] = value, 0.01
    colours[at] = torch.nan

    for found in both_ways(monkeypatch, (colours, density, depths, steps, ray, rays)):
        assert found[0][spoilt, :3].isnan().all()
        others = torch.arange(rays) != spoilt
        agree([found[0][others]], [clean[0][others]])
        agree([x[ray != spoilt] for x in found[1:]], [x[ray != spoilt] for x in clean[1:]])


def test_the_slopes_of_the_reference_are_those_of_finite_differences():
    colours, density, depths, steps, ray, rays = problem(6, 8, torch.float64)
    density.clamp_(max=50)
    leaves = [colours.requires_grad_(), density.requires_grad_()]
    grad = torch.randn(rays, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def sums(c, d):
        return ray_sums_twin(c, d, depths, steps, ray, rays)

    assert torch.autograd.gradcheck(sums, leaves, fast_mode=True)
    by_autograd = torch.autograd.grad(sums(*leaves), leaves, grad)
    with torch.no_grad():
        by_hand = ray_slopes_twin(grad, *leaves, depths, steps, ray, sums(*leaves))
    torch.testing.assert_close(by_hand, by_autograd, rtol=1e-10, atol=1e-12)


def test_the_ops_keep_their_promises():
    asked = problem(5, 6)
    sums = ray_sums_twin(*asked)
    leaves = [x.detach().requires_grad_() for x in asked[:2]]

    torch.library.opcheck(composite_op, (*leaves, *asked[2:]))
    torch.library.opcheck(slopes_op, (torch.ones_like(sums), *asked[:5], sums))
