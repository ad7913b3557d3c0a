from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.config.fit import FitConfig, fit_defaults
from nf2vec_cli.core import gradient, mlp, sine
from nf2vec_cli.fields import FieldName, sdf
from nf2vec_cli.fields.pool import draw_uniform
from nf2vec_cli.models.network import siren_init
from nf2vec_cli.shapes.discover import discover
from nf2vec_cli.shapes.mesh import load_mesh, normalise
from nf2vec_cli.tasks import bench
from nf2vec_cli.tasks.optimise import (
    _Batch,
    network_of,
    object_seed,
    optimise,
    points_of_steps,
    steps_of_a_graph,
)

CPU = torch.device("cpu")


def fit(init, pool, seed, config):
    return next(optimise(init, [(pool, seed)], sdf, config, device=CPU)).theta[None]


@pytest.fixture
def mesh(shapes):
    read = load_mesh(shapes / "chair" / "chair.ply")
    unit, _, _ = normalise(read.vertices)
    return type(read)(unit, read.faces, read.watertight)


def pool_of(mesh, seed, count=20_000):
    config = FitConfig(pool=count, points=100)
    return sdf.prepare(mesh, config, rng=np.random.default_rng(seed))


def test_objects_fitted_together_equal_those_fitted_alone(mesh):
    config = FitConfig(hidden=32, steps=4, points=100, pool=2000)
    init = siren_init(network_of(config), seed=0)
    pools = [(pool_of(mesh, seed, 2000), seed) for seed in range(5)]

    together = {
        found.index: found.theta
        for found in optimise(init, pools, sdf, config, device=CPU, places=2)
    }

    assert sorted(together) == [0, 1, 2, 3, 4]
    for index, (pool, seed) in enumerate(pools):
        alone = fit(init, pool, seed, config)[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-4, atol=1e-6)


def test_a_fit_stops_when_it_is_good_enough(mesh):
    pool = pool_of(mesh, 0, 5000)
    init = siren_init(network_of(FitConfig(hidden=32)), seed=0)

    def run(target):
        config = FitConfig(hidden=32, steps=80, points=300, pool=5000, target_error=target)
        return next(optimise(init, [(pool, 1)], sdf, config, device=CPU))

    never, soon, at_once = run(0), run(0.009), run(0.5)

    assert never.steps == 80
    assert 10 < soon.steps < 80
    assert at_once.steps == 10


def test_a_hard_object_holds_up_no_place(mesh):
    """The easy ones pass it by: with a target that only they reach, they are finished first."""
    config = FitConfig(hidden=32, steps=60, points=200, pool=2000, target_error=0.017)
    init = siren_init(network_of(config), seed=0)
    easy = pool_of(mesh, 0, 2000)
    hard = replace(easy, values=np.random.default_rng(0).permutation(easy.values))
    pools = [(hard, 0), *((easy, seed) for seed in range(1, 4))]

    found = list(optimise(init, pools, sdf, config, device=CPU, places=2))

    assert [f.index for f in found][:2] == [1, 2]
    assert next(f for f in found if f.index == 0).steps == 60
    assert all(f.steps < 60 for f in found if f.index)


@pytest.mark.parametrize(("growth", "target"), [(1.0, 0.0), (3.0, 0.0), (1.0, 0.012)])
def test_steps_of_a_graph_are_steps(mesh, growth, target):
    config = FitConfig(
        hidden=32, steps=40, points=200, pool=4000, growth=growth, target_error=target
    )
    init = siren_init(network_of(config), seed=0)
    pools = [(pool_of(mesh, seed, 4000), seed) for seed in range(3)]

    plain, graphs = (
        list(optimise(init, pools, sdf, config, device=CPU, places=2, graphs=graphs))
        for graphs in (False, True)
    )

    assert [f.steps for f in graphs] == [f.steps for f in plain]
    for a, b in zip(plain, graphs, strict=True):
        assert a.index == b.index
        torch.testing.assert_close(a.theta, b.theta, rtol=1e-4, atol=1e-6)
    if target:
        assert max(f.steps for f in graphs) < 40


@pytest.mark.parametrize(
    ("steps", "target", "wanted"),
    [(150, 0, 50), (120, 0, 40), (3, 0, 3), (150, 0.1, 10), (97, 0, 1)],
)
def test_a_graph_ends_where_fits_do(steps, target, wanted):
    assert steps_of_a_graph(FitConfig(steps=steps, target_error=target)) == wanted


@pytest.mark.parametrize("optimiser", ["muon", "adam"])
def test_a_step_asks_nothing_of_the_host(mesh, monkeypatch, optimiser):
    """A CUDA graph holds no answer: `.item()`, or a size that depends on values, would raise."""
    monkeypatch.setenv("NF2VEC_KERNELS", "reference")  # numba wants memory that is there
    sine._fused.cache_clear()
    config = FitConfig(hidden=32, steps=4, points=100, pool=2000, optimiser=optimiser)
    init = siren_init(network_of(config), seed=0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = _Batch(init, [pool_of(mesh, 0, 2000)] * 2, sdf, config, graphs=True)

        batch.step()
    sine._fused.cache_clear()


@pytest.mark.parametrize("hidden", [32, 144])
def test_a_step_by_kernels_asks_nothing_of_the_host(mesh, monkeypatch, hidden):
    """The engine that a graph on a GPU records; what it launches does nothing here."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    launched = set()
    monkeypatch.setattr(
        interpreter.InterpretedFunction,
        "run",
        lambda self, *_, **__: launched.add(self.fn.__name__),
    )
    for module in (gradient, mlp):
        monkeypatch.setattr(module, "kernels_serve", lambda _: True)
    config = FitConfig(hidden=hidden, steps=4, points=100, pool=2000)
    init = siren_init(network_of(config), seed=0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = _Batch(init, [pool_of(mesh, 0, 2000)] * 2, sdf, config, graphs=True)

        batch.step()

    narrow = {"forward_kernel", "backward_kernel", "total_kernel"}
    assert launched == (narrow if hidden <= 128 else {"product_kernel"})


def test_the_points_of_a_step_change_evenly_and_keep_their_mean():
    counts = points_of_steps(FitConfig(points=1000, growth=3, steps=101))

    assert (counts[0], counts[50], counts[-1]) == (500, 1000, 1500)
    fewer = points_of_steps(FitConfig(points=1000, growth=0.25, steps=101))
    assert (fewer[0], fewer[50], fewer[-1]) == (1600, 1000, 400)
    assert points_of_steps(FitConfig(points=70, steps=3)).tolist() == [70, 70, 70]


def test_an_objects_seed_depends_on_its_id_and_the_seed_alone():
    assert object_seed("a", 0) == object_seed("a", 0)
    assert len({object_seed("a", 0), object_seed("b", 0), object_seed("a", 1)}) == 3


def test_our_engine_runs_the_authors_recipe_as_theirs_does(mesh, monkeypatch):
    base = fit_defaults(Preset.small, Recipe.paper)
    config = FitConfig(**base | {"hidden": 32, "steps": 6, "points": 200, "pool": 6000})
    pool = sdf.prepare(mesh, config, rng=np.random.default_rng(0))
    init = siren_init(network_of(config), seed=0)
    draws = iter(draw_uniform(pool, np.full(6, 200), rng=np.random.default_rng([5, 1])))
    monkeypatch.setattr(bench.torch, "multinomial", lambda *_: torch.from_numpy(next(draws))[None])

    theirs = bench.authors_fit(init, [pool], sdf, config, steps=6)

    ours = fit(init, pool, 5, config)
    assert (theirs - init).abs().max() > 4e-4
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_two_fits_of_one_shape_are_linearly_connected(shapes):
    config = FitConfig()
    ref = discover(shapes / "chair" / "chair.ply")[0]
    shape = bench._Shape(ref, FieldName.sdf, config)
    a, b = (bench._fit(shape, config, seed=seed) for seed in (1, 2))

    ratio, _ = shape.midpoint(a, b, config)

    assert not np.allclose(a, b, atol=1e-3)
    assert ratio < 1.015


def test_the_papers_recipe_is_the_papers():
    config = FitConfig(**fit_defaults(Preset.paper, Recipe.paper))

    assert network_of(config).parameters == 790_529
    assert (config.steps, config.points, config.pool) == (500, 10_000, 600_000)
    assert (config.optimiser, config.learning_rate, config.decay) == ("adam", 1e-4, "none")
    assert (config.momentum, config.beta2) == (0.9, 0.999)
