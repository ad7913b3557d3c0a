import numpy as np
import pytest
from ball_views import ball_views
from near_radiance import make_radiance_store

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.discover import ShapeRef, discover
from nf2vec_cli.shapes.views import write_views
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.embedded import open_embeddings
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.fresh import embed_shapes, find_shapes


def test_a_shape_of_the_store_gets_the_same_weights_and_embedding(run, fitted, folder):
    assert run("encode", fitted).exit_code == 0
    store = open_store(fitted)
    ref = next(ref for ref in discover(folder) if ref.id == "lamp/lamp")

    fresh = embed_shapes(store, [ref], open_encoder(store), jobs=1)

    row = store.find(["lamp/lamp"])
    np.testing.assert_array_equal(fresh.theta, store.weights(row))
    np.testing.assert_allclose(fresh.z, open_embeddings(store).read(row), atol=1e-5)


def test_pictures_and_meshes_are_sources_of_radiance(tmp_path, shapes):
    store = open_store(make_radiance_store(tmp_path / "n.zarr"))
    write_views(ball_views(count=4, held=1, size=16), tmp_path / "views" / "ball")
    (tmp_path / "views" / "none").mkdir()
    (tmp_path / "views" / "none" / "transforms.json").write_text("{}")

    assert [ref.id for ref in find_shapes(store, tmp_path / "views" / "ball")] == ["ball"]
    assert [ref.id for ref in find_shapes(store, tmp_path / "views")] == ["ball", "none"]
    assert [ref.id for ref in find_shapes(store, shapes / "lamp" / "lamp.ply")] == ["lamp"]
    with pytest.raises(InputError, match=r"'none' cannot be fitted: transforms\.json"):
        find_shapes(store, tmp_path / "views" / "none")


def test_what_cannot_be_fitted_is_told_with_its_reason(fitted, tmp_path):
    store = open_store(fitted)
    broken = tmp_path / "broken.stl"
    broken.write_bytes(b"")
    ref = ShapeRef("broken", str(broken), "broken.stl")

    with pytest.raises(InputError, match="broken"):
        embed_shapes(store, [ref], open_encoder(store), jobs=1)


def test_files_of_another_kind_are_told_before_anything_is_fitted(fitted, tmp_path):
    cloud, broken = tmp_path / "cloud.ply", tmp_path / "broken.stl"
    points = "".join(f"0.{n} 0.5 0.{n}\n" for n in range(9))
    cloud.write_text(
        "ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nproperty float y\n"
        f"property float z\nend_header\n{points}"
    )
    broken.write_bytes(b"")
    store = open_store(fitted)

    with pytest.raises(InputError, match="'cloud' cannot be fitted: the file is a cloud"):
        find_shapes(store, cloud)
    assert len(find_shapes(store, tmp_path / "shapes")) == 3
    with pytest.raises(InputError, match="cannot be fitted") as caught:
        find_shapes(store, tmp_path / "broken.stl")
    assert "nf2vec fit SHAPES" in caught.value.hint
