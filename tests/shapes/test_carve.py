import numpy as np
from ball_views import CENTRE, RADIUS, ball_views

from nf2vec_cli.shapes.carve import carved_grid


def test_the_hull_of_a_ball_covers_it_and_little_else():
    views = ball_views()

    grid = carved_grid(views.pixels[..., 3], views.poses, views.focal, cells=32)

    along = (np.arange(32) + 0.5) / 16 - 1
    middles = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1)
    away = np.linalg.norm(middles - CENTRE, axis=-1)
    assert grid[away < RADIUS].all()
    assert not grid[away > RADIUS + 0.25].any()


def test_a_camera_judges_only_what_it_sees():
    """One with a narrow view and next to nothing in it; three that see all of the cube covered."""
    pose = np.eye(4)[None, :3].copy()
    pose[0, 2, 3] = 3.0
    alpha = np.full((4, 32, 32), 255, np.uint8)
    alpha[0] = 0
    alpha[0, 0, 0] = 255  # a picture without anything is not looked at
    focal = np.array([160.0, 16, 16, 16])

    hull = carved_grid(alpha, pose.repeat(4, 0), focal, cells=16)

    assert not hull[7:9, 7:9].any()
    assert hull[12, 7:9, 4:12].all()


def test_cameras_that_see_nothing_of_the_cube_leave_nothing():
    away = np.eye(4)[None, :3].copy()
    away[0, :, 3] = -9

    assert not carved_grid(np.full((1, 8, 8), 255, np.uint8), away, np.array([40.0]), cells=8).any()
