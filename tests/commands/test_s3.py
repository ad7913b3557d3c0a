"""The everyday commands on a store in a bucket, beside the same on a folder."""

import json

import numpy as np
import pytest
from near_init import make_store, options, result

from nf2vec_cli.store.products import Embeddings, keys
from nf2vec_cli.store.store import open_store


def test_fit_gives_the_same_fields_as_in_a_folder(run, fitted, folder, quick, bucket):
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


@pytest.fixture
def twins(run, bucket, tmp_path):
    """The same embedded store in a bucket and in a folder."""
    paths = f"{bucket}/ds.zarr", tmp_path / "ds.zarr"
    make_store(paths[1])
    assert run("copy", paths[1], paths[0]).exit_code == 0
    for path in paths:
        result(run("train", path, *options(), "--json"))
        result(run("encode", path, "--json"))
    return paths


def test_what_is_learnt_and_made_in_a_bucket_is_what_a_folder_gives(run, twins, bucket, tmp_path):
    there, here = (open_store(path) for path in twins)
    (key,) = keys(here, "encoders")
    assert keys(there, "encoders") == [key]
    z = [Embeddings(store, key).read(range(20)) for store in (there, here)]
    assert (z[0] == z[1]).all()

    asked = [
        run("retrieve", path, "shape/1", "--k", "3", "--json", "--html", tmp_path / f"{n}.html")
        for n, path in enumerate(twins)
    ]
    assert asked[0].exit_code == 0, asked[0].stderr
    assert asked[0].stdout == asked[1].stdout

    for n, path in enumerate(twins):
        wrote = run("export", path, tmp_path / f"{n}.npz", "--as", "embeddings", "--json")
        assert wrote.exit_code == 0, wrote.stderr
        page = run("view", path, "--out", tmp_path / f"view{n}.html", "--json")
        assert page.exit_code == 0, page.stderr
    with np.load(tmp_path / "0.npz") as one, np.load(tmp_path / "1.npz") as other:
        assert all((one[name] == other[name]).all() for name in one.files)


@pytest.mark.slow
def test_stores_that_are_made_go_to_the_bucket_too(run, twins, bucket, tmp_path):
    path, here = twins
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
    rebuilt = run(
        "reconstruct", f"{bucket}/new.zarr", "--from", "embeddings", "--out", out, "--jobs", "1"
    )
    assert rebuilt.exit_code in (0, 7), rebuilt.stderr
    interpolated = run("interpolate", path, "shape/1", "shape/2", "--out", tmp_path / "steps")
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
