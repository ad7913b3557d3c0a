"""Errors become exit codes and two lines on stderr, in one place."""

import errno
import os
import subprocess
import sys

import pytest

from nf2vec_cli.errors import BucketError, LockedError, Nf2vecError, PartialFailure, StoreError


@pytest.fixture
def run_raising(run, monkeypatch):
    """Run a command that raises a given error."""

    def run_it(error, *options):
        def config_fit(*_args, **_kwargs):
            raise error

        monkeypatch.setattr("nf2vec_cli.config.describe.describe", config_fit)
        return run(*options, "config", "fit")

    return run_it


@pytest.mark.parametrize("kind", [StoreError, PartialFailure, LockedError])
def test_an_error_is_told_with_its_hint_and_its_code(run_raising, kind):
    outcome = run_raising(kind("ds.zarr is not well", hint="run `nf2vec check ds.zarr`"))

    assert outcome.exit_code == kind.exit_code
    assert outcome.stderr == "error: ds.zarr is not well\nhint: run `nf2vec check ds.zarr`\n"
    assert outcome.stdout == ""


def test_every_error_has_a_code_of_its_own_but_a_buckets_which_is_the_stores():
    codes = [kind.exit_code for kind in Nf2vecError.__subclasses__() if kind is not BucketError]

    assert sorted(codes) == [2, 3, 4, 5, 6, 7, 8]
    assert BucketError.exit_code == StoreError.exit_code


def test_ctrl_c(run_raising):
    assert run_raising(KeyboardInterrupt()).exit_code == 130


def test_a_bug_is_called_one_and_shows_no_traceback(run_raising):
    outcome = run_raising(ZeroDivisionError("division by zero"))

    assert outcome.exit_code == 1
    assert "bug" in outcome.stderr
    assert "ZeroDivisionError: division by zero" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), StoreError("no")])
def test_debug_shows_where_and_keeps_the_code(run_raising, error):
    outcome = run_raising(error, "--debug")

    assert outcome.exit_code == getattr(error, "exit_code", 1)
    assert "Traceback (most recent call last)" in outcome.stderr
    assert "config_fit" in outcome.stderr


def test_a_worker_whose_pipe_broke_is_no_reason_for_silence():
    code = (
        "import nf2vec_cli.config.describe as d\n"
        "def fail(*_): raise BrokenPipeError(32, 'Broken pipe')\n"
        "d.describe = fail\n"
        "from nf2vec_cli.cli import app\n"
        "app(['config', 'fit'])\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert child.returncode == 1
    assert "BrokenPipeError" in child.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_is_gone_ends_the_program_quietly(stream):
    read_end, write_end = os.pipe()
    os.close(read_end)
    code = (
        "import sys\n"
        "from nf2vec_cli import cli, output\n"
        "import nf2vec_cli.config.describe as d\n"
        f"d.describe = lambda *_: print('text', file=sys.{stream}, flush=True) or 'text'\n"
        "cli.app(['config', 'fit'])\n"
    )
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write_end}
    child = subprocess.run([sys.executable, "-c", code], **streams, text=True, check=False)
    os.close(write_end)

    assert child.returncode == 141
    assert not child.stdout
    assert not child.stderr


def test_a_file_that_cannot_be_written_is_no_bug(run_raising):
    outcome = run_raising(OSError(errno.ENOSPC, "No space left on device", "/full/ds.zarr"))

    assert outcome.exit_code == 1
    assert outcome.stderr == "error: /full/ds.zarr: No space left on device\n"


def test_a_wrong_option_is_wrong_usage(run):
    assert run("config", "fit", "--preset", "huge").exit_code == 2
    assert run("config", "fit", "--no-such-option").exit_code == 2
