import contextlib
import io
import struct

import numpy as np
import pytest
import trimesh
from files import npy, npz, written
from hypothesis import given
from hypothesis import strategies as st

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.cloud import load_cloud
from nf2vec_cli.shapes.pcd import unpack_lzf

POINTS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)


def text(table, mark=" "):
    return "\n".join(mark.join(f"{n:.9g}" for n in row) for row in table) + "\n"


def pack_lzf(data):
    """Pack without packing: runs of bytes as they are."""
    runs = [data[i : i + 32] for i in range(0, len(data), 32)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def pcd(kind, fields="x y z", table=POINTS, points=None):
    count = len(fields.split())
    header = (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {'4 ' * count}\nTYPE {'F ' * count}\n"
        f"COUNT {'1 ' * count}\nWIDTH {len(table)}\nHEIGHT 1\nPOINTS {points or len(table)}\n"
        f"DATA {kind}\n"
    ).encode()
    rows = np.asarray(table, "<f4")
    if kind == "ascii":
        return header + text(table).encode()
    if kind == "binary":
        return header + rows.tobytes()
    plain = rows.T.tobytes()
    packed = pack_lzf(plain)
    return header + struct.pack("<II", len(packed), len(plain)) + packed


def ply(kind="binary"):
    return trimesh.PointCloud(POINTS).export(file_type="ply", encoding=kind)


BOTH = np.concatenate([POINTS, NORMALS], axis=1)
GOOD = {
    "a.xyz": text(POINTS),
    "tabs.xyz": "# scan\n" + text(POINTS, "\t"),
    "commas.xyz": "x,y,z\n" + text(POINTS, ","),
    "semicolons.pts": "// from a scanner\n" + text(POINTS, ";"),
    "count.pts": f"{len(POINTS)}\n" + text(POINTS),
    "colours.xyz": text(np.concatenate([POINTS, np.full((50, 4), 255)], axis=1)),
    "a.npy": npy(POINTS),
    "doubles.npy": npy(POINTS.astype(float)),
    "fortran.npy": npy(np.asfortranarray(POINTS)),
    "wide.npy": npy(np.concatenate([POINTS, POINTS[:, :1]], axis=1)),
    "a.npz": npz(points=POINTS, labels=np.zeros(50)),
    "any_name.npz": npz(what=POINTS),
    "ascii.pcd": pcd("ascii"),
    "binary.pcd": pcd("binary"),
    "packed.pcd": pcd("binary_compressed"),
    "binary.ply": ply(),
    "ascii.ply": ply("ascii"),
    "name with späces.xyz": text(POINTS),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_format_gives_the_points(tmp_path, name):
    cloud = load_cloud(written(tmp_path, name, GOOD[name]))

    np.testing.assert_allclose(cloud.points, POINTS, rtol=1e-5, atol=1e-6)
    assert cloud.points.dtype == np.float64
    assert cloud.normals is None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.xyz", text(BOTH)),
        ("a.npy", npy(BOTH)),
        ("a.npz", npz(points=POINTS, normals=2 * NORMALS)),
        ("a.pcd", pcd("binary", "x y z normal_x normal_y normal_z", BOTH)),
        ("b.pcd", pcd("ascii", "x y z normal_x normal_y normal_z", BOTH)),
    ],
)
def test_normals_come_along(tmp_path, name, data):
    cloud = load_cloud(written(tmp_path, name, data))

    np.testing.assert_allclose(cloud.normals, NORMALS, rtol=1e-4, atol=1e-5)


def test_rows_that_are_not_finite_and_doubled_points_are_dropped_and_counted(tmp_path):
    dirty = np.concatenate([POINTS, POINTS[:7], np.full((3, 3), np.nan), [[np.inf, 0, 0]]])

    cloud = load_cloud(written(tmp_path, "a.npy", npy(dirty.astype(np.float32))))

    np.testing.assert_array_equal(cloud.points, POINTS.astype(float))
    assert "4 points that are not finite dropped" in cloud.notes
    assert "7 doubled points dropped" in cloud.notes


def test_normals_without_a_direction_are_left_out(tmp_path):
    flat = np.concatenate([POINTS, np.zeros_like(POINTS)], axis=1)

    cloud = load_cloud(written(tmp_path, "a.npy", npy(flat)))

    assert cloud.normals is None
    assert "normals without a direction left out" in cloud.notes


lying = npy(np.zeros((10, 3)))
lying = lying.replace(b"(10, 3)", b"(10000000000, 3)")[: len(lying)]
PICKLED = io.BytesIO()
np.save(PICKLED, np.array([{"a": 1}] * 4, object), allow_pickle=True)
BAD = {
    "empty.xyz": ("", "empty"),
    "comments.xyz": ("# nothing\n", "no points"),
    "one.xyz": ("0 0 0\n", "1 distinct point of 1"),
    "same.xyz": ("1 2 3\n" * 20, "1 distinct point of 20"),
    "nan.xyz": ("nan nan nan\n" * 20, "0 distinct points of 20"),
    "words.xyz": ("1 2 3\na b c\n", "no text of numbers"),
    "ragged.xyz": ("1 2 3\n4 5\n", "not all the same"),
    "two.xyz": ("1 2\n3 4\n", "fewer than three|no points"),
    "bytes.xyz": (b"\xff\xfe\x00\x81", "UTF-8"),
    "huge.xyz": ("1e300 0 0\n-1e300 1 1\n0 2 2\n1 1 5\n", "beyond what numbers can hold"),
    "cut.npy": (npy(POINTS)[:-40], "cut short"),
    "noise.npy": (b"nothing like it", "NPY"),
    "objects.npy": (PICKLED.getvalue(), "Python objects"),
    "strings.npy": (npy(np.array([["a", "b", "c"]] * 5)), "not numbers"),
    "flat.npy": (npy(np.zeros(30)), "no array of points"),
    "cut.npz": (npz(points=POINTS)[:-60], "NPZ"),
    "none.npz": (npz(labels=np.zeros(5)), "no array of points"),
    "cut.pcd": (pcd("binary")[:-20], "cut short"),
    "cut_text.pcd": (pcd("ascii", points=60), "60 points promised, 50 there"),
    "no_data.pcd": (b"VERSION 0.7\nFIELDS x y z\n", "no DATA line"),
    "no_x.pcd": (pcd("binary", "a b c"), "no x, y and z"),
    "packed.pcd": (pcd("binary_compressed")[:-5], "do not fit"),
    "empty.npz": (npz(points=np.zeros((0, 3))), "no points"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_clouds_are_refused_with_a_reason(tmp_path, name):
    data, reason = BAD[name]

    with pytest.raises(InputError, match=reason):
        load_cloud(written(tmp_path, name, data))


def test_a_header_that_promises_too_much_costs_nothing(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (900000000000, 3), }"
    header += b" " * (117 - len(header)) + b"\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 80

    with pytest.raises(InputError, match="cut short"):
        load_cloud(written(tmp_path, "lying.npy", data))


@given(st.binary(max_size=400))
def test_lzf_gives_back_what_was_packed(data):
    assert unpack_lzf(pack_lzf(data), len(data)) == data


def test_lzf_copies_may_reach_into_themselves():
    # "ab", then 7 bytes from 2 back: length 7 = 5 + 2 in the control byte's upper bits
    packed = bytes([1]) + b"ab" + bytes([(5 << 5) | 0, 1])

    assert unpack_lzf(packed, 9) == b"ababababa"


@given(st.binary(min_size=1, max_size=60))
def test_corrupt_lzf_is_an_input_error_and_nothing_else(data):
    with contextlib.suppress(InputError):
        assert len(unpack_lzf(data, 50)) == 50
