"""How much nearer the outputs come to the original's if one layer of a converted model is back in float.

One model has both forms of each layer, and an input chooses: which layers skip their Q/DQ pairs, or which
tensors of a 16-bit model are not rounded. So all trials share one session.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from scons_tensorrt.worker.common.errors import accuracy_error
from scons_tensorrt.worker.onnx import graph_walk, model_file, quantized_layers, rounded_on_cpu, run_corners
from scons_tensorrt.worker.onnx import open_samples as sample_sets
from scons_tensorrt.worker.onnx.cpu_model import CpuModel
from scons_tensorrt.worker.onnx.judge_outputs import Figures, share
from scons_tensorrt.worker.onnx.quantize_graph import MainGraph
from scons_tensorrt.worker.onnx.rounding_losses import Loss, find_losses

SWITCHES = "scons_tensorrt switches"  # bool, one for each layer: whether it is in float
NUDGE = "scons_tensorrt nudge"  # float32: a factor of each activation from a Q/DQ pair
SUFFIX = ".switched"
ROUNDING = 2.0**-22  # relative: what float32 may lose in a layer
MOST_TENSORS = 100  # of a 16-bit model: those that lose most


class Layer(NamedTuple):
    """label: as `keep_nodes` takes it, where the layer is a node; keep: the nodes that keep a 16-bit tensor
    in float32."""

    label: str
    op_type: str
    keep: tuple[str, ...] = ()


def measure_sensitivity(
    reference: str,
    converted: str,
    spec: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    tell: Callable[..., None] = lambda event, **fields: None,
) -> dict[str, Any]:
    """The error of the outputs as they are, and with each layer back in float.

    reference, converted: paths of the ONNX files; spec: the samples, as `samples.read` takes them, or None to
    draw them; options: rtol, atol, metric, most (samples), and for draws `corners`, see recipe/gate_plan.py;
    tell: called for each layer that was run.
    Returns: kind, "8 bit" or "16 bit"; samples; drawn; metric; all, the figures as it is; noise, the same
    for how far the outputs move if each activation is rounded otherwise in float32 (8 bit; else None); of,
    how many layers there are; layers, in the order of the graph. Raises WorkerError.
    """
    first = CpuModel(rounded_on_cpu.without_bf16(reference), "the original")
    names = first.comparable_outputs()
    inputs = _inputs(first, reference, spec, options)
    begin = next(inputs)
    layers, kind, of, path = _switched(converted, reference, begin)
    second = CpuModel(path, "the converted model")
    tried = [Figures(names, options) for _ in range(len(layers) + 1)]
    noise = Figures(names, options)
    for number, sample in enumerate(itertools.chain([begin], inputs)):
        where = "sample %d" % number
        wanted = first.run(where, sample, names)
        usual = second.run(where, {**sample, **_switched_to(None, layers)}, names)
        tried[-1].add(number, dict(zip(names, zip(wanted, usual))))
        if kind == "8 bit":
            nudged = second.run(where, {**sample, **_switched_to(None, layers, 1 + ROUNDING)}, names)
            noise.add(number, dict(zip(names, zip(usual, nudged))))
        for index in range(len(layers)):
            made = second.run(where, {**sample, **_switched_to(index, layers)}, names)
            tried[index].add(number, dict(zip(names, zip(wanted, made))))
            tell("progress", sample=number, layer=index + 1, layers=len(layers))
    return {
        "kind": kind,
        "samples": number + 1,
        "drawn": spec is None,
        "metric": options["metric"],
        "all": _worst(tried[-1]),
        "noise": _worst(noise) if noise.compared else None,
        "of": of,
        "layers": [
            {"layer": layer.label, "op": layer.op_type, "keep": list(layer.keep), **_worst(figures)}
            for layer, figures in zip(layers, tried)
        ],
    }


def _switched_to(index: int | None, layers: list[Layer], nudge: float = 1.0) -> dict[str, np.ndarray]:
    """The added inputs of the model with switches. index: of the layer in float, None for no layer."""
    switches = np.array([number == index for number in range(len(layers))], bool)
    return {SWITCHES: switches, NUDGE: np.array(nudge, np.float32)}


def _worst(figures: Figures) -> dict[str, Any]:
    """Of the output that uses the largest share of its bound."""
    found = figures.worst()
    name = max(found, key=lambda each: share(found[each]))
    worst = found[name]
    return {"output": name, "error": _figure(worst["error"]), "bound": worst["bound"]}


def _figure(value: float) -> float:
    """Infinity as a number that JSON has."""
    return min(float(value), 1e38) if value == value else 1e38


def _inputs(
    first: CpuModel, reference: str, spec: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> Iterator[Mapping[str, np.ndarray]]:
    """The samples; or draws, at the optimum of the first profile. At least one. Raises WorkerError."""
    if spec:
        yield from itertools.islice(sample_sets.read(spec, first.inputs), options["most"])
        return
    original = run_corners.Original(reference, first, options["corners"], {})
    runs, _, why = original.run(original.usual())
    if not runs:
        raise accuracy_error("no inputs could be drawn: %s; give accuracy=dict(inputs=…)" % why)
    yield from [run.inputs for run in runs if run.kind != "alone"][: options["most"]]


def _switched(
    converted: str, reference: str, sample: Mapping[str, np.ndarray]
) -> tuple[list[Layer], str, int, str]:
    """(the layers, their kind, how many there are, the path of the model with switches). Raises
    WorkerError."""
    path = rounded_on_cpu.with_rounding(converted)
    model = model_file.load_model(path)
    if any(node.op_type == quantized_layers.DEQUANTIZE for node in model.graph.node):
        layers, kind = _switch_pairs(model, reference), "8 bit"
        of = len(layers)
    else:
        layers, of, model = _switch_roundings(converted, sample)
        kind = "16 bit"
    if not layers:
        raise accuracy_error("it has neither Q/DQ pairs nor 16-bit tensors that lose anything")
    shapes = {SWITCHES: (TensorProto.BOOL, [len(layers)]), NUDGE: (TensorProto.FLOAT, [])}
    for name, (element, shape) in shapes.items():
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, element, shape))
    del model.graph.value_info[:]
    with open(converted + SUFFIX, "wb") as out:
        out.write(graph_walk.without_repeated_names(model).SerializeToString())
    return layers, kind, of, converted + SUFFIX


def _switch_pairs(model: ModelProto, reference: str) -> list[Layer]:
    """Let the switches skip the Q/DQ pairs of each layer."""
    labels = _labels(reference)
    numbers: dict[str, int] = {}
    layers: list[Layer] = []
    before: dict[str, list[NodeProto]] = {}  # by the first output of a node
    for layer, pair in quantized_layers.pairs_of(model.graph):
        made = layer.output[0]
        if made not in numbers:
            numbers[made] = len(layers)
            layers.append(Layer(labels.get(made) or layer.name or made, layer.op_type))
        name = "scons_tensorrt %s %d" % (pair.node.output[0], pair.place)
        dequantized = pair.node.input[pair.place]
        chosen = _choice(numbers[made], pair.exact, dequantized, name)
        before.setdefault(pair.node.output[0], []).extend(chosen)
        pair.node.input[pair.place] = name
    _add_indices(model.graph, len(layers))
    _nudge_scales(model.graph, before)
    nodes = [each for node in model.graph.node for each in (*before.get(node.output[0], ()), node)]
    graph_walk.set_nodes(model.graph, nodes)
    return layers


def _nudge_scales(graph: GraphProto, before: dict[str, list[NodeProto]]) -> None:
    """Let the nudge multiply the scale of each activation. before: gets the new nodes."""
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        quantize = makers.get(node.input[0]) if node.op_type == quantized_layers.DEQUANTIZE else None
        if quantize is not None and quantize.input[0] not in constants:
            scale = "scons_tensorrt scale of " + node.output[0]
            product = onnx.helper.make_node("Mul", [node.input[1], NUDGE], [scale])
            before.setdefault(node.output[0], []).append(product)
            node.input[1] = scale


def _labels(reference: str) -> dict[str, str]:
    """The names of the original's nodes, as `keep_nodes` takes them, by their first outputs."""
    graph = MainGraph(model_file.load_model(reference))
    return {node.output[0]: graph.labels[id(node)] for node in graph.nodes if node.output}


def _switch_roundings(
    converted: str, sample: Mapping[str, np.ndarray]
) -> tuple[list[Layer], int, ModelProto]:
    """(the layers, how many 16-bit tensors there are, the model), whose switches skip the rounding of the
    tensors that lose most."""
    made = rounded_on_cpu.float32_model(converted)
    if made is None:
        return [], 0, onnx.ModelProto()
    model, roundings = made
    watched = [each for each in roundings if each.main]
    pairs = zip(watched, find_losses(converted, sample))
    able = [(rounding, loss) for rounding, loss in pairs if rounding.exact != rounding.tensor]
    losing = sorted((each for each in able if each[1].growth > 0), key=lambda each: -each[1].growth)
    chosen = {rounding.tensor: (rounding, loss) for rounding, loss in losing[:MOST_TENSORS]}
    layers: list[Layer] = []
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        tensor = node.output[0] if node.output else ""
        if tensor in chosen and node.name == rounded_on_cpu.ADDED + tensor:
            rounding, loss = chosen[tensor]
            node.output[0] = "scons_tensorrt rounded " + tensor
            nodes += _choice(len(layers), rounding.exact, node.output[0], tensor)
            layers.append(_layer(loss))
    _add_indices(model.graph, len(layers))
    graph_walk.set_nodes(model.graph, nodes)
    return layers, len(watched), model


def _layer(loss: Loss) -> Layer:
    return Layer(loss.label, loss.op_type or "input", loss.nodes)


def _choice(number: int, exact: str, rounded: str, made: str) -> list[NodeProto]:
    """Nodes that make `made`: `exact` if the switch is on, else `rounded`."""
    make, switch = onnx.helper.make_node, made + " switch"
    branches = {
        key: onnx.helper.make_graph(
            [make("Identity", [name], [made + " " + key])],
            key,
            [],
            [onnx.helper.make_tensor_value_info(made + " " + key, TensorProto.FLOAT, None)],
        )
        for key, name in (("then_branch", exact), ("else_branch", rounded))
    }
    return [
        make("Gather", [SWITCHES, "scons_tensorrt index %d" % number], [switch]),
        make("If", [switch], [made], **branches),
    ]


def _add_indices(graph: GraphProto, count: int) -> None:
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(number), "scons_tensorrt index %d" % number)
        for number in range(count)
    )
