import json

import numpy as np
import pytest
from near_init import make_store, options
from safetensors import safe_open
from strangers import NERF, near, nerf_folder

from nf2vec_cli.models.network import NetworkSpec, radiance_init
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.field_function import FieldFunction

COUNT = 12


def rows(outcome, code=0):
    assert outcome.exit_code == code, outcome.stderr
    return [json.loads(line) for line in outcome.stdout.splitlines()]


@pytest.fixture
def store(tmp_path):
    """A store of twelve fields, exact."""
    return make_store(tmp_path / "ds.zarr", count=COUNT)


@pytest.fixture
def embedded(run, store):
    """The same with an encoder and embeddings."""
    assert run("train", store, *options()).exit_code == 0
    assert run("encode", store).exit_code == 0
    return store


@pytest.mark.parametrize(("form", "suffix"), [("safetensors", "safetensors"), ("hdf5", "h5")])
def test_what_is_written_is_read_back_bit_by_bit(run, store, tmp_path, form, suffix):
    if form == "hdf5":
        pytest.importorskip("h5py")
    out, again = tmp_path / "out", tmp_path / "again.zarr"

    written = rows(run("export", store, out, "--format", form, "--json"))
    run(
        *("import", out, "--store", again, "--field", "sdf", "--init", store),
        *("--codec", "exact", "--set", "layers=3"),
    )

    assert len(written) == COUNT
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {f".{suffix}"}
    one, other = open_store(store), open_store(again)
    assert other.init_hash == one.init_hash
    assert len(other.rows()) == COUNT
    if form == "safetensors":
        theirs = other.find([one.column("id")[row] for row in one.rows()])
        for name in ("class", "split"):
            assert [other.column(name)[r] for r in theirs] == [
                one.column(name)[r] for r in one.rows()
            ]
        assert np.array_equal(
            other.column("transform")[theirs], one.column("transform")[one.rows()]
        )
        mine, kept = one.weights(one.rows()), other.weights(theirs)
        assert np.allclose(
            np.sort(other.surface(theirs), 1), np.sort(one.surface(one.rows()), 1), atol=1e-4
        )
    else:  # numbered, within each split
        mine, kept = (np.sort(s.weights(s.rows()), 0) for s in (one, other))
    assert np.array_equal(mine.view(np.uint32), kept.view(np.uint32))


def test_hdf5_as_the_authors_have_it(run, store, tmp_path):
    h5py = pytest.importorskip("h5py")

    run("export", store, tmp_path / "out", "--format", "hdf5")

    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("*.h5"))
    assert files == sorted(
        [f"train/{n}.h5" for n in range(6)]
        + [f"{s}/{n}.h5" for s in ("val", "test") for n in range(3)]
    )
    with h5py.File(tmp_path / "out" / "train" / "0.h5") as opened:
        assert opened["params"].shape == (3 * 32 + 32 + 2 * (32 * 32 + 32) + 33,)
        assert opened["params"].dtype == np.float32
        assert opened["class_id"][()] == 0
        assert opened["pcd"].shape == (2048, 3)
        assert opened.attrs["id"] == "shape/0"


def test_npz_holds_layers_and_facts(run, store, tmp_path):
    run("export", store, tmp_path / "out", "--format", "npz", "--ids", "shape/3")

    with np.load(tmp_path / "out" / "shape" / "3.npz") as found:
        facts = json.loads(str(found["nf2vec"]))
        parts = [found[f"layers.{n}.{part}"] for n in range(4) for part in ("weight", "bias")]
    kept = open_store(store)
    theta = np.concatenate([part.reshape(-1) for part in parts])
    assert np.array_equal(theta, kept.weights(kept.find(["shape/3"]))[0])
    assert (facts["id"], facts["field"], facts["network"]) == ("shape/3", "sdf", kept.network)


def test_onnx_fields_say_what_the_fields_say(run, store, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")

    run("export", store, tmp_path / "out", "--format", "onnx", "--ids", "shape/3")

    points = np.random.default_rng(0).uniform(-1, 1, (300, 3)).astype(np.float32)
    session = runtime.InferenceSession(tmp_path / "out" / "shape" / "3.onnx")
    kept = open_store(store)
    theta = kept.weights(kept.find(["shape/3"]))[0]
    wanted = FieldFunction(theta, NetworkSpec(**kept.network), "sdf").values(points)
    assert np.abs(session.run(None, {"points": points})[0] - wanted).max() < 1e-5


@pytest.mark.parametrize("form", ["safetensors", "npz", "hdf5"])
def test_all_fields_as_one_file(run, store, tmp_path, form):
    file = tmp_path / "all.file"

    (row,) = rows(run("export", store, file, "--format", form, "--one-file", "--json"))

    kept = open_store(store)
    arrays, ids, facts = opened(file, form, "params", ("init", "transform"))
    assert (row["objects"], row["bytes"]) == (COUNT, file.stat().st_size)
    assert np.array_equal(arrays["params"], kept.weights(kept.rows()))
    assert np.array_equal(arrays["init"], kept.init)
    assert ids == [kept.column("id")[r] for r in kept.rows()]
    assert facts["network"] == kept.network


def opened(file, form, name, more=()):
    """Read a table by the libraries that others would take."""
    if form == "npz":
        with np.load(file) as found:
            arrays = {key: found[key] for key in (name, *more)}
            return arrays, found["ids"].tolist(), json.loads(str(found["nf2vec"]))
    if form == "hdf5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(file) as found:
            ids = found["ids"].asstr()[:].tolist()
            return {k: found[k][()] for k in (name, *more)}, ids, json.loads(found.attrs["nf2vec"])
    with safe_open(file, framework="numpy") as found:
        facts = json.loads(found.metadata()["nf2vec"])
        return {key: found.get_tensor(key) for key in (name, *more)}, facts["ids"], facts


@pytest.mark.parametrize("form", ["safetensors", "npz", "hdf5"])
def test_embeddings(run, embedded, tmp_path, form):
    from nf2vec_cli.tasks.embedded import open_embeddings

    file = tmp_path / "z.file"

    run("export", embedded, file, "--what", "embeddings", "--format", form)

    kept = open_embeddings(open_store(embedded))
    arrays, ids, facts = opened(file, form, "embeddings")
    assert np.array_equal(arrays["embeddings"], kept.read(kept.current()))
    assert (len(ids), facts["encoder"]) == (COUNT, kept.key)


@pytest.mark.parametrize("arch", ["aligned", "paper"])
def test_an_encoder_as_onnx_gives_the_store_s_embeddings(run, store, tmp_path, arch):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from nf2vec_cli.tasks.encoders import open_encoder

    assert run("train", store, "--encoder-arch", arch, *options()).exit_code == 0

    run("export", store, tmp_path / "e.onnx", "--what", "encoder", "--format", "onnx")

    kept = open_store(store)
    theta = kept.weights(kept.rows())
    (found,) = runtime.InferenceSession(tmp_path / "e.onnx").run(None, {"theta": theta})
    import torch

    with torch.no_grad():
        wanted = open_encoder(kept).module.encoder(torch.from_numpy(theta)).numpy()
    assert np.abs(found - wanted).max() < 1e-5 * np.linalg.norm(wanted, axis=1).max()
    assert np.ptp(wanted, axis=0).max() > 1e-3


def test_an_encoder_as_safetensors_serves_another_store(run, embedded, tmp_path):
    run("export", embedded, tmp_path / "e.safetensors", "--what", "encoder")
    other = make_store(tmp_path / "other.zarr", count=7)

    assert run("encode", other, "--encoder", tmp_path / "e.safetensors").exit_code == 0


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_a_classifier(run, embedded, tmp_path, form):
    kept = open_store(embedded, mode="a")
    kept.update(kept.rows(), **{"class": ["ab"[row % 2] for row in kept.rows()]})
    trained = run("classify", embedded, "--set", "steps=3", "--set", "widths=[8]", "--json")
    assert trained.exit_code == 0, trained.stderr
    file = tmp_path / "head"

    (row,) = rows(run("export", embedded, file, "--what", "classifier", "--format", form, "--json"))

    assert row["bytes"] == file.stat().st_size
    if form == "safetensors":
        with safe_open(file, framework="numpy") as found:
            assert json.loads(found.metadata()["nf2vec"])["classes"] == ["a", "b"]
        return
    runtime = pytest.importorskip("onnxruntime")
    from nf2vec_cli.tasks.embedded import open_embeddings

    embeddings = open_embeddings(open_store(embedded))
    names = [open_store(embedded).column("id")[r] for r in embeddings.current()]
    logits, share = runtime.InferenceSession(file).run(
        None, {"embedding": embeddings.read(embeddings.current())}
    )
    assert logits.shape == (len(names), 2)
    asked = ["--predictions", tmp_path / "p.jsonl", "--set", "steps=3", "--set", "widths=[8]"]
    assert run("classify", embedded, *asked).exit_code == 0
    told = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(told) == 3
    for one in told:
        wanted = list(one["probabilities"].values())
        assert share[names.index(one["id"])] == pytest.approx(wanted, abs=1e-5)


def test_a_file_that_is_there_is_left_alone_unless_forced(run, store, tmp_path):
    line = ["export", store, tmp_path / "out", "--ids", "shape/3"]
    run(*line)
    file = tmp_path / "out" / "shape" / "3.safetensors"
    file.write_bytes(b"mine")

    refused, before = run(*line), file.read_bytes()
    forced = run(*line, "--force")

    assert (refused.exit_code, before, forced.exit_code) == (2, b"mine", 0)
    assert "--force" in refused.stderr
    assert file.stat().st_size > 1000


def test_a_dry_run_names_the_files_and_writes_none(run, store, tmp_path):
    found = rows(run("export", store, tmp_path / "out", "--dry-run", "--json"))

    assert found[0]["file"].endswith("out/shape/0.safetensors")
    assert not (tmp_path / "out").exists()


def test_an_id_that_leads_out_of_the_folder_is_refused(run, store, tmp_path):
    kept = open_store(store, mode="a")
    kept.update([0], id=["../../evil"])

    outcome = run("export", store, tmp_path / "out")

    assert outcome.exit_code == 4
    assert "no path inside a folder" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_split_that_leads_out_of_the_folder_is_reported_and_the_others_are_written(
    run, store, tmp_path
):
    pytest.importorskip("h5py")
    open_store(store, mode="a").update([0], split=["../../x"])
    line = ["export", store, tmp_path / "a" / "out", "--format", "hdf5", "--json"]

    shown = rows(run(*line, "--dry-run"), 7)
    found = rows(run(*line), 7)

    for told in (shown, found):
        (bad,) = (row for row in told if row["problem"])
        assert (bad["id"], bad["file"]) == ("shape/0", None)
        assert "no path inside a folder" in bad["problem"]
    assert len(list(tmp_path.rglob("*.h5"))) == COUNT - 1


@pytest.mark.parametrize(
    ("name", "start"),
    [("f.npz", b"PK"), ("f.h5", b"\x89HDF"), ("f.hdf5", b"\x89HDF"), ("f.weights", None)],
)
def test_a_file_s_suffix_says_what_it_is(run, store, tmp_path, name, start):
    if start == b"\x89HDF":
        pytest.importorskip("h5py")
    file = tmp_path / name

    assert run("export", store, file, "--one-file").exit_code == 0

    if start:
        assert file.read_bytes().startswith(start)
    else:
        with safe_open(file, "numpy") as opened_:
            assert "params" in opened_.keys()  # noqa: SIM118


def test_ids_on_standard_input_are_one_a_line(run, store, tmp_path):
    open_store(store, mode="a").update([3], id=["shape/number 3"])

    found = rows(
        run(
            *("export", store, tmp_path / "out", "--ids", "-", "--json"),
            stdin="shape/number 3\n\nshape/5\r\n",
        )
    )

    assert [row["id"] for row in found] == ["shape/number 3", "shape/5"]


def test_a_damaged_field_is_reported_and_the_others_are_written(run, store, tmp_path):
    shard = next(
        path for path in (store / "bits").rglob("*") if path.name == "0" and path.is_file()
    )
    data = bytearray(shard.read_bytes())
    data[100] ^= 255
    shard.write_bytes(bytes(data))

    found = rows(run("export", store, tmp_path / "out", "--json"), 7)

    assert [row["id"] for row in found if row["problem"]] == ["shape/0"]
    assert len(list((tmp_path / "out").rglob("*.safetensors"))) == COUNT - 1


@pytest.mark.parametrize(
    ("options_", "hint"),
    [
        (["--what", "encoder", "--format", "npz"], "safetensors, onnx"),
        (["--format", "onnx", "--one-file"], "--one-file"),
        (["--format", "nerf-folder"], "holds radiance"),
        (["--what", "encoder", "--ids", "shape/3"], "--ids"),
    ],
)
def test_what_cannot_be_is_wrong_usage(run, store, tmp_path, options_, hint):
    outcome = run("export", store, tmp_path / "out", *options_)

    assert outcome.exit_code == 2
    assert hint in outcome.stderr


@pytest.mark.parametrize("what", ["embeddings", "encoder", "classifier"])
def test_what_a_store_lacks_is_code_4(run, store, tmp_path, what):
    outcome = run("export", store, tmp_path / "out", "--what", what)

    assert outcome.exit_code == 4
    assert "nf2vec" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_radiance_goes_out_and_comes_back(run, tmp_path):
    theta = near(radiance_init(NERF, seed=0).numpy(), 1, by=0.05)
    nerf_folder(tmp_path / "data" / "chair" / "a", theta)
    first = tmp_path / "first.zarr"
    run("import", tmp_path / "data", "--codec", "exact", "--store", first)

    for form, layout in (("nerf-folder", "nerf-folder"), ("safetensors", "safetensors")):
        out, again = tmp_path / form, tmp_path / f"{form}.zarr"
        assert run("export", first, out, "--format", form).exit_code == 0
        line = ["import", out, "--layout", layout, "--init", "official", "--codec", "exact"]
        assert run(*line, "--store", again).exit_code == 0
        one, other = open_store(first), open_store(again)
        assert np.array_equal(other.weights([0])[0], theta)
        assert np.array_equal(other.packed("grid", [0]), one.packed("grid", [0]))
        assert np.allclose(other.packed("cameras", [0]), one.packed("cameras", [0]), atol=1e-4)
        assert other.init_hash == one.init_hash


def test_cameras_that_are_all_held_out_leave_no_file_of_cameras(run, tmp_path):
    theta = near(radiance_init(NERF, seed=0).numpy(), 1, by=0.05)
    for name in ("a", "b"):
        nerf_folder(tmp_path / "data" / name, theta)
    store = tmp_path / "ds.zarr"
    run("import", tmp_path / "data", "--store", store)
    kept = open_store(store, mode="a")
    cameras = kept.packed("cameras", [0]).reshape(1, -1, 16)
    cameras[..., 15] *= 2  # 1: to train on, 2: held out
    kept.commit(
        [0],
        kept.weights([0]),
        surface=kept.surface([0]),
        beside={"grid": kept.packed("grid", [0]), "cameras": cameras.reshape(1, -1)},
    )

    found = rows(run("export", store, tmp_path / "out", "--format", "nerf-folder", "--json"))

    assert [row["problem"] for row in found] == [None, None]
    named = [path.parent.name for path in (tmp_path / "out").rglob("transforms*.json")]
    assert named == ["b"]
