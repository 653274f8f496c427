"""Patterns of networks with known trouble in fp16, each with inputs that harm it and with harmless ones: the
error in ONNX Runtime alone, by onnx's reference evaluator, and in the accuracy gate; and what
keep_nodes="auto" keeps.

    python benchmarks/half.py [NAME]
"""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import converted_accuracy, precision, precision_search
from scons_tensorrt.worker.onnx.cpu_model import CpuModel

node = helper.make_node
random = np.random.default_rng(0)
BOUND = {"metric": "elemwise", "rtol": 0.01, "atol": 0.01}


def layer_norm(scale):
    """LayerNorm as exporters before opset 17 write it; squares of the activations."""
    nodes = [
        node("MatMul", ["x", "k"], ["h"]),
        node("ReduceMean", ["h"], ["mean"], axes=[-1]),
        node("Sub", ["h", "mean"], ["centered"]),
        node("Pow", ["centered", "two"], ["squares"]),
        node("ReduceMean", ["squares"], ["variance"], axes=[-1]),
        node("Add", ["variance", "epsilon"], ["shifted"]),
        node("Sqrt", ["shifted"], ["deviation"]),
        node("Div", ["centered", "deviation"], ["y"]),
    ]
    values = {"k": random.standard_normal((64, 64)) * 0.125, "two": 2.0, "epsilon": 1e-5}
    return nodes, values, random.standard_normal((4, 16, 64)) * scale


def rms_norm(scale):
    """RMSNorm, one channel of which is much larger than the others, as in public language models."""
    nodes = [
        node("Mul", ["x", "x"], ["squares"]),
        node("ReduceMean", ["squares"], ["mean"], axes=[-1]),
        node("Add", ["mean", "epsilon"], ["shifted"]),
        node("Sqrt", ["shifted"], ["root"]),
        node("Reciprocal", ["root"], ["inverse"]),
        node("Mul", ["x", "inverse"], ["normal"]),
        node("Mul", ["normal", "gain"], ["y"]),
    ]
    x = random.standard_normal((4, 16, 64))
    x[..., 7] *= scale
    return nodes, {"epsilon": 1e-6, "gain": random.random(64) + 0.5}, x


def gelu(scale):
    """GELU by tanh, with the cube of the activations; infinity is harmless here, because its tanh is 1."""
    nodes = [
        node("Mul", ["x", "x"], ["square"]),
        node("Mul", ["square", "x"], ["cube"]),
        node("Mul", ["cube", "c"], ["cubic"]),
        node("Add", ["x", "cubic"], ["sum"]),
        node("Mul", ["sum", "root"], ["inner"]),
        node("Tanh", ["inner"], ["tanh"]),
        node("Add", ["tanh", "one"], ["gate"]),
        node("Mul", ["x", "gate"], ["twice"]),
        node("Mul", ["twice", "half"], ["y"]),
    ]
    values = {"c": 0.044715, "root": 0.7978846, "one": 1.0, "half": 0.5}
    return nodes, values, random.standard_normal((4, 16, 64)) * scale


def attention(scale):
    """Attention whose products are divided only after the MatMul."""
    nodes = [
        node("MatMul", ["x", "wq"], ["q"]),
        node("MatMul", ["x", "wk"], ["k"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["products"]),
        node("Mul", ["products", "scale"], ["logits"]),
        node("Softmax", ["logits"], ["weights"], axis=-1),
        node("MatMul", ["weights", "x"], ["y"]),
    ]
    wide = random.standard_normal((2, 64, 64)) * scale
    values = {"wq": wide[0], "wk": wide[1], "scale": 1 / (512 * scale**2)}
    return nodes, values, random.standard_normal((4, 16, 64))


def audio(scale):
    """Log of the power of 16-bit samples in bands, above a floor."""
    nodes = [
        node("MatMul", ["x", "bands"], ["spectrum"]),
        node("Mul", ["spectrum", "spectrum"], ["power"]),
        node("Add", ["power", "floor"], ["shifted"]),
        node("Log", ["shifted"], ["y"]),
    ]
    time = np.arange(64)
    bands = np.stack([np.cos(np.pi * time * (k + 0.5) / 64) for k in range(16)], axis=1) / 8
    return nodes, {"bands": bands, "floor": (scale / 30) ** 2}, random.standard_normal((4, 16, 64)) * scale


def boxes(scale):
    """Boxes of a detector: (cell + offset) x stride, less half of the width, in pixels."""
    nodes = [
        node("Sigmoid", ["x"], ["offset"]),
        node("Add", ["offset", "cells"], ["center"]),
        node("Mul", ["center", "stride"], ["pixels"]),
        node("Mul", ["offset", "size"], ["halves"]),
        node("Sub", ["pixels", "halves"], ["y"]),
    ]
    values = {"cells": np.arange(64) * scale / 64, "stride": 8.0, "size": 4.0}
    return nodes, values, random.standard_normal((4, 16, 64))


# Scales of the inputs (or weights): harmful, harmless; and the bound.
PATTERNS = {
    "LayerNorm written out": (layer_norm, 2000.0, 1.0, BOUND),
    "RMSNorm, one large channel": (rms_norm, 1500.0, 20.0, BOUND),
    "GELU by tanh": (gelu, 60.0, 1.0, BOUND),
    "attention, large products": (attention, 15.0, 0.1, BOUND),
    "audio, 16-bit samples": (audio, 3000.0, 1.0, {**BOUND, "atol": 0.05}),
    "boxes, 2,560 and 64 pixels": (boxes, 320.0, 8.0, {**BOUND, "rtol": 0.0, "atol": 0.25}),
}


def saved(folder, nodes, values, samples):
    there = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ENDS]
    graph = helper.make_graph(nodes, "g", *ends, there)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "s.npz", x=samples[:, None].astype(np.float32))


ENDS = ("x", [1, 16, 64]), ("y", None)


def errors(folder):
    """(in ONNX Runtime, by the reference evaluator): largest differences from the original."""
    original, made = CpuModel(str(folder / "m.onnx"), "m"), CpuModel(str(folder / "fp16.onnx"), "fp16")
    exact = ReferenceEvaluator(str(folder / "fp16.onnx"))
    found = []
    for x in np.load(folder / "s.npz")["x"]:
        wanted = original.run("a sample", {"x": x}, ["y"])[0]
        others = made.run("a sample", {"x": x}, ["y"])[0], exact.run(None, {"x": x})[0]
        found.append([np.abs(each.astype(np.float64) - wanted).max() for each in others])
    return np.max(found, axis=0)


def gate(folder, bound):
    """(error, what the gate says) of the fp16 ONNX."""
    spec = {"kind": "npz", "path": str(folder / "s.npz"), "function": None, "most": None, "at_least": 1}
    paths = str(folder / "m.onnx"), str(folder / "fp16.onnx"), str(folder / "figures.json")
    try:
        figures = converted_accuracy.compare(*paths, spec, bound)["outputs"]["y"]
        return "passed (%.2g)" % figures["error"], ""
    except WorkerError as error:
        said = str(error).split("original); ")[-1].split("; ")[0]
    try:
        options = {"to": "fp16", "keep_ops": [], "keep_nodes": "auto", "keep_io": True, **bound}
        search = paths[0], paths[0], str(folder / "auto.onnx"), options, spec, str(folder)
        made = precision_search.convert(*search)["auto"]
        return said, ", ".join("`%s`" % name for name in made["nodes"]) + " of %d" % made["of"]
    except WorkerError as error:
        return said, str(error)


def main():
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    print("| pattern | inputs | ONNX Runtime alone | reference evaluator | the gate | `auto` keeps |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (pattern, harmful, harmless, bound) in PATTERNS.items():
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        for scale, word in ((harmful, "large"), (harmless, "usual")):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                saved(folder, *pattern(scale))
                options = {"to": "fp16", "keep_ops": [], "keep_nodes": [], "keep_io": True}
                precision.convert(str(folder / "m.onnx"), str(folder / "fp16.onnx"), options)
                alone, exact = errors(folder)
                row = name, word, alone, exact, *gate(folder, bound)
                print("| %s | %s | %.2g | %.2g | %s | %s |" % row, flush=True)


main()
