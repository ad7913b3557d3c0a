"""List the settings of a config: as rows, or as a TOML file that `--config` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nf2vec_cli.config.strict import StrictModel

BOUNDS = (("gt", "> {}"), ("ge", ">= {}"), ("lt", "< {}"), ("le", "<= {}"))


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted key, its value here, the model's default, its range, its meaning."""

    key: str
    value: Any
    default: Any
    range: str
    meaning: str


def settings_of(model: type[StrictModel], values: Mapping[str, Any] | None = None) -> list[Setting]:
    """List every setting of a config, nested ones with dotted keys.

    Args:
        model: the config.
        values: what differs from the model's defaults (a preset, say); nested as in TOML.
    """
    return list(_walk(model, values or {}, ""))


def describe(model: type[StrictModel], values: Mapping[str, Any] | None = None) -> str:
    """Write every setting as TOML: meaning, range and default in comments above each value."""
    lines = [f"# {(model.__doc__ or '').strip().splitlines()[0]}"] if model.__doc__ else []
    table = ""
    for setting in settings_of(model, values):
        parent, _, name = setting.key.rpartition(".")
        if parent != table:
            lines += ["", f"[{parent}]"]
            table = parent
        lines += ["", f"# {setting.meaning}"] if setting.meaning else [""]
        lines.append(f"# {setting.range}; default {toml_value(setting.default)}")
        # TOML has no word for "nothing": the setting is shown, and left out
        lines.append(f"{'# ' if setting.value is None else ''}{name} = {toml_value(setting.value)}")
    return "\n".join(lines) + "\n"


def _walk(model: type[StrictModel], values: Mapping[str, Any], prefix: str) -> Iterator[Setting]:
    # TOML puts a table's own keys before its sub-tables
    fields = sorted(model.model_fields.items(), key=lambda item: nested(item[1]) is not None)
    for name, field in fields:
        inner = nested(field)
        if inner is not None:
            yield from _walk(inner, values.get(name, {}), f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        default = None if default is PydanticUndefined else _raw(default)
        yield Setting(
            key=prefix + name,
            value=_raw(values.get(name, default)),
            default=default,
            range=_range(field),
            meaning=field.description or "",
        )


def nested(field: FieldInfo) -> type[StrictModel] | None:
    """Give the config that a setting holds, or None for a plain value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, StrictModel) else None


def _raw(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _range(field: FieldInfo) -> str:
    """Say what a setting may be: its choices, or its type and bounds."""
    text = _kind(field.annotation)
    for word, form in BOUNDS:
        text += "".join(
            f", {form.format(getattr(item, word))}"
            for item in field.metadata
            if hasattr(item, word)
        )
    steps = [item.multiple_of for item in field.metadata if hasattr(item, "multiple_of")]
    return text + "".join(f", a multiple of {step}" for step in steps)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(toml_value(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        kinds = [_kind(kind) for kind in get_args(annotation) if kind is not type(None)]
        return " | ".join(kinds) + (" | nothing" if type(None) in get_args(annotation) else "")
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(toml_value(choice.value) for choice in annotation)
    return str(getattr(annotation, "__name__", annotation))


def toml_value(value: Any) -> str:
    """Write one value as TOML."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {toml_value(v)}" for key, v in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
