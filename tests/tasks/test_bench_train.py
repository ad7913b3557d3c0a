import json

import pytest
import torch
from near_init import make_store, options

from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.tasks.bench_train import JoinedDecoder


def test_an_embedding_joined_to_every_point_decodes_the_same():
    torch.manual_seed(0)
    factored = Decoder(16, hidden=24, octaves=3, reads=10)
    joined = JoinedDecoder.like(factored)
    z, coords = torch.randn(5, 16), torch.rand(5, 40, 3) * 2 - 1

    torch.testing.assert_close(joined(z, coords), factored(z, coords))


@pytest.mark.slow
def test_each_way_to_train_is_timed_and_nothing_is_kept(run, tmp_path):
    store = make_store(tmp_path / "ds.zarr")
    before = sorted(path for path in store.rglob("*"))

    outcome = run("bench", "train", store, "--steps", "2", "--json", *options())

    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert outcome.exit_code == 0, outcome.stderr
    assert [(row["decoder"], row["precision"]) for row in rows] == [
        ("factored", "float32"),
        ("joined", "float32"),
        ("factored", "bfloat16"),
        ("joined", "bfloat16"),
    ]
    assert all(row["steps_per_second"] > 0 and row["memory_mb"] >= 0 for row in rows)
    assert sorted(path for path in store.rglob("*")) == before


def test_too_few_fields_are_refused(run, tmp_path):
    store = make_store(tmp_path / "ds.zarr", count=8)

    outcome = run("bench", "train", store, *options(batch=16))

    assert outcome.exit_code == 4
    assert "a batch takes 16" in outcome.stderr
