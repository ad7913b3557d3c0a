"""The authors' HDF5 files, and those of fit-a-nef."""

import sys

import numpy as np
import pytest
import torch
from strangers import (
    SPEC,
    authors_h5,
    authors_mesh,
    ball_cloud,
    fit_a_nef,
    kernels,
    near,
    start,
)

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.core.mlp import tiled_values
from nf2vec_cli.errors import InputError, UsageFault
from nf2vec_cli.foreign import fit_a_nef as fit_a_nef_reader
from nf2vec_cli.foreign import nf2vec_h5
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.shapes.discover import ShapeRef

pytest.importorskip("h5py")


def ref_of(path):
    return ShapeRef(path.stem, str(path), path.name)


def test_weights_class_and_cloud(tmp_path):
    path = authors_h5(tmp_path / "0.h5", near(start(), 1), 7, pcd=ball_cloud())

    found = nf2vec_h5.read(ref_of(path), ImportConfig())

    assert np.array_equal(found.theta, near(start(), 1))
    assert (found.spec, found.class_name) == (SPEC, "7")
    assert np.array_equal(found.cloud, ball_cloud())


def test_the_zeros_that_fill_a_mesh_up_are_cut_off(tmp_path):
    path = authors_h5(tmp_path / "0.h5", start(), **authors_mesh())

    vertices, faces = nf2vec_h5.read(ref_of(path), ImportConfig()).mesh

    assert np.allclose(np.linalg.norm(vertices, axis=1), 0.5, atol=1e-6)
    assert len(np.unique(faces)) == len(vertices)


def test_the_paper_s_sizes_follow_from_the_number_of_weights():
    theta = np.zeros(790_529, np.float32)

    shapes = [weight.shape for weight, _ in nf2vec_h5.layers_of(theta, 4)]

    assert shapes == [(512, 3), (512, 512), (512, 512), (512, 512), (1, 512)]


def test_a_pair_gives_the_one_that_is_asked_for(tmp_path):
    arrays = {"params_incomplete": near(start(), 2), "complete": ball_cloud(), "category": 3}
    path = authors_h5(tmp_path / "0.h5", near(start(), 1), params="params_complete", **arrays)

    found = nf2vec_h5.read(ref_of(path), ImportConfig(), params="params_complete")

    assert np.array_equal(found.theta, near(start(), 1))
    assert np.array_equal(found.cloud, ball_cloud())


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"theta": np.zeros(3_328, "f4")}, "3,328 weights are no network"),
        ({"theta": np.zeros(3_329, "S1")}, "'params' holds no numbers"),
        ({"theta": start(), "pcd": np.zeros((5, 2))}, r"'pcd' has the shape \(5, 2\)"),
        (
            {"theta": start(), "vertices": np.eye(3), "triangles": np.full((1, 3), 9.0)},
            "triangles name vertices that are not there",
        ),
    ],
)
def test_other_arrays_are_refused_with_the_reason(tmp_path, arrays, reason):
    path = authors_h5(tmp_path / "0.h5", **arrays)

    with pytest.raises(InputError, match=reason):
        nf2vec_h5.read(ref_of(path), ImportConfig())


def test_a_file_that_is_cut_short_is_damaged(tmp_path):
    path = authors_h5(tmp_path / "0.h5", start())
    path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(InputError, match="damaged"):
        nf2vec_h5.read(ref_of(path), ImportConfig())


def test_a_group_in_the_place_of_an_array_is_told(tmp_path):
    import h5py

    path = authors_h5(tmp_path / "0.h5", near(start(), 1))
    with h5py.File(path, "a") as opened:
        del opened["class_id"]
        opened.create_group("class_id")
    assert nf2vec_h5.read(ref_of(path), ImportConfig()).class_name == ""
    with h5py.File(path, "a") as opened:
        del opened["params"]
        opened.create_group("params")
        opened.create_group("param_config")
    with pytest.raises(InputError, match="no array 'params'"):
        nf2vec_h5.read(ref_of(path), ImportConfig())
    with pytest.raises(InputError, match="no array 'params'"):
        list(fit_a_nef_reader.expand(ref_of(path)))
    with h5py.File(path, "a") as opened:
        del opened["params"]
        opened["params"] = np.zeros((1, 4), "f4")
    (ref,) = fit_a_nef_reader.expand(ref_of(path))
    with pytest.raises(InputError, match="'param_config' is no list"):
        fit_a_nef_reader.read(ref, ImportConfig())


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    path = authors_h5(tmp_path / "0.h5", start())
    monkeypatch.setitem(sys.modules, "h5py", None)

    with pytest.raises(UsageFault) as caught:
        nf2vec_h5.read(ref_of(path), ImportConfig())

    assert "nf2vec[h5]" in caught.value.hint


def test_fit_a_nef_s_rows_say_what_its_network_says(tmp_path):
    fields = [kernels((3, 16, 16, 1), seed) for seed in range(3)]
    path = tmp_path / "nefs_0-3.hdf5"
    fit_a_nef(path, fields, [4, 5, 6], omega=8.0)

    refs = list(fit_a_nef_reader.expand(ref_of(path)))
    found = fit_a_nef_reader.read(refs[1], ImportConfig())

    assert [ref.id for ref in refs] == ["nefs_0-3/0", "nefs_0-3/1", "nefs_0-3/2"]
    assert (found.class_name, found.spec) == ("5", NetworkSpec(hidden=16, layers=2, omega=8.0))
    points = torch.rand(100, 3) - 0.5
    h = points
    for kernel, bias in fields[1][:-1]:
        h = torch.sin(8 * (h @ torch.from_numpy(kernel) + torch.from_numpy(bias)))
    wanted = h @ torch.from_numpy(fields[1][-1][0]) + torch.from_numpy(fields[1][-1][1])
    got = tiled_values(torch.from_numpy(found.theta), points, found.spec)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_other_networks_of_fit_a_nef_are_refused(tmp_path):
    import h5py

    path = tmp_path / "nefs_0-1.hdf5"
    with h5py.File(path, "w") as opened:
        opened["params"] = np.zeros((1, 4), "f4")
        opened["param_config"] = ['[["filter_0.kernel", [2, 2]]]']

    (ref,) = fit_a_nef_reader.expand(ref_of(path))
    with pytest.raises(InputError, match=r"'filter_0\.kernel' is no part of a SIREN"):
        fit_a_nef_reader.read(ref, ImportConfig())
