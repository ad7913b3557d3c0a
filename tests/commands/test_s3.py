"""The everyday commands on a store in a bucket, beside the same on a folder."""

import json

import numpy as np
import pytest
from near_init import make_store, options, result

from nf2vec_cli.store.products import Embeddings, keys
from nf2vec_cli.store.store import open_store


def test_fit_encode_and_retrieve_give_the_same_as_in_a_folder(run, fitted, folder, quick, bucket):
    path = f"{bucket}/pre/ds.zarr"
    line = ["fit", folder, "--field", "sdf", "--store", path, *quick, "--json"]

    first, second = result(run(*line)), result(run(*line))

    assert (first["fitted"], second["skipped"]) == (3, 3)
    there, here = open_store(path), open_store(fitted)
    assert (there.column("digest") == here.column("digest")).all()
    assert there.column("id") == here.column("id")
    assert result(run("check", path, "--repair", "--json"))["sound"]
    told = result(run("info", path, "--json"))
    assert (told["store"], told["status"]) == (path, {"done": 3})
    assert "planted" not in json.dumps(told)

    for store in (path, fitted):
        assert result(run("encode", store, "--json"))["encoded"] == 3
    key = result(run("info", path, "--json"))["encoders"][0]["key"]
    z = [Embeddings(open_store(s), key).read(range(3)) for s in (path, fitted)]
    assert (z[0] == z[1]).all()
    asked = [run("retrieve", s, "-q", "chair/chair", "--json") for s in (path, fitted)]
    assert asked[0].exit_code == 0, asked[0].stderr
    assert asked[0].stdout == asked[1].stdout


@pytest.fixture
def twins(run, bucket, tmp_path):
    """The same store with an encoder in a bucket and in a folder."""
    paths = f"{bucket}/ds.zarr", tmp_path / "ds.zarr"
    make_store(paths[1])
    result(run("train", paths[1], *options(), "--json"))
    assert run("copy", paths[1], paths[0]).exit_code == 0
    return paths


@pytest.mark.slow
def test_embeddings_and_what_reads_them_are_as_in_a_folder(run, twins, tmp_path):
    for path in twins:
        assert result(run("encode", path, "--json"))["encoded"] == 20
    there, here = (open_store(path) for path in twins)
    (key,) = keys(there, "encoders")
    z = [Embeddings(store, key).read(range(20)) for store in (there, here)]
    assert (z[0] == z[1]).all()

    asked = [run("retrieve", path, "-q", "shape/1", "--k", "3", "--json") for path in twins]
    assert asked[0].exit_code == 0, asked[0].stderr
    assert asked[0].stdout == asked[1].stdout
    for n, path in enumerate(twins):
        result(run("export", path, tmp_path / f"{n}.npz", "--what", "embeddings", "--json"))
    with np.load(tmp_path / "0.npz") as one, np.load(tmp_path / "1.npz") as other:
        assert all((one[name] == other[name]).all() for name in one.files)


@pytest.mark.slow
def test_stores_that_are_made_go_to_the_bucket_too(run, twins, bucket, tmp_path):
    path, here = twins
    trained = result(run("train", path, *options(seed=1), "--json"))
    assert trained["encoder"] in keys(open_store(path), "encoders")
    for store in twins:
        result(run("encode", store, "--json"))
    line = ["--count", "3", "--class", "shape", "--set", "steps=5", "--json"]
    made = result(run("generate", path, "--out", f"{bucket}/new.zarr", *line))
    refused = run("generate", path, "--out", f"{bucket}/new.zarr", *line)
    again = result(run("generate", path, "--out", f"{bucket}/new.zarr", "--force", *line))
    mapped = result(
        run("map", here, path, "--out", f"{bucket}/mapped.zarr", "--set", "steps=5", "--json")
    )

    assert made
    assert again
    assert refused.exit_code == 4
    assert mapped
    for name in ("new", "mapped"):
        assert result(run("check", f"{bucket}/{name}.zarr", "--json"))["sound"]
    out = tmp_path / "rebuilt"
    small = ["--resolution", "16", "--jobs", "1"]
    line = ["reconstruct", f"{bucket}/new.zarr", "--from", "embeddings", "--out", out]
    rebuilt = run(*line, *small)
    assert rebuilt.exit_code in (0, 7), rebuilt.stderr
    interpolated = run("interpolate", path, "shape/1", "shape/2", "--out", tmp_path / "s", *small)
    assert interpolated.exit_code in (0, 7), interpolated.stderr


def test_what_needs_a_folder_says_so(run, bucket, tmp_path):
    make_store(tmp_path / "ds.zarr", count=4)
    assert run("copy", tmp_path / "ds.zarr", f"{bucket}/ds.zarr").exit_code == 0
    assert run("copy", tmp_path / "ds.zarr", tmp_path / "ds.zarr.zip").exit_code == 0

    aligned = run("align", f"{bucket}/ds.zarr")
    packed = run("encode", tmp_path / "ds.zarr.zip")

    assert aligned.exit_code == 2
    assert "nf2vec copy" in aligned.stderr
    assert packed.exit_code == 4
    assert "only read" in packed.stderr
    for word in ("info", "check"):
        assert run(word, tmp_path / "ds.zarr.zip").exit_code == 0
    wrong = run("fit", tmp_path, "--field", "sdf", "--store", "s3://me:planted-pw@b/ds.zarr")
    assert wrong.exit_code == 2
    assert "planted" not in wrong.stderr
