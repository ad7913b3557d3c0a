import sys

import pytest
import torch

from nf2vec_cli.core.composite import composite, ray_weights
from nf2vec_cli.errors import UsageFault


def problem(seed=0, rays=50, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 30, (rays,), generator=generator)
    counts[[0, 7, rays - 1]] = 0  # rays that see nothing, first and last among them
    ray = torch.repeat_interleave(torch.arange(rays), counts)
    size = len(ray)
    place = torch.arange(size) - (counts.cumsum(0) - counts)[ray]
    return (
        torch.rand(size, 3, generator=generator, dtype=dtype),
        torch.rand(size, generator=generator, dtype=dtype) * 80,
        2 + place * 0.02 + 0.01,
        ray,
    )


def one_by_one(colours, density, depths, step, ray, rays):
    found = torch.zeros(rays, 5, dtype=torch.float64)
    for number in range(rays):
        left = 1.0
        for at in (ray == number).nonzero()[:, 0]:
            alpha = 1 - torch.exp(-density[at].double() * step).item()
            known = [*colours[at].tolist(), 1.0, depths[at].item()]
            found[number] += left * alpha * torch.tensor(known, dtype=torch.float64)
            left *= 1 - alpha
    return found


@pytest.mark.parametrize("backend", ["auto", "torch", "nerfacc"])
def test_each_way_adds_up_like_a_loop(backend):
    if backend == "nerfacc":
        pytest.importorskip("nerfacc")
    colours, density, depths, ray = problem()

    found = composite(colours, density, depths, 0.02, ray, 50, backend=backend)

    wanted = one_by_one(colours, density, depths, 0.02, ray, 50)
    torch.testing.assert_close(found.colour.double(), wanted[:, :3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.opacity.double(), wanted[:, 3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.depth.double(), wanted[:, 4], rtol=1e-5, atol=1e-5)
    assert not found.opacity[[0, 7, 49]].any()


def test_both_ways_agree_in_gradients():
    pytest.importorskip("nerfacc")
    slopes = []
    for backend in ("torch", "nerfacc"):
        colours, density, depths, ray = problem(seed=1)
        colours.requires_grad_()
        density.requires_grad_()
        found = composite(colours, density, depths, 0.02, ray, 50, backend=backend)
        loss = found.colour.square().sum() + found.opacity.sin().sum()
        slopes.append(torch.autograd.grad(loss, (colours, density)))

    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    colours, density, depths, ray = problem(seed=2, rays=9, dtype=torch.float64)
    colours.requires_grad_()
    density.requires_grad_()

    def sums(c, d):
        found = composite(c, d, depths, 0.02, ray, 9, backend="torch")
        return found.colour, found.opacity

    assert torch.autograd.gradcheck(sums, (colours, density), fast_mode=True)


def test_intervals_of_no_length_change_nothing():
    colours, density, depths, ray = problem()
    step = torch.full_like(density, 0.02)
    step[::3] = 0
    kept = step > 0

    whole = composite(colours, density, depths, step, ray, 50)
    part = composite(colours[kept], density[kept], depths[kept], 0.02, ray[kept], 50)

    torch.testing.assert_close(whole.colour, part.colour)
    torch.testing.assert_close(whole.opacity, part.opacity)


def test_a_million_samples_before_a_ray_do_not_blur_it():
    """Sums over all rays are taken, and differences of them: single precision would lose them."""
    count = 1_000_000
    ray = torch.cat([torch.zeros(count, dtype=torch.int64), torch.tensor([1, 1])])
    density = torch.cat([torch.full((count,), 50.0), torch.tensor([1.0, 1.0])])

    weights = ray_weights(density, 0.1, ray, 2)

    gone = 1 - torch.exp(torch.tensor(-0.1))
    torch.testing.assert_close(weights[-2:], torch.stack([gone, gone * (1 - gone)]))


def test_without_nerfacc_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nerfacc", None)
    colours, density, depths, ray = problem()

    with pytest.raises(UsageFault, match="nerfacc is not installed") as caught:
        composite(colours, density, depths, 0.02, ray, 50, backend="nerfacc")

    assert "nf2vec[nerf]" in (caught.value.hint or "")
    with pytest.raises(UsageFault, match="'opengl' is unknown"):
        composite(colours, density, depths, 0.02, ray, 50, backend="opengl")
