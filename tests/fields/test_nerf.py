from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_views import CENTRE, RADIUS, ball_views

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.fields.nerf import EMPTY, first_of, in_unit, prepare, radiance_of

CONFIG = FitConfig(hidden=16, layers=2, octaves=4, grid=32, samples=64)


@pytest.fixture(scope="module")
def views():
    return ball_views()


@pytest.fixture(scope="module")
def pool(views):
    return prepare(views, CONFIG, rng=np.random.default_rng(0))


def cell_centres(side):
    along = (np.arange(side) + 0.5) * (2 / side) - 1
    return np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1)


def test_the_hull_covers_the_object_and_little_else(pool):
    away = np.linalg.norm(cell_centres(32) - CENTRE, axis=-1)
    grid = pool.grid.numpy()

    assert grid[away < RADIUS].all()
    # a cell's diagonal and the reach of the nearest cells beyond it, nothing is left
    assert not grid[away > RADIUS + 0.35].any()
    assert grid.sum() < 4 * (away < RADIUS).sum()


def test_rays_know_the_colours_of_their_pixels(views, pool):
    """The ball is met where its equation says, and the colour there is its own."""
    shown = pool.colours[:, 3] > 0
    origins = pool.rays.origins[shown].double().numpy()
    ways = pool.rays.directions[shown].double().numpy()
    away = origins - CENTRE
    half = (ways * away).sum(1)
    root = half**2 - ((away**2).sum(1) - RADIUS**2)
    assert (root > -1e-5).all()
    ends = origins + (-half - np.sqrt(root.clip(0)))[:, None] * ways
    normal = (ends - CENTRE) / RADIUS
    np.testing.assert_allclose(pool.colours[shown, :3], 0.5 + 0.5 * normal, atol=0.01)
    held = (views.pixels[~views.held][..., 3] > 0).sum()
    assert shown.sum() == held  # no ray that shows the object was left out


def test_each_ray_has_its_samples_in_one_run(pool):
    counts = pool.first.diff()

    assert len(pool.rays) == len(pool.colours) == len(counts)
    assert (counts > 0).all()
    assert (pool.samples.ray.diff() >= 0).all()
    points = pool.samples.points(pool.rays)
    assert (points.abs() <= 1).all()
    assert torch.equal(first_of(pool.samples, len(pool.rays)), pool.first)


def test_points_in_empty_cells_stand_for_what_is_clear(pool):
    clear = pool.rays.origins[-EMPTY:]

    cells = ((clear + 1) * 16).long().clamp(0, 31)
    assert not pool.grid[cells[:, 0], cells[:, 1], cells[:, 2]].any()
    assert not pool.colours[-EMPTY:].any()


def test_cameras_come_into_unit_space(views):
    box = np.array([1.0, 2, 3, 4])
    poses, focal = in_unit(replace(views, box=box), ~views.held)

    wanted = (views.poses[~views.held][:, :, 3] - box[:3]) / 4
    np.testing.assert_allclose(poses[:, :, 3], wanted, rtol=1e-6)
    assert torch.equal(focal, torch.from_numpy(views.focal[~views.held]))


def test_cameras_that_do_not_fit_their_pictures_are_refused(views):
    apart = views.pixels.copy()
    apart[::2], apart[1::2] = np.roll(apart[::2], 12, axis=1), np.roll(apart[1::2], -12, axis=1)

    with pytest.raises(InputError, match="the cameras do not fit the pictures"):
        prepare(replace(views, pixels=apart), CONFIG, rng=np.random.default_rng(0))


def test_outputs_become_colours_and_densities():
    colours, density = radiance_of(torch.tensor([[0.0, 100, -100, 1], [0, 0, 0, 1e6]]))

    assert colours[0].tolist() == [0.5, 1, 0]
    assert density[0] == 1
    assert torch.isfinite(density).all()
