"""Fixtures that every test may use."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

# read when kernels are defined: without a GPU they run on CPU tensors, one program after another
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

QUICK = ["--set", "steps=3", "--set", "pool=2000", "--set", "points=200", "--jobs", "1"]


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run `nf2vec ARGS` in this process; arguments are turned into text."""
    from typer.testing import CliRunner

    from nf2vec_cli.cli import app

    for name in ("NF2VEC_DEBUG", "NF2VEC_PROGRESS"):
        monkeypatch.delenv(name, raising=False)

    def run_app(*args: object, stdin: str | None = None) -> Outcome:
        result = CliRunner().invoke(
            app,
            [str(arg) for arg in args],
            input=stdin,
            catch_exceptions=False,
            prog_name="nf2vec",
        )
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run_app


@pytest.fixture(scope="session")
def shapes() -> Path:
    """Give the folder of real shapes that ships with the project."""
    return Path(__file__).parent.parent / "examples" / "shapes"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Give each device in turn; cuda only where there is one."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    name: str = request.param
    return name


@pytest.fixture
def quick():
    """Options of a fit that takes a moment and is no good."""
    return list(QUICK)


@pytest.fixture
def folder(shapes, tmp_path):
    """A folder of three real shapes in two classes."""
    for name in ("chair/chair.ply", "lamp/lamp.ply", "sofa/sofa.stl"):
        target = tmp_path / "shapes" / name
        target.parent.mkdir(parents=True)
        shutil.copy(shapes / name, target)
    return tmp_path / "shapes"


@pytest.fixture
def fitted(run, folder, quick, tmp_path):
    """A store with three fields."""
    store = tmp_path / "ds.zarr"
    outcome = run("fit", folder, "--field", "sdf", "--store", store, *quick, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["fitted"] == 3
    return store
