import json

import numpy as np
import pytest
import torch
from PIL import Image

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.network import NetworkSpec, siren_init
from nf2vec_cli.store.create import init_hash
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.alignment import Batch, connectivity, repeatability
from nf2vec_cli.tasks.encoders import Trained, keep_encoder, read_encoder, write_encoder

SPEC = NetworkSpec(hidden=32, layers=2)
TINY = {"steps": 5, "points": 200, "pool": 2000, "hidden": 32, "layers": 2}
SETTINGS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
OPTIONS = [*SETTINGS, "--jobs", "1", "--refits", "2"]


@pytest.fixture
def two(shapes, tmp_path):
    """A list of two real shapes."""
    names = (shapes / "lamp" / "lamp.ply", shapes / "sofa" / "sofa.stl")
    listed = tmp_path / "two.txt"
    listed.write_text("".join(f"{name}\n" for name in names))
    return listed


def encoder_file(path, *, field="sdf", seed=0):
    init = siren_init(SPEC, seed=seed)
    config = TrainConfig(embedding=8, components=3, tail=8, hidden=8, octaves=2)
    torch.manual_seed(0)
    module = AutoEncoder(SPEC, config)
    facts = {
        "config": config.model_dump(mode="json"),
        "field": field,
        "network": SPEC.as_dict(),
        "init_hash": init_hash(init.numpy(), SPEC.as_dict()),
    }
    write_encoder(Trained("tiny", module, "here", facts), path)
    return path


def test_the_study_is_consistent_and_can_be_repeated(run, two, tmp_path):
    picture = tmp_path / "pictures" / "study.png"

    first = run("bench", "alignment", two, *OPTIONS, "--json", "--out", picture)
    second = run("bench", "alignment", two, *OPTIONS, "--json")

    assert first.exit_code == 0, first.stderr
    assert first.stdout == second.stdout
    study = json.loads(first.stdout)
    summary, distances = study["summary"], np.array(study["distances"])
    assert (summary["width"], summary["refits"], summary["compared"]) == (32, 2, "weights")
    assert [fit.rpartition("/")[2] for fit in study["fits"]] == [
        "lamp#0",
        "lamp#1",
        "sofa#0",
        "sofa#1",
    ]
    np.testing.assert_allclose(distances, distances.T)
    assert (np.diag(distances) == 0).all()
    lamp, _, mean = summary["repeatability"]
    assert lamp["within"] == pytest.approx(distances[0, 1])
    assert lamp["between"] == pytest.approx(distances[:2, 2:].mean())
    assert mean["shape"] == "all"
    assert len(study["positions"]) == 11
    lines = {(line["shape"], line["pair"]): line["losses"] for line in study["lines"]}
    for row in summary["connectivity"]:
        if row["shape"] != "all":
            losses = lines[row["shape"], row["pair"]]
            assert row["ends"] == pytest.approx((losses[0] + losses[-1]) / 2)
            assert row["barrier"] == pytest.approx(max(losses) - row["ends"])
    same, other, matched, turned = summary["connectivity"][-4:]
    assert (same["identity"], same["shape"]) == (100, "all")
    assert other["identity"] < 30
    assert same["relative_kl"] < other["relative_kl"]
    assert matched["ends"] == pytest.approx(other["ends"])
    assert turned["ends"] == pytest.approx(other["ends"], rel=1e-4)
    assert turned["pair"] == "different inits, all symmetries"
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_the_table_has_no_long_numbers(run, two):
    outcome = run("bench", "alignment", two, *OPTIONS)

    assert outcome.exit_code == 0, outcome.stderr
    assert "repeatability" in outcome.stdout
    assert "different inits, matched" in outcome.stdout
    assert "distances" not in outcome.stdout


def test_embeddings_are_compared_if_an_encoder_is_named(run, two, tmp_path):
    file = encoder_file(tmp_path / "tiny.safetensors")

    outcome = run("bench", "alignment", two, *OPTIONS, "--encoder", file, "--json")

    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["summary"]["compared"] == "embeddings of tiny"


def test_the_newest_encoder_of_another_store_is_taken(run, two, tmp_path):
    home = tmp_path / "ds.zarr"
    fit = ["fit", two, "--field", "sdf", "--store", home, "--jobs", "1", *SETTINGS]
    assert run(*fit).exit_code == 0
    line = ["bench", "alignment", two, *OPTIONS, "--encoder", home, "--json"]

    without = run(*line)
    keep_encoder(open_store(home, mode="a"), read_encoder(encoder_file(tmp_path / "e.safetensors")))
    found = run(*line)

    assert without.exit_code == 4
    assert json.loads(found.stdout)["summary"]["compared"] == "embeddings of tiny"


@pytest.mark.parametrize(
    ("made", "told"),
    [({"field": "udf"}, "is for udf fields, not sdf"), ({"seed": 1}, "knows fields from init")],
)
def test_an_encoder_of_other_fields_is_refused(run, two, tmp_path, made, told):
    file = encoder_file(tmp_path / "tiny.safetensors", **made)

    outcome = run("bench", "alignment", two, *OPTIONS, "--encoder", file)

    assert outcome.exit_code == 5
    assert told in outcome.stderr
    assert "hint: " in outcome.stderr


def test_an_encoder_that_is_not_there_is_told(run, two):
    outcome = run("bench", "alignment", two, *OPTIONS, "--encoder", "nowhere")

    assert outcome.exit_code == 5
    assert "'nowhere'" in outcome.stderr


def test_one_shape_is_too_few(run, shapes):
    outcome = run("bench", "alignment", shapes / "lamp" / "lamp.ply", *OPTIONS)

    assert outcome.exit_code == 5
    assert "need two" in outcome.stderr
    assert "hint: " in outcome.stderr


def test_no_shape_is_told(run, tmp_path):
    assert run("bench", "alignment", tmp_path, *OPTIONS).exit_code == 5


def test_a_shape_that_cannot_be_fitted_is_named(run, two):
    bad = two.with_name("bad.ply")
    bad.write_text("ply\n")
    two.write_text(two.read_text() + f"{bad}\n")

    outcome = run("bench", "alignment", two, *OPTIONS)

    assert outcome.exit_code == 5
    assert "bad' cannot be fitted" in outcome.stderr


def test_repeatability_counts_pairs():
    places = np.array([[0.0, 0], [0, 1], [10, 0], [10, 3]])
    distances = np.linalg.norm(places[:, None] - places, axis=-1)

    near, far, mean = repeatability(["near", "far"], distances, 2)

    assert (near.within, far.within, mean.within) == (1, 3, 2)
    assert near.between == far.between == pytest.approx(distances[:2, 2:].mean())
    assert (near.nearest, mean.nearest) == (100, 100)


def test_a_fit_is_connected_with_itself():
    theta, other = siren_init(SPEC, seed=0), siren_init(SPEC, seed=1)
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(500, 3, generator=generator) * 2 - 1

    def squares(outputs, targets):
        return (outputs - targets) ** 2, 2 * (outputs - targets)

    batch = Batch(coords, torch.zeros(500).double(), squares)

    (same, line), (away, _), *_ = connectivity("lamp", theta, theta, other, batch, SPEC)

    assert same.barrier == pytest.approx(0, abs=1e-9)
    assert same.identity == 100
    assert len(line.losses) == 11
    assert away.identity < 100
