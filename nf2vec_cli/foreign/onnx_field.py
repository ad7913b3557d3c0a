"""One neural field as a graph of ONNX: points of unit space in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from nf2vec_cli.fields.nerf import LARGEST
from nf2vec_cli.fields.pool import CLIP
from nf2vec_cli.foreign.found import Floats
from nf2vec_cli.foreign.onnx_graph import Graph
from nf2vec_cli.models.network import NetworkSpec, split_theta


def field_graph(theta: Floats, spec: NetworkSpec, kind: str, facts: Mapping[str, Any]) -> bytes:
    """Write a field: `points` [M, 3] in, `value` [M] out; of radiance `colour` and `density`."""
    graph = Graph()
    weights, biases = split_theta(torch.from_numpy(theta)[None], spec)
    layers = [(w[0].numpy(), b[0].numpy()) for w, b in zip(weights, biases, strict=True)]
    h = coded(graph, "points", spec.octaves) if spec.octaves else "points"
    for weight, bias in layers[:-1]:
        h = graph.linear(h, weight, bias)
        sine = spec.activation == "sine"
        h = graph.op("Sin", graph.op("Mul", h, spec.omega)) if sine else graph.op("Relu", h)
    raw = graph.linear(h, *layers[-1])
    outputs: dict[str, tuple[str, list[int | str]]]
    if spec.radiance:
        colour, density = radiance(graph, raw, spec.density)
        outputs = {"colour": (colour, ["M", 3]), "density": (density, ["M"])}
    else:
        outputs = {"value": (_read_back(graph, graph.shaped(raw, -1), kind), ["M"])}
    return graph.model(f"{kind} field", {"points": ["M", 3]}, outputs, facts)


def coded(graph: Graph, points: str, octaves: int) -> str:  # [M, 3] -> [M, 6 octaves]
    """Code points as `core.mlp.frequencies` does."""
    scaled = graph.op("Mul", graph.op("Add", points, 1.0), 0.5)
    turns = graph.op("Mul", graph.op("Unsqueeze", scaled, [2]), 2.0 ** np.arange(octaves))
    whole = graph.op("Mul", graph.op("Floor", graph.op("Mul", turns, 0.5)), 2.0)
    angle = graph.op("Mul", graph.op("Sub", turns, whole), np.pi)
    both = [graph.op("Unsqueeze", graph.op(way, angle), [3]) for way in ("Sin", "Cos")]
    return graph.shaped(graph.op("Concat", *both, axis=3), -1, 6 * octaves)


def radiance(graph: Graph, raw: str, unit: float) -> tuple[str, str]:  # [M, 4] -> [M, 3], [M]
    """Turn outputs into colours and densities as `fields.nerf.radiance_of` does."""
    colour = graph.op("Sigmoid", graph.part(raw, 0, 3))
    power = graph.op("Min", graph.op("Sub", graph.part(raw, 3, 4), 1.0), LARGEST)
    return colour, graph.op("Mul", graph.shaped(graph.op("Exp", power), -1), unit)


def _read_back(graph: Graph, raw: str, kind: str) -> str:
    """Turn outputs into values as the kind's `read_back` does."""
    if kind == "udf":
        return graph.op("Mul", graph.op("Sigmoid", graph.op("Neg", raw)), CLIP)
    share = graph.op("Sigmoid", raw)
    if kind == "occ":
        return share
    return graph.op("Sub", graph.op("Mul", share, 2 * CLIP), CLIP)
