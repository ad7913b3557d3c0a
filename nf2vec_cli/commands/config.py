"""`nf2vec config`: the settings of each verb, as TOML to start from."""

from functools import partial
from typing import Annotated, Any

import typer
from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import GeneratorOpt, JsonOpt, PresetOpt, RecipeOpt
from nf2vec_cli.fields import FieldName

app = typer.Typer(no_args_is_help=True)


@app.callback()
def config() -> None:
    """Print every setting of a command: value, range and meaning."""


@app.command(epilog="Example: nf2vec config fit --preset paper > fit.toml")
def fit(
    preset: PresetOpt = None,
    recipe: RecipeOpt = None,
    field: Annotated[FieldName, Option("--field", help="Kind of field.")] = FieldName.sdf,
    json: JsonOpt = False,
) -> None:
    """Print the settings of `nf2vec fit` as a TOML file for --config."""
    from nf2vec_cli.config import Preset, Recipe
    from nf2vec_cli.config.describe import describe, settings_of
    from nf2vec_cli.config.fit import FitConfig, fit_defaults

    values = fit_defaults(Preset(preset or "small"), Recipe(recipe or "fast"), field)
    if json:
        output.emit(settings_of(FitConfig, values), as_json=True)
    else:
        output.emit(describe(FitConfig, values))


@app.command(epilog="Example: nf2vec config align > align.toml")
def align(json: JsonOpt = False) -> None:
    """Print the settings of `nf2vec align` as a TOML file for --config."""
    from nf2vec_cli.config.align import AlignConfig
    from nf2vec_cli.config.describe import describe, settings_of

    output.emit(settings_of(AlignConfig, {}) if json else describe(AlignConfig, {}), as_json=json)


@app.command("import", epilog="Example: nf2vec config import > net.toml")
def import_(json: JsonOpt = False) -> None:
    """Print the settings of `nf2vec import` as a TOML file for --network."""
    from nf2vec_cli.config.describe import describe, settings_of
    from nf2vec_cli.config.import_ import ImportConfig

    values: dict[str, Any] = {}
    shown = settings_of(ImportConfig, values) if json else describe(ImportConfig, values)
    output.emit(shown, as_json=json)


@app.command(epilog="Example: nf2vec config train --preset paper > train.toml")
def train(
    preset: PresetOpt = None,
    field: Annotated[FieldName, Option("--field", help="Kind of field.")] = FieldName.sdf,
    json: JsonOpt = False,
) -> None:
    """Print the settings of `nf2vec train` as a TOML file for --config."""
    from nf2vec_cli.config.train import TrainConfig, train_defaults

    _print(TrainConfig, partial(train_defaults, field=field), preset, json)


@app.command(epilog="Example: nf2vec config classify > classify.toml")
def classify(preset: PresetOpt = None, json: JsonOpt = False) -> None:
    """Print the settings of `nf2vec classify` as a TOML file for --config."""
    from nf2vec_cli.config.classify import ClassifyConfig, classify_defaults

    _print(ClassifyConfig, classify_defaults, preset, json)


@app.command(epilog="Example: nf2vec config generate --model gan > gan.toml")
def generate(preset: PresetOpt = None, model: GeneratorOpt = None, json: JsonOpt = False) -> None:
    """Print the settings of `nf2vec generate` as a TOML file for --config."""
    from nf2vec_cli.config.generate import GenerateConfig, generate_defaults

    _print(GenerateConfig, partial(generate_defaults, model=model), preset, json)


@app.command("map", epilog="Example: nf2vec config map --preset paper > map.toml")
def map_(preset: PresetOpt = None, json: JsonOpt = False) -> None:
    """Print the settings of `nf2vec map` as a TOML file for --config."""
    from nf2vec_cli.config.map import MapConfig, map_defaults

    _print(MapConfig, map_defaults, preset, json)


@app.command(epilog="Example: nf2vec config segment --preset paper > segment.toml")
def segment(preset: PresetOpt = None, json: JsonOpt = False) -> None:
    """Print the settings of `nf2vec segment` as a TOML file for --config."""
    from nf2vec_cli.config.segment import SegmentConfig, segment_defaults

    _print(SegmentConfig, segment_defaults, preset, json)


def _print(model: Any, defaults: Any, preset: Any, json: bool) -> None:
    from nf2vec_cli.config import Preset
    from nf2vec_cli.config.describe import describe, settings_of

    values = defaults(Preset(preset or "small"))
    output.emit(settings_of(model, values) if json else describe(model, values), as_json=json)
