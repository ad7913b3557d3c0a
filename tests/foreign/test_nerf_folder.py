"""The authors' folders of radiance."""

import numpy as np
import pytest
import torch
from strangers import NERF, near, nerf_folder

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.foreign import nerf_folder as reader
from nf2vec_cli.foreign.write_field import Outgoing
from nf2vec_cli.foreign.write_folder import folder_files
from nf2vec_cli.models.network import radiance_init
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.tasks.radiance_field import RadianceField

THETA = near(radiance_init(NERF, seed=0).numpy(), 1, by=0.05)


def read(folder, **net):
    return reader.read(
        ShapeRef("a", str(folder / "nerf_weights.pth"), "a/nerf_weights.pth"), ImportConfig(**net)
    )


def test_weights_grid_and_cameras(tmp_path):
    grid = nerf_folder(tmp_path / "a", THETA)

    found = read(tmp_path / "a")

    assert (found.spec, found.official, found.kind) == (NERF, True, "nerf")
    assert np.array_equal(found.theta, THETA)
    assert np.array_equal(found.grid, grid)
    assert found.transform == (0, 0, 0, 0.7)
    assert found.views.focal == pytest.approx([245.0])  # their 224 pixels
    assert found.views.poses[0, :, 3] == pytest.approx([0, 0, 2.0])  # 1.4 in a cube of 0.7


def test_rows_that_nothing_reads_tell_another_start(tmp_path):
    nerf_folder(tmp_path / "a", THETA, unused=np.zeros(12 * 64))

    assert not read(tmp_path / "a").official


def test_light_is_swallowed_as_in_the_authors_units(tmp_path):
    nerf_folder(tmp_path / "a", THETA)
    found = read(tmp_path / "a")
    field = RadianceField(found.theta, found.spec, found.grid, 1024)
    # their u = (x + 0.7) / 1.4; in steps that floats hold, since octave 23 shows any rounding
    u = torch.randint(1, 256, (50, 3)).double() / 256

    colour, density = field.at((2 * u - 1).float())

    angles = 2.0 ** torch.arange(24).double() * torch.pi * u[:, :, None]
    h = torch.stack([angles.sin(), angles.cos()], -1).reshape(50, 144)
    at = 0
    for out, into in NERF.shapes:
        matrix = torch.from_numpy(THETA[at : at + out * into].reshape(out, into)).double()
        h = (h if at == 0 else h.relu()) @ matrix.T
        at += out * into
    # the step along a ray is 1 / 0.7 as long in unit space
    assert torch.allclose(density.double() / 0.7, (h[:, 3] - 1).exp(), rtol=1e-4)
    assert torch.allclose(colour.double(), h[:, :3].sigmoid(), atol=1e-4)


def test_what_is_written_is_what_was_read_bit_by_bit(tmp_path):
    nerf_folder(tmp_path / "a", THETA)
    found = read(tmp_path / "a")
    cameras = np.zeros((1, 16), np.float32)
    cameras[0, :12] = found.views.poses[0].reshape(-1)
    cameras[0, 12:] = (245.0, 224, 224, 1)
    field = Outgoing(
        "a", "", -1, "", "nerf", found.theta, NERF, "", found.transform, None, found.grid, cameras
    )

    (tmp_path / "b").mkdir()
    for name, data in folder_files(field).items():
        (tmp_path / "b" / name).write_bytes(data)

    flat = [
        torch.load(tmp_path / where / "nerf_weights.pth", weights_only=True)["mlp_base.params"]
        for where in "ab"
    ]
    assert torch.equal(*flat)
    again = read(tmp_path / "b")
    assert np.array_equal(again.grid, found.grid)
    assert np.allclose(again.views.poses, found.views.poses, atol=1e-6)
    assert again.views.focal == pytest.approx(found.views.focal)


@pytest.mark.parametrize(
    ("loaded", "reason"),
    [
        ({"mlp_base.params": torch.zeros(17_664)}, "has 17,664 numbers"),
        ({"mlp_base.params": torch.zeros(18_432), "more": torch.zeros(1)}, "alone is expected"),
        ([1, 2], "it holds list"),
    ],
)
def test_other_weights_are_refused(tmp_path, loaded, reason):
    nerf_folder(tmp_path / "a", THETA)
    torch.save(loaded, tmp_path / "a" / "nerf_weights.pth")

    with pytest.raises(InputError, match=reason):
        read(tmp_path / "a")
