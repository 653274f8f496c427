"""The rewrites of quantized operators that TensorRT lacks, into float32 ones that compute the same.

QuantizeLinear and DequantizeLinear that TensorRT compiles stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from scons_tensorrt.worker.onnx import graph_walk, infer_shapes, model_file, rewrite_fold
from scons_tensorrt.worker.onnx.prepare_graph import FLOAT, Names
from scons_tensorrt.worker.onnx.prepare_scales import ScalesFinder
from scons_tensorrt.worker.onnx.rewrite_contrib import MICROSOFT, ContribOperators, at
from scons_tensorrt.worker.onnx.tensor_values import TensorValues

INT32 = TensorProto.INT32
ROUND_OPSET = 11  # the first with Round


def rewrite(model: ModelProto, values: TensorValues) -> tuple[ModelProto, list[str]]:
    """The model without quantized operators that TensorRT refuses, and a phrase for each kind that was
    rewritten."""
    if any("Linear" in node.op_type for node in graph_walk.all_nodes(model)):
        model = model_file.raised_to(ROUND_OPSET, model, "a quantized operator in float32")
    names = Names(model, values)
    counts: dict[str, int] = {}
    for graph in list(graph_walk.graphs(model.graph)):
        _IntegerOperators(graph, names).rewrite(counts)
    if not counts:
        return model, []
    infer_shapes.clear_inferred(model)
    rewrite_fold.remove_unused(model)
    return values.take(model), ["%s in float32" % graph_walk.count(sum(counts.values()), "quantized node")]


class _IntegerOperators(ContribOperators):
    def __init__(self, graph: GraphProto, names: Names) -> None:
        super().__init__(graph, names)
        self._scales = ScalesFinder(graph)
        self._outputs = {output.name for output in graph.output}
        self._covered: set[str] = set()  # outputs that the replacement of an earlier node makes

    def rewrite(self, counts: dict[str, int]) -> None:
        """Replace the nodes of the graph; add to the counts by operator."""
        found = False
        for node in self.graph.node:
            if node.output[0] in self._covered:
                continue
            replace = self._replacement(node)
            if replace:
                counts[node.op_type] = counts.get(node.op_type, 0) + 1
                replace(node)
                found = True
            elif not self.move(node):
                for name in graph_walk.read_by(node):
                    self.need_integer(name)
                self.nodes.append(node)
        for output in self.graph.output:
            self.need_integer(output.name)
        if found:
            self.finish()

    def _replacement(self, node: NodeProto) -> Callable[[NodeProto], None] | None:
        domain, op = graph_walk.domain(node), node.op_type
        if op in ("QuantizeLinear", "DequantizeLinear") and domain in ("", MICROSOFT):
            if not self._is_refused(node):
                return None
            return self._quantize_linear if op == "QuantizeLinear" else self._dequantize_linear
        if domain == MICROSOFT:
            return self.of_microsoft().get(op)
        return None if domain else self._of_onnx().get(op)

    def _of_onnx(self) -> Mapping[str, Callable[[NodeProto], None]]:
        return {
            "DynamicQuantizeLinear": self.dynamic,
            "ConvInteger": self._product,
            "MatMulInteger": self._product,
            "QLinearConv": self._linear_conv,
            "QLinearMatMul": self._linear_matmul,
        }

    def _is_refused(self, node: NodeProto) -> bool:
        """Whether TensorRT refuses this QuantizeLinear or DequantizeLinear: what it reads is carried, its
        zero point is not 0, or it dequantizes a constant of uint8 or int32 (a bias). It takes uint8 with zero
        point 0 for int8."""
        if any(self.is_carried(name) for name in node.input if name):
            return True
        data = self.names.constant(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if data is not None and data.dtype in (np.uint8, np.int32):
            return True
        zero = self.names.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is None or zero.dtype not in (np.uint8, np.int8):
            return False
        return zero.dtype == np.uint8 or bool(zero.any())

    def _quantize_linear(self, node: NodeProto) -> None:
        self.quantize(node.input[0], node.input[1], at(node, 2), node.output[0])

    def _dequantize_linear(self, node: NodeProto) -> None:
        axis = graph_walk.attributes(node).get("axis", 1)
        real = self.dequantized(node.input[0], node.input[1], at(node, 2), axis)
        kind = self.names.types.get(node.input[1], FLOAT)
        value = self.names.constant(real)
        if value is not None and kind == FLOAT and node.output[0] not in self._outputs:
            self.name_constant(value, node.output[0])  # a weight, which a calibration may quantize
            return
        self.add("Cast", real, like=node.output[0], output=node.output[0], to=kind)

    def _name(self, made: str, output: str) -> None:
        self.add("Identity", made, like=output, output=output)

    def _product(self, node: NodeProto) -> None:
        """ConvInteger, MatMulInteger: of the real values where their scales follow, so that nothing grows
        beyond fp16; else of the integers."""
        op, (first, second) = node.op_type[: -len("Integer")], list(node.input)[:2]
        zeros = at(node, 2), at(node, 3)
        axis = 0 if op == "Conv" else None
        attributes = {a.name: graph_walk.attributes(node)[a.name] for a in node.attribute}
        scales = self._scales.find(node)
        if scales is None:
            one, two = self.centered(first, zeros[0]), self.centered(second, zeros[1], axis)
            made = self.add(op, one, two, like=node.output[0], **attributes)
            self.carry(node.output[0], made, INT32)
            return
        self._covered.update(scales.covered)
        one = self.dequantized(first, scales.first, zeros[0])
        two = self.dequantized(second, scales.second, zeros[1], axis)
        made = self.add(op, one, two, like=scales.output, **attributes)
        if scales.bias:
            bias = scales.bias
            if scales.shape:
                bias = self.add("Reshape", bias, scales.shape, like=scales.output)
            made = self.add("Add", made, bias, like=scales.output)
        self._name(made, scales.output)

    def _linear_conv(self, node: NodeProto) -> None:
        """x, its scale and zero point, w, …, y's scale and zero point, bias in units of the two scales."""
        x, xs, xz, w, ws, wz, ys, yz = list(node.input)[:8]
        inputs = [self.dequantized(x, xs, xz), self.dequantized(w, ws, wz, 0)]
        if at(node, 8):
            bias = self.add("Mul", self.as_float(node.input[8]), self.add("Mul", xs, ws, like=ws), like=w)
            inputs.append(bias)
        made = self.add("Conv", *inputs, like=node.output[0], **graph_walk.attributes(node))
        self.quantize(made, ys, yz, node.output[0])

    def _linear_matmul(self, node: NodeProto) -> None:
        a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = list(node.input)[:8]
        one, two = self.dequantized(a, a_scale, a_zero), self.dequantized(b, b_scale, b_zero)
        self.quantize(self.add("MatMul", one, two, like=node.output[0]), scale, zero, node.output[0])
