import pytest
import torch

from nf2vec_cli.models.classifier import Classifier, stitchup


def generator():
    return torch.Generator().manual_seed(0)


def test_mixtures_take_each_number_from_two_embeddings_of_one_class():
    labels = torch.tensor([0] * 6 + [1] * 6)
    z = torch.arange(12.0)[:, None].expand(12, 400)  # each number tells whose it is

    mixed, of_class = stitchup(z, labels, generator=generator())

    assert mixed.shape == (12, 400)
    assert of_class.tolist() == labels.tolist()
    for number, (row, label) in enumerate(zip(mixed, of_class, strict=True)):
        found = set(row.tolist())
        assert number in found or len(found) == 1
        assert len(found) <= 2
        assert {int(labels[int(value)]) for value in found} == {int(label)}
    shares = [(row == number).float().mean().item() for number, row in enumerate(mixed)]
    assert max(shares) - min(shares) > 0.2  # each has a threshold of its own


def test_a_class_with_two_in_the_batch_is_not_mixed():
    mixed, labels = stitchup(
        torch.randn(5, 4), torch.tensor([0, 0, 1, 1, 1]), generator=generator()
    )

    assert labels.tolist() == [1, 1, 1]
    assert len(mixed) == 3
    assert not len(stitchup(torch.randn(2, 4), torch.tensor([0, 1]), generator=generator())[0])


def test_the_paper_size_and_the_standardisation():
    torch.manual_seed(0)
    module = Classifier(1024, 40, widths=(512, 256), dropout=0.5)
    assert [tuple(p.shape) for p in module.layers.parameters() if p.ndim == 2] == [
        (512, 1024),
        (256, 512),
        (40, 256),
    ]
    z = torch.randn(64, 1024) * 5 + 3
    plain = module.eval()(z)

    module.standardise(z)

    standard = (z - z.mean(0)) / z.std(0)
    assert module(z).allclose(module.layers(standard), atol=1e-5)
    assert not module(z).allclose(plain, atol=1e-2)


@pytest.mark.parametrize("batch", [2, 7])
def test_each_embedding_is_judged_alone(batch):
    torch.manual_seed(0)
    module = Classifier(8, 3, widths=(16,), dropout=0.5).eval()
    z = torch.randn(batch, 8)

    torch.testing.assert_close(module(z)[0], module(z[:1])[0])
