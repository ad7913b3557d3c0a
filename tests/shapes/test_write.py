import numpy as np
import pytest
import trimesh

from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.write import write_shape

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
COLOURS = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 250], [128, 128, 128]], np.uint8)


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_colours_of_vertices_come_back(tmp_path, suffix):
    file = tmp_path / f"mesh.{suffix}"

    write_shape(Mesh(VERTICES, FACES, True, ()), file, colours=COLOURS)

    mesh = trimesh.load_mesh(file, process=False)
    order = [int(np.abs(mesh.vertices - v).sum(1).argmin()) for v in VERTICES]
    found = np.asarray(mesh.visual.vertex_colors)[order, :3]
    if suffix == "glb":  # linear light: half of sRGB's range is a fifth of the light
        assert found[3].tolist() == [55, 55, 55]
        assert found[0].tolist() == [255, 0, 0]
    else:
        assert found.tolist() == COLOURS.tolist()


def test_the_pictures_of_a_glb_have_the_colours_that_were_written(tmp_path):
    from nf2vec_cli.shapes.paint import load_painted

    file = tmp_path / "mesh.glb"
    write_shape(Mesh(VERTICES, FACES, True, ()), file, colours=COLOURS)

    painted = load_painted(file)

    seen = np.unique((painted.colours.reshape(-1, 3) * 255).round().astype(int), axis=0)
    for colour in COLOURS.astype(int):
        assert np.abs(seen - colour).max(1).min() <= 6  # bytes of linear light are coarse when dark


@pytest.mark.parametrize("suffix", ["stl", "off"])
def test_file_types_without_colours_are_written_without(tmp_path, suffix):
    file = tmp_path / f"mesh.{suffix}"

    write_shape(Mesh(VERTICES, FACES, True, ()), file, colours=COLOURS)

    assert len(trimesh.load_mesh(file).faces) == 4


def test_points_keep_their_colours(tmp_path):
    cloud = Cloud(VERTICES, None, ())

    write_shape(cloud, tmp_path / "c.ply", colours=COLOURS)
    write_shape(cloud, tmp_path / "c.npz", colours=COLOURS)
    write_shape(cloud, tmp_path / "c.xyz", colours=COLOURS)

    read = trimesh.load(tmp_path / "c.ply")
    assert np.asarray(read.colors)[:, :3].tolist() == COLOURS.tolist()
    with np.load(tmp_path / "c.npz") as arrays:
        assert arrays["colours"].tolist() == COLOURS.tolist()
    assert np.loadtxt(tmp_path / "c.xyz").shape == (4, 3)
