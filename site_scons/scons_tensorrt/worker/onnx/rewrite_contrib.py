"""The rewrites of quantized operators of ONNX Runtime (domain com.microsoft) into float32 ones.

They are what its quantizer leaves in published models:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto, TensorProto

from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.prepare_carried import CarriedTensors

MICROSOFT = "com.microsoft"


class ContribOperators(CarriedTensors):
    """A graph whose contrib operators are replaced."""

    def of_microsoft(self) -> Mapping[str, Callable[[NodeProto], None]]:
        return {
            "DynamicQuantizeLSTM": self._lstm,
            "DynamicQuantizeMatMul": self._dynamic_matmul,
            "MatMulIntegerToFloat": self._to_float,
            "QGemm": self._gemm,
            "QLinearWhere": self._linear_where,
            "QLinearAdd": self._linear_pair,
            "QLinearMul": self._linear_pair,
            "QLinearSigmoid": self._linear_one,
            "QLinearLeakyRelu": self._linear_one,
            "QLinearGlobalAveragePool": self._linear_one,
            "QLinearAveragePool": self._linear_one,
            "QLinearSoftmax": self._linear_one,
            "QLinearConcat": self._linear_concat,
        }

    def dynamic(self, node: NodeProto) -> None:
        """Scale and zero point of the least range with 0 in it; ONNX Runtime takes 1 for a scale of 0."""
        source, (quantized, scale, zero) = node.input[0], [*node.output, "", ""][:3]
        scale, zero = scale or self.names.new(quantized), zero or self.names.new(quantized)
        nothing = self.constant(0, quantized)
        low = self.add("Min", self.add("ReduceMin", source, like=scale, keepdims=0), nothing, like=scale)
        high = self.add("Max", self.add("ReduceMax", source, like=scale, keepdims=0), nothing, like=scale)
        span = self.add("Sub", high, low, like=scale)
        step = self.add("Div", span, self.constant(255, scale), like=scale)
        empty = self.add("Equal", step, nothing, like=scale)
        self.add("Where", empty, self.constant(1, scale), step, like=scale, output=scale)
        least = self.add("Round", self.add("Div", low, scale, like=zero), like=zero)
        point = self.clamp(self.add("Sub", nothing, least, like=zero), 0, 255, like=zero)
        self.carry(zero, point, TensorProto.UINT8)
        whole = self.add("Round", self.add("Div", source, scale, like=quantized), like=quantized)
        sums = self.add("Add", whole, point, like=quantized)
        self.carry(quantized, self.clamp(sums, 0, 255, like=quantized), TensorProto.UINT8)

    def _linear_one(self, node: NodeProto) -> None:
        x, x_scale, x_zero, scale = list(node.input)[:4]
        attributes = graph_walk.attributes(node)
        attributes.pop("channels_last", None)
        attributes.pop("opset", None)
        op = node.op_type[len("QLinear") :]
        made = self.add(op, self.dequantized(x, x_scale, x_zero), like=node.output[0], **attributes)
        self.quantize(made, scale, at(node, 4), node.output[0])

    def _linear_pair(self, node: NodeProto) -> None:
        a, a_scale, a_zero, b, b_scale, b_zero, scale = list(node.input)[:7]
        one, two = self.dequantized(a, a_scale, a_zero), self.dequantized(b, b_scale, b_zero)
        made = self.add(node.op_type[len("QLinear") :], one, two, like=node.output[0])
        self.quantize(made, scale, at(node, 7), node.output[0])

    def _linear_where(self, node: NodeProto) -> None:
        """The condition, then x and y, each with scale and zero point, then those of the output."""
        condition, *rest = node.input
        one, two = self.dequantized(*rest[:3]), self.dequantized(*rest[3:6])
        made = self.add("Where", condition, one, two, like=node.output[0])
        self.quantize(made, rest[6], at(node, 8), node.output[0])

    def _gemm(self, node: NodeProto) -> None:
        """a and b, each with scale and zero point, a bias in units of alpha and the two scales, then scale
        and zero point of the output, which is float32 without them."""
        a, a_scale, a_zero, b, b_scale, b_zero = list(node.input)[:6]
        attributes = graph_walk.attributes(node)
        by_column = 0 if attributes.get("transB") else 1
        inputs = [self.dequantized(a, a_scale, a_zero), self.dequantized(b, b_scale, b_zero, by_column)]
        if at(node, 6):
            alpha = self.constant(attributes.get("alpha", 1.0), node.output[0])
            unit = self.add("Mul", self.add("Mul", a_scale, b_scale, like=b), alpha, like=b)
            bias = self.add("Mul", self.as_float(node.input[6]), unit, like=b)
            inputs.append(bias)
        made = self.add("Gemm", *inputs, like=node.output[0], **attributes)
        if at(node, 7):
            self.quantize(made, node.input[7], at(node, 8), node.output[0])
        else:
            self.add("Identity", made, like=node.output[0], output=node.output[0])

    def _linear_concat(self, node: NodeProto) -> None:
        scale, zero, *rest = list(node.input)
        real = [self.dequantized(*rest[at : at + 3]) for at in range(0, len(rest), 3)]
        axis = graph_walk.attributes(node)["axis"]
        self.quantize(self.add("Concat", *real, like=node.output[0], axis=axis), scale, zero, node.output[0])

    def _dynamic_matmul(self, node: NodeProto) -> None:
        """a, b, b's scale, b's zero point, bias."""
        real = self._rounded(node.input[0], node)
        self._matmul(node, real, self.dequantized(node.input[1], node.input[2], at(node, 3)), at(node, 4))

    def _rounded(self, source: str, node: NodeProto) -> str:
        """A float32 tensor rounded to 8 bit, as DynamicQuantizeLinear does."""
        inner = NodeProto(op_type="DynamicQuantizeLinear", input=[source])
        inner.output.extend(self.names.new(node.output[0] or source) for _ in range(3))
        self.dynamic(inner)
        return self.dequantized(*inner.output)

    def _to_float(self, node: NodeProto) -> None:
        """a, b, a's scale, b's scale, a's zero point, b's zero point, bias."""
        a, b, a_scale, b_scale = list(node.input)[:4]
        one = self.dequantized(a, a_scale, at(node, 4))
        self._matmul(node, one, self.dequantized(b, b_scale, at(node, 5)), at(node, 6))

    def _matmul(self, node: NodeProto, one: str, two: str, bias: str) -> None:
        output = node.output[0]
        made = self.add("MatMul", one, two, like=output, output="" if bias else output)
        if bias:
            self.add("Add", made, bias, like=output, output=output)

    def _lstm(self, node: NodeProto) -> None:
        """An LSTM with the dequantized weights. Its input is rounded to 8 bit, as in the original.
        Inputs after those of LSTM: scale and zero point of its weights, and of the recurrent ones."""
        inputs = [*node.input, *[""] * 12][:12]
        made = NodeProto.FromString(node.SerializeToString())
        made.op_type, made.domain = "LSTM", ""
        del made.input[:]
        weights = (
            self._lstm_weights(inputs[1], *inputs[8:10]),
            self._lstm_weights(inputs[2], *inputs[10:12]),
        )
        made.input.extend((self._rounded(inputs[0], node), *weights, *inputs[3:8]))
        self.nodes.append(made)

    def _lstm_weights(self, name: str, scale: str, zero: str) -> str:
        """Constant weights of shape [directions, input, 4 x hidden], which an LSTM takes transposed. There is
        one scale and zero point for each direction, or one for each of its rows."""
        found = [self.names.constant(each) for each in (name, scale, zero)]
        value, size, point = (each.astype(np.float32) for each in found if each is not None)
        by_row = value.shape[0], 1, -1
        real = (value - point.reshape(by_row)) * size.reshape(by_row)
        return self.constant(np.ascontiguousarray(real.transpose(0, 2, 1)), name)


def at(node: NodeProto, index: int) -> str:
    """An input that may be left out."""
    return str(node.input[index]) if len(node.input) > index else ""
