import pytest
import torch

from nf2vec_cli.core import neighbours
from nf2vec_cli.core.neighbours import block_nearest, nearest, nearest_twin


def blocks(gallery, *lengths):
    start = 0
    for part in gallery.split(lengths):
        yield torch.arange(start, start + len(part)), part
        start += len(part)


def random_rows(count, size=24, *, seed, device="cpu"):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=rng).to(device)


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("lengths", [(200,), (3, 100, 1, 96)])
def test_blocks_give_what_the_twin_gives(device, cosine, lengths):
    queries = random_rows(7, seed=0, device=device)
    gallery = random_rows(200, seed=1, device=device)

    found, places = nearest(queries, blocks(gallery, *lengths), 12, cosine=cosine)

    wanted, there = nearest_twin(queries, gallery, 12, cosine=cosine)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(places, there)


@pytest.mark.parametrize("cosine", [True, False])
def test_a_gallery_shorter_than_k_gives_all_of_it(cosine):
    queries, gallery = random_rows(2, seed=0), random_rows(5, seed=1)

    found, places = nearest(queries, blocks(gallery, 2, 3), 9, cosine=cosine)

    assert found.shape == places.shape == (2, 5)
    assert places.sort(dim=1).values.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("cosine", [True, False])
def test_a_row_is_at_distance_zero_from_itself_and_the_first_of_equals_comes_first(cosine):
    # long vectors: |q|^2 - 2 q g + |g|^2 in single precision would tell 0.1 or so
    gallery = 100 * random_rows(60, seed=2)
    gallery[50] = gallery[20]

    found, places = nearest(gallery[[50]], blocks(gallery, 30, 30), 3, cosine=cosine)

    assert places[0, :2].tolist() == [20, 50]
    assert found[0, :2].abs().max() < 1e-12
    assert found[0, 2] > 0.01


def test_distances_are_what_their_names_say():
    queries = torch.tensor([[3.0, 0.0]])
    gallery = torch.tensor([[0.0, 4.0], [-1.0, 0.0], [5.0, 0.0], [0.0, 0.0]])

    turned, there = nearest(queries, blocks(gallery, 4), 4, cosine=True)
    length, places = nearest(queries, blocks(gallery, 4), 4, cosine=False)

    assert there[0].tolist() == [2, 0, 3, 1]  # what has no length is at a right angle
    assert turned[0].tolist() == [0, 1, 1, 2]
    assert places[0].tolist() == [2, 3, 1, 0]
    assert length[0].tolist() == [2, 3, 4, 5]


def test_tiles_change_nothing(monkeypatch):
    queries, gallery = random_rows(40, seed=0), random_rows(90, seed=1)
    whole = block_nearest(queries, gallery, 4, True)

    monkeypatch.setattr(neighbours, "TILE_BYTES", 5000)

    tiled = block_nearest(queries, gallery, 4, True)
    assert torch.equal(whole[1], tiled[1])
    torch.testing.assert_close(whole[0], tiled[0])


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_come_last(device, cosine, value):
    queries, gallery = random_rows(3, seed=0, device=device), random_rows(50, seed=1, device=device)
    gallery[5:45, 2] = value  # more than are kept to spare

    found, places = nearest(queries, blocks(gallery, 50), 10, cosine=cosine)

    wanted, there = nearest(
        queries, blocks(gallery[[*range(5), *range(45, 50)]], 10), 10, cosine=cosine
    )
    assert torch.equal(found, wanted)
    assert torch.equal(places, there + 40 * (there >= 5))
