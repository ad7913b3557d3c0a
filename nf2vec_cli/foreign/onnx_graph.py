"""Graphs of ONNX, node by node (extra `onnx`): plain operators, no tracing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nf2vec_cli.errors import UsageFault

OPSET, IR = 17, 8  # read by every onnxruntime since 1.13
FACTS = "nf2vec"  # key of the metadata that holds what nf2vec says of a graph, as JSON
Dims = Sequence[int | str]


def onnx_module() -> Any:
    """Import onnx.

    Raises:
        UsageFault: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UsageFault(
            "ONNX files need onnx, which is not installed", hint="`pip install 'nf2vec[onnx]'`"
        ) from error
    return onnx


class Graph:
    """A graph that grows: each operator gives the name of its result."""

    def __init__(self) -> None:
        self.onnx = onnx_module()
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._count = 0

    def op(self, kind: str, *inputs: str | Any, **attributes: Any) -> str:
        """Add an operator; inputs that are no names are constants."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        result = self._name()
        self.nodes.append(self.onnx.helper.make_node(kind, names, [result], **attributes))
        return result

    def constant(self, value: Any) -> str:
        """Add an array; whole numbers become int64, others but bytes float32."""
        array = np.asarray(value)
        if array.dtype != np.uint8:
            array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        name = self._name()
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def linear(self, x: str, weight: Any, bias: Any | None = None) -> str:  # [.., in] -> [.., out]
        """Multiply by a matrix [out, in], and add a bias [out]."""
        product = self.op("MatMul", x, np.asarray(weight).T)
        return product if bias is None else self.op("Add", product, np.asarray(bias))

    def part(self, x: str, start: int, end: int, axis: int = 1) -> str:
        """Take a range along an axis."""
        return self.op("Slice", x, [start], [end], [axis])

    def shaped(self, x: str, *shape: int) -> str:
        """Reshape; 0 keeps an axis, -1 takes what is left."""
        return self.op("Reshape", x, list(shape))

    def model(
        self,
        name: str,
        inputs: Mapping[str, Dims],
        outputs: Mapping[str, tuple[str, Dims]],
        facts: Mapping[str, Any],
    ) -> bytes:
        """Close the graph: its outputs are results by the names that they are to have."""
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        for wanted, (result, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [result], [wanted]))
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(n, kind, dims) for n, dims in inputs.items()],
            [helper.make_tensor_value_info(n, kind, dims) for n, (_, dims) in outputs.items()],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR)
        model.producer_name = "nf2vec"
        helper.set_model_props(model, {FACTS: json.dumps(dict(facts))})
        self.onnx.checker.check_model(model, full_check=True)
        found: bytes = model.SerializeToString()
        return found

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"
