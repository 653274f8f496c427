"""Finds the scales of a product of integers, so that the product can be of real values.

ONNX Runtime's quantizer writes a float32 MatMul as MatMulInteger, Cast and Mul by both scales, some versions
with the Add of an integer bias before the Cast.
"""

from __future__ import annotations

from typing import NamedTuple

from onnx import GraphProto, NodeProto

from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.prepare_graph import FLOAT, readers


class Scales(NamedTuple):
    """What follows a product of integers: the scale of each input, the real output, the outputs of the nodes
    between, and the bias in float32, with the shape to give it."""

    first: str
    second: str
    output: str
    covered: set[str]
    bias: str = ""
    shape: str = ""


class ScalesFinder:
    def __init__(self, graph: GraphProto) -> None:
        self._readers = readers(graph)
        self._outputs = {output.name for output in graph.output}
        self._makers = {name: node for node in graph.node for name in node.output}

    def find(self, node: NodeProto) -> Scales | None:
        """What follows the node, if that is at most the Add of a bias, then Cast to float32 and then Mul by
        the two scales."""
        bias = self._only_reader(node.output[0], "Add")
        cast = self._only_reader((bias or node).output[0], "Cast")
        multiply = self._only_reader(cast.output[0], "Mul") if cast is not None else None
        maker = self._makers.get(node.input[0])
        if cast is None or multiply is None or maker is None or maker.op_type != "DynamicQuantizeLinear":
            return None
        product = self._makers.get(other(multiply, cast.output[0]))
        scale = maker.output[1]
        if graph_walk.attributes(cast)["to"] != FLOAT or product is None or product.op_type != "Mul":
            return None
        if scale not in product.input:
            return None
        found = Scales(scale, other(product, scale), multiply.output[0], {cast.output[0], multiply.output[0]})
        if bias is None:
            return found
        real, shape = self._real_bias(other(bias, node.output[0]), product)
        return (
            found._replace(bias=real, shape=shape, covered={*found.covered, bias.output[0]}) if real else None
        )

    def _real_bias(self, name: str, product: NodeProto) -> tuple[str, str]:
        """The float32 tensor that was divided by the product of the scales and rounded to this integer bias,
        and the shape that the bias was given; empty where there is none."""
        shape, is_integer = "", False
        maker = self._makers.get(name)
        if maker is not None and maker.op_type == "Reshape":
            shape, maker = maker.input[1], self._makers.get(maker.input[0])
        while maker is not None and maker.op_type in ("Cast", "Floor", "Round", "Div"):
            is_integer |= maker.op_type == "Cast"
            if maker.op_type == "Div":
                divisor = self._makers.get(maker.input[1])
                same = divisor is not None and set(divisor.input) == set(product.input)
                return (maker.input[0], shape) if is_integer and same else ("", "")
            maker = self._makers.get(maker.input[0])
        return "", ""

    def _only_reader(self, name: str, op: str) -> NodeProto | None:
        found = self._readers.get(name, [])
        one = len(found) == 1 and found[0].op_type == op and name not in self._outputs
        return found[0] if one and not graph_walk.domain(found[0]) else None


def other(node: NodeProto, name: str) -> str:
    """The other input of a node with two."""
    return str(node.input[1] if node.input[0] == name else node.input[0])
