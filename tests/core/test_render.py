import numpy as np
import pytest
import torch

from nf2vec_cli.core.march import DIAGONAL, Rays, at_cells, march, occupied
from nf2vec_cli.core.render import camera_rays, cell_densities, render

WHITE = torch.ones(3)


def ball(side, radius=0.6):
    along = (torch.arange(side) + 0.5) * (2 / side) - 1
    x, y, z = torch.meshgrid(along, along, along, indexing="ij")
    return (x**2 + y**2 + z**2).sqrt() < radius


def some_rays(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1) * 3
    towards = torch.rand(count, 3, generator=generator) * 2 - 1
    return Rays(origins, torch.nn.functional.normalize(towards - origins, dim=1))


def test_a_camera_looks_along_minus_z_with_y_up_and_rows_downward():
    pose = torch.eye(4)[None, :3]

    rays = camera_rays(pose, torch.tensor([10.0]), width=4, height=2)

    first, last = rays.directions[0], rays.directions[-1]
    np.testing.assert_allclose(first / -first[2], [-0.15, 0.05, -1], atol=1e-6)
    np.testing.assert_allclose(last / -last[2], [0.15, -0.05, -1], atol=1e-6)
    assert len(rays) == 8


def test_samples_are_those_of_the_lattice_that_lie_in_occupied_cells():
    grid, rays, count = ball(16), some_rays(200), 64

    found = march(rays, grid, count)

    # every point of every ray's lattice, one by one
    step = DIAGONAL / count
    wanted = []
    for ray in range(len(rays)):
        near = found.near[ray]
        for place in range(count + 1):
            point = rays.origins[ray] + rays.directions[ray] * (near + (place + 0.5) * step)
            if (point.abs() < 1).all() and occupied(point[None], grid)[0]:
                wanted.append((ray, place))
    assert list(zip(found.ray.tolist(), found.place.tolist(), strict=True)) == wanted
    assert len(wanted) > 1_000


def test_an_empty_grid_and_rays_that_miss_have_no_samples():
    rays = some_rays(5)
    away = Rays(rays.origins, -rays.directions)

    assert not len(march(rays, torch.zeros(8, 8, 8, dtype=torch.bool), 32).ray)
    assert not len(march(away, ball(8), 32).ray)
    seen = render(_red, away, ball(8), samples=32, background=WHITE)
    assert torch.equal(seen.colour, torch.ones(5, 3))
    assert not seen.opacity.any()


def test_a_ray_along_an_axis_passes_the_cube():
    ray = Rays(torch.tensor([[0.1, 0.1, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]]))
    grid = torch.ones(8, 8, 8, dtype=torch.bool)

    found = march(ray, grid, 64)

    assert found.near.item() == pytest.approx(2)
    assert len(found.ray) == round(2 / (DIAGONAL / 64))


def test_a_ray_through_even_fog_loses_light_by_the_law_of_beer_and_lambert():
    ray = Rays(torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]]))
    grid = torch.ones(8, 8, 8, dtype=torch.bool)

    seen = render(_red, ray, grid, samples=1_024, background=torch.zeros(3))

    assert seen.opacity.item() == pytest.approx(1 - np.exp(-2 * 0.7), rel=2e-3)
    assert seen.colour[0].tolist() == pytest.approx([seen.opacity.item(), 0, 0], abs=1e-6)


def test_depth_is_the_distance_of_what_is_seen():
    ray = Rays(torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]]))

    def wall(points):
        return torch.zeros_like(points), (points[:, 2] < 0.2) * 1e4

    seen = render(wall, ray, torch.ones(8, 8, 8, dtype=torch.bool), samples=512, background=WHITE)

    assert seen.depth.item() == pytest.approx(2.8, abs=DIAGONAL / 512)


@pytest.mark.parametrize("side", [8, 16])
def test_cells_know_their_lowest_and_highest_density(side):
    among = ball(side, 0.9)

    low, high = cell_densities(lambda points: points[:, 0] + 2, among)

    corner = torch.arange(side) * (2 / side) - 1
    inside = among.nonzero()
    np.testing.assert_allclose(low[among], corner[inside[:, 0]] + 0.2 * 2 / side + 2, rtol=1e-5)
    np.testing.assert_allclose(high[among], corner[inside[:, 0]] + 0.8 * 2 / side + 2, rtol=1e-5)
    assert not low[~among].any()
    assert not high[~among].any()


def test_points_find_their_cells():
    grid = torch.arange(27.0).view(3, 3, 3)
    points = torch.tensor([[-0.9, -0.9, 0.9], [0.0, 0.5, -0.5], [2.0, 2.0, 2.0]])

    assert at_cells(points, grid).tolist() == [2, 15, 26]
    assert not occupied(points, grid > -1)[2]


def _red(points):
    colour = torch.zeros_like(points)
    colour[:, 0] = 1
    return colour, torch.full((len(points),), 0.7)


def test_grids_are_packed_as_stores_keep_them():
    from nf2vec_cli.core.march import pack_bits, unpack_bits
    from nf2vec_cli.store.radiance import pack_grid

    grids = torch.rand(2, 6, 6, 6) < 0.4

    packed = pack_bits(grids)

    assert np.array_equal(packed.numpy(), np.stack([pack_grid(one.numpy()) for one in grids]))
    assert torch.equal(unpack_bits(packed, 6), grids)
