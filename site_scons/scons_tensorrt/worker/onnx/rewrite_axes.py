"""The rewrite of Squeeze nodes without axes, whose result TensorRT cannot know if a size may be 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from scons_tensorrt.worker.onnx import graph_walk, infer_shapes


def refused(
    model: ModelProto, profiles: Sequence[Mapping[str, Any]]
) -> list[tuple[NodeProto, list[set[int]]]]:
    """The Squeeze nodes that TensorRT refuses: their input has a size that the model leaves open, and that is
    1 at min, opt or max of a profile. With each the axes of size 1, at each of these."""
    nodes = [node for node in graph_walk.all_nodes(model) if _has_no_axes(node)]
    if not nodes:
        return []
    open_sizes = infer_shapes.known_shapes(infer_shapes.infer_shapes(model))
    points = [
        infer_shapes.at_sizes(model, {name: shapes[at] for name, shapes in profile.items()})
        for profile in profiles or [{}]
        for at in range(3 if profiles else 1)
    ]
    found = []
    for node in nodes:
        known = [shapes.get(node.input[0]) for shapes in points]
        if any(sizes is None or None in sizes for sizes in known):
            continue
        ones = [{axis for axis, size in enumerate(sizes or ()) if size == 1} for sizes in known]
        stated = open_sizes.get(node.input[0])
        if stated is None or any(stated[axis] is None for axis in set().union(*ones)):
            found.append((node, ones))
    return found


def write_axes(model: ModelProto, profiles: Sequence[Mapping[str, Any]]) -> str | None:
    """Give each Squeeze that TensorRT refuses the axes that have size 1 at min, opt and max of every profile.

    A size that is 1 at some and not at all of them is kept, as the rank of an engine's tensors is fixed.
    """
    written = kept = 0
    for node, ones in refused(model, profiles):
        axes = sorted(set.intersection(*ones))
        _set_axes(model, node, axes)
        written += 1
        kept += set().union(*ones) != set(axes)
    if not written:
        return None
    return "axes of %d Squeeze" % written + (" (%d keep a size that may be 1)" % kept if kept else "")


def _has_no_axes(node: NodeProto) -> bool:
    plain = node.op_type == "Squeeze" and not graph_walk.domain(node) and not node.attribute
    return plain and len([name for name in node.input if name]) == 1


def _set_axes(model: ModelProto, node: NodeProto, axes: Sequence[int]) -> None:
    if not axes:
        node.op_type = "Identity"
    elif graph_walk.opset(model) < 13:
        node.attribute.append(helper.make_attribute("axes", list(axes)))
    else:
        taken = {name for graph in graph_walk.graphs(model.graph) for name in graph_walk.defined(graph)}
        name = graph_walk.new_name(node.output[0] + "_axes", taken)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(axes, np.int64), name))
        del node.input[1:]
        node.input.append(name)
