"""`nf2vec fit --crop`: partial copies that lie on the whole shape."""

import json

import numpy as np
import pytest

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.fit_object import Job, product_key


@pytest.fixture
def fit(run, folder, quick, tmp_path):
    def go(name, *words, field="udf"):
        path = tmp_path / name
        outcome = run("fit", folder, "--field", field, "--store", path, *words, *quick, "--json")
        return path, outcome

    return go


def surfaces(path):
    store = open_store(path)
    rows = store.rows()
    names = store.column("id")
    return [names[row] for row in rows], store.surface(rows).astype(float), rows, store


def test_half_of_each_surface_is_fitted_in_the_place_of_the_whole(fit):
    whole, _ = fit("whole.zarr")
    part, outcome = fit("part.zarr", "--crop", "0.5")

    assert outcome.exit_code == 0, outcome.stderr
    ids, full, rows, store = surfaces(whole)
    names, cut, _, cropped = surfaces(part)
    assert names == ids
    np.testing.assert_array_equal(cropped.column("transform"), store.column("transform"))
    assert cropped.config["crop"] == 0.5
    assert "cut: 50% of the surface kept" in cropped.column("message")[rows[0]]
    for one, half in zip(full, cut, strict=True):
        # every point of the part is near the whole, and half of the whole is far from the part
        far = np.linalg.norm(half[:, None] - one[None], axis=2).min(1)
        assert far.max() < 0.15
        missing = np.linalg.norm(one[:, None] - half[None], axis=2).min(1)
        assert 0.3 < (missing > 0.06).mean() < 0.6


def test_each_object_is_cut_alike_each_time_and_each_in_its_own_direction(fit):
    _, first, _, _ = surfaces(fit("one.zarr", "--crop", "0.5")[0])
    _, second, _, _ = surfaces(fit("two.zarr", "--crop", "0.5")[0])
    _, other, _, _ = surfaces(fit("three.zarr", "--crop", "0.5", "--set", "seed=1")[0])

    np.testing.assert_array_equal(first, second)
    assert all(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_what_is_rebuilt_is_compared_with_the_part_that_was_fitted(run, fit, tmp_path, monkeypatch):
    from nf2vec_cli.tasks import reconstruct_object
    from nf2vec_cli.tasks.rebuild import Built

    seen = []
    compare = reconstruct_object.compare
    monkeypatch.setattr(
        reconstruct_object, "compare", lambda a, b: (seen.append(b), compare(a, b))[1]
    )
    # a fit of three steps has no surface
    some = Cloud(np.random.default_rng(0).normal(size=(50, 3)))
    monkeypatch.setattr(reconstruct_object, "build", lambda *_, **__: Built(some, None))
    path, _ = fit("part.zarr", "--crop", "0.3")
    run(
        *("reconstruct", path, "--out", tmp_path / "out", "--resolution", "16"),
        *("--points", "200", "--jobs", "1", "--json"),
    )

    _, cut, _, _ = surfaces(path)
    assert len(seen) == 3
    for shape in seen:
        # its box is that of the points that were kept
        low, high = shape.vertices.min(0), shape.vertices.max(0)
        assert any(
            np.allclose(points.min(0), low, atol=0.05)
            and np.allclose(points.max(0), high, atol=0.05)
            for points in cut
        )


def test_the_same_line_goes_on_and_another_share_is_refused(fit):
    fit("part.zarr", "--crop", "0.5")

    again = fit("part.zarr", "--crop", "0.5")[1]
    other = fit("part.zarr", "--crop", "0.4")[1]

    assert json.loads(again.stdout)["skipped"] == 3
    assert other.exit_code == 3
    assert "crop 0.5 there, 0.4 asked for" in other.stderr


@pytest.mark.parametrize(
    ("field", "words"), [("sdf", ()), ("occ", ("--occupancy", "solid", "--voxels", "16"))]
)
def test_a_field_that_needs_an_inside_is_refused(fit, field, words):
    path, outcome = fit("part.zarr", "--crop", "0.5", *words, field=field)

    assert outcome.exit_code == 3
    assert "--field udf" in outcome.stderr
    assert not (path / "zarr.json").exists()


def test_shells_of_cells_can_be_cut(fit):
    path, outcome = fit("part.zarr", "--crop", "0.5", "--voxels", "16", field="occ")

    assert outcome.exit_code == 0, outcome.stderr
    assert len(open_store(path).rows()) == 3


@pytest.mark.parametrize("share", ["0", "-1", "1.5", "half"])
def test_a_share_that_is_none_is_refused(fit, share):
    path, outcome = fit("part.zarr", "--set", f"crop={share}")

    assert outcome.exit_code == 3
    assert "crop" in outcome.stderr
    assert not (path / "zarr.json").exists()


def test_the_share_is_part_of_the_products_name(tmp_path):
    def name(**changed):
        return product_key(b"x" * 32, Job("a", tmp_path, "udf", FitConfig(**changed), "init"))

    assert len({name(), name(crop=0.5), name(crop=0.4)}) == 3
    assert name() == name(crop=1.0)
