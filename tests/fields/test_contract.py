"""What every kind of field promises; a new one is tested as soon as it has a name."""

import numpy as np
import pytest
import torch

from nf2vec_cli.config import SURFACE_POINTS, Preset, Recipe
from nf2vec_cli.config.fit import FitConfig, fit_defaults
from nf2vec_cli.fields import FieldName
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.metrics import surface_distance
from nf2vec_cli.models.network import siren_init
from nf2vec_cli.shapes.load import load_shape
from nf2vec_cli.shapes.unit import into_unit
from nf2vec_cli.store import schema
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.optimise import network_of, optimise
from nf2vec_cli.tasks.score import field_error

KINDS = [kind for kind in FieldName if kind is not FieldName.nerf]  # it is made of pictures


def test_the_store_knows_every_kind():
    assert tuple(FieldName) == schema.KINDS


def config_of(kind, **settings):
    base = fit_defaults(Preset.small, Recipe.fast, kind)
    return FitConfig(**base | {"pool": 5_000, "points": 400, "voxels": 32} | settings)


def pool_of(shapes, kind, config, seed=0):
    shape, _, _ = into_unit(load_shape(shapes / "chair" / "chair.ply", kind))
    return field_of(kind).prepare(shape, config, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("recipe", list(Recipe))
@pytest.mark.parametrize("kind", KINDS)
def test_the_kept_points_lie_on_the_surface(shapes, kind, recipe):
    mesh, _, _ = into_unit(load_shape(shapes / "chair" / "chair.ply", "sdf"))

    kept = pool_of(shapes, kind, config_of(kind, recipe=recipe)).surface

    away = surface_distance(kept.astype(float), mesh.vertices, mesh.faces)
    assert kept.shape == (SURFACE_POINTS, 3)
    # the faces of a cell that the surface passes through are less than its diagonal away
    assert away.max() < (3**0.5 * 2 / 32 if kind == "occ" else 1e-6)
    assert len(np.unique(kept, axis=0)) > 700


@pytest.mark.parametrize("recipe", list(Recipe))
@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_has_the_size_that_was_asked_for(shapes, kind, recipe):
    pool = pool_of(shapes, kind, config_of(kind, recipe=recipe))

    assert pool.coords.shape == (5_000, 3)
    assert pool.values.shape == pool.stratum.shape == (5_000,)
    assert pool.coords.dtype == pool.values.dtype == np.float32
    assert np.abs(pool.coords).max() <= 1
    assert sum(pool.shares) == pytest.approx(1)
    assert 0.1 < pool.near.mean() <= 1
    assert set(np.unique(pool.stratum)) <= set(range(len(pool.shares)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_pool(shapes, kind):
    config = config_of(kind)
    first, again, other = (pool_of(shapes, kind, config, seed) for seed in (3, 3, 4))

    assert np.array_equal(first.coords, again.coords)
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.coords, other.coords)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_lie_between_0_and_1_and_read_back_undoes_them(shapes, kind):
    pool, field = pool_of(shapes, kind, config_of(kind)), field_of(kind)
    values = torch.from_numpy(pool.values).double()

    labels = field.labels(values)

    assert labels.min() >= -1e-6
    assert labels.max() <= 1 + 1e-6
    outputs = torch.logit(labels, eps=1e-9)
    torch.testing.assert_close(field.read_back(outputs), values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_slope_is_that_of_the_loss(kind):
    outputs = torch.linspace(-8, 8, 33, dtype=torch.float64, requires_grad=True)
    targets = torch.arange(33).double() % 2
    loss = field_of(kind).point_loss(config_of(kind))

    each, slope = loss(outputs, targets)

    (expected,) = torch.autograd.grad(each.sum(), outputs)
    assert (each >= 0).all()
    torch.testing.assert_close(slope.detach(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_learns_the_field(shapes, kind):
    config = config_of(kind, steps=60, hidden=64)
    pool, field, spec = pool_of(shapes, kind, config), field_of(kind), network_of(config)
    init = siren_init(spec, seed=0)

    fitted = next(optimise(init, [(pool, 1)], field, config, device=torch.device("cpu")))

    before, after = (
        field_error(FieldFunction(theta.numpy(), spec, kind), pool)
        for theta in (init, fitted.theta)
    )
    assert fitted.steps == 60
    assert after < 0.7 * before
