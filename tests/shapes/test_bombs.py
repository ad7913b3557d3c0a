"""Small files that promise or unpack to more than a machine holds: refused, quickly, in 1 GiB."""

import json
import struct
import subprocess
import sys
import zlib
from base64 import b64encode
from io import BytesIO

import numpy as np
import trimesh

PLENTY = 10**12
ROOM = 2 << 30  # bytes of address space; what is imported takes half of it
READ = """
import resource, sys, time
from pathlib import Path
from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.load import load_shape
from nf2vec_cli.tasks.memory import peak_memory
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
for path in sorted(Path(sys.argv[2]).iterdir()):
    began = time.process_time()
    try:
        if path.is_dir():
            from nf2vec_cli.shapes.views import load_views
            load_views(path)
        else:
            load_shape(path, "occ")
        told = "read"
    except InputError as error:
        told = f"refused: {error}"
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
    print(path.name, f"{time.process_time() - began:.1f}", told.splitlines()[0], sep="\\t")
print(peak_memory(), file=sys.stderr)
"""


def ply(kind):
    head = f"ply\nformat {kind} 1.0\nelement vertex {PLENTY}\n"
    head += "property float x\nproperty float y\nproperty float z\n"
    head += f"element face {PLENTY}\nproperty list uchar int vertex_indices\nend_header\n"
    return head.encode() + b"0 0 0\n" * 40


def accessor(count):
    ball = trimesh.exchange.gltf.export_gltf(trimesh.Scene(trimesh.creation.box()))
    tree = json.loads(ball["model.gltf"])
    for buffer in tree["buffers"]:
        inner = b64encode(ball[buffer["uri"]]).decode()
        buffer["uri"] = f"data:application/octet-stream;base64,{inner}"
    for one in tree["accessors"]:
        one["count"] = count
    return json.dumps(tree).encode()


def instances(nodes, faces):
    """One mesh, placed so often that its copies would fill the memory."""
    ball = trimesh.creation.icosphere(faces)
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(ball))
    tree = json.loads(files["model.gltf"])
    for buffer in tree["buffers"]:
        inner = b64encode(files[buffer["uri"]]).decode()
        buffer["uri"] = f"data:application/octet-stream;base64,{inner}"
    tree["nodes"] = [{"mesh": 0, "translation": [n, 0, 0]} for n in range(nodes)]
    tree["scenes"] = [{"nodes": list(range(nodes))}]
    return json.dumps(tree).encode()


def npz(claims):
    """Two arrays of a few bytes, which claim to unpack to `claims` each."""
    stream = BytesIO()
    np.savez_compressed(stream, points=np.zeros((9, 3)), normals=np.zeros((9, 3)))
    data = bytearray(stream.getvalue())
    at = data.find(b"PK\1\2")
    while at >= 0:
        data[at + 24 : at + 28] = struct.pack("<I", claims)
        at = data.find(b"PK\1\2", at + 4)
    return bytes(data)


def zeros_npz(points):
    """So many points, all zero: a thousandth of their size."""
    stream = BytesIO()
    np.savez_compressed(stream, points=np.zeros((points, 3), np.uint8))
    return stream.getvalue()


def npy(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (127 - 10 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(800)


def png(side):
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(4 * side + 1) * min(side, 2000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def pcd(data, points=PLENTY):
    head = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
    return (head + f"WIDTH {points}\nHEIGHT 1\nPOINTS {points}\nDATA {data}\n").encode() + bytes(99)


BOMBS = {
    "ascii.ply": lambda: ply("ascii"),
    "binary.ply": lambda: ply("binary_little_endian"),
    "faces.stl": lambda: bytes(80) + struct.pack("<I", 0xFFFFFFFF) + bytes(500),
    "many.off": f"OFF\n{PLENTY} {PLENTY} 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n".encode,
    "face.obj": lambda: b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 1000000000000\n",
    "ascii.pcd": lambda: pcd("ascii"),
    "binary.pcd": lambda: pcd("binary"),
    "packed.pcd": lambda: pcd("binary_compressed"),
    "count.pcd": lambda: pcd("binary", 10).replace(b"COUNT 1 1 1", b"COUNT 1 1 1000000000"),
    "large.npy": lambda: npy((PLENTY, 3)),
    "claims.npz": lambda: npz(0xFFFFFFF0),
    "points.npz": lambda: zeros_npz(60_000_000),
    "side.binvox": lambda: b"#binvox 1\ndim 1000000 1000000 1000000\ndata\n\x01\xff\x00\xff",
    "runs.binvox": lambda: b"#binvox 1\ndim 512 512 512\ndata\n" + b"\x01\xff" * 100,
    "accessor.gltf": lambda: accessor(PLENTY),
    "instances.gltf": lambda: instances(3_000, 4),
    "deep.gltf": lambda: b'{"meshes":' + b"[" * 200_000,
    "points.pts": lambda: b"1000000000000\n0 0 0\n1 1 1\n",
}


def pictures(folder, data):
    folder.mkdir()
    (folder / "a.png").write_bytes(data)
    camera = {"file_path": "a", "transform_matrix": np.eye(4).tolist()}
    tree = {"camera_angle_x": 0.7, "frames": [camera]}
    (folder / "transforms.json").write_text(json.dumps(tree))


def test_bombs_are_refused_in_little_time_and_memory(tmp_path):
    for name, made in BOMBS.items():
        (tmp_path / name).write_bytes(made())
    pictures(tmp_path / "wide_png", png(100_000))
    pictures(tmp_path / "square_png", png(20_000))

    child = subprocess.run(
        [sys.executable, "-c", READ, str(ROOM), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    lines = [line.split("\t") for line in child.stdout.splitlines()]
    assert sorted(line[0] for line in lines) == sorted([*BOMBS, "wide_png", "square_png"]), (
        child.stderr
    )
    for name, seconds, told in lines:
        assert told.startswith("refused: ") or "MemoryError" in told, (name, told)
        assert float(seconds) < 5, (name, seconds)
    assert float(child.stderr.splitlines()[-1]) < 1_074  # MB
