import numpy as np
import pytest
import torch

from nf2vec_cli.core.mlp import relu_forward, siren_forward
from nf2vec_cli.models.matching import (
    Symmetry,
    chance,
    correlation,
    match_fields,
    moved,
    transformed,
    turned,
)
from nf2vec_cli.models.network import (
    NetworkSpec,
    radiance_init,
    radiance_spec,
    relu_spec,
    siren_init,
    split_theta,
)

SINE = NetworkSpec(hidden=32, layers=3)
RELU = radiance_spec(hidden=32, layers=3, octaves=4, biases=False)
BIASED = radiance_spec(hidden=32, layers=3, octaves=4, biases=True)
SHAPE = relu_spec(hidden=32, layers=3)
SPECS = {"sine": SINE, "relu": RELU, "relu with biases": BIASED, "relu of shapes": SHAPE}
of_each = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def start(spec, seed=0):
    if spec.activation == "sine":
        return siren_init(spec, seed=seed)
    theta = radiance_init(spec, seed=seed)
    _, biases = split_theta(theta[None], spec)  # which start at 0, and are views
    generator = torch.Generator().manual_seed(seed)
    for bias in biases if spec.biases else ():
        bias.copy_(0.1 * torch.randn(bias.shape, generator=generator))
    return theta


def noisy(theta, spec, seed):
    """Move a field about as a fit does: hidden matrices by half of each weight, the rest by 2 %."""
    share = torch.full_like(theta, 0.02)
    weights, _ = split_theta(share[None], spec)  # views
    for matrix in weights[1:]:
        matrix.fill_(0.5)
    noise = torch.randn(len(theta), generator=torch.Generator().manual_seed(seed))
    return theta + share * theta.abs() * noise


def planted(spec, seed, *, plain=False):
    """Draw a symmetry of each kind that the units have."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(spec.layers):
        order, ones = rng.permutation(spec.hidden), np.ones(spec.hidden)
        into, turns = ones, 0 * ones
        if spec.activation == "relu" and not plain:
            into = np.exp(rng.uniform(-2, 2, spec.hidden))
        elif not plain:
            into, turns = rng.choice([-1.0, 1.0], spec.hidden), rng.integers(-2, 3, spec.hidden)
        step = np.pi / spec.omega if spec.omega else 0
        found.append(Symmetry(order, into, step * turns, (-1.0) ** turns / into))
    return found


def recovered(plants, found):
    pairs = zip(plants, found, strict=True)
    return np.mean([plant.order[own.order] == np.arange(len(own.order)) for plant, own in pairs])


def values(theta, spec):
    generator = torch.Generator().manual_seed(0)
    coords = 2 * torch.rand(1, 200, spec.inputs, generator=generator).double() - 1
    layers = split_theta(theta.double()[None], spec)
    if spec.activation == "relu":
        return relu_forward(*layers, coords)
    return siren_forward(*layers, coords, spec.omega)


@of_each
@pytest.mark.parametrize("plain", [True, False])
def test_a_transformed_field_is_the_same_function(spec, plain):
    theta = start(spec).double()

    other = transformed(theta, planted(spec, 1, plain=plain), spec)

    assert (other - theta).norm() > 0.5 * theta.norm()
    torch.testing.assert_close(values(other, spec), values(theta, spec), rtol=0, atol=1e-9)


@of_each
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_was_planted_in_a_field_is_found_from_its_init(spec, seed):
    init = start(spec)
    theta = noisy(init, spec, seed)
    plants = planted(spec, seed)

    found = match_fields(init, transformed(theta, plants, spec), spec, seed=seed)

    assert recovered(plants, found) >= 0.99
    back = transformed(transformed(theta, plants, spec), found, spec)
    if spec.activation == "sine":
        torch.testing.assert_close(back, theta, rtol=0, atol=1e-6)
    else:  # scaled to come near the init, not to be the field as it was
        assert (back - init).norm() <= 1.02 * (theta - init).norm()


@pytest.mark.parametrize("seed", [0, 1])
def test_places_alone_are_found_as_in_the_paper(seed):
    theta = start(SINE)
    mixed = transformed(noisy(theta, SINE, seed), planted(SINE, seed, plain=True), SINE)

    found = match_fields(theta, mixed, SINE, plain=True, seed=seed)

    torch.testing.assert_close(
        transformed(mixed, found, SINE), noisy(theta, SINE, seed), rtol=0, atol=0
    )
    assert turned(found) == 0


def test_signs_and_shifts_are_left_alone_if_places_are_all_that_may_change():
    mixed = transformed(start(SINE), planted(SINE, 0), SINE)

    found = match_fields(start(SINE), mixed, SINE, plain=True)

    for own in found:
        assert (own.into == 1).all()
        assert (own.shift == 0).all()
        assert (own.out == 1).all()


@of_each
def test_a_field_that_is_near_stays_as_it_is(spec):
    init = start(spec)

    found = match_fields(init, noisy(init, spec, 0), spec)

    assert (moved(found), turned(found)) == (0, 0)


@of_each
def test_a_scale_is_no_longer_needed_when_it_was_found(spec):
    mixed = transformed(start(spec), planted(spec, 3), spec)
    once = transformed(mixed, match_fields(start(spec), mixed, spec), spec)

    again = match_fields(start(spec), once, spec)

    torch.testing.assert_close(transformed(once, again, spec), once, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(once, start(spec), rtol=1e-5, atol=1e-6)


@of_each
def test_strangers_are_brought_closer(spec):
    a, b = start(spec), start(spec, seed=1)

    found = match_fields(a, b, spec)
    plain = match_fields(a, b, spec, plain=True)

    assert moved(found) > 0.8
    far = (b - a).norm()
    near, half = ((transformed(b, match, spec) - a).norm() for match in (found, plain))
    assert near < half < far
    for own in found:
        np.testing.assert_array_equal(np.sort(own.order), np.arange(spec.hidden))


def test_a_unit_without_weights_breaks_nothing():
    theta = start(RELU)
    weights, _ = split_theta(theta[None], RELU)
    weights[1][0, 5] = 0
    weights[2][0, :, 5] = 0

    found = match_fields(start(RELU), theta, RELU)

    made = transformed(theta, found, RELU)
    assert made.isfinite().all()
    torch.testing.assert_close(values(made, RELU), values(theta, RELU), rtol=0, atol=1e-5)


def test_correlation_tells_the_init_from_another():
    init, other = start(SINE), start(SINE, seed=1)
    spoilt = init.clone()
    spoilt[-SINE.hidden * 40] = torch.nan

    found = correlation(torch.stack([noisy(init, SINE, 0), other, spoilt]), init, SINE)

    assert found[0] > 0.8
    assert abs(found[1]) < 0.1
    assert found[2].isnan()


def test_chance_is_what_another_init_reaches_and_a_fit_exceeds():
    init, other = start(SINE), start(SINE, seed=1)
    made = transformed(other, match_fields(init, other, SINE), SINE)
    fields = torch.stack([made, noisy(init, SINE, 0)])

    stranger, own = correlation(fields, init, SINE, biases=False)

    assert stranger == pytest.approx(chance(init, SINE), rel=0.1)
    assert own > 1.25 * chance(init, SINE)
