import numpy as np
import pytest
import torch

from nf2vec_cli.tasks.radiance_shape import (
    LEVEL,
    THICKNESS,
    colours_at,
    hidden_cells,
    opacity,
    radiance_surface,
    reach_of,
)
from nf2vec_cli.tasks.rebuild import Form, build

CENTRE = np.array([0.3, -0.1, 0.2])


def volume(vertices, faces):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return (a * np.cross(b, c)).sum() / 6


def test_the_surface_is_the_objects_and_faces_outward(lit_ball):
    surface = radiance_surface(lit_ball(), 96)

    away = np.linalg.norm(surface.vertices - CENTRE, axis=1)
    np.testing.assert_allclose(away, 0.4, atol=2 / 95)
    assert volume(surface.vertices, surface.faces) == pytest.approx(
        4 / 3 * np.pi * 0.4**3, rel=0.03
    )


def test_what_no_picture_shows_counts_as_full(lit_ball):
    surface = radiance_surface(lit_ball(hollow=0.2), 96)

    assert np.linalg.norm(surface.vertices - CENTRE, axis=1).min() > 0.35
    assert volume(surface.vertices, surface.faces) > 0.95 * 4 / 3 * np.pi * 0.4**3


def test_what_can_be_looked_into_stays_open(lit_ball):
    field = lit_ball(centre=(0.0, 0.0, 0.0), radius=0.6, hollow=0.45)
    whole = field.at

    def with_a_hole(points):
        colours, density = whole(points)
        return colours, torch.where(
            (points[:, 2] > 0) & (points[:, :2].norm(dim=1) < 0.3), 0.0, density
        )

    field.at = with_a_hole
    hidden = hidden_cells(field)

    assert not hidden[16, 16].any()  # along the axis of the hole
    assert not hidden.all()
    assert hidden_cells(lit_ball(centre=(0.0, 0.0, 0.0), radius=0.6, hollow=0.45))[16, 16, 16]


def test_empty_cells_are_clear_whatever_the_field_says(lit_ball):
    field = lit_ball()
    field.grid[:] = False
    points = np.tile(CENTRE.astype(np.float32), (3, 1))

    assert opacity(field, points).tolist() == [0, 0, 0]
    assert not len(radiance_surface(field, 32).faces)


def test_the_level_is_half_of_the_light_in_its_thickness(lit_ball):
    half = np.log(2) / THICKNESS
    points = np.tile(CENTRE.astype(np.float32), (1, 1))

    assert opacity(lit_ball(density=half), points)[0] == pytest.approx(LEVEL)


def test_every_form_has_the_fields_colours(lit_ball):
    field = lit_ball()

    mesh = build(field, "nerf", Form.mesh, resolution=48, points=0)
    cloud = build(field, "nerf", Form.cloud, resolution=48, points=500)
    voxels = build(field, "nerf", Form.voxels, resolution=24, points=0)

    for built, at in ((mesh, mesh.shape.vertices), (cloud, cloud.shape.points)):
        np.testing.assert_allclose(built.colours, (at + 1) / 2 * 255, atol=0.6)
    assert len(cloud.shape.points) == 500
    middles = (2 * np.argwhere(voxels.shape.grid) + 1) / 24 - 1
    assert np.linalg.norm(middles - CENTRE, axis=1).max() < 0.4
    assert len(middles) * (2 / 24) ** 3 == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.15)


def test_nothing_gives_nothing(empty_field):
    for form, count in ((Form.mesh, "faces"), (Form.cloud, "points")):
        shape = build(empty_field, "nerf", form, resolution=32, points=10).shape
        assert not len(getattr(shape, count))
    assert not build(empty_field, "nerf", Form.voxels, resolution=16, points=0).shape.grid.any()
    assert colours_at(empty_field, np.empty((0, 3))).shape == (0, 3)


def test_the_reach_is_that_of_the_farthest_cell(lit_ball, empty_field):
    field = lit_ball(centre=(0.0, 0.0, 0.0), radius=0.2)
    assert reach_of(field) == reach_of(empty_field) == 1.0
    field.grid[-1, -1, -1] = True
    assert reach_of(field) == pytest.approx(3**0.5)
