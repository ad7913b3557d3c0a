"""One field as the bytes of a file that others read; what `nf2vec import` reads back."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from nf2vec_cli.foreign.found import Floats
from nf2vec_cli.foreign.hdf5 import h5py_module
from nf2vec_cli.foreign.onnx_field import field_graph
from nf2vec_cli.foreign.tensors import FACTS
from nf2vec_cli.models.network import NetworkSpec, split_theta


@dataclass(frozen=True)
class Outgoing:
    """One field and what is known of it.

    class_number: place of its class among the store's; surface: [S, 3] in unit space, or None;
    grid: [G, G, G], cameras: [V, 16] as a store keeps them, of radiance.
    """

    id: str
    class_name: str
    class_number: int
    split: str
    kind: str
    theta: Floats
    spec: NetworkSpec
    init_hash: str
    transform: tuple[float, ...]
    surface: Floats | None = None
    grid: NDArray[np.bool_] | None = None
    cameras: Floats | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What goes along as JSON."""
        return {
            "id": self.id,
            "class": self.class_name,
            "split": self.split,
            "field": self.kind,
            "network": self.spec.as_dict(),
            "init_hash": self.init_hash,
            "transform": list(self.transform),
        }


def safetensors_bytes(field: Outgoing) -> bytes:
    """Write `layers.0.weight`, `layers.0.bias`...; facts as metadata `nf2vec`."""
    return bytes(save(arrays_of(field), metadata={FACTS: json.dumps(field.facts)}))


def npz_bytes(field: Outgoing) -> bytes:
    """Write the same arrays, and the facts as a text `nf2vec`."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {**arrays_of(field), FACTS: np.array(json.dumps(field.facts))}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def h5_bytes(field: Outgoing) -> bytes:
    """Write the authors' arrays: `params`, `class_id`, `pcd`; what they have no place for beside.

    Their meshes (`vertices`, `triangles`) are left out: a store keeps points of a surface.
    """
    buffer = io.BytesIO()
    with h5py_module().File(buffer, "w") as opened:
        opened["params"] = field.theta
        opened["class_id"] = np.int64(field.class_number)
        if field.surface is not None:
            opened["pcd"] = field.surface
        opened.attrs.update({n: field.facts[n] for n in ("id", "class", "split", "transform")})
    return buffer.getvalue()


def onnx_bytes(field: Outgoing) -> bytes:
    """Write a graph of the field."""
    return field_graph(field.theta, field.spec, field.kind, field.facts)


def arrays_of(field: Outgoing) -> dict[str, NDArray[Any]]:
    """Name a field's layers, and what is kept beside them."""
    weights, biases = split_theta(torch.from_numpy(field.theta)[None], field.spec)
    arrays: dict[str, NDArray[Any]] = {}
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        arrays[f"layers.{layer}.weight"] = np.ascontiguousarray(weight[0].numpy())
        if field.spec.biases:
            arrays[f"layers.{layer}.bias"] = np.ascontiguousarray(bias[0].numpy())
    beside = {"surface": field.surface, "grid": field.grid, "cameras": field.cameras}
    return arrays | {name: array for name, array in beside.items() if array is not None}


WRITERS: dict[str, Callable[[Outgoing], bytes]] = {
    "safetensors": safetensors_bytes,
    "npz": npz_bytes,
    "hdf5": h5_bytes,
    "onnx": onnx_bytes,
}
SUFFIX = {"safetensors": ".safetensors", "npz": ".npz", "hdf5": ".h5", "onnx": ".onnx"}
