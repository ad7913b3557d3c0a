import json
import shutil

import numpy as np
import pytest
from near_init import make_store, options, result
from near_radiance import RAYS, make_radiance_store
from PIL import Image

from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import open_store

GENERATOR = ("--set", "steps=30", "--set", "validate_every=10", "--set", "width=8", "--jobs", "1")
MAPPER = ("--set", "steps=20", "--set", "validate_every=10", "--jobs", "1")


def embedded(path):
    from typer.testing import CliRunner

    from nf2vec_cli.cli import app

    extra = RAYS if open_store(path).field == "nerf" else {}
    for line in (["train", str(path), *options(**extra)], ["encode", str(path)]):
        outcome = CliRunner().invoke(app, line)
        assert outcome.exit_code == 0, outcome.output
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Fields of radiance of one class, embedded; dense, so that something is seen."""
    path = tmp_path_factory.mktemp("made") / "n.zarr"
    return embedded(make_radiance_store(path, dense=300.0, classes=("shape",)))


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    """Fields of distance of the same objects, embedded."""
    path = tmp_path_factory.mktemp("clouds") / "u.zarr"
    return embedded(make_store(path, kind="udf"))


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made, tmp_path / "n.zarr")


@pytest.mark.slow
def test_generated_radiance_is_scored_and_drawn(run, store, tmp_path):
    out, sheet = tmp_path / "gen.zarr", tmp_path / "gen.png"
    line = ("generate", store, "--class", "shape", "--count", 3, "--out", out, *GENERATOR)

    told = result(run(*line, "--metrics", "--sheet", sheet, "--json"))

    names = {row["set"]: row for row in told["sets"]}
    assert set(names) == {"generated", "train, decoded", "test, decoded"}
    bound = names["test, decoded"]
    assert bound["empty"] in (0, 3) or bound["coverage"] is not None
    assert told["novelty"]
    assert np.ptp(np.asarray(Image.open(sheet))) > 0
    assert open_store(out).field == "nerf"


@pytest.mark.slow
def test_distances_are_mapped_to_radiance_and_scored_by_pictures(run, store, clouds, tmp_path):
    source = shutil.copytree(clouds, tmp_path / "u.zarr")
    out = tmp_path / "mapped.zarr"

    told = result(run("map", source, store, "--out", out, "--metrics", *MAPPER, "--json"))

    assert told["mapped"] == 20
    assert open_store(out).field == "nerf"
    scores = {row["shape"]: row["psnr"] for row in told["shapes"]}
    assert all(scores[name] > 0 for name in ("mapped", "nearest in train", "own embedding"))
    assert not any(scores[name] for name in scores if name.endswith("as it is"))


def test_radiance_is_mapped_to_distances(run, store, clouds):
    told = result(run("map", store, clouds, "--metrics", *MAPPER, "--json"))

    assert {row["psnr"] for row in told["shapes"]} == {None}


def test_classes_are_told_and_neighbours_found(run, tmp_path):
    store = embedded(make_radiance_store(tmp_path / "n.zarr"))

    found = result(run("classify", store, "--set", "steps=20", "--json"))
    near = run("retrieve", store, "--query", "one/0", "--k", "3", "--json")
    told = result(run("retrieve", store, "--metrics", "--json"))

    assert found["classes"] == ["one", "two"]
    assert near.exit_code == 0, near.stderr
    assert len(near.stdout.splitlines()) == 3
    assert told["queries"] == 3


def test_one_part_of_an_embedding_can_be_asked_alone(run, tmp_path):
    store = make_radiance_store(tmp_path / "n.zarr")
    split = options(**(RAYS | {"moves": 1}))
    key = result(run("train", store, "--encoder-arch", "split", *split, "--json"))["encoder"]
    result(run("encode", store, "--json"))
    asked = ("retrieve", store, "--query", "one/0", "--k", "19", "--json")

    found = {by: run(*asked, "--by", by).stdout for by in ("geometry", "appearance", "both")}
    graph = run(*asked, "--by", "geometry", "--index", "ann")
    plain = result(run("train", store, *options(**RAYS), "--json"))["encoder"]
    result(run("encode", store, "--encoder", plain, "--json"))
    whole = run(*asked, "--by", "geometry", "--encoder", plain)

    kept = Embeddings(open_store(store), key)
    z = kept.read(kept.current())[:, :16]
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    wanted = np.argsort(-(z @ z[0]), kind="stable")[1:]
    ids = open_store(store).column("id")
    hits = [json.loads(line)["id"] for line in found["geometry"].splitlines()]
    assert hits == [ids[row] for row in wanted]
    assert len(set(found.values())) == 3
    assert (graph.exit_code, whole.exit_code) == (2, 2)
    assert "--encoder-arch split" in whole.stderr


def test_shapes_have_no_appearance(run, tmp_path):
    outcome = run(
        "train", make_store(tmp_path / "s.zarr"), "--encoder-arch", "split", *options(embedding=32)
    )

    assert outcome.exit_code == 2
    assert "--encoder-arch aligned" in outcome.stderr
