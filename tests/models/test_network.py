import numpy as np
import pytest
import torch

from nf2vec_cli.models.network import (
    NetworkSpec,
    pcg32,
    radiance_init,
    radiance_spec,
    siren_init,
    split_theta,
    weight_rows,
)

PAPERS = {"hidden": 64, "layers": 3, "octaves": 24, "biases": False}


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


def test_the_papers_radiance_network_has_17664_parameters():
    spec = radiance_spec(**PAPERS)

    assert spec.shapes == [(64, 144), (64, 64), (64, 64), (4, 64)]
    assert spec.parameters == 17_664  # the authors' 18,432 with 12 rows that nothing reads
    assert sum(spec.blocks) == spec.parameters


@pytest.mark.parametrize("biases", [False, True])
def test_parts_of_a_radiance_network_cover_its_theta(biases):
    spec = radiance_spec(**PAPERS | {"biases": biases})
    theta = torch.arange(float(spec.parameters))[None]

    weights, offsets = split_theta(theta, spec)

    found = sum(w.numel() for w in weights) + sum(b.numel() for b in offsets) * biases
    assert found == spec.parameters == sum(spec.blocks)
    assert weights[-1][0, -1, -1] == spec.parameters - 1 - 4 * biases
    if not biases:
        assert not any(b.any() for b in offsets)


def test_pcg32_gives_the_numbers_of_its_authors_demo():
    wanted = [0xA15C02B7, 0x7B47F409, 0xBA1D3330, 0x83D2F293, 0xBFA4784B, 0xCBED606E]

    assert pcg32(42, 6, stream=54).tolist() == wanted


def test_the_radiance_init_is_xaviers_in_the_order_of_the_matrices():
    spec = radiance_spec(**PAPERS)
    weights, _ = split_theta(radiance_init(spec, seed=0)[None], spec)

    for w, (rows, columns) in zip(weights, [(64, 144), (64, 64), (64, 64), (16, 64)], strict=True):
        bound = (6 / (rows + columns)) ** 0.5
        assert 0.95 * bound < w.abs().max() <= bound
    # 23 bits of the first number, scaled in single precision
    bits = int(pcg32(999, 1)[0]) >> 9
    bound = np.float32((6 / 208) ** 0.5)
    assert weights[0][0, 0, 0].item() == np.float32(bits / 2**23) * (2 * bound) - bound
    assert not torch.equal(radiance_init(spec, seed=0), radiance_init(spec, seed=1))


def test_a_siren_is_kept_as_it_was_before_radiance_came():
    """The name of a store's init is made of it, and shipped encoders look for that."""
    known = {"inputs", "hidden", "layers", "outputs", "omega", "activation"}

    assert set(NetworkSpec().as_dict()) == known
    spec = radiance_spec(**PAPERS)
    assert NetworkSpec(**spec.as_dict()) == spec


def test_rows_of_radiance_hold_all_weights_and_are_filled_up():
    spec = radiance_spec(hidden=16, layers=2, octaves=3, biases=False)
    theta = torch.arange(1.0, 1 + spec.parameters)[None]

    rows = weight_rows(theta, spec)

    assert rows.shape == (1, -(-spec.parameters // 16), 16)
    assert torch.equal(rows.flatten()[: spec.parameters], theta[0])
    assert not rows.flatten()[spec.parameters :].any()
