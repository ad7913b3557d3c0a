"""Files of fit-a-nef (Papa et al. 2024), many objects a file, as its trainer saves them.

`params` [N, P] float32; `param_config` JSON: name and shape of each part of P in its order, biases
before kernels, kernels [in, out]; `labels` [N]. Sizes and omega are in `nef.json` beside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.foreign.found import Floats, Found, Layer, field_of_layers
from nf2vec_cli.foreign.hdf5 import array_of, numbers, open_h5
from nf2vec_cli.shapes.discover import ShapeRef

CONFIG = "param_config"
MARK = "#"  # between a file's path and the row in it


def expand(ref: ShapeRef) -> Iterator[ShapeRef]:
    """Name each object of a file: `ID/0`, `ID/1`, ...

    Raises:
        InputError: the file cannot be read.
        OSError: it cannot be opened.
    """
    with open_h5(ref.path) as opened:
        params = array_of(opened, "params")
        if params is None or params.shape is None or params.ndim != 2:
            raise InputError("it has no array 'params' of objects by weights")
        count = len(params)
    for row in range(count):
        yield ref._replace(id=f"{ref.id}/{row}", source=f"{ref.source}{MARK}{row}")


def read(ref: ShapeRef, net: ImportConfig) -> Found:
    """Read one object.

    Raises:
        InputError: the file is damaged, or no such file, or no SIREN of shapes.
        OSError: it cannot be opened.
    """
    row = int(ref.source.rpartition(MARK)[2])
    with open_h5(ref.path) as opened:
        parts = _parts(opened)
        flat = np.asarray(opened["params"][row], np.float32)
        labels = numbers(opened, "labels").reshape(-1) if "labels" in opened else ()
        label = str(int(labels[row])) if row < len(labels) else ""
    net = _told(ref.path.parent, net)
    theta, spec = field_of_layers(layers_of(flat, parts), net)
    return Found(theta, spec, class_name=label, transform=(0.0, 0.0, 0.0, net.box))


def layers_of(flat: Floats, parts: list[tuple[str, tuple[int, ...]]]) -> list[Layer]:
    """Cut one object's weights [P] into layers, by their numbers, `output_linear` last.

    Raises:
        InputError: the parts do not add up, or are of no SIREN.
    """
    if sum(prod(shape) for _, shape in parts) != len(flat):
        raise InputError(f"{CONFIG} names {sum(prod(s) for _, s in parts):,} of {len(flat):,}")
    layers: dict[float, dict[str, Any]] = {}
    at = 0
    for name, shape in parts:
        hit = re.fullmatch(r"(?:kernel_net_(\d+)\.linear|(output_linear))\.(bias|kernel)", name)
        if hit is None:
            raise InputError(f"{name!r} is no part of a SIREN of fit-a-nef")
        order = float("inf") if hit[2] else float(hit[1])
        layers.setdefault(order, {})[hit[3]] = flat[at : at + prod(shape)].reshape(shape)
        at += prod(shape)
    try:
        return [(layers[n]["kernel"].T, layers[n]["bias"]) for n in sorted(layers)]
    except KeyError as error:
        raise InputError(f"a layer has no {error}") from error


def _parts(opened: Any) -> list[tuple[str, tuple[int, ...]]]:
    text = array_of(opened, CONFIG)
    try:
        told: Any = None if text is None else json.loads(np.asarray(text[()]).reshape(-1)[0])
        return [(str(name), tuple(int(n) for n in shape)) for name, shape in told]
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{CONFIG!r} is no list of names and shapes") from error


def _told(folder: Path, net: ImportConfig) -> ImportConfig:
    """Take omega from `nef.json` beside the file, if it is there and none was given."""
    file = folder / "nef.json"
    if not file.is_file() or "omega" in net.model_fields_set:
        return net
    try:
        omega = float(json.loads(file.read_text(encoding="utf-8"))["params"]["omega_0"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"nef.json beside it says no omega_0: {error}") from error
    return net.model_copy(update={"omega": omega})
