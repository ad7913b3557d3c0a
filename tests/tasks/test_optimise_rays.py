import numpy as np
import pytest
import torch
from ball_views import CENTRE, RADIUS, ball_views

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.march import at_cells
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.fields.nerf import in_unit, prepare
from nf2vec_cli.models.network import radiance_init
from nf2vec_cli.tasks.optimise_rays import optimise_rays, radiance_network
from nf2vec_cli.tasks.radiance_field import RadianceField

CONFIG = FitConfig(
    hidden=32,
    layers=2,
    octaves=5,
    grid=32,
    samples=64,
    steps=120,
    step_samples=2_000,
    muon_rate=0.06,
    learning_rate=1e-2,
    momentum=0.7,
)
CPU = torch.device("cpu")


def pool_of(seed):
    views = ball_views(seed=seed)
    return views, prepare(views, CONFIG, rng=np.random.default_rng(seed))


def start():
    return radiance_init(radiance_network(CONFIG), seed=0)


@pytest.fixture(scope="module")
def fitted():
    views, pool = pool_of(0)
    (lit,) = optimise_rays(start(), [(pool, 5)], CONFIG, device=CPU)
    return views, lit


def test_views_that_were_held_out_are_seen_as_they_are(fitted):
    views, lit = fitted
    field = RadianceField(
        lit.theta.numpy(), radiance_network(CONFIG), lit.grid.numpy(), CONFIG.samples
    )
    poses, focal = in_unit(views, views.held)

    seen = field.render(camera_rays(poses, focal, 32, 32), background=(0.0, 0.0, 0.0))

    wanted = torch.from_numpy(views.pixels[views.held]).view(-1, 4).float() / 255
    away = (seen.colour - wanted[:, :3] * wanted[:, 3:]).square().mean()
    assert -10 * away.log10() > 18
    solid = wanted[:, 3] > 0
    assert seen.opacity[solid].mean() > 0.9
    assert seen.opacity[~solid].mean() < 0.05
    # the surface is where it is
    rays = camera_rays(poses, focal, 32, 32)
    ends = (rays.origins + rays.directions * seen.depth[:, None])[solid & (seen.opacity > 0.9)]
    far = (ends - torch.tensor(CENTRE)).norm(dim=1)
    assert (far - RADIUS).abs().median() < 0.06


def test_the_grid_ends_up_around_the_object(fitted):
    _, lit = fitted

    assert at_cells(torch.tensor(CENTRE + np.array([0, 0, 0.95 * RADIUS]))[None].float(), lit.grid)
    assert lit.grid.float().mean() < 0.12


def test_fitted_together_equals_one_by_one():
    """One batched network, each with rays, samples and a grid of its own."""
    config = CONFIG.model_copy(update={"steps": 20})
    pools = [(pool_of(seed)[1], seed) for seed in (1, 2, 3)]

    together = list(optimise_rays(start(), pools, config, device=CPU, places=2))
    alone = list(optimise_rays(start(), pools, config, device=CPU, places=1))

    assert [one.index for one in together] == [0, 1, 2]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.theta, b.theta, rtol=1e-3, atol=2e-4)
        assert (a.grid != b.grid).float().mean() < 0.01
    assert not torch.allclose(together[0].theta, together[1].theta, atol=1e-2)


def test_the_same_seed_gives_the_same_bits():
    config = CONFIG.model_copy(update={"steps": 5})
    _, pool = pool_of(1)

    one, other, third = (
        next(optimise_rays(start(), [(pool, seed)], config, device=CPU)).theta for seed in (1, 1, 2)
    )

    assert torch.equal(one, other)
    assert not torch.equal(one, third)


@pytest.mark.parametrize("changes", [{"optimiser": "adam"}, {"biases": True}])
def test_other_optimisers_and_biases_fit_as_well(changes):
    config = CONFIG.model_copy(update={"steps": 40, **changes})
    views, pool = pool_of(0)
    init = radiance_init(radiance_network(config), seed=0)

    (lit,) = optimise_rays(init, [(pool, 5)], config, device=CPU)

    field = RadianceField(lit.theta.numpy(), radiance_network(config), lit.grid.numpy(), 64)
    poses, focal = in_unit(views, views.held)
    seen = field.render(camera_rays(poses, focal, 32, 32), background=(0.0, 0.0, 0.0))
    wanted = torch.from_numpy(views.pixels[views.held]).view(-1, 4).float() / 255
    assert (seen.opacity - wanted[:, 3]).abs().mean() < 0.1
