"""`nf2vec config`."""

import json
import tomllib

import pytest

from nf2vec_cli.config.fit import FitConfig, Preset, Recipe, fit_defaults
from nf2vec_cli.config.generate import GenerateConfig, generate_defaults
from nf2vec_cli.config.train import TrainConfig, train_defaults


def test_it_prints_a_file_that_config_takes(run):
    printed = run("config", "fit", "--preset", "paper", "--recipe", "paper")

    made = FitConfig.model_validate(tomllib.loads(printed.stdout))
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert made == FitConfig.model_validate(fit_defaults(Preset.paper, Recipe.paper))


def test_json_is_one_setting_a_line(run):
    printed = run("config", "fit", "--json")

    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert {row["key"]: row["value"] for row in rows} == FitConfig().model_dump(mode="json")


def test_train_prints_a_file_that_its_config_takes(run):
    printed = run("config", "train", "--preset", "paper")

    made = TrainConfig.model_validate(tomllib.loads(printed.stdout))
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert made == TrainConfig.model_validate(train_defaults(Preset.paper))


def test_an_embedding_without_room_beside_its_components_is_refused(run, tmp_path):
    outcome = run("train", tmp_path / "ds.zarr", "--set", "embedding=256")

    assert outcome.exit_code == 3
    assert "384 components" in outcome.stderr


@pytest.mark.parametrize("words", [(), ("--preset", "paper"), ("--model", "gan")])
def test_generate_prints_a_file_that_its_config_takes(run, words):
    printed = run("config", "generate", *words)

    made = GenerateConfig.model_validate(tomllib.loads(printed.stdout))
    assert (printed.exit_code, printed.stderr) == (0, "")
    preset = Preset.paper if "paper" in words else Preset.small
    model = "gan" if words else "flow"
    assert made == GenerateConfig.model_validate(generate_defaults(preset, model))
    assert made.model == model
    # the authors' numbers, whatever the preset: Adam 1e-4, beta1 0.5, five steps of the critic
    if words:
        assert (made.learning_rate, made.beta1, made.critic_steps) == (1e-4, 0.5, 5)
