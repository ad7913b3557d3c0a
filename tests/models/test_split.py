import pytest
import torch

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.network import radiance_init, radiance_spec, split_theta

SPEC = radiance_spec(hidden=16, layers=3, octaves=3, biases=False)
CONFIG = TrainConfig(
    **{"encoder_arch": "split", "embedding": 24, "components": 6, "probes": 7},
    **{"tail": 16, "hidden": 16, "octaves": 3, "noise": 0},
)


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = AutoEncoder(SPEC, CONFIG).eval()
    init = radiance_init(SPEC, seed=0)
    theta = init + 0.05 * torch.randn(12, len(init))
    module.encoder.fit_projection(theta, init)
    return module, theta


def painted(theta):
    """The same densities in other colours: only the rows of red, green and blue are changed."""
    other = theta.clone()
    weights, _ = split_theta(other, SPEC)
    weights[-1][:, :3] *= -3
    return other


def test_paint_changes_appearance_and_not_geometry(module):
    module, theta = module
    parts = CONFIG.parts

    before, after = module.encoder(theta), module.encoder(painted(theta))

    assert torch.equal(before[:, parts["geometry"]], after[:, parts["geometry"]])
    away = (before - after)[:, parts["appearance"]].norm(dim=1)
    assert (away > 0.5).all()


def test_density_comes_from_geometry_alone(module):
    module, theta = module
    z = module.encoder(theta[:2])
    mixed = z.clone()
    mixed[:, CONFIG.parts["appearance"]] = z.flip(0)[:, CONFIG.parts["appearance"]]
    coords = torch.rand(2, 50, 3) * 2 - 1

    own, other = module.decoder(z, coords), module.decoder(mixed, coords)

    assert torch.equal(own[..., 3], other[..., 3])
    assert (own[..., :3] - other[..., :3]).abs().amax() > 1e-4
    shaped = z.clone()
    shaped[:, CONFIG.parts["geometry"]] = z.flip(0)[:, CONFIG.parts["geometry"]]
    assert (module.decoder(shaped, coords)[..., 3] - own[..., 3]).abs().amax() > 1e-4


def test_the_parts_make_up_the_embedding(module):
    module, theta = module
    geometry, appearance = (CONFIG.parts[name] for name in ("geometry", "appearance"))

    z = module.encoder(theta)

    assert z.shape == (12, 24)
    assert (geometry.start, geometry.stop, appearance.start, appearance.stop) == (0, 12, 12, 24)
    lengths = [z[:, start : start + 6].norm(dim=1) for start in (0, 12)]
    for length in lengths:
        torch.testing.assert_close(length, torch.full((12,), 6**0.5))


@pytest.mark.parametrize("wrong", [{"embedding": 12}, {"embedding": 25}, {"probes": 0}])
def test_settings_that_leave_no_room_are_refused(wrong):
    with pytest.raises(ValueError, match="half"):
        TrainConfig(**(CONFIG.model_dump() | wrong))
