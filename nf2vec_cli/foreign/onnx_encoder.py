"""Encoders and classifiers as graphs of ONNX: weights of fields in, embeddings or logits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from nf2vec_cli.core.mlp import coded
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.foreign.onnx_graph import Graph
from nf2vec_cli.models.classifier import Classifier
from nf2vec_cli.models.encoder import LEARNED, AlignedEncoder, RowsEncoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.probes import CELLS, WAYS, lattice
from nf2vec_cli.models.projection import Projection, unpack
from nf2vec_cli.models.radiance_probes import LENGTH

SMALLEST = 1e-12  # of a length that is divided by, torch's


def encoder_graph(encoder: nn.Module, facts: Mapping[str, Any]) -> bytes:
    """Write an encoder: `theta` [B, P] in, `embedding` [B, E] out.

    Raises:
        UsageFault: there is no graph for its architecture.
    """
    graph = Graph()
    if isinstance(encoder, RowsEncoder):
        found, size = _rows(graph, encoder), _outputs(encoder.rows)
    elif isinstance(encoder, AlignedEncoder):
        found, size = _aligned(graph, encoder), encoder.directions + _outputs(encoder.learned)
    else:
        raise UsageFault(
            f"an encoder of architecture {type(encoder).__name__} has no graph",
            hint="`nf2vec train STORE --encoder-arch aligned` makes one that has",
        )
    into: list[int | str] = ["B", encoder.spec.parameters]
    out: list[int | str] = ["B", size]
    return graph.model("encoder", {"theta": into}, {"embedding": (found, out)}, facts)


def classifier_graph(head: Classifier, facts: Mapping[str, Any]) -> bytes:
    """Write a head for classes: `embedding` [B, E] in, `logits` and `probability` [B, C] out."""
    graph = Graph()
    scaled = graph.op(
        "Div", graph.op("Sub", "embedding", _numbers(head.centre)), _numbers(head.scale)
    )
    logits = layers(graph, scaled, head.layers)
    dims: list[int | str] = ["B", _outputs(head.layers)]
    shares = graph.op("Softmax", logits, axis=1)
    outputs = {"logits": (logits, dims), "probability": (shares, dims)}
    return graph.model("classifier", {"embedding": ["B", len(head.centre)]}, outputs, facts)


def layers(graph: Graph, x: str, modules: nn.Sequential) -> str:
    """Add layers as they work when nothing is trained.

    Raises:
        TypeError: a layer is of a kind that is not known here.
    """
    for module in modules:
        if isinstance(module, nn.Linear):
            x = graph.linear(x, _numbers(module.weight), _numbers(module.bias))
        elif isinstance(module, nn.BatchNorm1d):
            x = _normalised(graph, x, module)
        elif isinstance(module, nn.ReLU):
            x = graph.op("Relu", x)
        elif isinstance(module, nn.GELU):
            bell = graph.op("Add", graph.op("Erf", graph.op("Mul", x, 0.5**0.5)), 1.0)
            x = graph.op("Mul", graph.op("Mul", x, 0.5), bell)
        elif not isinstance(module, nn.Dropout):
            raise TypeError(f"no graph for {type(module).__name__}")
    return x


def _normalised(graph: Graph, x: str, module: nn.BatchNorm1d) -> str:
    assert module.running_mean is not None  # of all that are made here
    assert module.running_var is not None
    factor = module.weight / (module.running_var + module.eps).sqrt()
    offset = module.bias - module.running_mean * factor
    return graph.op("Add", graph.op("Mul", x, _numbers(factor)), _numbers(offset))


def _rows(graph: Graph, encoder: RowsEncoder) -> str:
    """Each weight row through one network, then the maximum: as `RowsEncoder.forward`."""
    spec = encoder.spec
    if spec.radiance:
        left = -spec.parameters % spec.hidden
        theta = graph.op("Pad", "theta", [0, 0, 0, left]) if left else "theta"
    else:
        first = spec.hidden * (spec.inputs + 1)
        count = (spec.layers - 1) * (spec.hidden + 1) * spec.hidden
        theta = graph.part("theta", first, first + count)
    rows = graph.shaped(theta, 0, -1, spec.hidden)
    return graph.op("ReduceMax", layers(graph, rows, encoder.rows), axes=[1], keepdims=0)


def _aligned(graph: Graph, encoder: AlignedEncoder) -> str:
    """Difference from the init and the field at fixed points: as `AlignedEncoder.forward`."""
    difference = graph.op("Sub", "theta", _numbers(encoder.init))
    projected = graph.op("MatMul", difference, _basis(graph, encoder))
    centred = graph.op("Sub", projected, _numbers(encoder.mean))
    parts, spread = [graph.op("MatMul", centred, _numbers(encoder.whiten))], [encoder.spread]
    if encoder.probes:
        field, coarse = _probed(graph, encoder.spec, encoder.probes)
        parts += [
            _projected(graph, _slopes(graph, field, encoder.probes), encoder.slopes),
            _projected(graph, coarse, encoder.values),
        ]
        spread += [encoder.slopes.spread, encoder.values.spread]
    components = graph.op("Concat", *parts, axis=1)
    leading = graph.part(components, 0, encoder.directions)
    length = graph.op("ReduceL2", leading, axes=[1], keepdims=1)
    unit = graph.op("Div", leading, graph.op("Max", length, SMALLEST))
    direction = graph.op("Mul", unit, encoder.directions**0.5)
    natural = graph.op("Mul", components, _numbers(torch.cat(spread)))
    learned = graph.op(
        "Mul", layers(graph, natural, encoder.learned), LEARNED if encoder.probes else 1.0
    )
    return graph.op("Concat", direction, learned, axis=1)


def _basis(graph: Graph, encoder: AlignedEncoder) -> str:  # -> [P, K]
    """Unpack the directions of weights in the graph: 16 times smaller than as numbers."""
    table = unpack(torch.arange(256, dtype=torch.uint8)[:, None])  # [256, 4]
    codes = graph.op("Cast", encoder.basis.cpu().numpy(), to=graph.onnx.TensorProto.INT32)
    numbers = graph.shaped(
        graph.op("Gather", _numbers(table), codes, axis=0), len(encoder.basis), -1
    )
    return graph.op("Transpose", graph.part(numbers, 0, encoder.spec.parameters), perm=[1, 0])


def _projected(graph: Graph, features: str, projection: Projection) -> str:
    centred = graph.op("Sub", features, _numbers(projection.centre))
    found = graph.linear(centred, _numbers(projection.basis))
    return graph.op("Mul", found, _numbers(projection.scale))


def _probed(graph: Graph, spec: NetworkSpec, side: int) -> tuple[str, str]:
    """Read fields at the lattice: [B, 1, side, side, side], and averages over blocks [B, V]."""
    points = lattice(side)
    h = graph.constant(_numbers(coded(points, spec.octaves)))
    at = 0
    for layer, (out, into) in enumerate(spec.shapes):
        weight = graph.shaped(graph.part("theta", at, at + out * into), 0, out, into)
        h = graph.op("MatMul", h, graph.op("Transpose", weight, perm=[0, 2, 1]))
        at += out * into
        if spec.biases:
            h = graph.op("Add", h, graph.shaped(graph.part("theta", at, at + out), 0, 1, out))
            at += out
        if layer < spec.layers:
            sine = spec.activation == "sine"
            h = graph.op("Sin", graph.op("Mul", h, spec.omega)) if sine else graph.op("Relu", h)
    cube = (0, -1, side, side, side)
    if not spec.radiance:
        field = graph.shaped(graph.op("Sigmoid", h), *cube)
        return field, _blocks(graph, field)
    power = graph.op("Exp", graph.op("Sub", graph.part(h, 3, 4, axis=2), 1.0))
    through = graph.op("Exp", graph.op("Mul", power, -LENGTH * spec.density))
    opacity = graph.op("Sub", 1.0, through)  # [B, M, 1]
    seen = graph.op("Mul", graph.op("Sigmoid", graph.part(h, 0, 3, axis=2)), opacity)
    both = graph.op("Transpose", graph.op("Concat", opacity, seen, axis=2), perm=[0, 2, 1])
    return graph.shaped(opacity, *cube), _blocks(graph, graph.shaped(both, *cube))


def _blocks(graph: Graph, field: str) -> str:
    pooled = graph.op("AveragePool", field, kernel_shape=[2] * 3, strides=[2] * 3)
    return graph.op("Flatten", pooled, axis=1)


def _slopes(graph: Graph, field: str, side: int) -> str:
    """Tell how much fields rise which way in each part of space: as `slope_histogram`."""
    smooth = graph.op("AveragePool", field, kernel_shape=[2] * 3, strides=[1] * 3)
    size = side - 1
    rises = []
    for axis in (2, 3, 4):
        middle = smooth
        for other in {2, 3, 4} - {axis}:
            middle = graph.part(middle, 1, size - 1, axis=other)
        above = graph.part(middle, 2, size, axis=axis)
        rises.append(graph.op("Sub", above, graph.part(middle, 0, size - 2, axis=axis)))
    rise = graph.shaped(graph.op("Concat", *rises, axis=1), 0, 3, -1)
    ways = np.array(WAYS, np.float32)
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    along = graph.op("Relu", graph.op("MatMul", graph.constant(ways), rise))
    inner = size - 2
    stride = (side - 3) // CELLS
    pooled = graph.op(
        "AveragePool",
        graph.shaped(along, 0, len(WAYS), inner, inner, inner),
        kernel_shape=[2 * stride] * 3,
        strides=[stride] * 3,
        pads=[stride] * 6,
        count_include_pad=1,
    )
    return graph.op("Sqrt", graph.op("Flatten", pooled, axis=1))


def _outputs(modules: nn.Sequential) -> int:
    last = modules[-1]
    assert isinstance(last, nn.Linear)  # of all that are made here
    return last.out_features


def _numbers(tensor: torch.Tensor) -> Any:
    return tensor.detach().float().cpu().numpy()
