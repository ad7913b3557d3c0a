import torch
from torch.nn.functional import one_hot

from nf2vec_cli.models.segmenter import Segmenter


def head():
    torch.manual_seed(0)
    return Segmenter(6, 3, 5, hidden=16, octaves=2).eval()


def test_it_is_the_decoder_of_embedding_class_and_point():
    torch.manual_seed(1)
    z, labels, coords = torch.randn(2, 6), torch.tensor([2, 0]), torch.rand(2, 7, 3)

    found = head()(z, labels, coords)

    joined = torch.cat([z, one_hot(labels, 3).float()], dim=1)
    torch.testing.assert_close(found, head().decoder(joined, coords))
    assert found.shape == (2, 7, 5)


def test_the_class_matters():
    z, coords = torch.randn(1, 6).repeat(2, 1), torch.rand(1, 7, 3).repeat(2, 1, 1)

    found = head()(z, torch.tensor([0, 1]), coords)

    assert (found[0] - found[1]).abs().max() > 1e-3


def test_standardised_embeddings_have_mean_zero_and_deviation_one():
    module, z = head(), torch.randn(50, 6) * 7 + 3
    z[:, 2] = 4.0  # a number that never changes is only moved

    module.standardise_by(z)

    seen = (z - module.centre) / module.spread
    torch.testing.assert_close(seen.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0)[[0, 1, 3, 4, 5]], torch.ones(5))
    assert seen[:, 2].abs().max() < 1e-5
    assert {"centre", "spread"} <= set(module.state_dict())
