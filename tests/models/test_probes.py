import pytest
import torch

from nf2vec_cli.core.mlp import field_values_twin
from nf2vec_cli.models import probes
from nf2vec_cli.models.network import NetworkSpec, siren_init
from nf2vec_cli.models.probes import (
    HISTOGRAM,
    WAYS,
    field_outputs,
    lattice,
    moved,
    read_field,
    slope_histogram,
)

SPEC = NetworkSpec(hidden=16, layers=3)


def plane(side, normal):
    return (lattice(side) @ torch.tensor(normal, dtype=torch.float32))[None]


def test_the_lattice_is_the_middles_of_cells_x_slowest():
    points = lattice(4)

    assert points.shape == (64, 3)
    assert points[0].tolist() == [-0.75, -0.75, -0.75]
    assert points[1].tolist() == [-0.75, -0.75, -0.25]
    assert points[16].tolist() == [-0.25, -0.75, -0.75]


def test_a_field_is_read_where_it_is_evaluated():
    theta = siren_init(SPEC, seed=0) + 0.01 * torch.randn(3, SPEC.parameters)

    found = read_field(theta, SPEC, 6)

    raw = field_outputs(theta[1:2], lattice(6)[None], SPEC)[0]
    assert found.shape == (3, 216)
    torch.testing.assert_close(found[1], raw.sigmoid())


def test_kernels_read_as_many_fields_at_once_as_memory_allows(monkeypatch):
    theta = siren_init(SPEC, seed=0) + 0.01 * torch.randn(5, SPEC.parameters)
    coords = lattice(4).expand(5, -1, -1)
    wanted = field_outputs(theta, coords, SPEC)
    read = []

    def values(theta, coords, spec):
        read.append(len(theta))
        return field_values_twin(theta, coords, spec)

    monkeypatch.setattr(probes, "kernels_serve", lambda _: True)
    monkeypatch.setattr(probes, "field_values", values)
    monkeypatch.setattr(probes, "LAYER_BYTES", 2 * 64 * 16 * 4 + 1)

    found = field_outputs(theta, coords, SPEC)

    assert read == [2, 2, 1]
    torch.testing.assert_close(found, wanted)


def test_moved_points_stay_in_the_cube_each_move_its_own():
    points = lattice(6)

    found = moved(points, 50, torch.Generator().manual_seed(0))

    assert found.shape == (50, 216, 3)
    assert found.abs().max() <= 1
    assert (found[0] - found[1]).abs().mean() > 0.01
    inner = points.norm(dim=1) < 0.6
    ratio = found[:, inner].norm(dim=2) / points[inner].norm(dim=1)
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert ratio.std() > 0.05
    torch.testing.assert_close(found, moved(points, 50, torch.Generator().manual_seed(0)))


def test_a_field_can_be_read_as_if_its_object_were_moved():
    theta = siren_init(SPEC, seed=0).expand(2, -1)

    found = read_field(theta, SPEC, 6, torch.Generator().manual_seed(3))

    points = moved(lattice(6), 2, torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, field_outputs(theta, points, SPEC).sigmoid())


@pytest.mark.parametrize("side", [7, 11, 15])
def test_a_plane_rises_along_its_normal_everywhere(side):
    found = slope_histogram(plane(side, (0, 2, 0)), side).view(len(WAYS), -1)

    assert found.numel() == HISTOGRAM
    best = found.square().sum(1).argmax()
    assert WAYS[int(best)] == (0, 1, 0)
    against = [number for number, way in enumerate(WAYS) if way[1] <= 0]
    assert not found[against].any()
    # the difference across a point is four half-spacings times the slope; the middle cell is full
    middle = found[int(best)][found.shape[1] // 2]
    assert float(middle) == pytest.approx((2 * (4 / side)) ** 0.5, rel=1e-4)


def test_a_turned_field_turns_its_histogram():
    torch.manual_seed(0)
    field = torch.rand(1, 15, 15, 15)

    def histogram(values):
        return slope_histogram(values.reshape(1, -1), 15).view(len(WAYS), 5, 5, 5)

    there = histogram(field.flip(1))

    mirrored = [WAYS.index((-x, y, z)) for x, y, z in WAYS]
    torch.testing.assert_close(there, histogram(field)[mirrored].flip(1))


def test_quick_products_leave_the_settings_of_the_process_alone():
    before = torch.get_float32_matmul_precision()

    read_field(siren_init(SPEC, seed=0)[None], SPEC, 7)

    assert torch.get_float32_matmul_precision() == before


def test_quick_products_are_of_single_precision_on_any_cpu():
    spec = NetworkSpec(hidden=128, layers=3)
    theta = siren_init(spec, seed=0)[None]

    found = read_field(theta, spec, 9)

    exact = field_outputs(theta.double(), lattice(9)[None].double(), spec)[0].sigmoid()
    assert (found[0] - exact).abs().max() < 1e-5
