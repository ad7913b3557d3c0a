import torch
from torch.nn.functional import linear

from nf2vec_cli.core.decode import fourier
from nf2vec_cli.models.decoder import Decoder


def concatenated(decoder, z, coords):
    """The paper's decoder as it is written: the embedding beside each point's coding."""
    x = torch.cat(
        [z[:, None].expand(-1, coords.shape[1], -1), fourier(coords, decoder.octaves)], -1
    )
    h = linear(x, decoder.enter.weight, decoder.enter.bias).relu()
    for layer in decoder.before:
        h = layer(h).relu()
    h = h + decoder.skip(x).relu()
    for layer in decoder.after:
        h = layer(h).relu()
    return decoder.last(h)


def test_it_equals_the_decoder_on_concatenated_inputs():
    torch.manual_seed(0)
    decoder = Decoder(24, hidden=16, octaves=4, outputs=2).double()
    z, coords = torch.randn(3, 24).double(), torch.rand(3, 50, 3).double()

    found = decoder(z, coords)

    assert found.shape == (3, 50, 2)
    assert torch.allclose(found, concatenated(decoder, z, coords), atol=1e-12)


def test_the_papers_sizes_give_the_papers_parameters():
    decoder = Decoder(1024, hidden=512, octaves=10)

    assert sum(p.numel() for p in decoder.parameters()) == 2_165_249


def test_coordinates_are_coded_without_pi():
    coded = fourier(torch.tensor([[0.1, 0.2, 0.3]]), 2)[0]

    wanted = [0.1, 0.2, 0.3]
    for k in (1, 2):
        x = torch.tensor([0.1, 0.2, 0.3]) * k
        wanted += [*x.sin().tolist(), *x.cos().tolist()]
    assert torch.allclose(coded, torch.tensor(wanted))


def test_only_the_last_numbers_of_an_embedding_are_read_where_that_is_wanted():
    decoder = Decoder(8, hidden=16, octaves=2, reads=3)
    z, coords = torch.randn(2, 8), torch.rand(2, 5, 3)
    other, last = z.clone(), z.clone()
    other[:, :5] = 0
    last[:, 5] += 1

    assert torch.equal(decoder(z, coords), decoder(other, coords))
    assert not torch.equal(decoder(z, coords), decoder(last, coords))
