import torch

from nf2vec_cli.models.network import NetworkSpec, siren_init, split_theta


def test_the_papers_network_has_790529_parameters():
    assert NetworkSpec(hidden=512).parameters == 790_529
    assert NetworkSpec().parameters == 50_177


def test_theta_is_in_state_dict_order():
    spec = NetworkSpec(hidden=16, layers=2)
    theta = torch.arange(spec.parameters, dtype=torch.float32)[None]

    weights, biases = split_theta(theta, spec)

    assert [tuple(w.shape) for w in weights] == [(1, 16, 3), (1, 16, 16), (1, 1, 16)]
    assert weights[0][0, 1, 0] == 3
    assert biases[0][0, 0] == 48
    assert weights[1][0, 0, 0] == 64


def test_blocks_cover_theta():
    spec = NetworkSpec(hidden=32, layers=3)

    assert sum(spec.blocks) == spec.parameters
    assert spec.blocks[:33] == [3] * 32 + [32]


def test_init_follows_the_papers_ranges():
    spec = NetworkSpec(hidden=512)
    weights, biases = split_theta(siren_init(spec, seed=0)[None], spec)

    bounds = [1 / 3] + [(6 / 512) ** 0.5 / 30] * 4
    for w, bound in zip(weights, bounds, strict=True):
        assert 0.98 * bound < w.abs().max() <= bound
    for b, into in zip(biases, (3, 512, 512, 512), strict=False):
        assert 0.95 * into**-0.5 < b.abs().max() <= into**-0.5


def test_init_is_the_same_bits_for_the_same_seed():
    spec = NetworkSpec()

    assert torch.equal(siren_init(spec, seed=3), siren_init(spec, seed=3))
    assert not torch.equal(siren_init(spec, seed=3), siren_init(spec, seed=4))
