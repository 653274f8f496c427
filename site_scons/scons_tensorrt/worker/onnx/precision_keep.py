"""Which nodes stay float32 in a conversion to 16 bit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.precision_source import SourceNodes
from scons_tensorrt.worker.onnx.tensor_values import TensorValues

SIXTEEN_BIT = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TYPE_STRING = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}
QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
# Inputs that stay float32 in an operator that is converted: Resize's roi and scales.
FLOAT32_INPUTS = {"Resize": [1, 2]}
# Operators whose results are float32 by an attribute that the converter does not know.
FLOAT32_BY_ATTRIBUTE = ("MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow")
# Operators that TensorRT for RTX 1.7.1 takes in float32, but its parser or builder refuses in 16 bit.
TENSORRT_LACKS = {
    "fp16": ("Celu",),
    "bf16": ("Celu", "ConvTranspose", "GRU", "HardSwish", "LpPool", "Mish", "Shrink"),
}
# Operators whose values come from the first input; their other inputs are sizes and positions.
MOVES_VALUES = ("Expand", "Tile", "Reshape", "Slice", "Gather", "Pad", "Unsqueeze", "Squeeze", "Transpose")


class KeptNodes:
    """The nodes that stay float32.

    names: of these nodes; op_types: of those that the user did not ask for; types: {tensor: element type} of
    the source. Raises WorkerError (RecipeError) for a tensor of unknown type.
    """

    def __init__(self, model: ModelProto, to: str, source: SourceNodes, values: TensorValues) -> None:
        self.types = graph_walk.types(model)
        self.names: set[str] = set()
        self.op_types: set[str] = set()
        self._to = to
        self._source = source
        self._values = values
        self._opsets = {graph_walk.domain(o): o.version for o in model.opset_import}
        self._opsets[""] = graph_walk.opset(model)
        self._of_shapes = _computed_from_shapes(model.graph, set(), set())
        self._constants = {t.name: t for graph in graph_walk.graphs(model.graph) for t in graph.initializer}
        _check_types_known(model, self.types)
        self._find(model.graph, False)

    def _find(self, graph: GraphProto, outer_is_kept: bool) -> None:
        for node in graph.node:
            if not self._touches(node, (TensorProto.FLOAT,)):
                continue
            keep = outer_is_kept or self._source.kept_by_user(node)
            if not keep and self._must_stay_float32(node):
                keep = True
                self.op_types.add(node.op_type)
            if keep:
                self.names.add(node.name)
            for inner in graph_walk.bodies(node):
                self._find(inner, keep)

    def _touches(self, node: NodeProto, types: Collection[int]) -> bool:
        names = [*graph_walk.read_by(node), *node.output]
        return any(self.types.get(name) in types for name in names)

    def _must_stay_float32(self, node: NodeProto) -> bool:
        from onnxruntime.transformers import float16

        return (
            node.op_type in float16.DEFAULT_OP_BLOCK_LIST
            or node.op_type in (*FLOAT32_BY_ATTRIBUTE, *TENSORRT_LACKS[self._to])
            or (node.op_type not in ("Shape", "Size") and not self._of_shapes.isdisjoint(node.output))
            or not self._is_defined(node)
            or not self._takes_16_bit_scale(node)
        )

    def _is_defined(self, node: NodeProto) -> bool:
        """Whether ONNX defines this node, at this opset, in 16 bit where it is float32."""
        domain = graph_walk.domain(node)
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)
        except onnx.defs.SchemaError:
            return False  # an operator of another domain, whose types are unknown
        if len(node.output) > 1 and any(a.name == "stash_type" for a in schema.attributes.values()):
            return False  # mean and deviation of a normalization are float32 by that attribute
        fixed_inputs = FLOAT32_INPUTS.get(node.op_type, ())
        sides = (node.input, schema.inputs, fixed_inputs), (node.output, schema.outputs, ())
        for names, formal, fixed in sides:
            for index, name in enumerate(names):
                if self.types.get(name) != TensorProto.FLOAT or index in fixed:
                    continue
                if TYPE_STRING[self._to] not in formal[min(index, len(formal) - 1)].types:
                    return False
        return True

    def _takes_16_bit_scale(self, node: NodeProto) -> bool:
        """False for a Q/DQ node whose float32 scale is not a normal number in 16 bit, or is computed."""
        if node.op_type not in QUANTIZING or graph_walk.domain(node):
            return True
        if self.types.get(node.input[1]) != TensorProto.FLOAT:
            return True
        if graph_walk.attributes(node).get("output_dtype") == TensorProto.FLOAT:
            return False
        scale = self._constants.get(node.input[1])
        return scale is not None and self._values.is_normal(scale, self._to)

    def leave_nothing_to_convert(self, model: ModelProto, options: Mapping[str, Any]) -> bool:
        """Whether the model is of the wanted type already. Raises WorkerError (RecipeError) if nothing in it
        can be converted, or it is of the other 16-bit type."""
        present = set(self.types.values())
        other = next((to for to, t in SIXTEEN_BIT.items() if t in present and to != self._to), None)
        left = not options["keep_io"] and any(
            self.types.get(item.name) == TensorProto.FLOAT
            for item in [*model.graph.input, *model.graph.output]
        )
        work = False
        for node in graph_walk.all_nodes(model):
            if self._source.kept_by_user(node) and self._touches(node, tuple(SIXTEEN_BIT.values())):
                raise recipe_error(
                    "`%s` is to stay float32, but the model has it in 16 bit already: give the float32 "
                    "original" % (self._source.original[node.name] or node.op_type)
                )
            work |= node.op_type != "Cast" and node.name not in self.names and self._is_convertible(node)
        if other:
            raise recipe_error(
                "the model has %s tensors already and cannot become %s: give the float32 original, or "
                "precision=%r" % (other, self._to, other)
            )
        if not work and SIXTEEN_BIT[self._to] not in present:
            why = "the model has no float32 tensors"
            if TensorProto.FLOAT in present:
                why = (
                    "every float32 node must stay float32"
                    if self.names
                    else "its float32 tensors are only cast"
                )
            raise recipe_error("nothing to convert: %s; leave the precision as it is" % why)
        return not work and not left

    def _is_convertible(self, node: NodeProto) -> bool:
        fixed = FLOAT32_INPUTS.get(node.op_type, ())
        names = [name for index, name in enumerate(node.input) if index not in fixed]
        return any(self.types.get(name) == TensorProto.FLOAT for name in [*names, *node.output])

    def split_shared_initializers(self, model: ModelProto, values: TensorValues) -> None:
        """Copy, for the float32 nodes, each initializer that 16-bit nodes read too."""
        readers: dict[str, list[tuple[NodeProto, int]]] = {}
        narrow = set()
        for node in graph_walk.all_nodes(model):
            for index, name in enumerate(node.input):
                if self.types.get(name) != TensorProto.FLOAT:
                    continue
                if node.name in self.names or index in FLOAT32_INPUTS.get(node.op_type, ()):
                    readers.setdefault(name, []).append((node, index))
                else:
                    narrow.add(name)
        taken = set(self.types)
        for graph in graph_walk.graphs(model.graph):
            for tensor in list(graph.initializer):
                if tensor.name in narrow and tensor.name in readers:
                    new = graph.initializer.add()
                    new.CopyFrom(tensor)
                    new.name = graph_walk.new_name(tensor.name, taken)
                    values.alias(new.name, tensor.name)
                    for node, index in readers[tensor.name]:
                        node.input[index] = new.name


def _check_types_known(model: ModelProto, types: Mapping[str, int]) -> None:
    for node in graph_walk.all_nodes(model):
        unknown = [name for name in node.output if name and name not in types]
        if unknown:
            what = "%s.%s" % (node.domain, node.op_type) if graph_walk.domain(node) else node.op_type
            raise recipe_error(
                "the type of `%s`, an output of %s, is unknown, so it cannot be cast: declare it in "
                "the ONNX (value_info)" % (unknown[0], what)
            )


def _computed_from_shapes(graph: GraphProto, constant: Collection[str], derived: Collection[str]) -> set[str]:
    """The tensors that are computed from shapes and constants alone, such as sizes for a Resize, or
    positions. They stay float32: above 2048, fp16 skips integers, and TensorRT has no fp16 shapes.

    constant, derived: the tensors of the outer graphs that are constant, or computed from shapes."""
    constant, derived = set(constant), set(derived)
    constant.update(t.name for t in graph.initializer)
    found: set[str] = set()
    for node in graph.node:
        read = [name for name in node.input if name]
        bodies = list(graph_walk.bodies(node))
        for inner in bodies:
            found |= _computed_from_shapes(inner, constant, derived)
        if bodies or node.op_type == "ConstantOfShape" or node.op_type.startswith("Random"):
            continue
        deciding = read[:1] if node.op_type in MOVES_VALUES else read
        if node.op_type in ("Shape", "Size"):
            derived.update(node.output)
        elif constant.issuperset(read):
            constant.update(node.output)
        elif derived.intersection(deciding) and (constant | derived).issuperset(read):
            derived.update(node.output)
    return found | derived
