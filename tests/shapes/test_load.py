import numpy as np
import pytest
import trimesh
from files import written

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.discover import discover, with_copies
from nf2vec_cli.shapes.load import READABLE, load_shape
from nf2vec_cli.shapes.voxels import Voxels

POINTS = np.random.default_rng(0).normal(size=(30, 3))


@pytest.fixture
def files(tmp_path):
    """One file of every kind, some with a suffix that does not tell."""
    trimesh.creation.icosphere(1).export(tmp_path / "mesh.ply")
    trimesh.PointCloud(POINTS).export(tmp_path / "cloud.ply")
    lines = [f"v {x} {y} {z}" for x, y, z in POINTS]
    (tmp_path / "cloud.obj").write_text("\n".join(lines))
    np.savetxt(tmp_path / "cloud.xyz", POINTS)
    np.save(tmp_path / "cloud.npy", POINTS)
    grid = np.zeros((6, 6, 6), bool)
    grid[2:4] = True
    np.save(tmp_path / "grid.npy", grid)
    np.savez(tmp_path / "grid.npz", voxels=grid)
    return tmp_path


KINDS = {
    "mesh.ply": Mesh,
    "cloud.ply": Cloud,
    "cloud.obj": Cloud,
    "cloud.xyz": Cloud,
    "cloud.npy": Cloud,
    "grid.npy": Voxels,
    "grid.npz": Voxels,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_read_by_what_is_in_it(files, name):
    assert isinstance(load_shape(files / name, "occ"), KINDS[name])


@pytest.mark.parametrize("name", ["cloud.ply", "cloud.obj", "cloud.xyz", "cloud.npy"])
def test_a_cloud_has_no_inside(files, name):
    assert len(load_shape(files / name, "udf").points) == 30
    with pytest.raises(InputError, match="--field udf"):
        load_shape(files / name, "sdf")


@pytest.mark.parametrize("kind", ["sdf", "udf"])
def test_a_grid_is_for_occupancy(files, kind):
    with pytest.raises(InputError, match="--field occ"):
        load_shape(files / "grid.npy", kind)


def test_a_folder_gives_what_a_field_can_be_made_of(files):
    found = {
        kind: {ref.source for ref in discover(files, suffixes=READABLE[kind])}
        for kind in ("sdf", "udf", "occ")
    }

    assert found["sdf"] == {"mesh.ply", "cloud.ply", "cloud.obj"}
    assert found["udf"] == set(KINDS)
    assert found["occ"] == set(KINDS)


def test_copies_are_made_of_what_may_be_for_training(tmp_path):
    for place in ("a/train/x.ply", "a/test/y.ply", "a/val/z.ply", "b/w.ply"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()

    refs = with_copies(discover(tmp_path), 2)

    assert [(r.id, r.copy, r.parent) for r in refs if r.copy] == [
        ("a/train/x+1", 1, "a/train/x"),
        ("a/train/x+2", 2, "a/train/x"),
        ("b/w+1", 1, "b/w"),
        ("b/w+2", 2, "b/w"),
    ]
    assert len(refs) == 8
    assert all(r.split == "train" for r in refs if r.parent == "a/train/x")


def test_points_of_two_numbers_are_no_cloud(tmp_path):
    path = written(tmp_path, "flat.obj", "v 0 0\nv 1 0\nv 1 1\nv 0 1\nv 2 1\n")

    with pytest.raises(InputError, match=r"points are of the shape \(2,\), not three numbers"):
        load_shape(path, "udf")
