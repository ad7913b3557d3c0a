"""Help pages: quick, complete, and each with an example."""

import resource
import subprocess
import sys

import pytest

from nf2vec_cli import cli

HEAVY = {"torch", "zarr", "numcodecs", "trimesh", "igl", "numpy", "scipy", "pydantic", "rich"}
REPORT = """
import atexit, sys
atexit.register(lambda: print("MODULES", *(name for name in sys.modules if "." not in name)))
from nf2vec_cli.cli import app
app(sys.argv[1:], prog_name="nf2vec")
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


@pytest.mark.parametrize("line", [(), *GROUPS, *LINES], ids=lambda line: "-".join(line) or "app")
def test_help_loads_nothing_heavy(line):
    child = subprocess.run(
        [sys.executable, "-c", REPORT, *line, "--help"], capture_output=True, text=True, check=True
    )

    help_page, _, modules = child.stdout.rpartition("MODULES")

    assert help_page.startswith("Usage: nf2vec")
    assert HEAVY.isdisjoint(modules.split())


def test_help_costs_a_quarter_second_of_cpu_at_most():
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "nf2vec_cli", "--help"], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # the least of a few: the first one may have to compile to bytecode
    assert min(seconds() for _ in range(4)) <= 0.25


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
