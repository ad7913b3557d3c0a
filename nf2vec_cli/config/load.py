"""Read settings: defaults < base (preset and recipe) < TOML file < `--set key=value`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from nf2vec_cli.config.describe import nested
from nf2vec_cli.config.strict import StrictModel
from nf2vec_cli.errors import ConfigError

Model = TypeVar("Model", bound=StrictModel)
Values = Mapping[str, Any]


def load_config(
    model: type[Model],
    *,
    file: Path | None = None,
    overrides: Sequence[str] | None = None,
    base: Values | None = None,
) -> Model:
    """Make a config from all its sources, the later over the earlier.

    Args:
        model: the config to make; its own defaults come first.
        file: TOML file, or None.
        overrides: texts `key=value`; a dotted key reaches into a nested config.
        base: values between the defaults and the file, such as a preset's.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range, or the file cannot
            be read.
    """
    values = _merge(base or {}, given_settings(file, overrides))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "; ".join(_worded(model, item) for item in error.errors()), hint=_hint(model)
        ) from error


def given_settings(
    file: Path | None = None, overrides: Sequence[str] | None = None
) -> dict[str, Any]:
    """Give what the user set, by file and by `--set`, as it is: neither checked nor completed."""
    values = {} if file is None else _read_toml(file)
    for text in overrides or ():
        values = _merge(values, _parse_override(text))
    return values


def _merge(low: Values, high: Values) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        nested = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(f"--set {text!r} is not KEY=VALUE", hint="for example `--set steps=300`")
    parsed = _parse_value(value.strip())
    for part in reversed(parts):
        parsed = {part: parsed}
    return parsed  # type: ignore[no-any-return]


def _parse_value(text: str) -> Any:
    """Read a TOML value; what is none, such as a bare word, is a string."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def _hint(model: type[StrictModel]) -> str:
    verb = model.__name__.removesuffix("Config").lower()
    return f"`nf2vec config {verb}` lists every setting"


def _worded(model: type[StrictModel], error: Any) -> str:
    """Word one of pydantic's findings: `steps: Input should be greater than 0 (got 0)`."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, _names(model), n=1, cutoff=0.5)
        return f"{name}: no such setting" + (f"; the nearest is {near[0]}" if near else "")
    message = error["msg"].removeprefix("Value error, ")
    if not name or error["type"] == "missing":
        return f"{name}: {message}" if name else str(message)
    got = repr(error["input"])
    return f"{name}: {message} (got {got if len(got) <= 60 else got[:57] + '...'})"


def _names(model: type[StrictModel], prefix: str = "") -> list[str]:
    names = []
    for key, field in model.model_fields.items():
        names.append(prefix + key)
        inner = nested(field)
        names += _names(inner, f"{prefix}{key}.") if inner else []
    return names
