"""What every torture needs: a process to fork from, a place without a slow disk, and a table."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from victims import Victims
from warm import Warm

MEMORY = Path("/dev/shm")  # no disk is waited for: a kill is no power cut


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder for stores."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("torture")
        return
    folder = Path(tempfile.mkdtemp(prefix="nf2vec-torture-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def warm(world):
    """The process that forks."""
    folder = world / "warm"
    folder.mkdir()
    process = Warm(folder)
    yield process
    process.close()


@pytest.fixture(scope="session")
def victims(warm, world):
    """The commands that are tortured, by name."""
    return Victims(warm, world)


@pytest.fixture
def tell(record_property):
    """Keep a row of the table that is printed in the end."""

    def kept(row):
        record_property("torture", json.dumps(row))

    return kept


def pytest_terminal_summary(terminalreporter):
    """Print what was done, how often, and what was lost."""
    rows = [
        json.loads(text)
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, [])
        for name, text in report.user_properties
        if name == "torture" and report.when == "call"
    ]
    if rows:
        terminalreporter.section("torture")
        for row in rows:
            terminalreporter.write_line(
                "; ".join(f"{name}: {value}" for name, value in row.items())
            )
