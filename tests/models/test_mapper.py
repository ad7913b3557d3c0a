"""The mapping between embeddings."""

import torch

from nf2vec_cli.config import Preset
from nf2vec_cli.config.map import MapConfig, map_defaults
from nf2vec_cli.models.mapper import Mapper


def test_the_papers_network_is_eight_matrices_of_the_embeddings_width():
    net = Mapper(1024, 1024, MapConfig(**map_defaults(Preset.paper)))

    matrices = [p for p in net.parameters() if p.ndim == 2]
    assert [m.shape for m in matrices] == [(1024, 1024)] * 8
    assert sum(p.numel() for p in net.parameters()) == 8_411_136


def test_means_and_spreads_are_taken_off_and_put_back():
    torch.manual_seed(0)
    source, target = 5 + 3 * torch.randn(50, 6), -2 + 0.1 * torch.randn(50, 4)
    net = Mapper(6, 4, MapConfig(hidden=8))
    net.fit_statistics(source, target)
    net.eval()

    torch.testing.assert_close(net.known(source).std(0), torch.ones(6))
    torch.testing.assert_close(net.wanted(target).mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(net.wanted(net(source)), net.standardised(source))


def test_a_number_that_never_varies_does_no_harm():
    source = torch.randn(20, 3)
    source[:, 1] = 7
    net = Mapper(3, 3, MapConfig(hidden=8))
    net.fit_statistics(source, torch.zeros(20, 3))

    assert torch.isfinite(net.eval()(source)).all()
    assert (net(source).abs() < 1e-6).all()


def test_noise_is_for_training_alone():
    net = Mapper(3, 3, MapConfig(hidden=8, noise=1.0, dropout=0.0))
    z = torch.randn(4, 3)

    assert not torch.equal(net.train()(z), net(z))
    assert torch.equal(net.eval()(z), net(z))
