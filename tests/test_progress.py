"""Progress on stderr."""

import io
import json
import os
import subprocess
import sys
import time

import pytest

from nf2vec_cli import progress
from nf2vec_cli.progress import Bar, Lines, Silent, open_progress, span


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that moves only when told."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_a_short_run_says_nothing_on_a_pipe(clock):
    stream = io.StringIO()
    with Lines(stream) as told:
        told.start(3, "fit")
        for _ in range(3):
            clock(1)
            told.advance()

    assert stream.getvalue() == ""


def test_a_long_run_says_a_line_every_ten_seconds_and_one_at_the_end(clock):
    stream = io.StringIO()
    with Lines(stream) as told:
        told.start(100, "fit")
        for _ in range(100):
            clock(0.5)
            told.advance(1, "chair/a")

    lines = stream.getvalue().splitlines()
    assert lines[0] == "fit: 20 of 100 in 10 s, about 40 s left (chair/a)"
    assert lines[-1] == "fit: 100 of 100 in 50 s"
    assert len(lines) == 6


def test_an_unknown_total_has_no_estimate(clock):
    stream = io.StringIO()
    told = Lines(stream)
    told.start(None, "read")
    clock(10)
    told.advance(4)
    told.close()
    told.close()

    assert stream.getvalue() == "read: 4 in 10 s\nread: 4 in 10 s\n"


def test_notes_are_never_lost(clock):
    stream = io.StringIO()
    with Lines(stream) as told:
        told.note("before any stage")
        told.start(3)
        told.note("chair/\udce9: no faces")
        clock(1)

    assert stream.getvalue() == "before any stage\nchair/\\udce9: no faces\n"


def test_json_lines(clock):
    stream = io.StringIO()
    with open_progress(json=True, stream=stream) as told:
        told.start(4, "fit")
        clock(12)
        told.advance(2, "chair/a")
        told.note("lamp/b: no faces")

    first, note, end = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "event": "progress",
        "stage": "fit",
        "text": "chair/a",
        "done": 2,
        "total": 4,
        "seconds": 12.0,
    }
    assert note == {"event": "note", "text": "lamp/b: no faces"}
    assert (end["event"], end["done"]) == ("end", 2)


def test_a_bar_shows_only_after_a_while():
    stream = Terminal()
    with Bar(stream, after=60) as told:
        told.start(3, "fit")
        told.advance()
        told.note("lamp/b: no faces")

    assert stream.getvalue() == "lamp/b: no faces\n"


def test_a_bar_shows_even_before_the_first_step_ends():
    stream = Terminal()
    with Bar(stream, after=0.01) as told:
        told.start(3, "[red]fit")
        deadline = time.monotonic() + 20
        while "0/3" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        told.advance(2, "chair/[b]a")
        told.note("lamp/[b]: no faces")

    shown = stream.getvalue()
    assert "[red]fit" in shown
    assert "2/3" in shown
    assert "chair/[b]a" in shown
    assert "lamp/[b]: no faces" in shown


def test_a_bar_that_is_closed_never_appears():
    stream = Terminal()
    told = Bar(stream, after=0.05)
    told.start(3)
    told.close()
    time.sleep(0.1)

    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("variable", "stream", "kind"),
    [
        (None, io.StringIO(), Lines),
        (None, Terminal(), Bar),
        ("silent", Terminal(), Silent),
        ("lines", Terminal(), Lines),
        ("bar", io.StringIO(), Bar),
    ],
)
def test_the_stream_decides_unless_the_variable_does(monkeypatch, variable, stream, kind):
    monkeypatch.delenv("NF2VEC_PROGRESS", raising=False)
    if variable:
        monkeypatch.setenv("NF2VEC_PROGRESS", variable)

    assert type(open_progress(stream=stream)) is kind


def test_importing_it_imports_no_rich():
    code = "import sys, nf2vec_cli.progress; print('rich' in sys.modules)"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )

    assert child.stdout == "False\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_spans(seconds, text):
    assert span(seconds) == text
