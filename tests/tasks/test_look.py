import numpy as np
import pytest
from near_radiance import make_radiance_store, ring

from nf2vec_cli.store.radiance import Cameras, pack_cameras
from nf2vec_cli.store.schema import CAMERAS
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.look import Look, looks, picture, picture_of_radiance, up_axis
from nf2vec_cli.tasks.rebuild import Form


def middle(shown):
    rows, columns = np.nonzero((shown < 250).any(2))
    return columns.mean() / shown.shape[1] - 0.5, 0.5 - rows.mean() / shown.shape[0]


def test_what_is_up_is_up_in_the_picture(lit_ball):
    assert middle(picture_of_radiance(lit_ball((0, 0, 0.5), 0.2), size=60))[1] > 0.1
    assert middle(picture_of_radiance(lit_ball((0, 0.5, 0), 0.2), size=60, up="y"))[1] > 0.1
    # from in front and from the right of x: y is to the right
    assert middle(picture_of_radiance(lit_ball((0, 0.5, 0), 0.2), size=60))[0] > 0.1


def test_all_of_an_object_is_in_the_picture(lit_ball):
    shown = picture_of_radiance(lit_ball((0.7, 0.7, 0.7), 0.29), size=60)

    edge = np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]])
    assert (edge == 255).all()
    assert (shown < 250).any()


def test_radiance_is_rendered_and_not_built(lit_ball):
    shown = picture(Look(lit_ball(), "nerf", Form.pictures, 0))

    assert shown.shape == (220, 220, 3)
    colours = shown[(shown < 250).any(2)].reshape(-1, 3)
    assert np.ptp(colours.astype(int), axis=0).min() > 30


@pytest.fixture
def store(tmp_path):
    return open_store(make_radiance_store(tmp_path / "n.zarr", count=7), mode="a")


def test_the_stores_own_cameras_tell_what_is_up(store):
    turned = ring()
    turned = Cameras(turned.poses[:, [2, 0, 1]], turned.focal, turned.size, turned.held)

    assert up_axis(store) == looks(store, resolution=1).up == "y"
    for row in store.rows():
        store.group[CAMERAS][int(row)] = pack_cameras(turned)
    assert up_axis(store) == "z"


def test_a_store_of_embeddings_alone_says_what_is_up(store):
    store.group.update_attributes({"up": "z"})

    assert up_axis(store) == "z"
