import numpy as np
import pytest
import torch

from nf2vec_cli.core.orbit import ANGLE, focal_length, orbit


@pytest.mark.parametrize(("up", "axis"), [("z", 2), ("y", 1)])
def test_cameras_go_around_the_axis_that_is_up_and_look_at_the_origin(up, axis):
    poses = orbit(6, radius=2.5, elevation=30, up=up).double().numpy()

    turns, places = poses[:, :, :3], poses[:, :, 3]
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-6)
    np.testing.assert_allclose(
        turns.transpose(0, 2, 1) @ turns, np.tile(np.eye(3), (6, 1, 1)), atol=1e-6
    )
    np.testing.assert_allclose(
        places, 2.5 * turns[:, :, 2], atol=1e-6
    )  # back, away from the origin
    np.testing.assert_allclose(places[:, axis], 2.5 * np.sin(np.pi / 6), atol=1e-6)
    assert (turns[:, axis, 1] > 0.5).all()  # up in the picture is up in the world
    np.testing.assert_allclose(turns[:, axis, 0], 0, atol=1e-6)  # and the horizon is level
    np.testing.assert_allclose(places.sum(0)[[a for a in range(3) if a != axis]], 0, atol=1e-5)


def test_both_ups_show_the_same_of_a_world_that_is_turned():
    z, y = orbit(3, up="z"), orbit(3, up="y")

    assert torch.allclose(z[:, [1, 2, 0]], y, atol=1e-6)


def test_the_focal_length_spans_the_angle():
    assert 2 * np.arctan(0.5 * 64 / focal_length(64)) == pytest.approx(ANGLE)
