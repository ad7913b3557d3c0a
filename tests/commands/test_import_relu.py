"""Networks of ReLU units that PyTorch fitted to real shapes: in, through every verb, and out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from near_init import options
from relu_nets import SHAPES, asked, fitted, mlp, pool_of
from safetensors.torch import load_file

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.core.mlp import coded
from nf2vec_cli.models.matching import Symmetry, transformed
from nf2vec_cli.models.network import relu_spec
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.import_ import import_fields
from nf2vec_cli.tasks.import_store import Wanted

CODING = 4  # octaves
POINTS = 2 * torch.rand(5_000, 3, generator=torch.Generator().manual_seed(0)) - 1
of_each = pytest.mark.parametrize("octaves", [0, CODING], ids=["plain", "coded"])
COUNT = 6  # fields of a store that is learned from


def told(outcome, code=0):
    assert outcome.exit_code == code, outcome.stderr
    return json.loads(outcome.stdout)


def label(value):
    """Turn distances into what a store's fields say of them: 0.1 at most, the slope 1 at 0."""
    return 0.2 * torch.sigmoid(20 * value) - 0.1


def net_of(octaves):
    return ImportConfig(field="sdf", activation="relu", octaves=octaves, scale=20.0)


@pytest.fixture(scope="module")
def nets(shapes):
    """Two fits without a coding of coordinates, and one with it."""
    return {
        (0, "sofa"): fitted(shapes / SHAPES["sofa"]),
        (0, "cup"): fitted(shapes / SHAPES["cup"]),
        (CODING, "sofa"): fitted(shapes / SHAPES["sofa"], CODING),
    }


@pytest.fixture(scope="module")
def stores(nets, tmp_path_factory):
    """A store of one network without a coding, and one with it, by the octaves; to be read."""
    found = {}
    for octaves in (0, CODING):
        folder = tmp_path_factory.mktemp("nets")
        net = {"state_dict": nets[octaves, "sofa"].state_dict(), "loss": 0.01}
        (folder / "nets" / "sofa").mkdir(parents=True)
        torch.save(net, folder / "nets" / "sofa" / "a.pth")
        torch.save(mlp(octaves).state_dict(), folder / "start.pt")
        init = str(folder / "start.pt")
        wanted = Wanted(folder / "nets", net=net_of(octaves), init=init, codec="exact")
        result = import_fields(wanted, folder / "ds.zarr", jobs=1)
        assert (result.imported, result.aligned) == (1, 1), result.failures
        found[octaves] = folder / "ds.zarr"
    return found


@pytest.fixture
def one(stores, octaves):
    """The store of one network."""
    return stores[octaves]


@pytest.fixture(scope="module")
def prepared(nets, tmp_path_factory):
    """A store of fits and fields near them, with the init they share, and no coding."""
    folder = tmp_path_factory.mktemp("many")
    draw = torch.Generator().manual_seed(2)
    table = ["name,class,split"]
    (folder / "nets").mkdir()
    for number in range(COUNT):
        name = ("sofa", "cup")[number % 2]
        moved = {
            key: value + 0.002 * torch.randn(value.shape, generator=draw)
            for key, value in nets[0, name].state_dict().items()
        }
        torch.save(moved, folder / "nets" / f"{number}.pth")
        table.append(f"{number},{name},{'train' if number < COUNT - 2 else 'val'}")
    (folder / "labels.csv").write_text("\n".join(table))
    torch.save(mlp().state_dict(), folder / "start.pt")
    wanted = Wanted(
        folder / "nets",
        net=net_of(0),
        init=str(folder / "start.pt"),
        codec="exact",
        labels=folder / "labels.csv",
    )
    assert import_fields(wanted, folder / "ds.zarr", jobs=1).aligned == COUNT
    return folder / "ds.zarr"


@pytest.fixture
def many(prepared, tmp_path):
    """The same, to be written to."""
    return Path(shutil.copytree(prepared, tmp_path / "many.zarr"))


@of_each
def test_a_store_says_what_the_module_says(run, one, nets, octaves):
    network = told(run("info", one, "--json"))["network"]
    checked = run("check", one)

    kept = open_store(one)
    spec = relu_spec(hidden=32, layers=3, octaves=octaves)
    assert kept.network == spec.as_dict()
    assert network.startswith("ReLU 24-32x3-1, 4 octaves" if octaves else "ReLU 3-32x3-1, ")
    assert checked.exit_code == 0, checked.stdout
    field = FieldFunction(kept.weights([0])[0], spec, "sdf")
    wanted = label(asked(nets[octaves, "sofa"], POINTS, octaves)).numpy()
    assert np.ptp(wanted) > 0.1
    assert np.abs(field.values(POINTS.numpy()) - wanted).max() < 1e-5
    values, slopes = field.slopes(POINTS.numpy())
    leaf = POINTS.clone().requires_grad_()
    net = nets[octaves, "sofa"]
    label(net(coded(leaf, octaves))).sum().backward()
    assert np.abs(values - wanted).max() < 1e-5
    assert np.abs(slopes - leaf.grad.numpy()).max() < 1e-4


@of_each
def test_a_mesh_is_where_the_module_is_0_and_near_the_shape(
    run, one, nets, octaves, tmp_path, shapes
):
    line = ["--out", tmp_path / "m", "--resolution", "64", "--jobs", "1", "--device", "cpu"]

    row = told(run("reconstruct", one, *line, "--json"))

    mesh = trimesh.load_mesh(row["file"])
    vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float32))
    assert len(vertices) > 1_000
    # a vertex lies on a grid edge, where the values at its ends say: between them a field bends
    assert asked(nets[octaves, "sofa"], vertices, octaves).abs().mean() < 1e-3
    coords, values = pool_of(shapes / SHAPES["sofa"])
    on = coords[values.abs() < 2e-3]  # of the true surface
    away = torch.cdist(on, vertices).amin(1)
    assert away.mean() < 0.06  # as far as so short a fit allows


@of_each
def test_a_field_is_moved_by_its_first_layer_unless_its_coordinates_are_coded(
    run, one, octaves, tmp_path
):
    line = ["--resolution", "48", "--jobs", "1", "--json"]
    row = told(run("reconstruct", one, "--out", tmp_path / "a", *line))
    still = trimesh.load_mesh(row["file"])

    outcome = run("reconstruct", one, "--out", tmp_path / "b", "--transform", "rotate=z:90", *line)

    if octaves:
        assert outcome.exit_code == 2
        assert "on coded coordinates cannot be moved by its weights" in outcome.stderr
        return
    turned = trimesh.load_mesh(told(outcome)["file"])
    (low, high), (x, y) = turned.bounds, still.bounds
    wanted = [[-y[1], x[0], x[2]], [-x[1], y[0], y[2]]]
    assert np.abs(np.array([low, high]) - wanted).max() < 0.05


@of_each
def test_files_go_out_and_come_back_bit_by_bit(run, one, octaves, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again.zarr"
    run("export", one, out)

    read = told(run("import", out, "--store", again, "--init", one, "--codec", "exact", "--json"))

    assert read["layout"] == "safetensors"
    before, after = open_store(one), open_store(again)
    assert after.init_hash == before.init_hash
    assert np.array_equal(after.weights([0]).view("u4"), before.weights([0]).view("u4"))
    sizes = {tuple(t.shape) for name, t in load_file(out / "sofa/a.safetensors").items()}
    assert (32, 6 * octaves or 3) in sizes


@of_each
def test_a_graph_says_what_the_module_says(run, one, nets, octaves, tmp_path):
    runtime = pytest.importorskip("onnxruntime")

    assert run("export", one, tmp_path / "o", "--format", "onnx").exit_code == 0

    session = runtime.InferenceSession(tmp_path / "o/sofa/a.onnx")
    (found,) = session.run(None, {"points": POINTS.numpy()})
    assert np.abs(found - label(asked(nets[octaves, "sofa"], POINTS, octaves)).numpy()).max() < 1e-5


@pytest.mark.parametrize("octaves", [0])
def test_the_authors_layout_holds_sines_and_no_fit_joins_relu_units(run, one, shapes, tmp_path):
    out = tmp_path / "out"

    apiece = run("export", one, out, "--format", "hdf5")
    fit = run("fit", shapes, "--field", "sdf", "--store", one)

    assert (apiece.exit_code, fit.exit_code) == (2, 4)
    assert "hold SIRENs" in apiece.stderr
    assert "--format safetensors" in apiece.stderr
    assert "no fit can make more of their kind" in fit.stderr
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["aligned", "paper"])
def test_encoders_learn_from_them_and_shapes_come_of_embeddings(run, many, tmp_path, arch):
    trained = run("train", many, "--encoder-arch", arch, *options())
    encoded = told(run("encode", many, "--json"))
    near = run("retrieve", many, "--query", "0", "-k", "3", "--json")

    assert trained.exit_code == 0, trained.stderr
    assert encoded["encoded"] == COUNT
    assert near.exit_code == 0, near.stderr
    line = ["reconstruct", many, "--from", "embeddings", "--ids", "0", "--jobs", "1"]
    assert run(*line, "--resolution", "16", "--out", tmp_path / "m").exit_code in (0, 7)


@pytest.mark.slow
def test_pages_and_lines_between_fields(run, many, tmp_path):
    assert run("train", many, *options()).exit_code == 0
    assert run("encode", many).exit_code == 0

    page = run("view", many, "--out", tmp_path / "page.html", "--jobs", "1")
    between = run("interpolate", many, "0", "1", "--steps", "3", "--out", tmp_path / "between")

    assert page.exit_code == 0, page.stderr
    assert (tmp_path / "page.html").stat().st_size > 100_000
    assert between.exit_code == 0, between.stderr


def test_units_that_traded_places_and_scales_are_brought_back(run, many, tmp_path):
    spec = relu_spec(hidden=32, layers=3)
    rng, store = np.random.default_rng(0), open_store(many, mode="a")
    plants = []
    for _ in range(3):
        into = np.exp(rng.uniform(-2, 2, 32))
        plants.append(Symmetry(rng.permutation(32), into, 0 * into, 1 / into))
    theta = store.weights([3])[0]
    store.commit([3], transformed(torch.from_numpy(theta), plants, spec).numpy()[None])

    found = told(run("align", many, "--out", tmp_path / "aligned.zarr", "--jobs", "1", "--json"))

    assert (found["aligned"], found["failed"], found["strangers"]) == (1, 0, 0)
    (row,) = found["objects"]
    assert row["before"] < 0.3 < 0.7 < row["after"]
    assert row["change"] <= 1e-5
    back = FieldFunction(open_store(tmp_path / "aligned.zarr").weights([3])[0], spec, "sdf")
    wanted = FieldFunction(theta, spec, "sdf").values(POINTS.numpy())
    assert np.abs(back.values(POINTS.numpy()) - wanted).max() < 1e-5


def test_a_coding_that_is_not_told_is_refused_and_nothing_is_made(run, nets, tmp_path):
    (tmp_path / "nets").mkdir()
    torch.save(nets[CODING, "sofa"].state_dict(), tmp_path / "nets" / "a.pth")
    store = tmp_path / "ds.zarr"

    lines = ['field = "sdf"', 'activation = "relu"', "scale = 20.0"]
    (tmp_path / "net.toml").write_text("\n".join(lines))
    line = ["import", tmp_path / "nets", "--network", tmp_path / "net.toml", "--store", store]
    outcome = run(*line)

    assert outcome.exit_code == 5
    assert "24-32-32-32-1" in outcome.stderr
    assert "`octaves`" in outcome.stderr
    assert not store.exists()
    assert told(run(*line, "--set", f"octaves={CODING}", "--json"))["imported"] == 1
