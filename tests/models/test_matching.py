import numpy as np
import pytest
import torch

from nf2vec_cli.core.mlp import siren_forward
from nf2vec_cli.models.matching import match_neurons, permuted, unmoved
from nf2vec_cli.models.network import NetworkSpec, siren_init, split_theta

SPEC = NetworkSpec(hidden=32, layers=3)


def shuffles(seed):
    rng = np.random.default_rng(seed)
    return [rng.permutation(SPEC.hidden) for _ in range(SPEC.layers)]


def test_a_permuted_field_is_the_same_function():
    theta = siren_init(SPEC, seed=0)
    coords = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def values(flat):
        return siren_forward(*split_theta(flat.double()[None], SPEC), coords.double(), SPEC.omega)

    other = permuted(theta, shuffles(1), SPEC)

    assert not torch.equal(other, theta)
    torch.testing.assert_close(values(other), values(theta), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matching_undoes_a_permutation(seed):
    theta = siren_init(SPEC, seed=0)
    noise = 1e-4 * torch.randn(len(theta), generator=torch.Generator().manual_seed(seed))
    mixed = permuted(theta + noise, shuffles(seed), SPEC)

    found = match_neurons(theta, mixed, SPEC, seed=seed)

    torch.testing.assert_close(permuted(mixed, found, SPEC), theta + noise, rtol=0, atol=0)
    for order, shuffle in zip(found, shuffles(seed), strict=True):
        np.testing.assert_array_equal(shuffle[order], np.arange(SPEC.hidden))


def test_matching_leaves_an_aligned_field_alone():
    theta = siren_init(SPEC, seed=0)

    assert unmoved(match_neurons(theta, theta * 1.01, SPEC)) == 1


def test_matching_brings_strangers_closer():
    a, b = siren_init(SPEC, seed=0), siren_init(SPEC, seed=1)

    found = match_neurons(a, b, SPEC)

    assert unmoved(found) < 0.2
    assert (permuted(b, found, SPEC) - a).norm() < 0.95 * (b - a).norm()
    for order in found:
        np.testing.assert_array_equal(np.sort(order), np.arange(SPEC.hidden))
