"""Networks one a file, as safetensors or as state dicts of torch (DWSNets' among them)."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from math import inf
from typing import Any

import numpy as np
from torch import Tensor

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.fields import FieldName
from nf2vec_cli.foreign.found import (
    Floats,
    Found,
    Layer,
    Views,
    check_cells,
    field_of_layers,
    transform_of,
)
from nf2vec_cli.foreign.tensors import as_floats, read_tensors
from nf2vec_cli.models.network import NetworkSpec, radiance_spec, relu_spec
from nf2vec_cli.shapes.discover import ShapeRef

# Navon et al. 2023: sine units of omega 30 in a Sequential, and 0.5 is added to the output
DWSNETS = {"keys": "seq.{layer}.{part}", "offset": 0.5}
BESIDE = ("surface", "grid", "cameras")  # tensors that nf2vec adds to a field
PART = r"(?P<part>weight|bias)"


def read(ref: ShapeRef, net: ImportConfig) -> Found:
    """Read one network.

    Raises:
        InputError: it cannot be read, is unsafe, or is no network that a store holds.
        OSError: it cannot be opened.
    """
    tensors, facts = read_tensors(ref.path)
    beside = {name: tensors.pop(name) for name in BESIDE if facts and name in tensors}
    layers = layers_of(tensors, net)
    if not facts:
        theta, spec = field_of_layers(layers, net)
        return Found(theta, spec, transform=(0.0, 0.0, 0.0, net.box))
    return _ours(layers, facts, beside)


def layers_of(tensors: dict[str, Tensor], net: ImportConfig) -> list[Layer]:
    """Sort tensors into layers, first to last.

    Raises:
        InputError: a tensor is of no layer, or a layer has no matrix.
    """
    pattern = pattern_of(net.keys)
    layers: dict[tuple[int, ...], dict[str, Floats]] = {}
    unknown = []
    for name, tensor in tensors.items():
        if any(fnmatchcase(name, ignored) for ignored in net.ignore):
            continue
        hit = pattern.fullmatch(name)
        if hit is None:
            unknown.append(name)
            continue
        order = tuple(int(n) for n in re.findall(r"\d+", name[: hit.start("part")]))
        layers.setdefault(order, {})[hit["part"]] = as_floats(name, tensor)
    if unknown:
        raise InputError(f"{_listed(unknown)} is no weight or bias of a layer")
    found: list[Layer] = []
    for order in sorted(layers):
        layer = layers[order]
        if "weight" not in layer or layer["weight"].ndim != 2:
            raise InputError(f"layer {'.'.join(map(str, order))} has no matrix")
        found.append((layer["weight"], layer.get("bias")))
    return found


def pattern_of(keys: str) -> re.Pattern[str]:
    """Turn a pattern such as `net.{layer}.{part}` into a regular expression."""
    if not keys:
        return re.compile(rf"(.*\.)?{PART}")
    marked = re.escape(keys).replace(r"\{layer\}", r"\d+").replace(r"\{part\}", PART)
    return re.compile(marked)


def _ours(layers: list[Layer], facts: dict[str, Any], beside: dict[str, Tensor]) -> Found:
    """Read what `nf2vec export` wrote: weights as they are, and what the store keeps beside."""
    try:
        spec, kind = _known(facts), FieldName(facts["field"])
        transform = transform_of(facts["transform"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"what its metadata says of it cannot be used: {error}") from error
    parts = [part.reshape(-1) for layer in layers for part in layer if part is not None]
    theta = np.concatenate(parts) if parts else np.empty(0, np.float32)
    shapes = [tuple(layer[0].shape) for layer in layers]
    if shapes != spec.shapes or len(theta) != spec.parameters:
        raise InputError(f"its layers are {shapes}, and its metadata says {spec.shapes}")
    grid, cameras = beside.get("grid"), beside.get("cameras")
    if grid is not None:
        check_cells(tuple(grid.shape))
    return Found(
        np.ascontiguousarray(theta, np.float32),
        spec,
        class_name=str(facts.get("class", "")),
        split=str(facts.get("split", "")),
        cloud=beside["surface"].double().numpy() if "surface" in beside else None,
        grid=None if grid is None else grid.bool().numpy(),
        views=None if cameras is None else _views(cameras),
        transform=transform,
        kind=kind.value,
    )


def _known(facts: dict[str, Any]) -> NetworkSpec:
    """Read an architecture, which must be one that a field can have.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    spec = NetworkSpec(**facts["network"])
    hidden, layers, octaves = spec.hidden, spec.layers, spec.octaves
    if spec.activation == "sine":
        known, unit = NetworkSpec(hidden=hidden, layers=layers, omega=spec.omega), spec.omega
    elif spec.radiance:
        more: dict[str, Any] = {"biases": spec.biases, "density": spec.density}
        known = radiance_spec(hidden=hidden, layers=layers, octaves=octaves, **more)
        unit = spec.density if octaves > 0 else 0
    else:
        known, unit = relu_spec(hidden=hidden, layers=layers, octaves=octaves), 1
    if spec != known or not 0 < unit < inf:
        raise ValueError(f"no field has the network {facts['network']}")
    return spec


def _views(cameras: Tensor) -> Views:
    if cameras.ndim != 2 or cameras.shape[1] != 16:
        raise InputError(f"its cameras are {tuple(cameras.shape)}: each has 16 numbers")
    rows = cameras.float().numpy()
    return Views(
        rows[:, :12].reshape(-1, 3, 4),
        rows[:, 12],
        rows[:, 13:15].astype(np.int64),
        rows[:, 15] == 2,
    )


def _listed(names: list[str]) -> str:
    told = ", ".join(repr(name) for name in names[:3])
    return told + (f" and {len(names) - 3} more" if len(names) > 3 else "")
