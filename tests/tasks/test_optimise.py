import numpy as np
import pytest
import torch

from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.config.fit import FitConfig, fit_defaults
from nf2vec_cli.fields import sdf
from nf2vec_cli.fields.pool import draw_uniform
from nf2vec_cli.models.network import siren_init
from nf2vec_cli.shapes.mesh import load_mesh, normalise
from nf2vec_cli.tasks import bench
from nf2vec_cli.tasks.optimise import network_of, object_seed, optimise

CPU = torch.device("cpu")


@pytest.fixture
def mesh(shapes):
    read = load_mesh(shapes / "chair" / "chair.ply")
    unit, _, _ = normalise(read.vertices)
    return type(read)(unit, read.faces, read.watertight)


def pool_of(mesh, seed, count=20_000):
    return sdf.sample(mesh, count, rng=np.random.default_rng(seed))


def test_objects_fitted_together_equal_those_fitted_alone(mesh):
    config = FitConfig(hidden=32, steps=4, points=100, pool=2000)
    init = siren_init(network_of(config), seed=0)
    pools = [pool_of(mesh, seed, 2000) for seed in (0, 1)]

    both = optimise(init, pools, [5, 6], sdf, config, device=CPU)
    one = optimise(init, pools[1:], [6], sdf, config, device=CPU)

    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-6)


def test_an_objects_seed_depends_on_its_id_and_the_seed_alone():
    assert object_seed("a", 0) == object_seed("a", 0)
    assert len({object_seed("a", 0), object_seed("b", 0), object_seed("a", 1)}) == 3


def test_our_engine_runs_the_authors_recipe_as_theirs_does(mesh, monkeypatch):
    base = fit_defaults(Preset.small, Recipe.paper)
    config = FitConfig(**base | {"hidden": 32, "steps": 6, "points": 200, "pool": 6000})
    pool = sdf.sample_as_paper(mesh, config.pool, rng=np.random.default_rng(0))
    init = siren_init(network_of(config), seed=0)
    draws = iter(draw_uniform(6000, 6, 200, rng=np.random.default_rng([5, 1])))
    monkeypatch.setattr(
        bench.torch, "multinomial", lambda *_: torch.from_numpy(next(draws).astype(np.int64))[None]
    )

    theirs = bench.authors_fit(init, [pool], config, steps=6)

    ours = optimise(init, [pool], [5], sdf, config, device=CPU)
    assert (theirs - init).abs().max() > 4e-4
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_two_fits_of_one_shape_are_linearly_connected(mesh):
    config = FitConfig()
    spec = network_of(config)
    init = siren_init(spec, seed=0)
    a, b = (
        optimise(init, [pool_of(mesh, s, config.pool)], [s], sdf, config, device=CPU)[0].numpy()
        for s in (1, 2)
    )

    ratio, _ = bench._midpoint(pool_of(mesh, 9), spec, a, b)

    assert not np.allclose(a, b, atol=1e-3)
    assert ratio < 1.015


def test_the_papers_recipe_is_the_papers():
    config = FitConfig(**fit_defaults(Preset.paper, Recipe.paper))

    assert network_of(config).parameters == 790_529
    assert (config.steps, config.points, config.pool) == (500, 10_000, 600_000)
    assert (config.optimiser, config.learning_rate, config.decay) == ("adam", 1e-4, "none")
    assert (config.momentum, config.beta2) == (0.9, 0.999)
