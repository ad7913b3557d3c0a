"""Networks of other conventions say the same once a store holds them."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from strangers import SPEC, layers_of, near, start, state_dict

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.core.mlp import frequencies, tiled_values
from nf2vec_cli.errors import InputError
from nf2vec_cli.foreign import state_dict as reader
from nf2vec_cli.foreign.state_dict import DWSNETS
from nf2vec_cli.models.network import relu_spec
from nf2vec_cli.shapes.discover import ShapeRef

POINTS = 2 * torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) - 1


def read(path, **net):
    return reader.read(ShapeRef(path.stem, str(path), path.name), ImportConfig(**net))


def outputs(found, points=POINTS):
    return tiled_values(torch.from_numpy(found.theta), points, found.spec)


def theirs(layers, unit, points=POINTS):
    """Evaluate layers one by one; `unit` is what a hidden unit makes of W x and b."""
    h = points
    for layer, (weight, bias) in enumerate(layers[:-1]):
        h = unit(h @ weight.T, bias, layer)
    return h @ layers[-1][0].T + layers[-1][1]


@pytest.fixture
def layers():
    return layers_of(near(start(), 1))


@pytest.fixture
def saved(tmp_path, layers):
    def save(keys="layers.{layer}.{part}", name="a.pth", **more):
        path = tmp_path / name
        named = state_dict(layers, keys) | more
        save_file(named, path) if name.endswith("safetensors") else torch.save(named, path)
        return path

    return save


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors"])
def test_weights_keep_their_bits(saved, name):
    found = read(saved(name=name))

    assert found.spec == SPEC
    assert np.array_equal(found.theta, near(start(), 1))


def test_keys_in_the_order_of_their_numbers_whatever_the_order_in_the_file(tmp_path, layers):
    named = state_dict(layers, "net.{layer}.linear.{part}")
    torch.save(dict(reversed(named.items())), tmp_path / "a.pth")

    assert np.array_equal(read(tmp_path / "a.pth").theta, near(start(), 1))


def test_ten_layers_and_more_are_not_sorted_as_texts(tmp_path):
    deep = SPEC.__class__(hidden=16, layers=12)
    theta = start(3, deep)
    torch.save(state_dict(layers_of(theta, deep)), tmp_path / "a.pth")

    assert np.array_equal(read(tmp_path / "a.pth").theta, theta)


def test_dwsnets_adds_a_half(saved, layers):
    found = read(saved("seq.{layer}.{part}"), **DWSNETS)

    wanted = theirs(layers, lambda x, b, _: torch.sin(30 * (x + b))) + 0.5
    assert torch.allclose(outputs(found), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "unit", "points", "after"),
    [
        ({"omega": 15.0}, lambda x, b, _: torch.sin(15 * (x + b)), POINTS, lambda y: y),
        (
            {"omega": 20.0, "first_omega": 35.0},
            lambda x, b, n: torch.sin((20 if n else 35) * (x + b)),
            POINTS,
            lambda y: y,
        ),
        ({"bias_outside": True}, lambda x, b, _: torch.sin(30 * x + b), POINTS, lambda y: y),
        (
            {"bias_outside": True, "first_omega": 10.0, "box": 0.5},
            lambda x, b, n: torch.sin((30 if n else 10) * x + b),
            POINTS * 0.5,
            lambda y: y,
        ),
        (
            {"scale": -20.0, "offset": 0.25},
            lambda x, b, _: torch.sin(30 * (x + b)),
            POINTS,
            lambda y: 0.25 - 20 * y,
        ),
    ],
)
def test_other_conventions_are_folded_into_the_weights(saved, layers, net, unit, points, after):
    found = read(saved(), **net)

    assert torch.allclose(outputs(found), after(theirs(layers, unit, points)), atol=1e-4)


def test_metadata_beside_the_weights_is_passed_over(tmp_path, layers):
    whole = {"state_dict": state_dict(layers), "label": 3, "psnr": 20.5, "class": "chair"}
    torch.save(whole, tmp_path / "a.pth")

    assert np.array_equal(read(tmp_path / "a.pth").theta, near(start(), 1))


def test_an_unknown_tensor_is_refused_by_name_unless_it_is_to_be_ignored(saved):
    path = saved(**{"pos.frequencies": torch.ones(3)})

    with pytest.raises(InputError, match=r"'pos\.frequencies' is no weight"):
        read(path)
    assert read(path, ignore=("pos.*",)).spec == SPEC


class Evil:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    for name, write in (("raw.pth", pickle.dump), ("zip.pth", torch.save)):
        with open(name, "wb") as file:  # noqa: PTH123
            write({"layers.0.weight": Evil()}, file)
        with pytest.raises(InputError, match="refused"):
            read(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_that_is_cut_short_is_damaged(saved, name):
    path = saved(name=name)
    path.write_bytes(path.read_bytes()[:3000])

    with pytest.raises(InputError, match="damaged"):
        read(path)


@pytest.mark.parametrize("old", [True, False])
def test_wherever_a_checkpoint_is_cut_it_is_refused(tmp_path, layers, old):
    """Torch says it by one of a dozen kinds of error."""
    path = tmp_path / "a.pth"
    torch.save(state_dict(layers), path, _use_new_zipfile_serialization=not old)
    whole = path.read_bytes()
    assert read(path).spec == SPEC

    for end in (1, 2, 5, 14, 60, 100, 300, 700, 1000, 1500, 2000, 4000, 9000, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"damaged|refused"):
            read(path)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path):
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


def test_a_state_dict_that_contains_itself_holds_no_tensors(tmp_path):
    ring = {"weight": torch.ones(2)}
    ring["model"] = ring
    torch.save(ring, tmp_path / "a.pth")

    with pytest.raises(InputError, match="no tensors by name"):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n: n | {"layers.2.weight": torch.zeros(32, 31)}, "all of one width"),
        (lambda n: n | {"layers.1.bias": torch.zeros(31)}, r"layer 1 has 32 units and a bias"),
        (lambda n: n | {"layers.0.weight": torch.zeros(32, 2)}, "3 inputs and 1 output"),
        (lambda n: n | {"layers.4.weight": torch.zeros(1, 32, dtype=torch.int32)}, "not floats"),
        (lambda n: {k: v for k, v in n.items() if k != "layers.3.weight"}, "layer 3 has no matrix"),
        (lambda n: {"layers.0.weight": n["layers.0.weight"]}, "two hidden layers"),
        (lambda _: {"layers.0.weight": 3}, "no tensors by name"),
    ],
)
def test_what_is_no_such_network_is_refused_with_the_reason(tmp_path, layers, change, reason):
    torch.save(change(state_dict(layers)), tmp_path / "a.pth")

    with pytest.raises(InputError, match=reason):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"field": "foo"},
        {"field": None},
        {"activation": "gelu"},
        {"octaves": 1},
        {"activation": "relu"},
        {"activation": "relu", "omega": 0.0, "biases": False},
        {"activation": "relu", "omega": 0.0, "outputs": 4},
        {"outputs": 4},
        {"omega": 0.0},
        {"omega": -30.0},
        {"omega": float("nan")},
        {"omega": float("inf")},
        {"omega": "30"},
    ],
)
def test_what_metadata_says_is_believed_only_of_networks_that_fields_have(tmp_path, change):
    facts = {"field": "sdf", "network": SPEC.as_dict(), "transform": [0, 0, 0, 1]}
    sound = state_dict(layers_of(near(start(), 1)))
    path = tmp_path / "a.safetensors"
    save_file(sound, path, metadata={"nf2vec": json.dumps(facts)})
    assert read(path).kind == "sdf"
    inner = {name: value for name, value in change.items() if name != "field"}
    facts["network"] |= inner
    facts |= {} if inner else change
    save_file(sound, path, metadata={"nf2vec": json.dumps(facts)})

    with pytest.raises(InputError, match="metadata says of it cannot be used"):
        read(path)


def test_a_grid_that_no_store_holds_is_refused(tmp_path):
    from nf2vec_cli.models.network import radiance_init, radiance_spec

    spec = radiance_spec(hidden=16, layers=2, octaves=4, biases=True)
    named = state_dict(layers_of(radiance_init(spec, seed=0).numpy(), spec))
    named["grid"] = torch.ones(32, 32, dtype=torch.bool)
    facts = {"field": "nerf", "network": spec.as_dict(), "transform": [0, 0, 0, 1]}
    save_file(named, tmp_path / "a.safetensors", metadata={"nf2vec": json.dumps(facts)})

    with pytest.raises(InputError, match=r"grid has \(32, 32\) cells"):
        read(tmp_path / "a.safetensors")


def test_sizes_that_are_told_are_checked(saved):
    with pytest.raises(InputError, match="layers is 4, and 3 is told"):
        read(saved(), layers=3)


def mlp(octaves=0, *, hidden=32, biases=True):
    """Make a network of ReLU units as PyTorch starts it: 3-H-H-H-1, or on coded coordinates."""
    torch.manual_seed(0)
    sizes = [6 * octaves or 3, hidden, hidden, hidden, 1]
    linear = [torch.nn.Linear(into, out, bias=biases) for into, out in pairwise(sizes)]
    return torch.nn.Sequential(*(part for one in linear for part in (one, torch.nn.ReLU())))[:-1]


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("octaves", [0, 5])
def test_relu_networks_of_shapes_say_what_their_modules_say(tmp_path, octaves, biases):
    net = mlp(octaves, biases=biases)
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "a.pth")

    found = read(tmp_path / "a.pth", activation="relu", octaves=octaves)

    wanted = net(frequencies(POINTS, octaves) if octaves else POINTS).detach()
    assert found.spec == relu_spec(hidden=32, layers=3, octaves=octaves)
    assert wanted.std() > 1e-3
    assert torch.allclose(outputs(found), wanted, atol=1e-6)


@pytest.mark.parametrize("octaves", [0, 5])
def test_boxes_and_logits_of_relu_networks_are_folded(tmp_path, octaves):
    net = mlp(octaves, biases=False)
    save_file(net.state_dict(), tmp_path / "a.safetensors")
    told = {"activation": "relu", "octaves": octaves, "box": 0.5, "scale": 20.0, "offset": -0.3}

    found = read(tmp_path / "a.safetensors", **told)

    # in the box a coding goes from 0 to 1; without one the network reads the box's own units
    wanted = net(frequencies(POINTS, octaves) if octaves else 0.5 * POINTS).detach()
    assert torch.allclose(outputs(found), 20 * wanted - 0.3, atol=1e-5)
    assert found.transform == (0, 0, 0, 0.5)


@pytest.mark.parametrize(
    ("octaves", "told", "reason"),
    [
        (5, 0, r"30-32-32-32-1: a field of shapes has 3 inputs and 1 output; .*`octaves` = K"),
        (5, 4, "has 24 inputs and 1 output; of ReLU units .* no other coding is read"),
        (0, 1, "3-32-32-32-1: a field of shapes has 6 inputs"),
    ],
)
def test_a_coding_of_coordinates_must_be_told(tmp_path, octaves, told, reason):
    torch.save(mlp(octaves).state_dict(), tmp_path / "a.pth")

    with pytest.raises(InputError, match=reason):
        read(tmp_path / "a.pth", activation="relu", octaves=told)


@pytest.mark.parametrize("setting", [{"omega": 5.0}, {"first_omega": 5.0}, {"bias_outside": True}])
def test_what_only_sines_have_is_refused_of_relu_units(setting):
    assert ImportConfig(activation="relu", omega=30.0).omega == 30  # as `nf2vec config` writes it
    with pytest.raises(ValueError, match="is of sine units, and activation is relu"):
        ImportConfig(activation="relu", **setting)


def test_radiance_of_relu_units(tmp_path):
    from nf2vec_cli.models.network import radiance_init, radiance_spec

    spec = radiance_spec(hidden=16, layers=2, octaves=4, biases=True)
    theta = near(radiance_init(spec, seed=0).numpy(), 1)
    torch.save(state_dict(layers_of(theta, spec)), tmp_path / "a.pth")

    found = read(tmp_path / "a.pth", activation="relu", box=1.5)

    assert np.array_equal(found.theta, theta)
    assert (found.spec.octaves, found.spec.density, found.transform[3]) == (4, 1.5, 1.5)
