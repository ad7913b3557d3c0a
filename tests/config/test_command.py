"""`nf2vec config`."""

import json
import tomllib

from nf2vec_cli.config.fit import FitConfig, Preset, Recipe, fit_defaults


def test_it_prints_a_file_that_config_takes(run):
    printed = run("config", "fit", "--preset", "paper", "--recipe", "paper")

    made = FitConfig.model_validate(tomllib.loads(printed.stdout))
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert made == FitConfig.model_validate(fit_defaults(Preset.paper, Recipe.paper))


def test_json_is_one_setting_a_line(run):
    printed = run("config", "fit", "--json")

    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert {row["key"]: row["value"] for row in rows} == FitConfig().model_dump(mode="json")
