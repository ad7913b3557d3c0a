"""Read a shape of any kind, and say which kinds a field can be fitted to."""

from __future__ import annotations

from pathlib import Path

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import CLOUD_SUFFIXES, Cloud, cloud_of, load_cloud, points_of
from nf2vec_cli.shapes.mesh import SUFFIXES as MESH_SUFFIXES
from nf2vec_cli.shapes.mesh import CloudFile, load_mesh
from nf2vec_cli.shapes.numbers import read_arrays
from nf2vec_cli.shapes.reasons import reasons
from nf2vec_cli.shapes.transforms import PATTERN
from nf2vec_cli.shapes.voxels import VOXEL_SUFFIXES, Voxels, load_voxels, voxels_of
from nf2vec_cli.shapes.whole import whole

Shape = Mesh | Cloud | Voxels
# suffixes that are looked for, by kind of field
READABLE = {
    "sdf": MESH_SUFFIXES,
    "udf": tuple(dict.fromkeys(MESH_SUFFIXES + CLOUD_SUFFIXES)),
    "occ": tuple(dict.fromkeys(MESH_SUFFIXES + CLOUD_SUFFIXES + VOXEL_SUFFIXES)),
    # a folder of pictures, or a mesh, of which pictures are taken: `view_cache.views_of` reads both
    "nerf": (*MESH_SUFFIXES, PATTERN),
}
# what a kind of field cannot be fitted to, and why
UNFIT = {
    ("sdf", Cloud): "the file is a cloud, which has no inside: fit it with `--field udf`",
    ("sdf", Voxels): "the file is a voxel grid: fit it with `--field occ`",
    ("udf", Voxels): "the file is a voxel grid, which has no surface: fit it with `--field occ`",
}


def load_shape(path: Path, kind: str) -> Shape:
    """Read a mesh, a cloud or a voxel grid for a kind of field, by suffix and content.

    Raises:
        InputError: the file cannot be read as a shape, or not as one that this field is made of.
        OSError: it cannot be opened.
    """
    shape = _load(path)
    reason = UNFIT.get((kind, type(shape)))
    if reason:
        raise InputError(reason)
    return shape


def _load(path: Path) -> Shape:
    suffix = path.suffix.lower()
    if suffix == ".binvox":
        return load_voxels(path)
    if suffix in (".npy", ".npz"):
        return _from_arrays(path, suffix)
    if suffix not in MESH_SUFFIXES:
        return load_cloud(path)
    try:
        return load_mesh(path)
    except CloudFile as found:
        return load_cloud(path) if suffix == ".ply" else cloud_of(found.points)


def _from_arrays(path: Path, suffix: str) -> Shape:
    data = whole(path)
    with reasons(suffix):
        arrays = read_arrays(data, suffix)
        if any(array.ndim == 2 and array.shape[1] >= 3 for array in arrays.values()):
            return cloud_of(*points_of(arrays))
        return voxels_of(arrays)
