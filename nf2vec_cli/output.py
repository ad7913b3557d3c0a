"""What the user reads: results on stdout, as a table or as JSON lines; complaints on stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, TextIO

from nf2vec_cli.errors import Nf2vecError
from nf2vec_cli.progress import printable

RED, YELLOW, PLAIN = "\033[1;31m", "\033[1;33m", "\033[0m"
PIPED_WIDTH = 10_000  # columns are as wide as their text when no terminal sets a limit


def emit(result: object, *, as_json: bool = False) -> None:
    """Print a result on stdout.

    Args:
        result: a dataclass or mapping (one object), an iterable of those (rows), or a text.
        as_json: one JSON object a line, NaN and infinity as null, each line flushed when it is
            ready; else a listing of keys and values, a table, or the text as it is.
    """
    if as_json:
        rows: Iterable[object] = [result]
        if isinstance(result, Iterable) and not isinstance(result, str | Mapping):
            rows = result
        for row in rows:
            _write(_json_line(plain(row)), sys.stdout)
            sys.stdout.flush()
    elif isinstance(result, str):
        _write(result.rstrip("\n"), sys.stdout)
    elif isinstance(result, Iterable) and not isinstance(result, Mapping):
        _print_table([plain(row) for row in result])
    else:
        _print_listing(plain(result))


def write_lines(rows: Iterable[object], file: Path) -> None:
    """Write rows to a file as JSON lines, under another name first; "-" is stdout."""
    if str(file) == "-":
        emit(list(rows), as_json=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    with part.open("w", encoding="utf-8") as opened:
        for row in rows:
            opened.write(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n")
    part.replace(file)


def complain(error: Nf2vecError | str, *, hint: str | None = None) -> None:
    """Print an error, and the way on if it has one, on stderr; once for all processes of a run."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from nf2vec_cli.core.ranks import first_to_say

        if not first_to_say(str(error)):
            return
    if isinstance(error, Nf2vecError):
        hint = hint or error.hint
    _talk("error", str(error), RED)
    if hint:
        _talk("hint", hint, "")


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _talk("warning", text, YELLOW)


def plain(value: Any) -> Any:
    """Reduce a value to what JSON has: text, number, true, false, null, list and object.

    Numpy scalars and arrays are known by their `tolist`, so that numpy need not be imported.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Iterable) and not isinstance(value, PurePath):
        return [plain(item) for item in value]
    return str(value)


def _json_line(value: Any) -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a narrow locale, or a file name that is not UTF-8
        line = json.dumps(value, allow_nan=False)
    return line


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return printable(str(value))


def _print_table(rows: Sequence[Any]) -> None:
    from rich.table import Table

    if not rows:
        return
    rows = [row if isinstance(row, Mapping) else {"value": row} for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in columns:
        values = [row.get(key) for row in rows]
        numbers = all(v is None or isinstance(v, int | float) for v in values)
        table.add_column(_title(key), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns))
    _print_rich(table)


def _print_listing(record: Any) -> None:
    """Print `key  value` lines; a value that is a list of rows follows as a table of its own."""
    from rich.table import Table

    tables = {key: value for key, value in record.items() if _is_rows(value)}
    listing = Table(box=None, pad_edge=False, show_header=False)
    listing.add_column(no_wrap=True)
    listing.add_column(overflow="fold")
    for key, value in record.items():
        if key in tables or value in ([], {}):
            continue
        if isinstance(value, Mapping) and value:
            for inner, item in value.items():
                listing.add_row(f"{_title(key)}: {_title(inner)}", _cell(item))
        else:
            listing.add_row(_title(key), _cell(value))
    if listing.row_count:
        _print_rich(listing)
    for key, rows in tables.items():
        _write(f"\n{_title(key)}", sys.stdout)
        _print_table(rows)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _title(key: str) -> str:
    return printable(key.replace("_", " "))


def _print_rich(table: Any) -> None:
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout,
        width=None if terminal else PIPED_WIDTH,
        markup=False,
        highlight=False,
        emoji=False,
    )
    with console.capture() as capture:
        console.print(table)
    _write("\n".join(line.rstrip() for line in capture.get().splitlines()), sys.stdout)


def _talk(label: str, text: str, colour: str) -> None:
    if colour and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        label = f"{colour}{label}:{PLAIN}"
    else:
        label = f"{label}:"
    lines = [printable(line) for line in text.splitlines()] or [""]
    _write(f"{label} " + "\n  ".join(lines), sys.stderr)


def _write(text: str, stream: TextIO) -> None:
    """Write one line; what the stream's encoding lacks is written as an escape, not as an error."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
