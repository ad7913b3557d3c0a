"""How far a long run is, told on stderr: nothing, a bar, plain lines or JSON lines."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

BAR_AFTER = 1.0  # seconds: a run that ends sooner shows no bar
LINE_EVERY = 10.0  # seconds between plain lines


def printable(text: str) -> str:
    """Make control characters visible: a file name must not move the cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Progress(Protocol):
    """What a task tells of its way. Use it as a context manager, or call `close`."""

    def start(self, total: int | None, text: str = "") -> None:
        """Begin a stage of `total` steps, None where the number is not known yet."""

    def advance(self, n: int = 1, text: str = "") -> None:
        """Count `n` more steps as done; `text` says what the run is at."""

    def note(self, text: str) -> None:
        """Say something that must not be lost, such as why an object failed."""

    def close(self) -> None:
        """End the last stage and leave the screen in order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Silent(Progress):
    """Says nothing: the default of every task when it is called from Python."""

    def start(self, total: int | None, text: str = "") -> None:
        """Say nothing."""

    def advance(self, n: int = 1, text: str = "") -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class Lines(Progress):
    """A plain line every ten seconds and one at the end: for logs, pipes and cron.

    Args:
        stream: where to write.
        as_json: one JSON object a line instead: event, text, done, total, seconds.
        every: seconds between lines.
    """

    def __init__(self, stream: TextIO, *, as_json: bool = False, every: float = LINE_EVERY) -> None:
        self._stream, self._as_json, self._every = stream, as_json, every
        self._open = False

    def start(self, total: int | None, text: str = "") -> None:
        """Begin a stage; the one before it ends with a line if it had any."""
        self.close()
        self._total, self._stage, self._done = total, text, 0
        self._began = self._told = time.monotonic()
        self._open, self._quiet = True, True

    def advance(self, n: int = 1, text: str = "") -> None:
        """Count, and write a line if the last one is long ago."""
        self._done += n
        if time.monotonic() - self._told >= self._every:
            self._tell("progress", text)

    def note(self, text: str) -> None:
        """Write a line of its own."""
        self._write({"event": "note", "text": text} if self._as_json else text)

    def close(self) -> None:
        """Write the last line of a stage that was long enough to have one."""
        if self._open and not self._quiet:
            self._tell("end", "")
        self._open = False

    def _tell(self, event: str, text: str) -> None:
        self._told, self._quiet = time.monotonic(), False
        seconds = self._told - self._began
        if self._as_json:
            self._write(
                {
                    "event": event,
                    "stage": self._stage,
                    "text": text,
                    "done": self._done,
                    "total": self._total,
                    "seconds": round(seconds, 1),
                }
            )
            return
        of = "" if self._total is None else f" of {self._total}"
        line = f"{self._stage or 'done'}: {self._done}{of} in {span(seconds)}"
        if event == "progress" and self._done and self._total:
            line += f", about {span(seconds / self._done * (self._total - self._done))} left"
        self._write(f"{line} ({text})" if text else line)

    def _write(self, line: str | dict[str, Any]) -> None:
        text = printable(line) if isinstance(line, str) else json.dumps(line)
        self._stream.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
        self._stream.flush()


class Bar(Progress):
    """A bar on a terminal, shown once a stage has run for a second.

    A timer shows it, so that it appears even while the first step is still running.
    """

    def __init__(self, stream: TextIO, *, after: float = BAR_AFTER) -> None:
        self._stream, self._after = stream, after
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._bar: Any = None
        self._done = 0

    def start(self, total: int | None, text: str = "") -> None:
        """Begin a stage; the bar of the one before it stays on the screen, finished."""
        self.close()
        self._total, self._stage, self._done, self._text = total, text, 0, ""
        self._began = time.monotonic()
        self._timer = threading.Timer(self._after, self._show)
        self._timer.daemon = True
        self._timer.start()

    def advance(self, n: int = 1, text: str = "") -> None:
        """Move the bar."""
        text = printable(text)
        with self._lock:
            self._done, self._text = self._done + n, text
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done, item=text)

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        text = printable(text)
        with self._lock:
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                self._stream.write(text + "\n")
                self._stream.flush()

    def close(self) -> None:
        """Stop the timer and the bar."""
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
            self._bar, self._timer = None, None

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichBar

        with self._lock:
            if self._timer is None or self._bar is not None:
                return  # closed while rich was being imported
            self._bar = RichBar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[item]}", markup=False),
                console=Console(file=self._stream, highlight=False),
                redirect_stdout=False,
            )
            self._task = self._bar.add_task(
                self._stage, total=self._total, completed=self._done, item=self._text
            )
            self._bar.start()


def open_progress(*, json: bool = False, stream: TextIO | None = None) -> Progress:
    """Choose how to tell: a bar on a terminal, else lines.

    The variable NF2VEC_PROGRESS decides first if it is set: bar, lines, json or silent.

    Args:
        json: JSON lines in any case, for a program that reads stderr too.
        stream: where to write; stderr if None.
    """
    stream = sys.stderr if stream is None else stream
    by_stream = "json" if json else "bar" if stream.isatty() else "lines"
    style = os.environ.get("NF2VEC_PROGRESS") or by_stream
    if style == "silent":
        return Silent()
    return Bar(stream) if style == "bar" else Lines(stream, as_json=style == "json")


def span(seconds: float) -> str:
    """Write a length of time: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
