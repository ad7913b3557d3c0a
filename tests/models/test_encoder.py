import pytest
import torch

from nf2vec_cli.models.encoder import AlignedEncoder, RowsEncoder
from nf2vec_cli.models.network import NetworkSpec, siren_init, split_theta, weight_rows
from nf2vec_cli.models.probes import coarse_values, read_field, slope_histogram
from nf2vec_cli.models.projection import LEVELS, pack, unpack

SPEC = NetworkSpec(hidden=16, layers=3)


def fields(count, seed=0):
    init = siren_init(SPEC, seed=0)
    moves = torch.randn(5, len(init), generator=torch.Generator().manual_seed(7))
    mix = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return init, init + 0.01 * mix @ moves


def test_the_papers_size_gives_the_papers_parameters():
    spec = NetworkSpec(hidden=512, layers=4)
    encoder = RowsEncoder(spec, widths=(512, 512, 1024, 1024), embedding=1024)

    assert sum(p.numel() for p in encoder.parameters()) == 3_155_968
    assert weight_rows(siren_init(spec, seed=0)[None], spec).shape == (1, 1539, 512)


def test_rows_are_incoming_weights_then_the_bias():
    _, theta = fields(2)
    weights, biases = split_theta(theta, SPEC)

    rows = weight_rows(theta, SPEC)

    assert torch.equal(rows[:, :16], weights[1])
    assert torch.equal(rows[:, 16], biases[1])
    assert torch.equal(rows[:, 17:33], weights[2])
    assert torch.equal(rows[:, 33], biases[2])


def test_folding_changes_nothing():
    _, theta = fields(8)
    encoder = RowsEncoder(SPEC, widths=(8, 12), embedding=6)
    for _ in range(3):
        encoder(theta)  # gives BatchNorm something to fold
    encoder.eval()

    folded = encoder.folded()(weight_rows(theta, SPEC)).amax(1)

    assert torch.allclose(folded, encoder(theta), atol=1e-6)


def test_the_projection_keeps_what_differs():
    init, theta = fields(40)
    encoder = AlignedEncoder(SPEC, components=5, width=8, embedding=6)
    encoder.fit_projection(theta, init)

    found = encoder.components(theta)

    assert torch.allclose(found.mean(0), torch.zeros(5), atol=1e-3)
    assert torch.allclose(found.T @ found / 40, torch.eye(5), atol=1e-2)
    # five directions made the fields and five are kept: what was mixed can be told from them
    _, others = fields(30, seed=1)
    known = torch.cat([found, torch.ones(40, 1)], dim=1)
    back = torch.linalg.lstsq(known, theta).solution
    guessed = torch.cat([encoder.components(others), torch.ones(30, 1)], dim=1) @ back
    assert (guessed - others).norm() < 1e-3 * (others - init).norm()


def test_an_embedding_begins_with_the_components_at_one_length():
    init, theta = fields(40)
    encoder = AlignedEncoder(SPEC, components=5, width=8, embedding=9).eval()
    encoder.fit_projection(theta, init)

    z, read = encoder(theta), encoder.components(theta)

    assert z.shape == (40, 9)
    assert torch.allclose(z[:, :5].norm(dim=1), torch.full((40,), 5**0.5))
    assert torch.allclose(torch.cosine_similarity(z[:, :5], read), torch.ones(40))


def test_directions_are_rounded_to_two_bits_and_keep_their_way():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 20_001, generator=generator) * torch.tensor([[1e-4], [1.0], [50.0]])

    packed = pack(values)

    assert packed.shape == (3, 5_001)
    back = unpack(packed)[:, :20_001]
    assert set(back.unique().tolist()) == set(torch.tensor(LEVELS).tolist())
    # Max 1960, Table I: four levels keep 88 % of the variance of a normal distribution
    assert torch.cosine_similarity(back, values).min() > 0.935


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("probes", [0, 7])
def test_fewer_fields_than_components_leave_the_rest_silent(count, probes):
    init, theta = fields(count)
    encoder = AlignedEncoder(SPEC, components=8, probes=probes, width=8, embedding=20)

    encoder.fit_projection(theta, init)

    found = encoder.components(fields(20, seed=1)[1])
    assert torch.isfinite(found).all()
    for part in found.split(8, dim=1):
        assert part[:, : count - 1].any()
        assert not part[:, count - 1 :].any()


def test_what_is_probed_is_whitened_and_joins_the_weights():
    init, theta = fields(40)
    encoder = AlignedEncoder(SPEC, components=4, probes=11, width=8, embedding=11).eval()
    encoder.fit_projection(theta, init)

    found, z = encoder.components(theta), encoder(theta)

    assert found.shape == (40, 12)
    weights, slopes, values = found.split(4, dim=1)
    alone = AlignedEncoder(SPEC, components=4, width=8, embedding=7)
    alone.fit_projection(theta, init)
    torch.testing.assert_close(weights, alone.components(theta))
    for part in (slopes, values):
        torch.testing.assert_close(part.T @ part / 40, torch.eye(4), atol=2e-2, rtol=0)
    assert z.shape == (40, 11)
    torch.testing.assert_close(z[:, :8].norm(dim=1), torch.full((40,), 8**0.5))
    torch.testing.assert_close(torch.cosine_similarity(z[:, :8], found[:, :8]), torch.ones(40))


def test_slopes_come_from_the_fields_own_values():
    init, theta = fields(40)
    encoder = AlignedEncoder(SPEC, components=4, probes=11, width=8, embedding=11)
    encoder.fit_projection(theta, init)
    values = read_field(theta, SPEC, 11)

    found = encoder.components(theta)

    torch.testing.assert_close(found[:, 4:8], encoder.slopes(slope_histogram(values, 11)))
    torch.testing.assert_close(found[:, 8:], encoder.values(coarse_values(values, 11)))


def test_slopes_that_change_when_an_object_is_moved_count_less():
    init, theta = fields(40)
    plain, steady = (
        AlignedEncoder(SPEC, components=4, probes=11, width=8, embedding=11) for _ in range(2)
    )
    plain.fit_projection(theta, init)
    steady.fit_projection(theta, init, moves=3)

    def share_of_change(encoder):
        values = read_field(theta, SPEC, 11, torch.Generator().manual_seed(9))
        there, moved = (
            encoder.components(theta)[:, 4:8],
            encoder.slopes(slope_histogram(values, 11)),
        )
        return float((moved - there).square().sum() / there.square().sum())

    assert share_of_change(steady) < 0.7 * share_of_change(plain)
    # nothing else is touched
    parts = [encoder.components(theta) for encoder in (plain, steady)]
    torch.testing.assert_close(parts[0][:, :4], parts[1][:, :4])
    torch.testing.assert_close(parts[0][:, 8:], parts[1][:, 8:])


def test_an_embedding_is_the_same_alone_and_among_others():
    init, theta = fields(40)
    encoder = AlignedEncoder(SPEC, components=4, probes=11, width=8, embedding=11).eval()
    encoder.fit_projection(theta, init)

    torch.testing.assert_close(encoder(theta[7:8])[0], encoder(theta)[7])
