"""From the options of the command line to the settings of a verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.fields import FieldName
from nf2vec_cli.store.place import Place

if TYPE_CHECKING:
    from nf2vec_cli.config.fit import FitConfig
    from nf2vec_cli.config.generate import GenerateConfig
    from nf2vec_cli.config.map import MapConfig
    from nf2vec_cli.config.segment import SegmentConfig
    from nf2vec_cli.config.strict import StrictModel
    from nf2vec_cli.config.train import TrainConfig

Model = TypeVar("Model", bound="StrictModel")


def fit_settings(
    field: FieldName,
    preset: Preset | None,
    recipe: Recipe | None,
    asked: Mapping[str, object],
    file: Path | None,
    overrides: Sequence[str] | None,
) -> FitConfig | None:
    """Combine the options, each over the one before: preset and recipe < --config < --set.

    `asked` holds the settings that have an option of their own; None is not asked for. A preset or
    recipe named in the file or by --set counts like the option. None if no setting
    was asked for, so that a store goes on by its own.
    """
    from nf2vec_cli.config.fit import FitConfig, fit_defaults
    from nf2vec_cli.config.load import given_settings, load_config

    named = {"preset": preset, "recipe": recipe, **asked}
    texts = [f"{key}={value}" for key, value in named.items() if value is not None]
    texts += overrides or []
    if not texts and file is None:
        return None
    given = given_settings(file, texts)
    # a name that is none is refused by the config itself, in its own words
    known_preset = Preset(given["preset"]) if given.get("preset") in list(Preset) else Preset.small
    known_recipe = Recipe(given["recipe"]) if given.get("recipe") in list(Recipe) else Recipe.fast
    base = fit_defaults(known_preset, known_recipe, field)
    return load_config(FitConfig, file=file, overrides=texts, base=base)


def train_settings(
    preset: Preset | None,
    file: Path | None,
    overrides: Sequence[str] | None,
    *,
    field: str,
    **asked: object,
) -> TrainConfig:
    """Combine the options of a training on a kind of field, as `verb_settings` does."""
    from nf2vec_cli.config.train import TrainConfig, train_defaults

    defaults = partial(train_defaults, field=field)
    return verb_settings(TrainConfig, defaults, preset, file, overrides, **asked)


def field_in(store: Place) -> str:
    """Give the kind of field of a store; of none that can be read, what a task will say why."""
    from nf2vec_cli.errors import StoreError
    from nf2vec_cli.store.store import open_store

    try:
        return open_store(store).field
    except StoreError:
        return FieldName.sdf


def verb_settings(
    model: type[Model],
    defaults: Callable[[Preset], dict[str, Any]],
    preset: Preset | None,
    file: Path | None,
    overrides: Sequence[str] | None,
    **asked: object,
) -> Model:
    """Combine the options, each over the one before: preset < --config < options < --set.

    A preset that is named in the file or by --set counts like the option.
    """
    from nf2vec_cli.config.load import given_settings, load_config

    named = {"preset": preset, **asked}
    texts = [f"{key}={value}" for key, value in named.items() if value is not None]
    texts += overrides or []
    given = given_settings(file, texts).get("preset")
    base = defaults(Preset(given) if given in list(Preset) else Preset.small)
    return load_config(model, file=file, overrides=texts, base=base)


def generate_settings(
    preset: Preset | None,
    model: str | None,
    file: Path | None,
    overrides: Sequence[str] | None,
) -> GenerateConfig:
    """Combine the options of a generator; preset and model may be named in the file as well."""
    from nf2vec_cli.config.generate import GenerateConfig, generate_defaults
    from nf2vec_cli.config.load import given_settings, load_config

    named = {"preset": preset, "model": model}
    texts = [f"{key}={value}" for key, value in named.items() if value is not None]
    texts += overrides or []
    given = given_settings(file, texts)
    known = Preset(given["preset"]) if given.get("preset") in list(Preset) else Preset.small
    base = generate_defaults(known, given.get("model"))
    return load_config(GenerateConfig, file=file, overrides=texts, base=base)


def map_settings(
    preset: Preset | None, file: Path | None, overrides: Sequence[str] | None, **asked: object
) -> MapConfig:
    """Combine the options of a mapping, as `verb_settings` does."""
    from nf2vec_cli.config.map import MapConfig, map_defaults

    return verb_settings(MapConfig, map_defaults, preset, file, overrides, **asked)


def segment_settings(
    preset: Preset | None, file: Path | None, overrides: Sequence[str] | None, **asked: object
) -> SegmentConfig:
    """Combine the options of a head that tells parts, as `verb_settings` does."""
    from nf2vec_cli.config.segment import SegmentConfig, segment_defaults

    return verb_settings(SegmentConfig, segment_defaults, preset, file, overrides, **asked)
