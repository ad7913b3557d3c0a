import pytest
import torch

from nf2vec_cli.core.mlp import frequencies, relu_forward
from nf2vec_cli.models.network import radiance_init, radiance_spec, split_theta
from nf2vec_cli.models.probes import lattice
from nf2vec_cli.models.radiance_probes import (
    BINS,
    LENGTH,
    coarse_radiance,
    hue_histogram,
    read_radiance,
    shown,
    tint,
)

SPEC = radiance_spec(hidden=16, layers=3, octaves=3, biases=False)
SIDE = 8


def box(opaque, colour):
    """A box of one colour in the lower x half, in front of nothing."""
    x = lattice(SIDE)[:, 0]
    opacity = torch.where(x < 0, opaque, 0.0)
    return opacity[None], torch.tensor(colour).expand(1, SIDE**3, 3)


def test_a_field_is_read_as_light_is_swallowed_and_as_colours():
    theta = torch.stack([radiance_init(SPEC, seed=n) for n in range(2)])

    opacity, colours = read_radiance(theta, SPEC, 5)

    raw = relu_forward(*split_theta(theta, SPEC), frequencies(lattice(5), 3).expand(2, -1, -1))
    torch.testing.assert_close(opacity, 1 - torch.exp(-LENGTH * torch.exp(raw[..., 3] - 1)))
    torch.testing.assert_close(colours, raw[..., :3].sigmoid())
    again, _ = read_radiance(theta[1:], SPEC, 5)
    assert torch.equal(again[0], opacity[1])


def test_blocks_hold_opacity_and_colours_as_far_as_they_are_opaque():
    opacity, colours = box(0.5, [1.0, 0.5, 0.0])

    found = coarse_radiance(opacity, colours, SIDE).view(4, 4, 4, 4)

    for channel, value in enumerate((0.5, 0.5, 0.25, 0.0)):
        assert torch.allclose(found[channel, :2], torch.tensor(value))
        assert not found[channel, 2:].any()


def test_what_is_shown_is_the_surface():
    opacity, _ = box(1.0, [1.0, 1, 1])

    found = shown(opacity, SIDE).view(SIDE, SIDE, SIDE)

    assert found[1, 4, 4] < 1e-6  # inside
    assert found[3, 4, 4] > 0.3  # where the box ends
    assert not found[4:].any()


def test_hues_say_which_colours_are_seen_and_not_where():
    opacity, red = box(1.0, [1.0, 0, 0])
    flipped = opacity.view(SIDE, SIDE, SIDE).flip(0).reshape(1, -1)

    found = hue_histogram(opacity, red, SIDE).square().view(BINS, BINS, BINS)
    halves = red.clone()
    halves[:, lattice(SIDE)[:, 1] < 0] = torch.tensor([0.0, 0, 1])
    mixed = hue_histogram(opacity, halves, SIDE).square().view(BINS, BINS, BINS)

    assert float(found[-1, 0, 0]) == pytest.approx(1, abs=1e-5)
    assert float(mixed[-1, 0, 0]) == pytest.approx(0.5, abs=1e-5)
    assert float(mixed[0, 0, -1]) == pytest.approx(0.5, abs=1e-5)
    torch.testing.assert_close(hue_histogram(flipped, red, SIDE), hue_histogram(opacity, red, SIDE))


def test_hues_of_a_field_that_shows_nothing_are_nothing():
    opacity, colours = box(0.0, [1.0, 0, 0])

    assert not hue_histogram(opacity, colours, SIDE).any()
    assert torch.isfinite(tint(opacity, colours, SIDE)).all()


def test_tints_are_colours_whatever_the_opacity():
    faint, strong = (
        tint(*box(opaque, [0.9, 0.3, 0.1]), SIDE).view(3, 4, 4, 4) for opaque in (0.6, 1.0)
    )

    # one colour: everywhere the same, also where nothing is
    assert torch.allclose(strong, torch.tensor([0.9, 0.3, 0.1])[:, None, None, None], atol=1e-5)
    torch.testing.assert_close(faint, strong)
