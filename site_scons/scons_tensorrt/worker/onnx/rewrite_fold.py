"""The rewrites of what is constant: nodes whose inputs are known, and If nodes whose condition is.

onnxslim and onnxsim fold too, but resolve an If only where its condition is constant in the main graph, and
neither is needed for anything else here. ONNX Runtime computes the values, with the kernels of the proof.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from scons_tensorrt.worker.onnx import graph_walk, infer_shapes

RECURRENT = ("LSTM", "GRU", "RNN")
LARGEST = 1024  # elements of a value that is computed; TensorRT folds weights itself
# Their outputs differ from run to run, or are types that TensorRT needs to see.
NOT_FOLDED = {
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"),
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Dropout"),
}


def constants_of(model: ModelProto) -> dict[str, np.ndarray]:
    """{tensor: value} of the initializers and constants whose values are in the model."""
    found = {}
    for graph in graph_walk.graphs(model.graph):
        tensors = [(tensor.name, tensor) for tensor in graph.initializer]
        for node in graph.node:
            if node.op_type == "Constant" and not graph_walk.domain(node):
                tensors.append((node.output[0], _constant(node)))
        for name, tensor in tensors:
            if tensor is not None and _has_value(tensor):
                found[name] = numpy_helper.to_array(tensor)
    return found


def _constant(node: NodeProto) -> TensorProto | None:
    """The value of a Constant node; None if it is sparse."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name.startswith("value_"):
            value = onnx.helper.get_attribute_value(attribute)
            kind = {"int": np.int64, "float": np.float32}.get(attribute.name[len("value_") :].rstrip("s"))
            return None if kind is None else numpy_helper.from_array(np.asarray(value, kind))
    return None


def _has_value(tensor: TensorProto) -> bool:
    """Whether the value is there: it may be in another file, or taken out of a large tensor."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type == TensorProto.STRING:
        return False
    if 0 in tensor.dims:
        return True
    fields = (tensor.raw_data, tensor.float_data, tensor.int32_data, tensor.int64_data)
    return any(len(field) for field in (*fields, tensor.double_data, tensor.uint64_data))


def has_refused_if(model: ModelProto) -> bool:
    """Whether there is an If that TensorRT refuses: one with a recurrent layer inside whose sequence output
    is not read; or one that has branches of different rank, or is inside another. Of these, TensorRT itself
    resolves what is known without the recipe's shapes."""
    if not any(node.op_type == "If" for node in graph_walk.all_nodes(model)):
        return False
    if _has_unread(model.graph, set(constants_of(model)), within_if=False):
        return True
    folded = infer_shapes.infer_shapes(fold(copy.deepcopy(model))[0])
    shapes = infer_shapes.known_shapes(folded)
    return any(
        _ranks_differ(node, shapes) or (node.op_type == "If" and _has_if(node))
        for node in graph_walk.all_nodes(folded)
    )


def _has_if(node: NodeProto) -> bool:
    return any(each.op_type == "If" or _has_if(each) for g in graph_walk.bodies(node) for each in g.node)


def _has_unread(graph: GraphProto, constants: set[str], within_if: bool) -> bool:
    read = {name for node in graph.node for name in graph_walk.read_by(node)}
    read.update(output.name for output in graph.output)
    for node in graph.node:
        if within_if and node.op_type in RECURRENT and node.output[0] not in read:
            return True
        inside = within_if or (node.op_type == "If" and node.input[0] not in constants)
        if any(_has_unread(body, constants, inside) for body in graph_walk.bodies(node)):
            return True
    return False


def _ranks_differ(node: NodeProto, shapes: Mapping[str, infer_shapes.Sizes]) -> bool:
    """Whether branches of an If return tensors of different rank, by their shapes or by their operators."""
    branches = list(graph_walk.bodies(node)) if node.op_type == "If" else []
    if len(branches) < 2:
        return False
    makers = [{name: each.op_type for each in branch.node for name in each.output} for branch in branches]
    for first, second in zip(branches[0].output, branches[1].output):
        ranks = [len(shapes[each.name]) for each in (first, second) if each.name in shapes]
        ops = {made.get(each.name, "Identity") for made, each in zip(makers, (first, second))}
        if len(set(ranks)) == 2 or ("Identity" in ops and not ops.isdisjoint(("Squeeze", "Unsqueeze"))):
            return True
    return False


def fold(model: ModelProto) -> tuple[ModelProto, int, int]:
    """Compute what is constant and resolve each If whose condition becomes known, until nothing changes.
    Tensors of all graphs must have unique names. Returns (model, nodes replaced by values, If resolved)."""
    folded = resolved = 0
    while True:
        infer_shapes.clear_inferred(model)
        model = infer_shapes.infer_shapes(model)
        values = _computed(model)
        replaced = sum(_set_values(graph, values) for graph in graph_walk.graphs(model.graph))
        found = _resolve(model.graph, constants_of(model))
        folded, resolved = folded + replaced, resolved + found
        if not found and not replaced:
            infer_shapes.clear_inferred(model)
            return model, folded, resolved


def _computed(model: ModelProto) -> dict[str, np.ndarray]:
    """The values of all outputs of nodes, but Constant ones, that can be computed."""
    constants = constants_of(model)
    known = infer_shapes.values_of_shapes(model, constants)
    ready, names = [], set(constants) | set(known)
    for graph in graph_walk.graphs(model.graph):
        for node in graph.node:
            if _can_fold(node, names) and node.output[0] not in known:
                ready.append(node)
                names.update(node.output)
    computed = _run(model, ready, {**constants, **known})
    computed.update(known)
    return {name: value for name, value in computed.items() if value.size <= LARGEST}


def _can_fold(node: NodeProto, names: set[str]) -> bool:
    if graph_walk.domain(node) or node.op_type == "Constant" or node.op_type in NOT_FOLDED:
        return False
    return not any(graph_walk.bodies(node)) and all(name in names for name in node.input if name)


def _run(
    model: ModelProto, nodes: Sequence[NodeProto], constants: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The outputs of these nodes, which read only each other and constants. Nodes that ONNX Runtime cannot
    run are left out."""
    import onnxruntime

    from scons_tensorrt.worker.onnx.runtime_options import session_options

    if not nodes:
        return {}
    read = {name for node in nodes for name in node.input if name in constants}
    outputs = [name for node in nodes for name in node.output if name]
    graph = onnx.helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(constants[name], name) for name in sorted(read)],
    )
    made = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = session_options("ORT_DISABLE_ALL", log_level=4)
    try:
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results = session.run(outputs, {})
    except Exception:  # one of them may be impossible: then each that is not
        if len(nodes) == 1:
            return {}
        found: dict[str, np.ndarray] = {}
        for node in nodes:
            found.update(
                _run(model, [node], {**constants, **found}) if _can_run(node, constants, found) else {}
            )
        return found
    return {n: r for n, r in zip(outputs, results) if isinstance(r, np.ndarray) and r.dtype != object}


def _can_run(node: NodeProto, *known: Mapping[str, np.ndarray]) -> bool:
    return all(any(name in each for each in known) for name in node.input if name)


def _set_values(graph: GraphProto, values: Mapping[str, np.ndarray]) -> int:
    """Replace the nodes whose outputs are all known, and not outputs of their graph, by initializers."""
    kept, count = [], 0
    known = set(values) - {output.name for output in graph.output}
    for node in graph.node:
        if node.op_type == "Constant" or not all(name in known for name in node.output if name):
            kept.append(node)
            continue
        count += 1
        for name in node.output:
            if name:
                graph.initializer.append(numpy_helper.from_array(values[name], name))
    if count:
        graph_walk.set_nodes(graph, kept)
    return count


def _resolve(graph: GraphProto, constants: Mapping[str, np.ndarray]) -> int:
    """Replace each If in this graph and those inside it whose condition is known by the branch taken."""
    count, nodes = 0, []
    for node in graph.node:
        condition = constants.get(node.input[0]) if node.op_type == "If" and node.input else None
        if condition is None or condition.size != 1 or graph_walk.domain(node):
            count += sum(_resolve(inner, constants) for inner in graph_walk.bodies(node))
            nodes.append(node)
            continue
        branch = graph_walk.attributes(node)["then_branch" if condition.item() else "else_branch"]
        count += 1 + _resolve(branch, constants)
        graph.initializer.extend(branch.initializer)
        nodes += branch.node
        nodes += [
            onnx.helper.make_node("Identity", [inner.name], [outer], "%s/%s" % (node.name, outer))
            for inner, outer in zip(branch.output, node.output)
            if outer
        ]
    if count:
        graph_walk.set_nodes(graph, nodes)
    return count


def simplify(model: ModelProto) -> tuple[ModelProto, list[str]]:
    """Fold, then remove what nothing reads; returns the phrases too."""
    model, folded, resolved = fold(model)
    removed = remove_unused(model)
    phrases = []
    if folded:
        phrases.append("%s folded" % graph_walk.count(folded, "node"))
    if resolved:
        phrases.append("%d If resolved" % resolved)
    if removed:
        phrases.append("%s of branches removed" % graph_walk.count(removed, "unused output"))
    return model, phrases


def remove_unused(model: ModelProto) -> int:
    """Remove outputs of If nodes that nothing reads, and then nodes and initializers that nothing reads.
    Returns how many outputs of branches were removed."""
    count = 0
    while True:
        read = {name for g in graph_walk.graphs(model.graph) for node in g.node for name in node.input}
        read.update(output.name for g in graph_walk.graphs(model.graph) for output in g.output)
        dropped = _drop_outputs(model.graph, read)
        count += dropped
        if not sum(_drop_nodes(graph, read) for graph in graph_walk.graphs(model.graph)) and not dropped:
            return count


def _drop_outputs(main: GraphProto, read: set[str]) -> int:
    count = 0
    for graph in graph_walk.graphs(main):
        for node in graph.node:
            unused = [at for at, name in enumerate(node.output) if name not in read]
            if node.op_type != "If" or not unused or len(unused) == len(node.output):
                continue
            for at in reversed(unused):
                del node.output[at]
                for branch in graph_walk.bodies(node):
                    del branch.output[at]
            count += len(unused)
    return count


def _drop_nodes(graph: GraphProto, read: set[str]) -> int:
    kept = [node for node in graph.node if any(name in read for name in node.output)]
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    count = len(graph.node) - len(kept) + len(graph.initializer) - len(weights)
    if len(kept) < len(graph.node):
        graph_walk.set_nodes(graph, kept)
    if len(weights) < len(graph.initializer):
        copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in weights]
        del graph.initializer[:]
        graph.initializer.extend(copies)
    return count
