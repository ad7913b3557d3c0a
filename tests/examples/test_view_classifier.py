import json
from dataclasses import replace

import pytest
import view_classifier
from ball_views import ball_views

from nf2vec_cli.shapes.views import write_views
from nf2vec_cli.tasks.spread import one_thread

SMALL = ("hidden=16", "layers=2", "octaves=4", "grid=16", "samples=64", "step_samples=400")
QUICK = ("steps=2", "batch=2", "components=2", "embedding=16", "probes=7", "hidden=16", "tail=16")


@pytest.fixture
def world(run, tmp_path):
    """Balls in two classes, whose red and blue are the other's, and their fields."""
    for number in range(8):
        views = ball_views(count=4, held=2, size=16, seed=number)
        if number % 2:
            views = replace(views, pixels=views.pixels[..., [2, 1, 0, 3]])
        folder = tmp_path / "views" / ("one", "other")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_views(views, folder / f"ball{number}")
    settings = [word for text in (*SMALL, "steps=2") for word in ("--set", text)]
    line = ("--field", "nerf", "--store", tmp_path / "n.zarr", "--jobs", "1", *settings)
    assert run("fit", tmp_path / "views", *line).exit_code == 0
    return tmp_path


@pytest.mark.slow
def test_pictures_and_weights_are_compared_fold_by_fold(world, capsys):
    settings = [word for text in QUICK for word in ("--set", text)]
    line = [str(world / "n.zarr"), str(world / "views"), "--folds", "2", "--seconds", "3"]

    with one_thread():
        view_classifier.main([*line, "--learning-rate", "0.01", *settings])

    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["objects"] == 8
    assert told.err.count("fold ") == 2
    for name in ("one view", "nine views", "logistic", "1-NN"):
        assert 0 <= found[name][0] <= 100
    assert found["render, ms"] > 0
    # colours alone tell these classes, and every view shows them
    assert found["nine views"][0] >= 75
