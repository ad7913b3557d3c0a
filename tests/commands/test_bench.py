import json

import pytest


@pytest.mark.slow
def test_both_recipes_are_measured_on_the_same_shapes(run, shapes):
    settings = ["--set", "hidden=32", "--set", "steps=100", "--set", "pool=5000"]

    outcome = run(
        "bench", "fit", shapes / "lamp" / "lamp.ply", "--authors-steps", "1", "--json", *settings
    )

    ours, authors = (json.loads(line) for line in outcome.stdout.splitlines())
    assert (ours["recipe"], authors["recipe"]) == ("nf2vec", "authors")
    assert authors["timed_steps"] == 1
    assert authors["cpu_seconds"] > 10 * ours["cpu_seconds"]
    assert ours["midpoint"] == pytest.approx(1, abs=0.05)
    assert 0 <= ours["f025"] <= ours["f1"] <= 100
    assert authors["f1"] > 95


def test_flops_are_those_of_the_paper():
    from nf2vec_cli.config import Preset, Recipe
    from nf2vec_cli.config.fit import FitConfig, fit_defaults
    from nf2vec_cli.tasks.bench import fit_flops

    config = FitConfig(**fit_defaults(Preset.paper, Recipe.paper))

    assert fit_flops(config) == pytest.approx(23.64e12, rel=1e-3)


def test_reading_is_measured(run, fitted):
    outcome = run("bench", "read", fitted, "--objects", "4", "--json")

    row = json.loads(outcome.stdout)
    assert (row["parameters"], row["objects"], row["codec"]) == (50_177, 4, "compact")
    assert row["mb_per_second"] > 0
    assert row["fancy_mb_per_second"] > 0
