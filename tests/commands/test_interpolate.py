import json

import numpy as np
import pytest
import torch
from near_init import SPEC, make_store, options, result
from PIL import Image

from nf2vec_cli.config import Origin
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.open_fields import open_fields

QUICK = ("--resolution", "16", "--points", "200", "--jobs", "1")


@pytest.fixture
def encoded(run, tmp_path):
    """A store of occupancy fields with embeddings: any field of it gives voxels to write."""
    store = make_store(tmp_path / "ds.zarr", kind="occ")
    result(run("train", store, *options(), "--json"))
    result(run("encode", store, "--json"))
    return store


def test_a_file_for_each_step_and_one_picture(run, encoded, tmp_path):
    out = tmp_path / "out"

    outcome = run(
        "interpolate", encoded, "shape/1", "shape/2", "--out", out, "--steps", "3", *QUICK, "--json"
    )

    found = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [(row["origin"], row["share"]) for row in found] == [
        (origin, share) for origin in ("embeddings", "weights") for share in (0, 0.5, 1)
    ]
    for row in found:
        assert bool(row["file"]) == (row["problem"] is None)
        assert row["file"] is None or (out / row["origin"]).is_dir()
    assert outcome.exit_code == (7 if any(row["problem"] for row in found) else 0)
    with Image.open(out / "interpolation.png") as picture:
        assert picture.width > picture.height


def test_the_ends_are_what_reconstruct_gives(run, encoded, tmp_path):
    for origin in ("embeddings", "weights"):
        out = tmp_path / origin
        whole = run(
            *("reconstruct", encoded, "--from", origin, "--ids", "shape/1", "--out", out / "whole"),
            *("--resolution", "16", "--jobs", "1", "--json"),
        )
        line = run(
            *("interpolate", encoded, "shape/1", "shape/2", "--from", origin, "--out", out),
            *("--steps", "2", *QUICK, "--json"),
        )

        first = json.loads(line.stdout.splitlines()[0])
        alone = json.loads(whole.stdout.splitlines()[0])
        assert first["count"] == alone["count"], origin


@pytest.mark.parametrize("origin", list(Origin))
def test_the_way_is_the_straight_line(encoded, origin):
    store = open_store(encoded)
    fields = open_fields(store, origin)
    coords = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)

    start, quarter, end = (fields.between(1, 2, share).values(coords) for share in (0, 0.25, 1))

    np.testing.assert_array_equal(start, fields.at(1).values(coords))
    if origin is Origin.weights:
        theta = 0.75 * store.weights([1])[0] + 0.25 * store.weights([2])[0]
        there = FieldFunction(theta, SPEC, "occ").values(coords)
    else:
        trained = open_encoder(store)
        z = Embeddings(store, trained.key).read([1, 2])
        between = torch.from_numpy(0.75 * z[0] + 0.25 * z[1])
        there = DecodedField(trained.module.decoder, between, "occ").values(coords)
    np.testing.assert_allclose(quarter, there, atol=2e-6)
    for tip in (start, end):  # a hardly trained decoder gives nearly the same for all
        assert np.abs(quarter - tip).max() > 1e-5


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (("shape/1", "shape/1"), "same object"),
        (("shape/1", "nothing"), "nothing"),
    ],
)
def test_ends_that_are_none_are_refused(run, encoded, tmp_path, ends, words):
    outcome = run("interpolate", encoded, *ends, "--out", tmp_path / "out")

    assert outcome.exit_code == 4
    assert words in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_without_embeddings_the_way_to_them_is_named(run, tmp_path):
    store = make_store(tmp_path / "ds.zarr", kind="occ")
    result(run("train", store, *options(), "--json"))

    for line in (("interpolate", store, "shape/1", "shape/2"), ("reconstruct", store)):
        outcome = run(*line, "--from", "embeddings", "--out", tmp_path / "out")

        assert outcome.exit_code == 4, line
        assert f"nf2vec encode {store}" in outcome.stderr
