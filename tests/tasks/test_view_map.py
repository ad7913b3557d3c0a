import numpy as np
import pytest

from nf2vec_cli.errors import UsageFault
from nf2vec_cli.tasks import view_map
from nf2vec_cli.tasks.view_map import MapKind, nearest, plane_of


@pytest.fixture
def groups():
    """Three tight groups of 12 embeddings, in directions of their own and of any length."""
    rng = np.random.default_rng(0)
    way = np.repeat(np.eye(16)[:3], 12, axis=0) + rng.normal(0, 0.02, (36, 16))
    return (way * rng.uniform(0.5, 3, (36, 1))).astype(np.float32)


def apart(plane):
    """Tell whether each point's nearest other on the map is of its own group."""
    far = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.fill_diagonal(far, np.inf)
    return (far.argmin(1) // 12 == np.arange(36) // 12).all()


def test_principal_components_are_those_of_the_directions(groups):
    plane = plane_of(groups, MapKind.pca, seed=0)

    unit = groups / np.linalg.norm(groups, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(unit.T))[::-1]
    np.testing.assert_allclose(plane.var(0, ddof=1), values[:2], rtol=1e-4)
    np.testing.assert_array_equal(plane, plane_of(groups, MapKind.pca, seed=7))
    assert apart(plane)


@pytest.mark.parametrize("count", [1, 2])
def test_even_one_object_has_a_place(groups, count):
    plane = plane_of(groups[:count], MapKind.pca, seed=0)

    assert plane.shape == (count, 2)
    assert np.isfinite(plane).all()


@pytest.mark.parametrize(("kind", "module"), [("tsne", "sklearn.manifold"), ("umap", "umap")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_maps_by_others_keep_groups_together_and_repeat(groups, kind, module):
    pytest.importorskip(module, reason="the extra `view` is not installed")

    plane, again = (plane_of(groups, MapKind(kind), seed=3) for _ in range(2))

    np.testing.assert_array_equal(plane, again)
    assert apart(plane)


def test_too_few_objects_for_a_map_are_told(groups):
    pytest.importorskip("sklearn", reason="the extra `view` is not installed")

    with pytest.raises(UsageFault, match="needs 5 objects or more, there are 4") as caught:
        plane_of(groups[:4], MapKind.tsne, seed=0)

    assert caught.value.hint == "`nf2vec view STORE --map pca`"


@pytest.mark.parametrize(("kind", "package"), [("tsne", "scikit-learn"), ("umap", "umap-learn")])
def test_a_package_that_is_missing_is_named_with_the_extra(monkeypatch, groups, kind, package):
    monkeypatch.setattr(view_map, "find_spec", lambda _: None)

    with pytest.raises(UsageFault, match=f"--map {kind}` needs {package}") as caught:
        plane_of(groups, MapKind(kind), seed=0)

    assert "pip install 'nf2vec[view]'" in caught.value.hint


def test_neighbours_are_the_others_of_highest_cosine(monkeypatch, groups):
    monkeypatch.setattr(view_map, "BLOCK", 7)  # blocks that do not divide the objects

    places, scores = nearest(groups, 4)

    unit = groups / np.linalg.norm(groups, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    np.testing.assert_allclose(scores, -np.sort(-cosine, axis=1)[:, :4], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosine, places, 1), scores, atol=1e-5)
    assert nearest(groups[:3], 4)[0].shape == (3, 2)
    assert nearest(groups[:1], 4)[0].shape == (1, 0)
