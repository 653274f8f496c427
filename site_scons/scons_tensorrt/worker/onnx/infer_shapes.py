"""What shape inference knows of a model: shapes of tensors, and values that follow from shapes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorShapeProto

from scons_tensorrt.worker.onnx import graph_walk

if TYPE_CHECKING:
    Sizes = tuple["int | None", ...]  # None: not known


def is_static(dim: TensorShapeProto.Dimension) -> bool:
    return bool(dim.HasField("dim_value") and dim.dim_value >= 0)


def infer_shapes(model: ModelProto) -> ModelProto:
    """The model with the shapes that onnx can infer; unchanged where onnx fails."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # whatever its C++ raises; the rewrites then know less
        return model


def known_shapes(model: ModelProto) -> dict[str, Sizes]:
    """{tensor: sizes} of all tensors of known rank, in all graphs."""
    found: dict[str, Sizes] = {}
    for graph in graph_walk.graphs(model.graph):
        for info in [*graph.value_info, *graph.input, *graph.output]:
            tensor = info.type.tensor_type
            if info.type.HasField("tensor_type") and tensor.HasField("shape"):
                found[info.name] = tuple(
                    dim.dim_value if is_static(dim) else None for dim in tensor.shape.dim
                )
        found.update((tensor.name, tuple(tensor.dims)) for tensor in graph.initializer)
    return found


def at_sizes(model: ModelProto, sizes: Mapping[str, Sequence[int]]) -> dict[str, Sizes]:
    """What `known_shapes` finds if the inputs have these sizes."""
    made = copy.deepcopy(model)
    for value in made.graph.input:
        if value.name in sizes:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            shape.dim.extend(TensorShapeProto.Dimension(dim_value=size) for size in sizes[value.name])
    clear_inferred(made)
    return known_shapes(infer_shapes(made))


def clear_inferred(model: ModelProto) -> None:
    """Remove the shapes of tensors inside the model: those of before a rewrite may not hold after it."""
    for graph in graph_walk.graphs(model.graph):
        del graph.value_info[:]
        if graph is not model.graph:
            for value in graph.output:
                value.type.tensor_type.ClearField("shape")


def values_of_shapes(model: ModelProto, constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{tensor: value} of the tensors that are computed from shapes and are known although the shapes may be
    known in part only, such as one element of a Shape. constants: the values of the known tensors."""
    shapes = known_shapes(model)
    known: dict[str, list[Any]] = {}
    found = {}
    for graph in graph_walk.graphs(model.graph):
        for node in graph.node:
            value = _value(node, shapes, known, constants)
            if value is None:
                continue
            known[node.output[0]] = value
            flat = np.asarray(value, dtype=object).ravel()
            if all(each is not None for each in flat):
                found[node.output[0]] = np.asarray(value, np.int64)
    return found


def _value(
    node: NodeProto,
    shapes: Mapping[str, Sizes],
    known: Mapping[str, Any],
    constants: Mapping[str, np.ndarray],
) -> Any:
    """The int64 value of a node's output, a number or a list with None for what is not known; or None."""
    if graph_walk.domain(node):
        return None
    attributes = graph_walk.attributes(node)
    source = node.input[0] if node.input else ""
    if node.op_type in ("Shape", "Size"):
        sizes = shapes.get(source)
        if sizes is None:
            return None
        if node.op_type == "Size":
            return None if None in sizes else int(np.prod([size or 0 for size in sizes], dtype=np.int64))
        return list(sizes)[attributes.get("start", 0) : attributes.get("end", len(sizes))]
    value = known.get(source)
    rest = [constants[name] for name in node.input[1:] if name in constants]
    if not isinstance(value, list) or len(rest) < len(node.input) - 1:
        return None
    if node.op_type == "Gather" and abs(int(np.max(np.abs(rest[0]), initial=0))) <= len(value):
        picked = np.asarray([*value, None], dtype=object)[:-1][rest[0]]
        return picked.tolist() if isinstance(picked, np.ndarray) else picked
    if node.op_type == "Slice" and len(rest) >= 2 and all(each.size == 1 for each in rest):
        step = int(rest[3].item()) if len(rest) > 3 else 1
        return value[int(rest[0].item()) : int(rest[1].item()) : step] if step > 0 else None
    return None
