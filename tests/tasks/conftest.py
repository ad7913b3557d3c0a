"""A field of radiance by an equation, for tests of what shows fields."""

import numpy as np
import pytest
import torch

from nf2vec_cli.core.render import render

SIDE = 32


class LitBall:
    """A ball that is red where x, green where y and blue where z is high; hollow if asked."""

    def __init__(self, centre=(0.3, -0.1, 0.2), radius=0.4, hollow=0.0, density=400.0):
        self.centre, self.radius, self.hollow = torch.tensor(centre), radius, hollow
        self.density = density
        along = (torch.arange(SIDE) + 0.5) * (2 / SIDE) - 1
        middles = torch.cartesian_prod(along, along, along).view(SIDE, SIDE, SIDE, 3)
        self.grid = (middles - self.centre).norm(dim=-1) < radius + 2 / SIDE

    def to(self, device):
        pass

    def at(self, points):
        away = (points - self.centre).norm(dim=-1)
        inside = (away < self.radius) & (away >= self.hollow)
        return (points + 1) / 2, torch.where(inside, self.density, 0.0)

    def render(self, rays, *, background=(1.0, 1.0, 1.0)):
        ground = torch.tensor(background)
        return render(self.at, rays, self.grid, samples=256, background=ground, backend="torch")


@pytest.fixture
def lit_ball():
    """Make a ball of radiance; its arguments are those of LitBall."""
    return LitBall


@pytest.fixture
def empty_field():
    """Radiance of which nothing is left."""
    field = LitBall(density=0.0)
    field.grid = torch.zeros_like(field.grid)
    return field


@pytest.fixture
def rng():
    return np.random.default_rng(0)
