"""Results on stdout, complaints on stderr."""

import io
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nf2vec_cli import output
from nf2vec_cli.errors import StoreError


class Colour(StrEnum):
    red = "red"


@dataclass(frozen=True)
class Row:
    name: str
    error: float | None
    faces: int = 3


def emitted(capsys, result, *, as_json):
    output.emit(result, as_json=as_json)
    return capsys.readouterr().out


def test_a_dataclass_is_one_json_line(capsys):
    assert (
        emitted(capsys, Row("a", 0.5), as_json=True) == '{"name": "a", "error": 0.5, "faces": 3}\n'
    )


def test_rows_are_one_json_line_each_as_they_come(capsys):
    def rows():
        yield Row("a", 0.5)
        assert json.loads(capsys.readouterr().out)["name"] == "a"
        yield {"name": "b"}

    assert json.loads(emitted(capsys, rows(), as_json=True)) == {"name": "b"}


def test_no_rows_are_no_lines(capsys):
    assert emitted(capsys, [], as_json=True) == ""
    assert emitted(capsys, [], as_json=False) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32("nan"), None),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([1.0, np.inf]), [1.0, None]),
        (np.str_("a"), "a"),
        (Path("a/b.obj"), "a/b.obj"),
        (Colour.red, "red"),
        (b"\x01\xff", "01ff"),
        ({"a": {Colour.red: (1, 2)}}, {"a": {"red": [1, 2]}}),
        (Row("a", math.nan), {"name": "a", "error": None, "faces": 3}),
        ([Row("a", 1.0)], [{"name": "a", "error": 1.0, "faces": 3}]),
    ],
)
def test_values_become_plain_json(value, expected):
    found = output.plain(value)

    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found, allow_nan=False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_plain_is_one_line_of_json_and_can_be_listed(value):
    stdout = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        output.emit({"value": value}, as_json=True)
        line = stdout.getvalue()
        output.emit({"value": value})

    assert line.count("\n") == 1
    json.loads(line)


def test_a_table_when_piped_is_whole_aligned_and_free_of_colour(capsys):
    long = "x" * 300
    out = emitted(capsys, [Row(long, 0.123456), Row("b", None, 12)], as_json=False)

    head, first, second = out.splitlines()
    assert head.split() == ["name", "error", "faces"]
    assert first.split() == [long, "0.1235", "3"]
    assert second.split() == ["b", "-", "12"]
    assert len(first) == len(second)
    assert "\x1b" not in out


def test_a_record_is_listed_with_nested_values_and_tables(capsys):
    record = {
        "objects": 3,
        "sharded": True,
        "by_class": {"chair": 2, "lamp": 1},
        "failed": [{"id": "chair/a", "reason": "no faces"}],
    }

    lines = [line.split() for line in emitted(capsys, record, as_json=False).splitlines()]

    assert ["objects", "3"] in lines
    assert ["sharded", "yes"] in lines
    assert ["by", "class:", "chair", "2"] in lines
    assert ["chair/a", "no", "faces"] in lines


def test_markup_and_control_characters_in_names_stay_text(capsys):
    out = emitted(capsys, [{"id": "[red]a[/red] :smile: \x1b[31m\nb"}], as_json=False)

    assert out.splitlines()[1] == r"[red]a[/red] :smile: \x1b[31m\nb"


def test_a_name_that_is_not_utf8_is_shown_escaped(capsys):
    name = b"chair-\xe9.obj".decode("utf-8", "surrogateescape")

    assert json.loads(emitted(capsys, {"id": name}, as_json=True))
    assert r"\udce9" in emitted(capsys, {"id": name}, as_json=False)


def test_a_terminal_without_unicode_gets_escapes(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)

    output.emit({"id": "stühle"}, as_json=True)

    assert json.loads(stdout.buffer.getvalue()) == {"id": "stühle"}


def test_text_is_printed_as_it_is(capsys):
    assert emitted(capsys, "a = 1\n", as_json=False) == "a = 1\n"


def test_complaints_go_to_stderr_with_the_hint(capsys):
    output.complain(StoreError("ds.zarr does not exist", hint="check the path"))
    output.warn("3 shapes are open")

    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == (
        "error: ds.zarr does not exist\nhint: check the path\nwarning: 3 shapes are open\n"
    )


def test_a_complaint_cannot_move_the_cursor(capsys):
    output.complain(StoreError("a\x1b[2Jb does not exist"))

    assert capsys.readouterr().err == "error: a\\x1b[2Jb does not exist\n"
