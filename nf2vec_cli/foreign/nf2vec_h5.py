"""The authors' HDF5 files of shapes, one object a file: `{split}/{i}.h5` (their repository)."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.foreign.found import Found, Layer, field_of_layers, transform_of
from nf2vec_cli.foreign.hdf5 import numbers, open_h5, text_of
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.shapes.discover import ShapeRef

LAYERS = 4  # hidden ones, of all their files
PARAMS = "params"
CLASS = ("class_id", "category")


def read(ref: ShapeRef, net: ImportConfig, params: str = PARAMS) -> Found:
    """Read one object: weights, class, and its cloud or mesh.

    Args:
        ref: the file.
        net: `layers`, and what folds into the weights.
        params: name of the weights; `params_complete` and `params_incomplete` of pairs, whose
            clouds are `complete` and `incomplete`.

    Raises:
        InputError: it is damaged, or no such file.
        OSError: it cannot be opened.
    """
    with open_h5(ref.path) as opened:
        flat = np.ravel(numbers(opened, params)).astype(np.float32)
        theta, spec = field_of_layers(layers_of(flat, net.layers or LAYERS), net)
        label = next((t for t in (text_of(opened, name) for name in CLASS) if t), "")
        cloud = params.removeprefix("params_") if params != PARAMS else "pcd"
        return Found(
            theta,
            spec,
            class_name=_attribute(opened, "class", label),
            cloud=_points(opened, cloud),
            mesh=_mesh(opened),
            transform=transform_of(opened.attrs.get("transform", (0, 0, 0, net.box))),
        )


def layers_of(flat: Any, layers: int) -> list[Layer]:
    """Cut flat weights [P] into layers 3-H-...-H-1: H follows from P and the number of layers.

    Raises:
        InputError: there is no such H.
    """
    # P = (layers - 1) H^2 + (layers + 4) H + 1
    square, linear = layers - 1, layers + 4
    root = isqrt(linear**2 + 4 * square * max(len(flat) - 1, 0))
    hidden = (root - linear) // (2 * square) if square else (len(flat) - 1) // linear
    spec = NetworkSpec(hidden=max(hidden, 1), layers=layers)
    if spec.parameters != len(flat):
        raise InputError(
            f"{len(flat):,} weights are no network of {layers} hidden layers, 3 inputs and 1 output"
        )
    found: list[Layer] = []
    at = 0
    for out, into in spec.shapes:
        matrix = flat[at : at + out * into].reshape(out, into)
        at += out * into
        found.append((matrix, flat[at : at + out]))
        at += out
    return found


def _points(opened: Any, name: str) -> Any:
    if name not in opened:
        return None
    points = numbers(opened, name, dims=2)
    if points.shape[1] != 3:
        raise InputError(f"{name!r} has the shape {points.shape}")
    return points.astype(np.float64)


def _mesh(opened: Any) -> Any:
    """Read a mesh, which is filled up with zeros to a fixed size."""
    if "vertices" not in opened or "triangles" not in opened:
        return None
    vertices, faces = _points(opened, "vertices"), _points(opened, "triangles")
    counts = [text_of(opened, name) for name in ("num_vertices", "num_triangles")]
    told = [int(text) if text.isdigit() else None for text in counts]
    vertices, faces = vertices[: told[0]], faces[: told[1]].astype(np.int64)
    if not len(faces) or faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError("its triangles name vertices that are not there")
    return vertices, faces


def _attribute(opened: Any, name: str, otherwise: str) -> str:
    """Give what `nf2vec export` says beside the authors' arrays."""
    return str(opened.attrs.get(name, otherwise))
