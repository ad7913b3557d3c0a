import json

import pytest
import torch
from near_init import SPEC, make_store

from nf2vec_cli.models.encoder import RowsEncoder
from nf2vec_cli.models.network import weight_rows
from nf2vec_cli.tasks.bench_encode import AuthorsEncoder

SIZES = ("--set", "widths=[16,24]", "--set", "embedding=12", "--set", "components=5")


def test_the_authors_module_gives_the_embedding_that_ours_gives():
    torch.manual_seed(0)
    ours = RowsEncoder(SPEC, widths=(16, 24), embedding=12)
    theirs = AuthorsEncoder(SPEC.hidden, (16, 24), 12)
    state = {
        name: value[..., None] if value.ndim == 2 else value
        for name, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state)
    theta = torch.randn(3, SPEC.parameters)
    ours(theta), theirs(weight_rows(theta, SPEC))  # both learn the same running means

    found = theirs.eval()(weight_rows(theta, SPEC))

    torch.testing.assert_close(found, ours.eval()(theta))


def test_both_encoders_are_timed_beside_the_authors(run, tmp_path):
    store = make_store(tmp_path / "ds.zarr")

    outcome = run("bench", "encode", store, "--objects", "24", *SIZES, "--json")

    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert outcome.exit_code == 0, outcome.stderr
    assert [row["encoder"] for row in rows] == ["paper", "aligned"]
    for row in rows:
        assert (row["parameters"], row["numbers"], row["batch"]) == (SPEC.parameters, 12, 24)
        assert row["times"] == pytest.approx(row["authors_ms"] / row["ours_ms"])
        assert 0 < row["read_share"] < 100


def test_a_store_without_fields_is_refused(run, tmp_path):
    store = make_store(tmp_path / "ds.zarr", count=0)

    outcome = run("bench", "encode", store)

    assert outcome.exit_code == 4
    assert "holds no fitted field" in outcome.stderr
