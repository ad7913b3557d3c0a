import json
import shutil

import pytest

QUICK = ["--set", "steps=3", "--set", "pool=2000", "--set", "points=200", "--jobs", "1"]


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
