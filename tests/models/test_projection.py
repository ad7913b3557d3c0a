import torch

from nf2vec_cli.models.projection import Projection, steady_directions


def rows(count, seed):
    """Eight numbers, the last four of spread 3; the changes of one object are in these alone."""
    draw = torch.Generator().manual_seed(seed)
    spread = torch.tensor([1.0] * 4 + [3.0] * 4)
    changes = torch.randn(count, 8, generator=draw) * torch.tensor([0.0] * 4 + [4.0] * 4)
    return torch.randn(count, 8, generator=draw) * spread, changes


def test_what_stays_as_it_is_in_an_object_comes_first():
    features, changes = rows(400, seed=0)

    found = steady_directions(features - features.mean(0), changes, 3)

    share = found[:, :4].square().sum(1) / found.square().sum(1)
    assert share.min() > 0.95


def test_components_are_uncorrelated_and_as_long_as_they_are_steady():
    features, changes = rows(400, seed=1)
    projection = Projection(8, 7)
    projection.fit(features, changes)

    found = projection(features)

    covariance = found.T @ found / 400
    lengths = covariance.diagonal()
    off = covariance - torch.diag(lengths)
    assert off.abs().max() < 0.02
    torch.testing.assert_close(lengths.mean(), torch.tensor(1.0), atol=0.01, rtol=0)
    assert (lengths.diff() < 0.01).all()
    assert lengths[:3].min() > 3 * lengths[3:].max()


def test_without_changes_components_are_principal_and_white():
    features, _ = rows(400, seed=2)
    projection = Projection(8, 7)
    projection.fit(features)

    found = projection(features)

    torch.testing.assert_close(found.T @ found / 400, torch.eye(7), atol=0.02, rtol=0)
    assert projection.basis[:4, 4:].float().square().sum() > 3.9
