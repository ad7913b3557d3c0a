"""A picture by the kernels is the picture by their twins."""

import torch

from nf2vec_cli.core import composite, march
from nf2vec_cli.core.march import Rays
from nf2vec_cli.core.render import render


def test_a_picture_by_the_kernels_is_that_of_the_twins(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(30, 3, generator=generator), dim=1) * 3
    towards = torch.rand(30, 3, generator=generator) * 2 - 1
    rays = Rays(origins, torch.nn.functional.normalize(towards - origins, dim=1))
    grid = torch.rand(6, 6, 6, generator=generator) < 0.5
    asked = []

    def fog(points):
        asked.append(points)
        return torch.sigmoid(points * 3), torch.exp(points.sum(1) * 2)

    def picture():
        return render(fog, rays, grid, samples=60, background=torch.tensor([0.2, 0.4, 0.6]))

    wanted = picture()
    monkeypatch.setattr(march, "kernels_serve", lambda _: True)
    monkeypatch.setattr(composite, "kernels_serve", lambda _: True)

    found = picture()

    assert torch.equal(*asked)
    assert wanted.opacity.max() > 0.5
    for name in ("colour", "opacity", "depth"):
        torch.testing.assert_close(
            getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-5
        )
