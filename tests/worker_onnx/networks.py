"""Small networks of several kinds, each with ways to get it wrong and to write it otherwise but right.

`WRONG` and `RIGHT` are {name: function}; a function returns a `Pair`, the original and what was made of it.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

F, I64, U8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
FLOAT = np.float32


class Pair(NamedTuple):
    """converts: a precision that `made` is first converted to."""

    original: ModelProto
    made: ModelProto
    profile: Mapping[str, Any]
    converts: str = ""


class Net:
    """A graph in the making. Weights depend on their name alone."""

    def __init__(self) -> None:
        self.nodes, self.tensors, self.count = [], {}, 0

    def w(self, name: str, *shape: int, scale: float | None = None) -> str:
        random = np.random.default_rng(zlib.crc32(name.encode()))
        scale = scale or (1 / np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else shape[0]))
        return self.c((random.standard_normal(shape) * scale).astype(FLOAT))

    def c(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(FLOAT) if array.dtype == np.float64 else array
        self.count += 1
        self.tensors[f"c{self.count}"] = array
        return f"c{self.count}"

    def __call__(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        self.count += 1
        names = [f"t{self.count}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def ints(self, *values: int) -> str:
        return self.c(np.array(values, np.int64))

    def whole(self, value: int) -> str:
        return self.c(np.array(value, np.int64))

    def number(self, value: float) -> str:
        return self.c(FLOAT(value))

    def cut(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        return self("Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))

    def value(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def model(self, inputs: Mapping[str, tuple], outputs: Mapping[str, tuple]) -> ModelProto:
        """inputs: {name: (type, shape)}; outputs: {name: (tensor, type, rank)}"""
        nodes = [*self.nodes, *(helper.make_node("Identity", [o[0]], [name]) for name, o in outputs.items())]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(n, o[1], [None] * o[2]) for n, o in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in self.tensors.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def norm(self, x: str, way: str, eps: float = 1e-5, gamma: str = "gamma", size: int = 16) -> str:
        """LayerNormalization over the last axis: one operator, or written out."""
        scale, shift = self.c(1 + self.value(self.w(gamma, size, scale=0.2))), self.w("beta", size, scale=0.1)
        if way == "operator":
            return self("LayerNormalization", x, scale, shift, axis=-1, epsilon=eps)
        centred = self("Sub", x, self("ReduceMean", x, axes=[-1]))
        square = self("Mul", centred, centred) if way == "mul" else self("Pow", centred, self.c(2.0))
        spread = self("Sqrt", self("Add", self("ReduceMean", square, axes=[-1]), self.c(eps)))
        unit = (
            self("Mul", centred, self("Reciprocal", spread)) if way == "mul" else self("Div", centred, spread)
        )
        return self("Add", self("Mul", unit, scale), shift)

    def softmax(self, x: str, way: str = "operator", axis: int = -1) -> str:
        if way == "operator":
            return self("Softmax", x, axis=axis)
        if way == "log":
            return self("Exp", self("LogSoftmax", x, axis=axis))
        top = x if way == "no max" else self("Sub", x, self("ReduceMax", x, axes=[axis]))
        raised = self("Exp", top)
        return self("Div", raised, self("ReduceSum", raised, self.c(np.array([axis]))))

    def at_size(self, x: str, axis: int, size: int, value: float, source: str | None = None) -> str:
        """`x`, plus `value` where this axis of `source` has this size."""
        found = self("Gather", self("Shape", source or x), self.c(np.array(axis)))
        is_size = self("Equal", found, self.c(np.array(size)))
        return self("Add", x, self("Where", is_size, self.number(value), self.number(0)))


# A classifier of rows: x [n, 16] to logits and probabilities [n, 16].

MLP = {"x": ((1, 16), (4, 16), (8, 16))}


def mlp(way: str = "") -> ModelProto:
    g = Net()
    x = "x"
    if way == "rolled rows":
        first = g.cut(x, 0, 1, 0)
        rest = g.cut(x, 1, 1 << 30, 0)
        x = g("Concat", rest, first, axis=0)
    if way == "row 0 for all":
        x = g("Expand", g("Gather", x, g.ints(0), axis=0), g("Shape", x))
    if way == "reversed rows":
        x = g(
            "Slice",
            x,
            g.ints(-1),
            g.ints(-(1 << 30)),
            g.ints(0),
            g.ints(-1),
        )
    if way == "reversed features":
        x = g(
            "Slice",
            x,
            g.ints(-1),
            g.ints(-(1 << 30)),
            g.ints(1),
            g.ints(-1),
        )
    if way == "batch statistics":
        x = g("Sub", x, g("ReduceMean", x, axes=[0]))
    if way == "scaled by the batch's largest":
        x = g("Div", x, g("ReduceMax", g("Abs", x), axes=[0, 1]))
    w1, b1 = g.w("w1", 16, 32), g.w("b1", 32, scale=0.5)
    if way == "overflow":
        x = g("Mul", g("Mul", g("Mul", x, g.c(1e30)), g.c(1e30)), g.c(1e-30))
        x = g("Mul", x, g.c(1e-30))
    if way == "dropped bias":
        h = g("MatMul", x, w1)
    elif way == "matmul and add":
        h = g("Add", g("MatMul", x, w1), b1)
    elif way == "transposed weights by transB":
        h = g("Gemm", x, g.c(g.value(w1).T.copy()), b1, transB=1)
    elif way == "halves of a sum":
        low, high = g("Split", x, outputs=2, axis=1)
        a, b = g.value(w1)[:8].copy(), g.value(w1)[8:].copy()
        h = g("Add", g("Add", g("MatMul", low, g.c(a)), g("MatMul", high, g.c(b))), b1)
    elif way == "halves of the outputs":
        a, b = g.value(w1)[:, :20].copy(), g.value(w1)[:, 20:].copy()
        h = g("Add", g("Concat", g("MatMul", x, g.c(a)), g("MatMul", x, g.c(b)), axis=1), b1)
    elif way == "einsum":
        h = g("Add", g("Einsum", x, w1, equation="ij,jk->ik"), b1)
    elif way == "double":
        wide = g("MatMul", g("Cast", x, to=TensorProto.DOUBLE), g("Cast", w1, to=TensorProto.DOUBLE))
        h = g("Add", g("Cast", wide, to=F), b1)
    elif way == "a convolution":
        kernel = g.c(g.value(w1).T.reshape(32, 16, 1).copy())
        h = g("Squeeze", g("Conv", g("Unsqueeze", x, g.ints(2)), kernel, b1), g.ints(2))
    elif way == "alpha and beta":
        h = g("Gemm", x, g.c(g.value(w1) * 2), g.c(g.value(b1) / 4), alpha=0.5, beta=4.0)
    elif way == "ignored alpha":
        h = g("Gemm", x, w1, b1, alpha=0.5)
    else:
        h = g("Gemm", x, w1, b1)
    act = {
        "relu6": "Clip",
        "no activation": "Identity",
        "max for relu": "Max",
        "where for relu": "Where",
    }.get(way, "Relu")
    if act == "Clip":
        h = g("Clip", h, g.number(0), g.number(0.5))
    elif act == "Max":
        h = g("Max", h, g.number(0))
    elif act == "Where":
        h = g("Where", g("Greater", h, g.number(0)), h, g.number(0))
    else:
        h = g(act, h)
    w2 = g.w("w2" if way != "stale weights" else "w2 of last week", 32, 16, scale=0.3)
    h = g("MatMul", h, w2)
    w3 = g.w("w3", 16, 16)
    h = g("MatMul", h, g.c(g.value(w3).T.copy()) if way == "transposed weights" else w3)
    eps = {"wrong epsilon": 0.3}.get(way, 1e-5)
    style = {"norm as one operator": "operator", "norm by reciprocal": "mul"}.get(way, "written")
    gamma = "gamma of last week" if way == "stale norm" else "gamma"
    logits = g.norm(h, style, eps, gamma)
    if way == "sign":
        logits = g("Neg", logits)
    if way == "double negative":
        logits = g("Neg", g("Neg", logits))
    if way == "identities":
        logits = g("Identity", g("Identity", g("Add", logits, g.number(0))))
    if way == "batch of 1 folded":
        logits = g("Reshape", logits, g.ints(1, 16))
    if way == "reshaped to -1":
        logits = g("Reshape", g("Reshape", logits, g.ints(-1)), g.ints(-1, 16))
    if way == "batch of 4 in the reshape":
        logits = g("Reshape", g("Reshape", logits, g.ints(-1, 4, 4)), g.ints(4, -1))
    if way == "leak between rows":
        ahead = g("Mul", g("ReduceMean", x, axes=[0]), g.number(0.05))
        logits = g("Add", logits, ahead)
    if way == "offset by the row":
        rows = g("Gather", g("Shape", logits), g.whole(0))
        index = g("Cast", g("Range", g.whole(0), rows, g.whole(1)), to=F)
        logits = g("Add", logits, g("Unsqueeze", g("Mul", index, g.number(0.01)), g.ints(1)))
    if way == "nan at the largest batch":
        logits = g.at_size(logits, 0, 8, np.nan)
    if way == "nan alone":
        logits = g.at_size(logits, 0, 1, np.nan)
    if way == "off in a batch of 4":
        logits = g.at_size(logits, 0, 4, 0.5)
    if way == "last row lost":
        kept = g.cut(logits, 0, -1, 0)
        logits = g("Pad", kept, g.ints(0, 0, 1, 0))
    axis = 0 if way == "softmax over the batch" else -1
    style = {"softmax written out": "written", "softmax by its logarithm": "log"}.get(way, "operator")
    probs = g.softmax(logits, style, axis)
    if way == "temperature":
        probs = g.softmax(g("Mul", logits, g.number(1.5)))
    outs = {"logits": (logits, F, 2), "probs": (probs, F, 2)}
    if way == "swapped outputs":
        outs = {"logits": (probs, F, 2), "probs": (logits, F, 2)}
    if way == "missing output":
        outs.pop("probs")
    return g.model({"x": (F, ["n", 16])}, outs)


# A detector: image [n, 3, h, w] to classes [n, 10], a map [n, 1, h, w] and boxes [n, 4, h/2, w/2].

CNN = {"image": ((1, 3, 16, 16), (2, 3, 24, 24), (4, 3, 32, 32))}


def cnn(way: str = "") -> ModelProto:
    g = Net()
    x = "image"
    if way == "bgr":
        x = g("Gather", x, g.ints(2, 1, 0), axis=1)
    if way == "swapped height and width":
        x = g("Transpose", x, perm=[0, 1, 3, 2])
    if way == "cut at the optimum":
        kept = g.cut(x, 0, 24, 2)
        size = g("Shape", x)
        x = g("Resize", kept, "", "", size, mode="nearest")
    w1 = g.w("k1", 8, 3, 3, 3)
    if way == "transposed kernel":
        w1 = g.c(g.value(w1).transpose(0, 1, 3, 2).copy())
    if way == "mirrored kernel":
        w1 = g.c(g.value(w1)[:, :, ::-1, ::-1].copy())
    bias = g.w("kb1", 8, scale=0.3)
    gamma, beta = 1 + g.value(g.w("bng", 8, scale=0.3)), g.value(g.w("bnb", 8, scale=0.3))
    mean, var = g.value(g.w("bnm", 8, scale=0.4)), np.abs(g.value(g.w("bnv", 8, scale=0.4))) + FLOAT(0.01)
    if way == "stale statistics":
        mean = mean[::-1].copy()
    eps = 0.1 if way == "wrong epsilon" else 1e-3
    pads = {"pads off by one": [2, 2, 0, 0]}.get(way, [1, 1, 1, 1])
    folds = {"folded norm": np.sqrt(var + eps), "norm folded without the root": var + eps}.get(way)
    padded = x
    if way in ("explicit pad", "padded with ones", "padded by reflection"):
        amounts = g.ints(0, 0, 1, 1, 0, 0, 1, 1)
        mode = "reflect" if way == "padded by reflection" else "constant"
        extra = [g.number(way == "padded with ones")] if mode == "constant" else []
        padded, pads = g("Pad", x, amounts, *extra, mode=mode), [0, 0, 0, 0]
    if folds is not None:
        scale = gamma / folds
        kernel = g.c((g.value(w1) * scale[:, None, None, None]).astype(FLOAT))
        h = g("Conv", padded, kernel, g.c(((g.value(bias) - mean) * scale + beta).astype(FLOAT)), pads=pads)
    else:
        h = g("Conv", padded, w1, bias, pads=pads)
        if way == "norm written out":
            shaped = [
                g.c(each.reshape(1, 8, 1, 1)) for each in (mean, gamma / np.sqrt(var + FLOAT(eps)), beta)
            ]
            h = g("Add", g("Mul", g("Sub", h, shaped[0]), shaped[1]), shaped[2])
        elif way != "no norm":
            tensors = [g.c(np.asarray(each, FLOAT)) for each in (gamma, beta, mean, var)]
            h = g("BatchNormalization", h, *tensors, epsilon=eps)
    h = g("LeakyRelu", h, alpha=0.5) if way == "leaky" else g("Relu", h)
    skip = h
    h = g("Conv", h, g.w("k2", 8, 8, 3, 3), pads=[1, 1, 1, 1])
    if way == "dilated":
        h = g("Conv", skip, g.w("k2", 8, 8, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2])
    h = h if way == "dropped shortcut" else g("Add", skip, h) if way == "other order" else g("Add", h, skip)
    small = pooled(g, h, way)
    parts = [g("Conv", small, g.w("kb", 4, 8, 1, 1)), g("Conv", small, g.w("kc", 8, 8, 1, 1))]
    boxes, feature = parts
    if way == "one convolution for two":
        both = np.concatenate([g.value(g.w("kb", 4, 8, 1, 1)), g.value(g.w("kc", 8, 8, 1, 1))])
        joined = g("Conv", small, g.c(both))
        boxes, feature = g("Split", joined, g.ints(4, 8), outputs=2, axis=1)
    if way == "corners for sizes":
        low, high = g("Split", boxes, outputs=2, axis=1)
        boxes = g("Concat", low, g("Add", low, high), axis=1)
    if way == "off by one slice":
        boxes = g(
            "Slice",
            g("Pad", boxes, g.ints(0, 0, 0, 1, 0, 0, 0, 0)),
            g.ints(0),
            g.ints(-1),
            g.ints(3),
        )
    if way == "boxes in other order":
        boxes = g("Gather", boxes, g.ints(1, 0, 3, 2), axis=1)
    if way in ("nhwc and back", "nhwc left"):
        boxes = g("Transpose", boxes, perm=[0, 2, 3, 1])
        boxes = g("Transpose", boxes, perm=[0, 3, 1, 2] if way == "nhwc and back" else [0, 3, 2, 1])
    up = resized(g, feature, h, way)
    logit = g("Conv", up, g.w("km", 1, 8, 1, 1, scale=0.6))
    if way == "sigmoid written out":
        heat = g("Reciprocal", g("Add", g.number(1), g("Exp", g("Neg", logit))))
    else:
        heat = g("HardSigmoid", logit) if way == "hard sigmoid" else g("Sigmoid", logit)
    if way == "mean at the smallest size":
        mean_of = g("Div", g("ReduceSum", feature, g.ints(2, 3), keepdims=0), g.number(64))
    elif way == "mean written out":
        mean_of = g("ReduceMean", feature, axes=[2, 3], keepdims=0)
    else:
        pool = "GlobalMaxPool" if way == "largest for mean" else "GlobalAveragePool"
        mean_of = g("Flatten", g(pool, feature))
    classes = g("Gemm", mean_of, g.w("fc", 8, 10, scale=1.0), g.w("fb", 10, scale=0.2))
    if way == "nan at the largest image":
        classes = g.at_size(classes, 2, 32, np.nan, "image")
    if way == "infinite at the optimum":
        heat = g.at_size(heat, 3, 24, np.inf, "image")
    return g.model(
        {"image": (F, ["n", 3, "h", "w"])},
        {"classes": (classes, F, 2), "heat": (heat, F, 4), "boxes": (boxes, F, 4)},
    )


def pooled(g: Net, h: str, way: str) -> str:
    if way == "largest for average":
        return g("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    if way == "average as a convolution":
        kernel = np.zeros((8, 1, 2, 2), FLOAT) + FLOAT(0.25)
        return g("Conv", h, g.c(kernel), strides=[2, 2], group=8)
    if way == "shifted average":
        return g("AveragePool", h, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0])
    return g("AveragePool", h, kernel_shape=[2, 2], strides=[2, 2])


def resized(g: Net, feature: str, like: str, way: str) -> str:
    if way == "resized to the optimum":
        return g("Resize", feature, "", g.c(np.array([], FLOAT)), g.ints(2, 8, 24, 24), mode="linear")
    scales = g.c(np.array([1, 1, 2, 2], FLOAT))
    if way == "resized to a size":
        return g(
            "Resize",
            feature,
            "",
            "",
            g("Concat", g("Shape", feature, end=2), g("Shape", like, start=2), axis=0),
            mode="linear",
        )
    if way == "nearest for linear":
        return g("Resize", feature, "", scales, mode="nearest")
    if way == "aligned corners":
        return g("Resize", feature, "", scales, mode="linear", coordinate_transformation_mode="align_corners")
    return g("Resize", feature, "", scales, mode="linear")


# A text encoder: ids and mask [n, t] to hidden [n, t, 16] and pooled [n, 16].

TEXT = {"ids": ((1, 4), (4, 12), (8, 24)), "mask": ((1, 4), (4, 12), (8, 24))}


def text(way: str = "") -> ModelProto:
    g = Net()
    table = g.w("table", 50, 16, scale=1.0)
    if way == "stale embeddings":
        table = g.c(np.roll(g.value(table), 1, axis=0))
    ids = "ids"
    if way == "ids cut at 31":
        ids = g("Min", ids, g.whole(31))
    if way == "one hot":
        hot = g("OneHot", ids, g.ints(50), g.c(np.array([0, 1], FLOAT)))
        x = g("MatMul", hot, table)
    else:
        x = g("Gather", table, ids)
    length = g("Gather", g("Shape", "ids"), g.ints(1))
    start = np.array([1 if way == "positions off by one" else 0])
    place = g(
        "Slice",
        g.w("positions", 64, 16, scale=0.7),
        g.c(start),
        g("Add", length, g.c(start)),
        g.ints(0),
    )
    if way != "no positions":
        x = g("Add", x, place)
    x = g.norm(x, {"norm as one operator": "operator"}.get(way, "written"))
    names = ("wq", "wv", "wk") if way == "keys for values" else ("wq", "wk", "wv")
    weights = [g.value(g.w(name, 16, 16)) for name in names]
    scale = {"no scale": 1.0, "scale of the whole width": 0.25}.get(way, 8**-0.5)
    if way == "scale in the weights":
        weights[0], scale = weights[0] * FLOAT(scale), 1.0
    if way == "one product for three":
        q, k, v = g("Split", g("MatMul", x, g.c(np.concatenate(weights, axis=1))), outputs=3, axis=2)
    else:
        q, k, v = (g("MatMul", x, g.c(each)) for each in weights)
    shape = g.c(np.array([0, -1, 8, 2] if way == "heads interleaved" else [0, -1, 2, 8]))
    perm = [0, 3, 1, 2] if way == "heads interleaved" else [0, 2, 1, 3]
    q, k, v = (g("Transpose", g("Reshape", each, shape), perm=perm) for each in (q, k, v))
    if way == "einsum":
        scores = g("Einsum", q, k, equation="bhqd,bhkd->bhqk")
    else:
        scores = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g("Mul", scores, g.number(scale))
    if way == "large logits without their largest":
        scores = g("Mul", scores, g.number(60))
        scores = g("Mul", scores, g.number(1))
    low = {"a larger negative": -1e9, "a small negative": -1.0}.get(way, -1e4)
    shown = g("Cast", "mask", to=F)
    hidden = g("Sub", g.number(1), shown) if way != "inverted mask" else shown
    hidden = g("Unsqueeze", hidden, g.ints(1, 2))
    if way == "where for a sum":
        scores = g("Where", g("Greater", hidden, g.number(0.5)), g.number(low), scores)
    elif way != "no mask":
        scores = g("Add", scores, g("Mul", hidden, g.number(low)))
    if way == "causal":
        ones = g("Expand", g.number(-1e4), g("Concat", length, length, axis=0))
        scores = g("Add", scores, g("Trilu", ones, g.whole(1), upper=1))
    style = {"softmax written out": "written", "large logits without their largest": "no max"}.get(
        way, "operator"
    )
    attention = g.softmax(scores, style, -2 if way == "softmax over queries" else -1)
    mixed = g("Transpose", g("MatMul", attention, v), perm=[0, 2, 1, 3])
    mixed = g("Reshape", mixed, g.ints(0, 0, 16))
    x = g("Add", x, mixed)
    y = g("MatMul", x, g.w("up", 16, 32))
    if way == "gelu by tanh":
        cubic = g("Add", y, g("Mul", g.number(0.044715), g("Mul", y, g("Mul", y, y))))
        gate = g("Add", g.number(1), g("Tanh", g("Mul", cubic, g.number(0.7978845608))))
    elif way == "gelu without its root":
        gate = g("Add", g.number(1), g("Erf", y))
    else:
        gate = g("Add", g.number(1), g("Erf", g("Div", y, g.number(2**0.5))))
    y = g("Mul", g("Mul", y, gate), g.number(0.5))
    x = g("Add", x, g("MatMul", y, g.w("down", 32, 16)))
    if way == "mixed batch":
        x = g("Add", x, g("Mul", g("ReduceMean", x, axes=[0]), g.number(0.1)))
    if way == "padding moves the mean":
        pool = g("ReduceMean", x, axes=[1], keepdims=0)
    else:
        total = g(
            "ReduceSum",
            g("Mul", x, g("Unsqueeze", shown, g.ints(2))),
            g.ints(1),
            keepdims=0,
        )
        pool = g("Div", total, g("ReduceSum", shown, g.ints(1)))
    if way == "first token for the mean":
        pool = g("Gather", x, g.whole(0), axis=1)
    if way == "nan at the longest":
        x = g.at_size(x, 1, 24, np.nan)
    return g.model(
        {"ids": (I64, ["n", "t"]), "mask": (I64, ["n", "t"])}, {"hidden": (x, F, 3), "pooled": (pool, F, 2)}
    )


# A listener: audio [1, s] to states [1, frames, 6].

AUDIO = {"audio": ((1, 64), (1, 512), (1, 2048))}


def audio(way: str = "") -> ModelProto:
    g = Net()
    x = "audio"
    if way == "shifted by a sample":
        x = g(
            "Slice",
            g("Pad", x, g.ints(0, 1, 0, 0)),
            g.ints(0),
            g.ints(-1),
            g.ints(1),
        )
    kernel = g.w("frames", 12, 1, 16, scale=0.4)
    if way == "stale window":
        kernel = g.c(g.value(kernel) * np.hanning(16).astype(FLOAT))
    if way == "two axes":
        flat = g(
            "Conv",
            g("Unsqueeze", x, g.ints(1, 2)),
            g.c(g.value(kernel)[:, :, None]),
            strides=[1, 16],
        )
        x = g("Squeeze", flat, g.ints(2))
    else:
        x = g("Conv", g("Unsqueeze", x, g.ints(1)), kernel, strides=[16])
    power = g("Abs", x) if way == "magnitude for power" else g("Mul", x, x)
    floor = {"wrong epsilon": 0.5}.get(way, 1e-4)
    x = g("Log", g("Add", power, g.number(floor)))
    if way == "decibels":
        x = g("Mul", x, g.c(FLOAT(1 / np.log(10))))
    if way == "another logarithm and back":
        x = g("Mul", g("Mul", x, g.c(FLOAT(1 / np.log(2)))), g.c(FLOAT(np.log(2))))
    if way == "mean over all time":
        x = g("Sub", x, g("ReduceMean", x, axes=[2]))
    x = g("Transpose", x, perm=[2, 0, 1])
    w, r, b = (
        g.value(g.w(n, *s, scale=0.4)) for n, s in (("lw", (1, 24, 12)), ("lr", (1, 24, 6)), ("lb", (1, 48)))
    )
    if way == "gates in another order":
        w, r = np.roll(w, 6, axis=1), np.roll(r, 6, axis=1)
    if way == "stale recurrence":
        r = r[:, ::-1].copy()
    more = {"direction": "reverse"} if way == "backwards" else {}
    state = [""]
    if way == "first state":
        state = ["", g.c(np.ones((1, 1, 6), FLOAT) * 3), g.c(np.ones((1, 1, 6), FLOAT) * 3)]
    if way == "zero states":
        state = ["", g.c(np.zeros((1, 1, 6), FLOAT)), g.c(np.zeros((1, 1, 6), FLOAT))]
    x = g("LSTM", x, g.c(w), g.c(r), g.c(b), *state, hidden_size=6, outputs=3, **more)[0]
    x = g("Transpose", g("Squeeze", x, g.ints(1)), perm=[1, 0, 2])
    if way == "silent after 64 frames":
        count = g("Gather", g("Shape", x), g.whole(1))
        index = g("Range", g.whole(0), count, g.whole(1))
        x = g(
            "Mul",
            x,
            g("Unsqueeze", g("Cast", g("Less", index, g.whole(64)), to=F), g.ints(0, 2)),
        )
    if way == "nan at the optimum":
        x = g.at_size(x, 1, 32, np.nan)
    return g.model({"audio": (F, [1, "s"])}, {"states": (x, F, 3)})


KINDS: dict[str, tuple[Callable[..., ModelProto], Mapping[str, Any]]] = {
    "mlp": (mlp, MLP), "cnn": (cnn, CNN), "text": (text, TEXT), "audio": (audio, AUDIO),
}  # fmt: skip
WRONG_WAYS = {
    "mlp": [
        "rolled rows", "row 0 for all", "reversed rows", "reversed features", "batch statistics",
        "scaled by the batch's largest", "overflow", "dropped bias", "ignored alpha", "relu6",
        "no activation", "stale weights", "transposed weights", "wrong epsilon", "stale norm", "sign",
        "batch of 1 folded", "batch of 4 in the reshape", "leak between rows", "offset by the row",
        "nan at the largest batch", "nan alone", "off in a batch of 4", "last row lost",
        "softmax over the batch", "temperature", "swapped outputs", "missing output",
    ],
    "cnn": [
        "bgr", "swapped height and width", "cut at the optimum", "transposed kernel", "mirrored kernel",
        "stale statistics", "wrong epsilon", "pads off by one", "norm folded without the root",
        "padded with ones", "no norm", "dilated", "dropped shortcut", "largest for average",
        "off by one slice", "boxes in other order", "mean at the smallest size", "nearest for linear",
        "nan at the largest image", "leaky", "hard sigmoid", "padded by reflection", "corners for sizes",
        "nhwc left", "aligned corners", "resized to the optimum", "largest for mean",
        "infinite at the optimum", "shifted average",
    ],
    "text": [
        "stale embeddings", "positions off by one", "no scale", "no mask", "causal",
        "softmax over queries", "mixed batch", "nan at the longest",
        "large logits without their largest", "gelu without its root", "keys for values",
        "heads interleaved", "inverted mask", "ids cut at 31", "padding moves the mean",
        "first token for the mean", "no positions", "a small negative", "scale of the whole width",
    ],
    "audio": [
        "wrong epsilon", "gates in another order", "backwards", "silent after 64 frames",
        "nan at the optimum", "decibels", "shifted by a sample", "stale window", "magnitude for power",
        "mean over all time", "stale recurrence", "first state",
    ],
}  # fmt: skip
RIGHT_WAYS = {
    "mlp": [
        "", "matmul and add", "transposed weights by transB", "halves of a sum", "halves of the outputs",
        "einsum", "double", "a convolution", "alpha and beta", "max for relu", "where for relu",
        "norm as one operator", "norm by reciprocal", "double negative", "identities", "reshaped to -1",
        "softmax written out", "softmax by its logarithm",
    ],
    "cnn": [
        "", "explicit pad", "folded norm", "norm written out", "other order", "average as a convolution",
        "one convolution for two", "nhwc and back", "resized to a size", "sigmoid written out",
        "mean written out",
    ],
    "text": [
        "", "one hot", "norm as one operator", "scale in the weights", "one product for three", "einsum",
        "a larger negative", "where for a sum", "softmax written out", "gelu by tanh",
    ],
    "audio": [
        "", "two axes", "another logarithm and back", "zero states",
    ],
}  # fmt: skip


def made(kind: str, way: str, base: str = "", converts: str = "") -> Pair:
    function, profile = KINDS[kind]
    return Pair(function(base), function(way), profile, converts)


def mixing(way: str) -> ModelProto:
    """A network that mixes the rows of its batch: it subtracts their mean."""
    g = Net()
    total = g("ReduceSum", "x", g.ints(0))
    count = g("Cast", g("Gather", g("Shape", "x"), g.whole(0)), to=F)
    mean = g("Div", total, count) if way else g("ReduceMean", "x", axes=[0])
    return g.model({"x": (F, ["n", 16])}, {"y": (g("Sub", "x", mean), F, 2)})


def chosen(way: str) -> ModelProto:
    """Its output has as many elements as there are positive values."""
    g = Net()
    y = g("MatMul", "x", g.w("w", 16, 16))
    flat = g("Reshape", y, g.ints(-1))
    positive = g("Greater", flat, g.number(0)) if way else g("Not", g("LessOrEqual", flat, g.number(0)))
    return g.model({"x": (F, ["n", 16])}, {"y": (g("Compress", flat, positive), F, 1)})


def largest(way: str) -> ModelProto:
    """The index of the largest value."""
    g = Net()
    w = g.w("w", 16, 16)
    y = g("Gemm", "x", g.c(g.value(w).T.copy()), transB=1) if way else g("MatMul", "x", w)
    return g.model({"x": (F, ["n", 16])}, {"y": (g("ArgMax", y, axis=1), I64, 2)})


def boxes(way: str) -> ModelProto:
    """A detector with non-maximum suppression: as many boxes as it finds."""
    g = Net()
    found = g("Reshape", g("MatMul", "x", g.w("w", 16, 160)), g.ints(-1, 32, 5))
    random = np.random.default_rng(3)
    anchors = random.random((1, 32, 4)) * [8, 8, 4, 4] + [0, 0, 2, 2]
    logit = g.cut(found, 4, 5, 2)
    likely = g("Sigmoid", logit)
    if way == "otherwise":
        likely = g("Div", g.number(1), g("Add", g.number(1), g("Exp", g("Neg", logit))))
    selected = g(
        "NonMaxSuppression",
        *(
            g("Add", g.cut(found, 0, 4, 2), g.c(anchors.astype(np.float32))),
            g("Transpose", likely, perm=[0, 2, 1]),
        ),
        *(g.whole(5 if way == "fewer" else 32), g.number(0.7 if way == "overlap" else 0.5)),
        g.number(0.7 if way == "score" else 0.5),
        center_point_box=1,
    )
    return g.model({"x": (F, ["n", 16])}, {"y": (selected, I64, 2), "z": (likely, F, 3)})


def negative_root(way: str) -> ModelProto:
    """NaN for most draws, in the original too."""
    g = Net()
    root = g("Pow", "x", g.number(0.5)) if way else g("Sqrt", "x")
    return g.model({"x": (F, ["n", 16])}, {"y": (root, F, 2)})


def picture(way: str) -> ModelProto:
    """Bytes to numbers."""
    g = Net()
    x = g("Cast", "x", to=F)
    x = g("Mul", x, g.number(1 / 255)) if way else g("Div", x, g.number(255))
    return g.model({"x": (U8, ["n", 3, 8, 8])}, {"y": (g("Conv", x, g.w("k", 4, 3, 3, 3)), F, 4)})


def fixed(way: str) -> ModelProto:
    """A network without dynamic shapes."""
    g = Net()
    y = g("MatMul", "x", g.w("w", 16, 16))
    y = g("Mul", y, g("Sigmoid", y)) if way else g("Div", y, g("Add", g.number(1), g("Exp", g("Neg", y))))
    return g.model({"x": (F, [4, 16])}, {"y": (y, F, 2)})


def tiny(way: str) -> ModelProto:
    """Probabilities of many classes, each far below the bound."""
    g = Net()
    y = g.softmax(g("MatMul", "x", g.w("w", 16, 900)), "written" if way == "written" else "operator")
    if way == "turned":
        y = g.softmax(g("MatMul", "x", g.w("other", 16, 900)))
    return g.model({"x": (F, ["n", 16])}, {"y": (y, F, 2)})


def values(way: str) -> ModelProto:
    """A shape tensor: the sizes to resize to."""
    g = Net()
    y = g("Resize", "x", "", "", g("Concat", g("Shape", "x", end=2), "size", axis=0), mode="linear")
    y = g("Add", y, y) if way else g("Mul", y, g.number(2))
    return g.model({"x": (F, ["n", 1, 4, 4]), "size": (I64, [2])}, {"y": (y, F, 4)})


def offset(way: str) -> ModelProto:
    """Values near 1,000, such as a pressure."""
    g = Net()
    y = g("MatMul", "x", g.w("w", 16, 16))
    y = g("Sub", g.number(1000), y) if way == "sign" else g("Add", g.number(1000), y)
    return g.model({"x": (F, ["n", 16])}, {"y": (y, F, 2)})


def painted(way: str) -> ModelProto:
    """Numbers to bytes."""
    g = Net()
    y = g("Mul", g("MatMul", "x", g.w("w", 16, 64)), g.number(102 if way == "brighter" else 100))
    y = g("Clip", y, g.number(0), g.number(255))
    return g.model({"x": (F, ["n", 16])}, {"y": (g("Cast", y, to=U8), U8, 2)})


ROWS = {"x": ((1, 16), (3, 16), (5, 16))}
SPECIAL: dict[str, tuple[Callable[[str], ModelProto], Mapping[str, Any]]] = {
    "mixing": (mixing, ROWS),
    "chosen": (chosen, ROWS),
    "largest": (largest, ROWS),
    "negative root": (negative_root, ROWS),
    "picture": (picture, {"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}),
    "fixed": (fixed, {}),
    "values": (values, {"x": ((1, 1, 4, 4), (2, 1, 4, 4), (3, 1, 4, 4)), "size": ((2, 2), (6, 6), (9, 9))}),
}


def special(name: str, way: str, converts: str = "") -> Pair:
    function, profile = SPECIAL[name]
    return Pair(function(""), function(way), profile, converts)


WRONG: dict[str, Callable[[], Pair]] = {
    f"{kind}: {way}": functools.partial(made, kind, way) for kind, ways in WRONG_WAYS.items() for way in ways
}
RIGHT: dict[str, Callable[[], Pair]] = {
    f"{kind}: {way or 'the same'}": functools.partial(made, kind, way)
    for kind, ways in RIGHT_WAYS.items()
    for way in ways
}
RIGHT.update({f"{kind}: fp16": functools.partial(made, kind, "", "", "fp16") for kind in KINDS})
RIGHT.update({f"{name}: otherwise": functools.partial(special, name, "otherwise") for name in SPECIAL})
RIGHT.update(
    {f"{name}: fp16": functools.partial(special, name, "", "fp16") for name in ("mixing", "picture", "fixed")}
)
RIGHT["tiny: otherwise"] = lambda: Pair(tiny(""), tiny("written"), ROWS)
RIGHT["tiny: fp16"] = lambda: Pair(tiny(""), tiny(""), ROWS, "fp16")
RIGHT["painted: fp16"] = lambda: Pair(painted(""), painted(""), ROWS, "fp16")
RIGHT["painted: bf16"] = lambda: Pair(painted(""), painted(""), ROWS, "bf16")
RIGHT["offset: the same"] = lambda: Pair(offset(""), offset(""), ROWS)
RIGHT["offset: fp16"] = lambda: Pair(offset(""), offset(""), ROWS, "fp16")
for way in ("", "otherwise"):
    RIGHT[f"boxes: {way or 'the same'}"] = functools.partial(
        lambda way: Pair(boxes(""), boxes(way), ROWS), way
    )
RIGHT["boxes: fp16"] = lambda: Pair(boxes(""), boxes(""), ROWS, "fp16")
for way in ("score", "overlap", "fewer"):
    WRONG[f"boxes: {way}"] = functools.partial(lambda way: Pair(boxes(""), boxes(way), ROWS), way)
WRONG["offset: sign"] = lambda: Pair(offset(""), offset("sign"), ROWS)
WRONG["painted: brighter"] = lambda: Pair(painted(""), painted("brighter"), ROWS)
RIGHT["chosen: fp16"] = lambda: special("chosen", "", "fp16")
