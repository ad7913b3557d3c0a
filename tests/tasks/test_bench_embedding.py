import json

import numpy as np
import torch
from near_init import make_store, options, result

from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.bench_embedding import measure


def test_features_that_tell_the_class_score_full_and_noise_scores_chance():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    is_train = np.arange(400) < 300
    telling = torch.from_numpy(np.eye(4)[labels] + 0.1 * rng.normal(size=(400, 4)))
    noise = torch.from_numpy(rng.normal(size=(400, 8)))

    good, bad = (measure("x", features, labels, is_train) for features in (telling, noise))

    assert (good.train, good.objects, good.numbers) == (300, 100, 4)
    assert good.logistic == good.nearest == good.hit_at_1 == 100
    assert max(bad.logistic, bad.nearest, bad.hit_at_1) < 45


def test_the_labels_of_those_asked_are_not_learned_from():
    rng = np.random.default_rng(1)
    labels = np.concatenate([rng.integers(0, 2, 60), np.full(20, 1)])
    features = torch.from_numpy(rng.normal(size=(80, 3)))
    features[60:, 0] += 100  # only the asked lie there: whatever was learned says nothing of it
    is_train = np.arange(80) < 60

    found = measure("x", features, labels, is_train)
    other = measure("x", features, np.where(is_train, labels, 0), is_train)

    assert abs(found.logistic + other.logistic - 100) < 1e-9


def labelled(path):
    store = make_store(path, count=40)
    opened = open_store(store, mode="a")
    opened.update(range(40), **{"class": [f"c{n % 2}" for n in range(40)]})
    return store


def test_the_command_measures_what_has_embedded_the_store(run, tmp_path):
    store = labelled(tmp_path / "ds.zarr")
    key = result(run("train", store, *options(), "--json"))["encoder"]
    result(run("encode", store, "--json"))

    outcome = run("bench", "embeddings", store, "--json")

    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert outcome.exit_code == 0, outcome.stderr
    assert [row["features"] for row in rows] == [f"aligned encoder {key}"]
    assert (rows[0]["train"], rows[0]["objects"], rows[0]["numbers"]) == (34, 6, 16)


def test_one_class_and_missing_embeddings_are_refused(run, tmp_path):
    store = make_store(tmp_path / "one.zarr")
    other = labelled(tmp_path / "two.zarr")
    result(run("train", other, *options(), "--json"))

    one, none = (
        run("bench", "embeddings", store),
        run("bench", "embeddings", other, "--encoder", "x"),
    )

    assert one.exit_code == none.exit_code == 4
    assert "one class, 'shape'" in one.stderr
    assert "nf2vec encode" in none.stderr
