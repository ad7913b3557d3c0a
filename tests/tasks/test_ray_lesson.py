import numpy as np
import pytest
import torch
from near_init import TINY
from near_radiance import RADIANCE, SAMPLES, SIDE, make_radiance_store

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.core.march import march, occupied
from nf2vec_cli.core.mlp import frequencies, relu_forward
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.fields.nerf import first_of
from nf2vec_cli.models.network import split_theta
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.radiance_field import RadianceField
from nf2vec_cli.tasks.ray_lesson import RayLesson
from nf2vec_cli.tasks.ray_teacher import HIDDEN, draw_rays, first_rays, look_through, scene_of
from nf2vec_cli.tasks.teacher import generator_of

CONFIG = TrainConfig(**(TINY | {"widths": (16,), "rays": 12, "step_samples": 60, "empty": 20}))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(make_radiance_store(tmp_path_factory.mktemp("rays") / "n.zarr"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A store whose fields are so dense that rays end in them."""
    path = tmp_path_factory.mktemp("rays") / "d.zarr"
    return open_store(make_radiance_store(path, dense=300.0, count=8))


def theta_of(store, rows):
    return torch.from_numpy(store.weights(rows))


def stored_outputs(theta, coords):
    """What a student would say that has learnt everything."""
    return relu_forward(*split_theta(theta, RADIANCE), frequencies(coords, RADIANCE.octaves))


def test_the_teacher_sees_what_is_rendered_of_the_stored_field(store):
    scene = scene_of(store, 3, theta_of(store, [3])[0])
    cameras = scene.cameras
    rays = camera_rays(torch.from_numpy(cameras.poses), torch.from_numpy(cameras.focal), SIDE, SIDE)

    seen, hit = look_through(scene, RADIANCE, rays, SAMPLES)

    field = RadianceField(store.weights([3])[0], RADIANCE, scene.grid.numpy(), SAMPLES)
    wanted = field.render(rays, background=(0.2, 0.5, 0.9))
    behind = torch.tensor([0.2, 0.5, 0.9])
    found = behind.expand(len(rays), 3).clone()
    found[hit] = seen.colour + (1 - seen.opacity[:, None]) * behind
    assert 0 < len(hit) < len(rays)
    assert float(wanted.opacity.max()) > 0.3
    torch.testing.assert_close(found, wanted.colour, atol=1e-6, rtol=0)


def test_only_samples_that_no_light_comes_to_are_left_out(dense):
    scene = scene_of(dense, 0, theta_of(dense, [0])[0])
    rays = draw_rays(scene, ~scene.cameras.held, 400, generator_of(0, 0))

    seen, hit = look_through(scene, RADIANCE, rays, SAMPLES)

    all_samples = len(march(rays, scene.grid, SAMPLES).ray)
    assert len(seen.points) < 0.9 * all_samples
    # composited anew from what is left: the same but for what HIDDEN allows
    _, density = RadianceField(dense.weights([0])[0], RADIANCE, scene.grid.numpy(), SAMPLES).at(
        seen.points
    )
    passed = torch.zeros(len(hit)).index_add(0, seen.samples.ray, density * seen.samples.step)
    torch.testing.assert_close(1 - torch.exp(-passed), seen.opacity, atol=2 * HIDDEN, rtol=0)


def test_a_ray_is_taken_whole_or_not_at_all(store):
    scene = scene_of(store, 1, theta_of(store, [1])[0])
    rays = draw_rays(scene, ~scene.cameras.held, 100, generator_of(0, 0))
    seen, _ = look_through(scene, RADIANCE, rays, SAMPLES)

    few, one, some = (
        first_rays(seen, rays, samples) for rays, samples in ((5, 10**6), (50, 1), (50, 100))
    )

    counts = np.diff(first_of(seen.samples, len(seen)))
    assert (len(few), len(few.points)) == (5, counts[:5].sum())
    assert (len(one), len(one.points)) == (1, counts[0])
    assert len(some.points) == counts[: len(some)].sum() <= 100
    assert counts[: len(some) + 1].sum() > 100


def test_rays_are_drawn_where_the_object_is_and_by_the_cameras_asked_for(store):
    scene = scene_of(store, 0, theta_of(store, [0])[0])
    held = scene.cameras.held

    near = draw_rays(scene, held, 300, generator_of(0, 0))
    anywhere = draw_rays(scene, held, 300, generator_of(0, 0), anywhere=True)

    def passing(rays):
        return len(march(rays, scene.grid, SAMPLES).ray.unique()) / 300

    assert passing(near) > 1.5 * passing(anywhere) > 0
    places = torch.from_numpy(scene.cameras.poses[held][:, :, 3])
    assert torch.cdist(near.origins, places).amin(1).max() < 1e-5


def test_who_says_what_the_stored_fields_say_has_no_loss_on_rays(store):
    rows, theta = np.arange(4), theta_of(store, range(4))
    asked = RayLesson(store, CONFIG).draw(rows, theta, generator_of(0, 1))
    clear = asked.clear.clone()
    right, fog = (stored_outputs(theta, asked.coords) for _ in range(2))
    along = asked.depths.shape[1]
    right[:, along:, 3] = -50  # in empty cells there is nothing
    fog[:, along:, 3] = 50  # there is a wall

    lesson = RayLesson(store, CONFIG)
    assert float(lesson.loss(right, asked)) < 1e-3
    assert float(lesson.loss(fog, asked)) == pytest.approx(0.2, abs=1e-3)  # means, not diluted
    assert float(clear.sum()) == pytest.approx(1)


def test_empty_points_are_empty_and_samples_are_not(store):
    rows, theta = np.arange(4), theta_of(store, range(4))

    asked = RayLesson(store, CONFIG).draw(rows, theta, generator_of(0, 1))

    along = asked.depths.shape[1]
    for number, row in enumerate(rows):
        grid = scene_of(store, int(row), theta[number]).grid
        real = asked.clear[number] > 0
        assert real.sum() == CONFIG.empty
        assert not occupied(asked.coords[number, along:][real], grid).any()
        inside = asked.steps[number] > 0
        assert occupied(asked.coords[number, :along][inside], grid).float().mean() > 0.7  # jitter
        assert inside.sum() <= CONFIG.step_samples


def test_every_object_has_a_background_of_its_own_that_is_seen_once(store):
    rows, theta = np.arange(4), theta_of(store, range(4))

    asked = RayLesson(store, CONFIG).draw(rows, theta, generator_of(0, 1))

    assert len(asked.behind.unique(dim=0)) == 4
    clear = stored_outputs(theta, asked.coords)
    clear[..., 3] = -50  # who sees nothing sees the background, at the share that was let through
    missed = (asked.behind - asked.wanted).abs().mean(1)
    found = RayLesson(store, CONFIG).loss(clear, asked)
    assert float(found) == pytest.approx(0.8 * float((missed * asked.shares).sum()), rel=1e-4)


def test_an_object_counts_the_same_however_many_rays_another_has(store):
    rows, theta = np.arange(4), theta_of(store, range(4))
    asked = RayLesson(store, CONFIG).draw(rows, theta, generator_of(0, 1))
    owner = asked.behind.unique(dim=0, return_inverse=True)[1]

    shares = torch.zeros(4).index_add(0, owner, asked.shares)

    torch.testing.assert_close(shares, torch.full((4,), 0.25))


def test_the_gradient_reaches_density_and_colours(store):
    rows, theta = np.arange(2), theta_of(store, range(2))
    lesson = RayLesson(store, CONFIG)
    asked = lesson.draw(rows, theta, generator_of(0, 1))
    outputs = torch.zeros(*asked.coords.shape[:2], 4, requires_grad=True)

    lesson.loss(outputs, asked).backward()

    assert (outputs.grad.abs().sum((0, 1)) > 0).all()
    # what only fills up the rectangle has no say
    along = asked.depths.shape[1]
    assert not outputs.grad[:, :along][asked.steps == 0].any()


def test_an_object_that_no_ray_meets_has_no_say(store):
    rows, theta = np.arange(2), theta_of(store, range(2))
    lesson = RayLesson(store, CONFIG)
    lesson.draw(rows, theta, generator_of(0, 1))
    grid, cameras = lesson._beside[0]
    lesson._beside[0] = torch.zeros_like(grid), cameras

    asked = lesson.draw(rows, theta, generator_of(0, 1))
    loss = lesson.loss(torch.zeros(*asked.coords.shape[:2], 4), asked)

    assert np.isfinite(float(loss))
