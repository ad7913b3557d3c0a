import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nf2vec_cli.core.mlp import siren_forward
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.models.network import NetworkSpec, siren_init, split_theta
from nf2vec_cli.models.transform import Affine, parse_transform, transform_fields

SPEC = NetworkSpec(hidden=64, layers=3)
AXIS = st.sampled_from("xyz")
FACTOR = st.floats(0.5, 2.0)
MOVES = st.lists(
    st.one_of(
        st.builds(Affine.rotation, AXIS, st.floats(-360, 360)),
        st.builds(Affine.mirror, AXIS),
        st.builds(Affine.scaling, FACTOR),
        st.builds(lambda *f: Affine.scaling(np.array(f)), FACTOR, FACTOR, FACTOR),
        st.builds(lambda *v: Affine.shifting(np.array(v)), *[st.floats(-0.5, 0.5)] * 3),
    ),
    min_size=1,
    max_size=3,
)


def combined(moves):
    whole = moves[0]
    for move in moves[1:]:
        whole = whole.then(move)
    return whole


def thetas(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = siren_init(SPEC, seed=seed).repeat(count, 1)
    return start + 0.003 * torch.randn(start.shape, generator=generator)


def values(theta, points):
    """Signed distances [B, M] of fields theta [B, P], each at points [M, 3]."""
    coords = torch.from_numpy(points).float().expand(len(theta), -1, -1)
    outputs = siren_forward(*split_theta(theta, SPEC), coords, SPEC.omega)[..., 0]
    return 0.2 * torch.sigmoid(outputs) - 0.1


def moved(theta, move):
    linear, shift = torch.from_numpy(move.linear), torch.from_numpy(move.shift)
    return transform_fields(theta, SPEC, linear, shift)


@settings(deadline=None, max_examples=60)
@given(MOVES, st.integers(0, 5))
def test_a_moved_field_has_the_old_values_at_the_moved_points(moves, seed):
    move, theta = combined(moves), thetas(1, seed)
    points = np.random.default_rng(seed).uniform(-1, 1, (200, 3))

    after = values(moved(theta, move), move(points))

    assert (after - values(theta, points)).abs().max() <= 1e-5


@settings(deadline=None, max_examples=20)
@given(MOVES)
def test_a_move_and_its_inverse_leave_the_field_as_it_was(moves):
    move, theta = combined(moves), thetas(1)

    back = moved(moved(theta, move), move.inverse())

    torch.testing.assert_close(back, theta, rtol=0, atol=1e-5)


def test_only_the_first_layer_changes():
    theta = thetas(1)
    first = 64 * 4

    changed = moved(theta, Affine.rotation("y", 30).then(Affine.shifting(np.full(3, 0.1))))

    assert torch.equal(changed[:, first:], theta[:, first:])
    assert not torch.isclose(changed[:, :first], theta[:, :first]).all()


def test_each_field_may_have_its_own_move():
    theta = thetas(2)
    moves = [Affine.rotation("x", 20), Affine.scaling(1.3).then(Affine.shifting(np.ones(3)))]

    together = transform_fields(
        theta,
        SPEC,
        torch.from_numpy(np.stack([m.linear for m in moves])),
        torch.from_numpy(np.stack([m.shift for m in moves])),
    )

    for index, move in enumerate(moves):
        alone = moved(theta[index : index + 1], move)
        torch.testing.assert_close(together[index : index + 1], alone)


@pytest.mark.parametrize(
    ("text", "point", "expected"),
    [
        ("rotate=z:90", [1, 0, 0], [0, 1, 0]),
        ("rotate=x:90", [0, 1, 0], [0, 0, 1]),
        ("rotate=y:90", [0, 0, 1], [1, 0, 0]),
        ("mirror=x", [1, 2, 3], [-1, 2, 3]),
        ("scale=0.5", [1, 2, 3], [0.5, 1, 1.5]),
        ("scale=1,2,3", [1, 1, 1], [1, 2, 3]),
        (" shift=0.1,0,-1 ", [1, 1, 1], [1.1, 1, 0]),
    ],
)
def test_moves_as_they_are_typed(text, point, expected):
    found = parse_transform(text)(np.array([point], float))

    np.testing.assert_allclose(found[0], expected, atol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rotate",
        "rotate=w:90",
        "rotate=z",
        "rotate=z:nan",
        "mirror=q",
        "scale=0",
        "scale=1,2",
        "scale=inf",
        "scale=1,0,1",
        "shift=1",
        "turn=z:90",
    ],
)
def test_what_is_no_move_is_refused_with_an_example(text):
    with pytest.raises(UsageFault, match="is no move") as caught:
        parse_transform(text)

    assert "rotate=z:90" in caught.value.hint


def test_lengths_of_a_similarity_change_by_one_factor():
    same = Affine.rotation("z", 33).then(Affine.scaling(1.7)).then(Affine.mirror("y"))

    assert same.is_similarity
    np.testing.assert_allclose(same.stretches, 1.7)
    assert not Affine.scaling(np.array([1, 1, 1.1])).is_similarity
