"""The everyday commands on a store in a bucket, beside the same on a folder."""

import json

import numpy as np
import pytest
from near_init import make_store, options, result
from part_world import make_world, write_npz
from part_world import quick as part_settings
from strangers import authors_h5, ball_cloud, near, start, torch_init

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


@pytest.mark.slow
def test_heads_are_those_of_a_folder(run, twins):
    for path in twins:
        opened = open_store(path, mode="a")
        opened.update(range(20), **{"class": ["ab"[row % 2] for row in range(20)]})
        result(run("encode", path, "--json"))
    few = [word for text in ("steps=20", "widths=[8]", "batch=8") for word in ("--set", text)]

    classified = [run("classify", path, *few, "--json") for path in twins]

    assert classified[0].exit_code == 0, classified[0].stderr
    assert classified[0].stdout == classified[1].stdout
    assert [len(keys(open_store(path), "heads/classify")) for path in twins] == [1, 1]


@pytest.mark.slow
def test_parts_are_told_as_in_a_folder(run, bucket, tmp_path):
    here, there = tmp_path / "ds.zarr", f"{bucket}/ds.zarr"
    write_npz(tmp_path / "parts", make_world(here))
    assert run("copy", here, there).exit_code == 0

    told = [
        run("segment", store, "--parts", tmp_path / "parts", *part_settings(), "--json")
        for store in (there, here)
    ]

    assert told[0].exit_code == 0, told[0].stderr
    assert told[0].stdout == told[1].stdout
    assert result(run("check", there, "--json"))["sound"]


@pytest.mark.slow
def test_fields_from_elsewhere_go_to_the_bucket(run, bucket, tmp_path):
    for number in range(4):
        split = ("train", "train", "val", "test")[number]
        path = tmp_path / "inrs" / split / f"{number}.h5"
        authors_h5(path, near(start(), number), number % 2, pcd=ball_cloud())
    init = torch_init(tmp_path / "init.pt", start())
    line = ["import", tmp_path / "inrs", "--field", "udf", "--init", init, "--json", "--store"]

    told = [result(run(*line, path)) for path in (f"{bucket}/in.zarr", tmp_path / "in.zarr")]

    assert (told[0]["imported"], told[0]["aligned"]) == (4, 4)
    one, other = (open_store(path) for path in (f"{bucket}/in.zarr", tmp_path / "in.zarr"))
    assert (one.column("digest") == other.column("digest")).all()
    assert result(run("check", f"{bucket}/in.zarr", "--json"))["sound"]


@pytest.mark.slow
def test_shares_and_workers_write_to_the_bucket(run, folder, quick, bucket):
    line = ["fit", folder, "--field", "sdf", *quick[:-2], "--set", "batch=1", "--json", "--store"]
    plain = [*line, f"{bucket}/plain.zarr", "--jobs", "1"]
    shared = [*line, f"{bucket}/shared.zarr"]

    result(run(*plain))
    shares = [result(run(*shared, "--jobs", "2", "--shard", f"{n}/2")) for n in (2, 1)]

    assert sorted(share["fitted"] for share in shares) == [1, 2]
    one, other = (open_store(f"{bucket}/{name}.zarr") for name in ("plain", "shared"))
    assert (one.column("digest") == other.column("digest")).all()
    for n in (1, 2):
        done = result(run("encode", f"{bucket}/shared.zarr", "--shard", f"{n}/2", "--json"))
        assert done["encoded"] == 3 - n
    assert result(run("check", f"{bucket}/shared.zarr", "--json"))["sound"]


@pytest.mark.slow
def test_a_cluster_works_on_a_store_in_the_bucket(run, folder, quick, bucket):
    pytest.importorskip("ray")
    line = ["fit", folder, "--field", "sdf", *quick[:-2], "--set", "batch=1", "--json", "--store"]
    ray = ["--ray", "local", "--jobs", "2"]
    paths = [f"{bucket}/{name}.zarr" for name in ("plain", "ray")]

    for path, how in zip(paths, (["--jobs", "1"], ray), strict=True):
        assert result(run(*line, path, *how))["fitted"] == 3
        assert result(run("encode", path, *how, "--json"))["encoded"] == 3

    one, other = (open_store(path) for path in paths)
    assert (one.column("digest") == other.column("digest")).all()
    (key,) = {key for path in paths for key in keys(open_store(path), "encoders")}
    z = [Embeddings(store, key).read(range(3)) for store in (one, other)]
    assert (z[0] == z[1]).all()


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
