from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_views import ball_views
from PIL import Image

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.render import render
from nf2vec_cli.shapes.camera_file import Shots
from nf2vec_cli.shapes.fingerprint import fingerprint
from nf2vec_cli.shapes.views import write_views
from nf2vec_cli.tasks.picture_object import Film, Shoot, compared, shoot

CENTRE, RADIUS = torch.tensor([0.3, -0.2, 0.1]), 0.4


class Painted:
    """The ball of `ball_views` as radiance: of the colours that its pictures show."""

    grid = torch.ones(8, 8, 8, dtype=torch.bool)

    def at(self, points):
        away = points - CENTRE
        length = away.norm(dim=-1)
        colour = 0.5 + 0.5 * away / length.clamp_min(1e-6)[..., None]
        return colour, torch.where(length < RADIUS, 3000.0, 0.0)

    def render(self, rays, *, background=(1.0, 1.0, 1.0)):
        ground = torch.tensor(background)
        return render(self.at, rays, self.grid, samples=800, background=ground, backend="torch")


@pytest.fixture
def job(tmp_path):
    return Shoot(
        id="a/b.c",
        field=Painted(),
        transform=np.array([0.0, 0, 0, 1]),
        source=(),
        digest=b"",
        file=tmp_path / "out" / "a" / "b.c",
        suffix="png",
        up="z",
        config=FitConfig(),
        film=Film(count=2, size=24),
    )


def opened(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


def test_an_orbit_is_written_as_numbered_files(job):
    told = shoot(job)

    assert (told.file, told.pictures, told.psnr) == (str(job.file), 2, None)
    assert sorted(path.name for path in job.file.iterdir()) == ["000.png", "001.png"]
    first = opened(job.file / "000.png")
    assert first.shape == (24, 24, 3)
    assert (first[0] == 255).all()
    covered = (first < 250).any(2).mean()
    assert told.coverage == pytest.approx(covered, abs=0.08)


def test_without_background_alpha_is_straight(job):
    plain = shoot(replace(job, film=replace(job.film, background=(0.0, 0.0, 0.0))))
    on_black = opened(job.file / "000.png").astype(float)
    clear = shoot(replace(job, film=replace(job.film, background=None)))
    straight = opened(job.file / "000.png").astype(float)

    assert straight.shape == (24, 24, 4)
    alpha = straight[..., 3:] / 255
    assert (alpha[0] == 0).all()
    assert alpha.max() == 1
    np.testing.assert_allclose(straight[..., :3] * alpha, on_black, atol=2)
    assert plain.coverage == clear.coverage


def test_the_views_held_out_are_compared_where_they_are_unchanged(job, tmp_path):
    views = ball_views(count=4, held=3, size=24)
    write_views(views, tmp_path / "ball")
    there = replace(job, source=(tmp_path / "gone", tmp_path / "ball"))
    known = replace(there, digest=fingerprint(tmp_path / "ball", kind="nerf")[0])

    told, other = shoot(known), shoot(there)

    assert told.psnr is not None
    assert told.psnr > 22  # edges of a ball of 24 pixels
    assert other.psnr is None


@pytest.mark.slow
def test_a_sheets_tile_has_the_view_and_the_field_from_the_same_place(job, tmp_path):
    write_views(ball_views(count=4, held=3, size=48), tmp_path / "ball")
    digest = fingerprint(tmp_path / "ball", kind="nerf")[0]

    truth, seen = compared(replace(job, source=(tmp_path / "ball",), digest=digest))
    blank, alone = compared(job)

    assert np.abs(truth.astype(int) - seen).mean() < 6
    assert (truth < 250).any()
    assert (blank == 235).all()
    assert (alone < 250).any()


def test_cameras_of_a_file_are_in_the_users_units(job):
    """The object is at 10, 0, 0 and three units big there; the camera looks at it from afar."""
    pose = np.array([[1.0, 0, 0, 10], [0, 1, 0, 0], [0, 0, 1, 30]])
    shots = Shots(pose[None], np.array([200.0]), np.array([[40, 30]]))
    placed = replace(job, transform=np.array([10.0, 0, 0, 3]), film=Film(shots=shots))

    told = shoot(placed)

    assert told.pictures == 1
    picture = opened(job.file / "000.png")
    assert picture.shape == (30, 40, 3)
    rows, columns = np.nonzero((picture < 250).any(2))
    # the ball is at 0.3, -0.2 in unit space: 0.9, -0.6 units of the user, 29.7 away
    assert columns.mean() + 0.5 == pytest.approx(20 + 200 * 0.9 / 29.7, abs=0.4)
    assert rows.mean() + 0.5 == pytest.approx(15 + 200 * 0.6 / 29.7, abs=0.4)


def test_a_turntable_is_one_file(job):
    told = shoot(replace(job, suffix="gif", file=job.file.with_name("b.c.gif"), film=Film(size=16)))

    assert told.pictures == 36
    with Image.open(told.file) as gif:
        assert gif.n_frames == 36


def test_nothing_to_see_is_a_problem(job):
    shots = Shots(np.eye(4)[None, :3] + [[[0, 0, 0, 50.0]]], np.array([20.0]), np.array([[8, 8]]))

    told = shoot(replace(job, film=Film(shots=shots)))

    assert told.file is None
    assert "nothing" in told.problem
    assert not job.file.exists()
