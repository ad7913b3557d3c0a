import torch
from torch import Tensor, nn

from nf2vec_cli.core.march import Rays
from nf2vec_cli.tasks.decoded_radiance import DecodedRadiance


class Ball(nn.Module):
    """A red ball of radius 0.4 around z, as a decoder would say it; counts what it is asked."""

    asked = 0

    def forward(self, z: Tensor, coords: Tensor) -> Tensor:
        self.asked += coords.shape[1]
        inside = (coords - z[:, None]).norm(dim=-1) < 0.4
        colour = torch.tensor([9.0, -9, -9]).expand(*coords.shape)
        return torch.cat([colour, torch.where(inside, 8.0, -20.0)[..., None]], -1)


def rays_to(points: list[list[float]]) -> Rays:
    """Rays along -z that pass the given x and y."""
    origins = torch.tensor([[x, y, 3.0] for x, y in points])
    return Rays(origins, torch.tensor([[0.0, 0, -1]]).expand_as(origins))


def test_a_picture_shows_the_object_on_the_background():
    field = DecodedRadiance(Ball(), torch.tensor([0.3, 0, 0]), samples=200, cells=24)

    seen = field.render(rays_to([[0.3, 0.1], [-0.3, 0]]), background=(0.0, 1, 0))

    assert torch.allclose(seen.colour, torch.tensor([[1.0, 0, 0], [0, 1, 0]]), atol=1e-3)
    assert torch.allclose(seen.opacity, torch.tensor([1.0, 0]), atol=1e-3)
    assert abs(float(seen.depth[0]) - (3 - 0.15**0.5)) < 0.03  # where the ray enters the ball


def test_the_grid_covers_the_object_and_one_cell_more():
    field = DecodedRadiance(Ball(), torch.zeros(3), samples=200, cells=20)
    middles = (torch.arange(20) + 0.5) / 10 - 1
    radius = torch.cartesian_prod(middles, middles, middles).norm(dim=1).view(20, 20, 20)

    assert field.grid[radius < 0.4].all()
    assert not field.grid[radius > 0.4 + 3**0.5 * 0.1].any()
    assert field.grid[5, 10, 10]  # its middle is outside, its neighbour's inside
    assert not field.grid[4, 10, 10]


def test_the_grid_is_found_once_and_a_ray_beside_it_asks_nothing():
    ball = Ball()
    field = DecodedRadiance(ball, torch.zeros(3), samples=200, cells=20)

    field.render(rays_to([[0.9, 0.9]]))
    first = ball.asked
    field.render(rays_to([[0.9, 0.9]]))

    assert (first, ball.asked) == (20**3, 20**3)


def test_asking_takes_any_number_of_points():
    field = DecodedRadiance(Ball(), torch.zeros(3), samples=200, cells=20)
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1

    colours, density = field.at(points)

    assert colours.shape == (5000, 3)
    assert (density[points.norm(dim=1) < 0.4] > 1000).all()
    assert (density[points.norm(dim=1) >= 0.4] < 1e-6).all()
    assert field.at(points[:0])[1].shape == (0,)
