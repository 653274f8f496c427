"""From a float32 ONNX to an fp16 or bf16 one, for runtimes that compile the types that the ONNX has.

The converter is `onnxruntime.transformers.float16`; docs/converters.md says why. It decides where casts
are needed and of which type. Because of what version 1.32 gets wrong, the work around it is:

- Before (precision_source.py): every tensor name becomes unique and every node gets a name, no graph
  returns a constant, and no initializer is read by both a float32 and a 16-bit node. The converter asserts
  where two branches use the same name, and would round what a float32 node reads.
- The Q/DQ nodes of a quantized model get 16-bit scales, for which fp16 raises the opset to 19. A scale
  that is computed, or too small for a normal fp16 number, stays float32.
- The nodes that stay float32 are listed for it (precision_keep.py): those on its own list, those that ONNX
  does not define in 16 bit at the model's opset, those that TensorRT lacks, and those that compute with
  shapes (fp16 cannot represent 2049).
- It gets no weights (tensor_values.py). The values are read from the source when the result is written, a
  piece at a time; so models above 2 GiB fit, and a bf16 value is never rounded to fp16 on the way.
- Afterwards (precision_result.py) its casts, all in the main graph, move to the graphs they belong to,
  casts to 16 bit and back between two float32 nodes are removed, and nodes are sorted.

It has no bf16: a bf16 model is its fp16 result with the type replaced, at opset 22, the first in
which ONNX defines convolutions and poolings in bf16.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Collection, Mapping
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from scons_tensorrt.worker.common.errors import WorkerError, one_line, recipe_error
from scons_tensorrt.worker.onnx import graph_walk, model_file, precision_keep, precision_result
from scons_tensorrt.worker.onnx.precision_source import SourceNodes, prepare
from scons_tensorrt.worker.onnx.tensor_values import TensorValues

BF16_OPSET = 22
SCALES_OPSET = 19  # the first whose Q/DQ nodes take fp16 scales


def convert(source: str, target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write the ONNX at `source` in 16 bit to `target`; return facts for the receipt.

    options: to ("fp16" or "bf16"), keep_ops, keep_nodes (computed in float32), keep_io (graph
    inputs and outputs keep their types). External data goes to `target`.data if the source has
    external data, or the result would not fit in a file of 2 GiB. A constant beyond the range of
    the type becomes its largest value and one that would vanish its smallest, with its sign;
    infinities stay. A model that is of that type already is copied with its external data.

    Facts: converter (packages and versions), kept (op types that must stay float32), kept_nodes
    (how many nodes are float32), clamped and raised (values too large, values too small),
    opset ([before, after], if bf16 or fp16 scales needed another); or as_it_is.

    Memory: at most three times the source file without external data, and 100 MB for external data of any
    size (2.2 GB of it: 170 MB in all). The same input gives the same bytes in every process.

    Raises WorkerError (RecipeError) for names to keep that the model does not have, for a model with
    nothing to convert, and for what the converter cannot do.
    """
    values = TensorValues(source)
    model = _without_values(model_file.load_model(source), values)
    nodes = SourceNodes(model, options)
    opset = graph_walk.opset(model)
    model = _typed(_raised(model, options["to"], nodes))
    kept = precision_keep.KeptNodes(model, options["to"], nodes, values)
    if kept.leave_nothing_to_convert(model, options):
        _copy(source, target, values.external)
        return _facts(as_it_is=True)
    result = _in_fp16(model, kept, values, options["keep_io"])
    precision_result.repair(result, nodes, kept)
    if options["to"] == "bf16":
        precision_result.fp16_to_bf16(result)
    precision_result.drop_inferred_types(result, nodes.declared)
    _check(result, model)
    nodes.restore_names(result)
    counts = values.write(result, target, options["to"])
    facts = _facts(kept=sorted(kept.op_types), kept_nodes=len(kept.names), **counts)
    if graph_walk.opset(result) != opset:
        facts["opset"] = [opset, graph_walk.opset(result)]
    return facts


def node_names(source: str) -> list[str]:
    """The nodes of the ONNX at `source`, as `keep_nodes` takes them. Raises WorkerError."""
    model = _without_values(model_file.load_model(source), TensorValues(source))
    return SourceNodes(model, {"keep_ops": [], "keep_nodes": []}).names


def _facts(**more: Any) -> dict[str, Any]:
    import onnxruntime

    return dict(converter={"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}, **more)


def _without_values(model: ModelProto, values: TensorValues) -> ModelProto:
    """The model as the converter needs it, without local functions, and without large values."""
    if not model.graph.node:
        raise recipe_error("nothing to convert: the model has no nodes; is it an ONNX model?")
    values.find_external(model)
    prepare(model)
    model = values.take(model)
    if model.functions:
        model = model_file.inlined(model)
        prepare(model)
        model = values.take(model)
    return model


def _raised(model: ModelProto, to: str, nodes: SourceNodes) -> ModelProto:
    """The model at the opset that its 16-bit nodes need."""
    if to == "bf16":
        model = model_file.raised_to(BF16_OPSET, model, "bf16")
    elif any(node.op_type in precision_keep.QUANTIZING for node in graph_walk.all_nodes(model)):
        try:
            model = model_file.raised_to(SCALES_OPSET, model, "a Q/DQ node with an fp16 scale")
        except WorkerError:
            return model  # the scales stay float32, between casts, which every runtime takes
    nodes.name_all(model)
    return model


def _typed(model: ModelProto) -> ModelProto:
    """The model with the types of all tensors."""
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception as error:
        raise recipe_error("the types of the model cannot be inferred: %s" % one_line(error)) from None


def _copy(source: str, target: str, external: bool) -> None:
    if external:
        model = model_file.load_model(source)
        model_file.load_external(model, source)
        model_file.save_model(model, target, external=True)
    else:
        shutil.copyfile(source, target)


def _in_fp16(
    model: ModelProto, kept: precision_keep.KeptNodes, values: TensorValues, keep_io: bool
) -> ModelProto:
    """What the converter makes of the model, without values."""
    result = values.take(model, every_float32=True)
    kept.split_shared_initializers(result, values)
    values.set_dims(result, real=False)
    result = _run_converter(result, kept.names, keep_io)
    values.set_dims(result, real=True)
    return result


def _run_converter(model: ModelProto, kept: Collection[str], keep_io: bool) -> ModelProto:
    from onnxruntime.transformers import float16

    float16.ALWAYS_FLOAT_INPUTS.update(precision_keep.FLOAT32_INPUTS)  # it knows the scales, but not the roi
    outputs = _remove_passed_through(model.graph) if keep_io else []
    try:
        made = float16.convert_float_to_float16(
            model,
            keep_io_types=keep_io,
            disable_shape_infer=True,
            op_block_list=[],
            node_block_list=sorted(kept),
        )
    except Exception as error:
        kind = type(error).__name__
        raise recipe_error(
            "onnxruntime's float16 converter failed with %s: %s; keep_nodes can leave the node "
            "concerned in float32" % (kind, one_line(error))
        ) from None
    for index, output in outputs:
        made.graph.output.insert(index, output)
    return made


def _remove_passed_through(graph: GraphProto) -> list[tuple[int, ValueInfoProto]]:
    """Remove and return [(index, output)] of the float32 outputs that are inputs too: they keep their type,
    but the converter would put casts in between."""
    inputs = {item.name for item in graph.input}
    passed = [
        (index, copy.deepcopy(output))
        for index, output in enumerate(graph.output)
        if output.name in inputs and output.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    for index, _ in reversed(passed):
        del graph.output[index]
    return passed


def _check(result: ModelProto, source: ModelProto) -> None:
    """Raise WorkerError if the result's types are inconsistent while the source's are not."""
    for how in ({"check_type": True, "strict_mode": True}, {"check_type": True}):
        try:
            onnx.shape_inference.infer_shapes(source, **how)
        except Exception:
            continue  # where the source fails too, the result's failure means nothing
        try:
            onnx.shape_inference.infer_shapes(result, **how)
            return
        except Exception as error:
            raise recipe_error(
                "the converted model is not consistent: %s; keep_nodes can leave the node concerned "
                "in float32" % one_line(error)
            ) from None
