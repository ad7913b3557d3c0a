"""Help pages: quick, complete, and each with an example."""

import json
import subprocess
import sys

import pytest

from nf2vec_cli import cli

HEAVY = {"torch", "zarr", "numcodecs", "trimesh", "igl", "numpy", "scipy", "pydantic", "rich"}
MODULES = 200  # that a help page may load (156 on Python 3.11): each costs a millisecond
# one process for all pages: the first one that loads something is told
REPORT = """
import contextlib, io, json, sys
from nf2vec_cli.cli import app
for line in json.loads(sys.argv[1]):
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        app([*line, "--help"], prog_name="nf2vec")
    print(json.dumps([line, page.getvalue(), sorted(sys.modules)]))
"""


def lines_of_commands() -> list[tuple[str, ...]]:
    """List every command line that takes no more words: ("fit",), ("config", "fit")..."""
    found: list[tuple[str, ...]] = []
    for name in cli.COMMANDS:
        command = cli.load_command(name)
        inner = getattr(command, "commands", {})
        found += [(name, word) for word in inner] or [(name,)]
    return found


LINES = lines_of_commands()
GROUPS = sorted({line[:1] for line in LINES if len(line) > 1})


def pages(*lines: tuple[str, ...]) -> list[tuple[str, str, list[str]]]:
    """Show help pages one after another in a fresh Python: line, page and modules by then."""
    command = [sys.executable, "-c", REPORT, json.dumps(lines)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(json.loads(told)) for told in child.stdout.splitlines()]


def test_help_loads_nothing_heavy():
    shown = pages((), *GROUPS, *LINES)

    assert len(shown) == 1 + len(GROUPS) + len(LINES)
    for line, page, modules in shown:
        assert page.startswith(f"Usage: {' '.join(['nf2vec', *line])} ")
        assert not HEAVY.intersection(modules), line


def test_the_first_page_loads_few_modules():
    [(_, _, modules)] = pages(())

    assert len(modules) <= MODULES


@pytest.mark.parametrize("line", LINES, ids="-".join)
def test_every_command_shows_an_example_of_itself(run, line):
    page = run(*line, "--help")

    assert page.exit_code == 0
    assert f"nf2vec {' '.join(line)} " in page.stdout.partition("Example")[2]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_of_commands_says_what_each_help_says(name):
    first_line = (cli.load_command(name).help or "").splitlines()[0]

    assert cli.COMMANDS[name] == first_line


def test_no_command_shows_help_and_is_wrong_usage(run):
    page = run()

    assert page.exit_code == 2
    assert all(name in page.stdout + page.stderr for name in cli.COMMANDS)


def test_a_mistyped_command_is_wrong_usage_and_names_the_nearest(run):
    page = run("chekc", "ds.zarr")

    assert page.exit_code == 2
    assert "check" in page.stderr
    assert page.stdout == ""


def test_version(run):
    from nf2vec_cli import __version__

    assert run("--version").stdout == f"nf2vec {__version__}\n"
