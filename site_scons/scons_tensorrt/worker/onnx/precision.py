"""From a float32 ONNX to an fp16 or bf16 one, for the backends that compile an ONNX's own types.

The converter is `onnxruntime.transformers.float16`: docs/converters.md says why. It decides where
casts stand and what their types are. Around it, because of what 1.32 gets wrong:

- It meets a graph in which every tensor name is unique, every node has a name, no graph returns
  a constant of its own, and no initializer is shared by a float32 and a 16-bit node. (It asserts
  on names that two branches use, and would round what a float32 node reads.)
- The Q/DQ nodes of a quantized model take 16-bit scales, for which fp16 raises the opset to 19; a
  scale that is computed, or too small for a normal fp16 number, stays float32.
- What must stay float32 is told to it node by node: its own list, what ONNX does not define in
  16 bit at the model's opset, what TensorRT lacks, and what computes with shapes (2049 is no
  fp16 number).
- It sees no weights. Their values come from the source when the result is written, a piece at a
  time; so a model above 2 GiB fits, and a bf16 value is never rounded to fp16 on the way.
- Afterwards its casts go to the graph that they belong to (it leaves all in the main one), casts
  to 16 bit and back between two float32 nodes go, and nodes are put in order.

bf16, which it does not have, is its fp16 result with the type renamed, at opset 22, the first in
which ONNX defines convolutions and poolings of bf16.
"""

import copy
import difflib
import heapq
import os

import onnx
from onnx import TensorProto

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import graph_walk, tensors

F32 = TensorProto.FLOAT
SIXTEEN = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TYPE_STRING = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}
BF16_OPSET, BF16_IR = 22, 10
SCALES_OPSET, SCALES_IR = 19, 9  # the first whose Q/DQ nodes take fp16 scales
QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
# Inputs that stay float32 in an operator that is converted: Resize's roi and scales.
FIXED_INPUTS = {"Resize": [1, 2]}
# Their results are float32 by an attribute that the converter does not know.
FLOAT_BY_ATTRIBUTE = ("MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow")
# What TensorRT for RTX 1.7.1 takes in float32, but its parser or its builder refuses in 16 bit.
TENSORRT_LACKS = {
    "fp16": ("Celu",),
    "bf16": ("Celu", "ConvTranspose", "GRU", "HardSwish", "LpPool", "Mish", "Shrink"),
}


def convert(source, target, options):
    """Write the ONNX at `source` in 16 bit to `target`; returns facts for a receipt.

    options: to ("fp16" or "bf16"), keep_ops, keep_nodes (computed in float32), keep_io (graph
    inputs and outputs keep their types). External data goes to `target`.data where the source has
    external data, or the result would not fit in a file of 2 GiB. A constant beyond the range of
    the type becomes its largest value and one that would vanish its smallest, sign kept;
    infinities stay. A model that is of that type already is copied with its external data.

    Facts: converter (packages and versions), kept (op types that must stay float32), kept_nodes
    (how many nodes are float32), clamped and raised (values too large, values too small),
    opset ([before, after], where bf16 or fp16 scales needed another); or as_it_is.

    Memory at most: three times the source file, and some 100 MB on top for external data, whatever
    its size (2.2 GB of it: 170 MB in all). The same input gives the same bytes in every process.

    Raises WorkerError (RecipeError) for names to keep that the model does not have, a model that has
    nothing to convert, and what the converter cannot do.
    """
    to, keep_io = options["to"], options["keep_io"]
    values = tensors.Values(os.path.dirname(os.path.abspath(source)))
    model, nodes = _as_needed(_load(source), values, options)
    opset = graph_walk.opset(model)
    if to == "bf16":
        model = _raised(model)
        nodes.name_all(model)
    elif any(node.op_type in QUANTIZING for node in graph_walk.all_nodes(model)):
        model = _raised_for_scales(model)
        nodes.name_all(model)
    model = _inferred(model)
    types = graph_walk.types(model)
    _check_known(model, types)
    kept, because = _kept(model, types, to, nodes, values)
    if _is_done(model, types, kept, nodes, options):
        tensors.copy_model(source, target, values.locations)
        return _facts(as_it_is=True)
    result = values.take(model, every_float32=True)
    _split_shared(result, types, kept, values)
    values.set_dims(result, real=False)
    result = _run_converter(result, kept, keep_io)
    values.set_dims(result, real=True)
    _into_their_graphs(result, nodes)
    _cast_captured(result, kept, types)
    _without_round_trips(result, nodes)
    _in_order(result.graph)
    if to == "bf16":
        _rename_type(result)
    _only_declared(result, nodes.declared)
    _check(result, model)
    nodes.give_names_back(result)
    counts = tensors.write(result, values, target, to, bool(values.locations))
    facts = _facts(kept=sorted(because), kept_nodes=len(kept), **counts)
    if graph_walk.opset(result) != opset:
        facts["opset"] = [opset, graph_walk.opset(result)]
    return facts


def _as_needed(model, values, options):
    """The model as the converter takes it, without large values, and its nodes."""
    values.find_external(model)
    _prepare(model)
    model = values.take(model)
    if model.functions:
        model = tensors.inlined(model)
        _prepare(model)
        model = values.take(model)
    return model, _Nodes(model, options)


def _facts(**more):
    import onnxruntime

    return dict(converter={"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}, **more)


def _one_line(error):
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _load(source):
    try:
        model = onnx.load(source, format="protobuf", load_external_data=False)
    except OSError as error:
        raise WorkerError("RecipeError", "the model cannot be read: %s" % error.strerror) from None
    except Exception as error:
        raise WorkerError("RecipeError", "this is no ONNX model: %s" % _one_line(error)) from None
    if not model.graph.node:
        raise WorkerError("RecipeError", "nothing to convert: the model has no nodes; is it an ONNX?")
    return model


# The graph as the converter takes it.


class _Nodes:
    """Which nodes to keep. Each has a name of its own while the converter runs, because the
    converter blocks by name, and the ONNX may have given the same to several, or none."""

    def __init__(self, model, options):
        self.original = {}
        self.keep_ops = set(options["keep_ops"])
        self.keep_nodes = set(options["keep_nodes"])
        self.declared = {info.name for graph in graph_walk.graphs(model.graph) for info in graph.value_info}
        _must_have("keep_ops", options["keep_ops"], {n.op_type for n in graph_walk.all_nodes(model)})
        _must_have("keep_nodes", options["keep_nodes"], {n.name for n in graph_walk.all_nodes(model)} - {""})
        self.name_all(model)

    def name_all(self, model):
        """Name what is not named yet: `original` says how the user calls it."""
        for node in graph_walk.all_nodes(model):
            if node.name not in self.original:
                name = "scons_tensorrt_%d" % len(self.original)
                self.original[name] = node.name
                node.name = name

    def is_wanted(self, node):
        return node.op_type in self.keep_ops or self.original[node.name] in self.keep_nodes

    def is_added(self, node):
        """Is this a cast of the converter?"""
        return node.name not in self.original

    def give_names_back(self, model):
        for node in graph_walk.all_nodes(model):
            node.name = self.original.get(node.name, node.output[0])


def _must_have(option, wanted, there):
    for name in wanted:
        if name in there:
            continue
        near = difflib.get_close_matches(name, sorted(there), 1, 0.5)
        what = "operator" if option == "keep_ops" else "node"
        hint = "did you mean `%s`?" % near[0] if near else "take the name from the ONNX"
        raise WorkerError("RecipeError", "%s: the model has no %s `%s`; %s" % (option, what, name, hint))


def _prepare(model):
    """Leave the meaning, and take away what the converter stumbles over."""
    graph = model.graph
    given = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in given]  # as TensorRT does with defaults
    if len(inputs) < len(graph.input):
        model.ir_version = max(model.ir_version, 4)  # the first that allows them as constants alone
        del graph.input[:]
        graph.input.extend(inputs)
    for inner in graph_walk.graphs(graph):
        _constants_to_initializers(inner)
        for node in inner.node:
            if node.op_type == "ConstantOfShape" and not node.attribute:  # not known to 1.20
                zero = onnx.helper.make_tensor("", TensorProto.FLOAT, [1], [0])
                node.attribute.append(onnx.helper.make_attribute("value", zero))
    # Names that the converter itself will give.
    taken = {"graph_%sput_cast_%d" % (way, i) for way in ("in", "out") for i in range(len(graph.node))}
    for item in [*graph.input, *graph.output]:
        taken.discard(item.name)
    _make_unique(graph, taken, {})
    _outputs_from_nodes(graph, taken)


def _constants_to_initializers(graph):
    """The converter casts a constant to 16 bit and back for a float32 node; an initializer that
    only float32 nodes read it leaves."""
    nodes = []
    for node in graph.node:
        tensor = _float_constant(node)
        if tensor is None:
            nodes.append(node)
            continue
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
    if len(nodes) < len(graph.node):
        nodes = [copy.deepcopy(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(nodes)


def _float_constant(node):
    if node.op_type != "Constant" or graph_walk.domain(node) or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
        return attribute.t
    if attribute.name == "value_float":
        return onnx.helper.make_tensor("", TensorProto.FLOAT, [], [attribute.f])
    if attribute.name == "value_floats":
        floats = list(attribute.floats)
        return onnx.helper.make_tensor("", TensorProto.FLOAT, [len(floats)], floats)
    return None


def _fresh(name, taken):
    number = 2
    while "%s_%d" % (name, number) in taken:
        number += 1
    taken.add("%s_%d" % (name, number))
    return "%s_%d" % (name, number)


def _make_unique(graph, taken, names):
    """Let no two graphs define the same name, as the branches of an If may. names: those of the
    graphs around that are called otherwise now."""
    names = dict(names)
    for name in dict.fromkeys(graph_walk.defined(graph)):
        names.pop(name, None)
        if name in taken:
            names[name] = _fresh(name, taken)
        taken.add(name)
    for item in [*graph.input, *graph.output, *graph.initializer, *graph.value_info]:
        item.name = names.get(item.name, item.name)
    for node in graph.node:
        for listed in (node.input, node.output):
            for index, name in enumerate(listed):
                if name in names:
                    listed[index] = names[name]
        for inner in graph_walk.bodies(node):
            _make_unique(inner, taken, names)


def _outputs_from_nodes(main, taken):
    """Let a node make each output of a graph; the converter loses the type of a constant that is
    returned, or of a tensor of the graph around."""
    for graph in graph_walk.graphs(main):
        made = {name for node in graph.node for name in node.output}
        if graph is not main:
            made.update(i.name for i in graph.input)
        constants = {t.name: t for t in graph.initializer}
        for output in graph.output:
            if output.name in made:
                continue
            new = _fresh(output.name, taken)
            if graph is not main:
                graph.node.append(onnx.helper.make_node("Identity", [output.name], [new]))
                output.name = new
            elif output.name in constants:
                graph_walk.replace(main, {output.name: new})
                constants[output.name].name = new
                graph.node.append(onnx.helper.make_node("Identity", [new], [output.name]))


def _inferred(model):
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception as error:
        raise WorkerError(
            "RecipeError", "the types of the model cannot be inferred: %s" % _one_line(error)
        ) from None


def _raised(model):
    """The model at the opset that bf16 needs."""
    if graph_walk.opset(model) >= BF16_OPSET:
        return model
    try:
        raised = onnx.version_converter.convert_version(model, BF16_OPSET)
    except Exception as error:
        raise WorkerError(
            "RecipeError",
            "bf16 needs opset %d and the model, of opset %d, cannot be raised: %s; export it with "
            "opset %d, or take fp16" % (BF16_OPSET, graph_walk.opset(model), _one_line(error), BF16_OPSET),
        ) from None
    raised.ir_version = max(raised.ir_version, BF16_IR)
    return raised


def _raised_for_scales(model):
    """The model at the opset whose Q/DQ nodes take fp16 scales; as it is where onnx cannot raise it:
    they then stay float32, between casts, which every runtime takes."""
    if graph_walk.opset(model) >= SCALES_OPSET:
        return model
    try:
        raised = onnx.version_converter.convert_version(model, SCALES_OPSET)
    except Exception:  # whatever its C++ raises
        return model
    raised.ir_version = max(raised.ir_version, SCALES_IR)
    return raised


# What stays float32.


def _touches(node, types, which=(TensorProto.FLOAT,)):
    names = [*graph_walk.read_by(node), *node.output]
    return any(types.get(name) in which for name in names)


def _kept(model, types, to, nodes, values):
    """The names of the nodes that stay float32, and the op types of those that nobody asked for."""
    from onnxruntime.transformers import float16

    opsets = {graph_walk.domain(o): o.version for o in model.opset_import}
    opsets[""] = graph_walk.opset(model)
    shapes = _from_shapes(model.graph, set(), set())
    constants = {t.name: t for graph in graph_walk.graphs(model.graph) for t in graph.initializer}
    kept, because = set(), set()

    def look(graph, inside_kept):
        for node in graph.node:
            if not _touches(node, types):
                continue
            keep = inside_kept or nodes.is_wanted(node)
            if not keep and (
                node.op_type in float16.DEFAULT_OP_BLOCK_LIST
                or node.op_type in (*FLOAT_BY_ATTRIBUTE, *TENSORRT_LACKS[to])
                or (shapes.intersection(node.output) and node.op_type not in ("Shape", "Size"))
                or not _defined_in(node, types, to, opsets)
                or not _takes_narrow_scale(node, types, to, constants, values)
            ):
                keep = True
                because.add(node.op_type)
            if keep:
                kept.add(node.name)
            for inner in graph_walk.bodies(node):
                look(inner, keep)

    look(model.graph, False)
    return kept, because


def _defined_in(node, types, to, opsets):
    """Does ONNX define this node, at this opset, with `to` where it has float32?"""
    domain = graph_walk.domain(node)
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return False  # an operator of another domain: nobody knows what it takes
    if len(node.output) > 1 and any(a.name == "stash_type" for a in schema.attributes.values()):
        return False  # mean and deviation of a normalisation are float32 by that attribute
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, name in enumerate(names):
            if types.get(name) != TensorProto.FLOAT:
                continue
            if names is node.input and index in FIXED_INPUTS.get(node.op_type, ()):
                continue
            if TYPE_STRING[to] not in formal[min(index, len(formal) - 1)].types:
                return False
    return True


def _takes_narrow_scale(node, types, to, constants, values):
    """False for a Q/DQ node whose float32 scale would lose more than its last bits in 16."""
    if node.op_type not in QUANTIZING or graph_walk.domain(node) or types.get(node.input[1]) != F32:
        return True
    if any(a.name == "output_dtype" and a.i == F32 for a in node.attribute):
        return False
    scale = constants.get(node.input[1])
    return scale is not None and values.is_normal(scale, to)


# Of these the first input decides what values the result has; the others say which and where.
_MOVES = ("Expand", "Tile", "Reshape", "Slice", "Gather", "Pad", "Unsqueeze", "Squeeze", "Transpose")


def _from_shapes(graph, constant, derived):
    """The tensors whose values come from shapes and constants alone, such as the sizes for a Resize
    or positions: fp16 has no integers above 2048 one by one, and TensorRT no fp16 shapes."""
    constant, derived = set(constant), set(derived)
    constant.update(t.name for t in graph.initializer)
    found = set()
    for node in graph.node:
        read = [name for name in node.input if name]
        bodies = list(graph_walk.bodies(node))
        for inner in bodies:
            found |= _from_shapes(inner, constant, derived)
        if bodies or node.op_type == "ConstantOfShape" or node.op_type.startswith("Random"):
            continue
        deciding = read[:1] if node.op_type in _MOVES else read
        if node.op_type in ("Shape", "Size"):
            derived.update(node.output)
        elif constant.issuperset(read):
            constant.update(node.output)
        elif derived.intersection(deciding) and (constant | derived).issuperset(read):
            derived.update(node.output)
    return found | derived


def _is_done(model, types, kept, nodes, options):
    """Is nothing left to convert in a model of the wanted type? Raises WorkerError where nothing can be."""
    to = options["to"]
    there = set(types.values()).intersection(SIXTEEN.values())
    other = next((name for name, kind in SIXTEEN.items() if kind in there and name != to), None)
    left = not options["keep_io"] and any(
        types.get(item.name) == TensorProto.FLOAT for item in [*model.graph.input, *model.graph.output]
    )
    work = False
    for node in graph_walk.all_nodes(model):
        if nodes.is_wanted(node) and _touches(node, types, tuple(SIXTEEN.values())):
            raise WorkerError(
                "RecipeError",
                "`%s` is to stay float32, but the model has it in 16 bit already: give the float32 "
                "original" % (nodes.original[node.name] or node.op_type),
            )
        work |= node.op_type != "Cast" and node.name not in kept and _has_convertible(node, types)
    if other:
        raise WorkerError(
            "RecipeError",
            "the model has %s tensors already and cannot become %s: give the float32 original, or "
            "precision=%r" % (other, to, other),
        )
    if not there and not work:
        why = "the model has no float32 tensors"
        if TensorProto.FLOAT in types.values():
            why = "every float32 node must stay float32" if kept else "its float32 tensors are only cast"
        raise WorkerError("RecipeError", "nothing to convert: %s; leave the precision as it is" % why)
    return not work and not left


def _has_convertible(node, types):
    fixed = FIXED_INPUTS.get(node.op_type, ())
    names = [name for i, name in enumerate(node.input) if i not in fixed]
    return any(types.get(name) == TensorProto.FLOAT for name in [*names, *node.output])


def _check_known(model, types):
    for node in graph_walk.all_nodes(model):
        unknown = [name for name in node.output if name and name not in types]
        if unknown:
            what = "%s.%s" % (node.domain, node.op_type) if graph_walk.domain(node) else node.op_type
            raise WorkerError(
                "RecipeError",
                "the type of `%s`, an output of %s, is unknown, so no cast can follow: declare it in "
                "the ONNX (value_info)" % (unknown[0], what),
            )


def _split_shared(model, types, kept, values):
    """A copy for the float32 nodes of each initializer that 16-bit nodes read too."""
    uses = {}
    for node in graph_walk.all_nodes(model):
        for index, name in enumerate(node.input):
            if types.get(name) == TensorProto.FLOAT:
                float32 = node.name in kept or index in FIXED_INPUTS.get(node.op_type, ())
                uses.setdefault(name, ([], []))[float32].append((node, index))
    taken = set(types)
    for graph in graph_walk.graphs(model.graph):
        for tensor in list(graph.initializer):
            narrow, float32 = uses.get(tensor.name, ([], []))
            if narrow and float32:
                new = graph.initializer.add()
                new.CopyFrom(tensor)
                new.name = _fresh(tensor.name, taken)
                values.alias(new.name, tensor.name)
                for node, index in float32:
                    node.input[index] = new.name


# The converter, and what it leaves to do.


def _run_converter(model, kept, keep_io):
    from onnxruntime.transformers import float16

    float16.ALWAYS_FLOAT_INPUTS.update(FIXED_INPUTS)  # it knows the scales alone, not the roi
    passed = _without_passed_through(model.graph) if keep_io else []
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
        raise WorkerError(
            "RecipeError",
            "onnxruntime's float16 converter failed with %s: %s; keep_nodes can leave the node "
            "concerned in float32" % (kind, _one_line(error)),
        ) from None
    for index, output in passed:
        made.graph.output.insert(index, output)
    return made


def _without_passed_through(graph):
    """Take away the float32 outputs that are inputs too: kept as they are, nothing of them is to be
    converted, and the converter would put casts between the two. Returns [(index, output)]."""
    inputs = {item.name for item in graph.input}
    passed = [
        (index, copy.deepcopy(output))
        for index, output in enumerate(graph.output)
        if output.name in inputs and output.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    for index, _ in reversed(passed):
        del graph.output[index]
    return passed


def _into_their_graphs(model, nodes):
    """Put each added cast into the graph that makes what it reads."""
    main = model.graph
    home = {}
    for graph in graph_walk.graphs(main):
        home.update((name, graph) for name in graph_walk.defined(graph) if graph is not main)
    moving = [copy.deepcopy(n) for n in main.node if nodes.is_added(n) and n.input[0] in home]
    for node in moving:
        home[node.input[0]].node.append(node)
        main.node.remove(node)
    if moving:
        _into_their_graphs(model, nodes)  # an added cast may read another one


def _cast_captured(model, kept, before):
    """A kept If, Loop or Scan is float32 inside, so what it takes from around it must be too."""
    after = graph_walk.types(model)
    for graph in list(graph_walk.graphs(model.graph)):
        for node in list(graph.node):
            if node.name not in kept:
                continue
            names = dict.fromkeys(
                name for inner in graph_walk.bodies(node) for name in graph_walk.captured(inner)
            )
            for name in names:
                if before.get(name) != TensorProto.FLOAT or after.get(name) != TensorProto.FLOAT16:
                    continue
                new = _fresh(name + "_cast_to_fp32", set(after))
                after[new] = TensorProto.FLOAT
                cast = onnx.helper.make_node("Cast", [name], [new], name=new, to=TensorProto.FLOAT)
                graph.node.append(cast)
                for inner in graph_walk.bodies(node):
                    graph_walk.replace(inner, {name: new})


def _without_round_trips(model, nodes):
    """Let a float32 node read what another one made, not what is left of it after 16 bit."""
    casts = [node for node in graph_walk.all_nodes(model) if nodes.is_added(node)]
    narrowed = {c.output[0]: c.input[0] for c in casts if c.attribute[0].i == TensorProto.FLOAT16}
    outputs = {o.name for graph in graph_walk.graphs(model.graph) for o in graph.output}
    instead = {}
    for cast in casts:
        if cast.attribute[0].i == TensorProto.FLOAT and cast.input[0] in narrowed:
            cast.input[0] = narrowed[cast.input[0]]
            if cast.output[0] in outputs:
                cast.op_type = "Identity"
                del cast.attribute[:]
            else:
                instead[cast.output[0]] = cast.input[0]
    graph_walk.replace(model.graph, instead)
    read = {name for node in graph_walk.all_nodes(model) for name in node.input} | outputs
    for graph in graph_walk.graphs(model.graph):
        for node in [n for n in graph.node if nodes.is_added(n) and n.output[0] not in read]:
            graph.node.remove(node)


def _in_order(graph):
    """Sort the nodes so that each comes after what it reads, else as they were."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waits = [{maker[name] for name in graph_walk.read_by(node) if name in maker} for node in graph.node]
    readers = {}
    for index, makers in enumerate(waits):
        for other in makers:
            readers.setdefault(other, []).append(index)
    ready = [index for index, makers in enumerate(waits) if not makers]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(graph.node):
        raise WorkerError("RecipeError", "the nodes of the model depend on each other in a circle")
    nodes = [copy.deepcopy(graph.node[index]) for index in order]
    del graph.node[:]
    graph.node.extend(nodes)
    for node in graph.node:
        for inner in graph_walk.bodies(node):
            _in_order(inner)


def _rename_type(model):
    """bf16 for fp16, which nothing was before the conversion."""
    old, new = TensorProto.FLOAT16, TensorProto.BFLOAT16
    for graph in graph_walk.graphs(model.graph):
        for info in [*graph.value_info, *graph.input, *graph.output]:
            for kind in (info.type.tensor_type, info.type.sequence_type.elem_type.tensor_type):
                if kind.elem_type == old:
                    kind.elem_type = new
    for node in graph_walk.all_nodes(model):
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == old:
                attribute.i = new
    for tensor, _ in graph_walk.tensors(model):
        if tensor.data_type == old:
            tensor.data_type = new


def _only_declared(model, declared):
    """Leave the types that the source itself declared; the rest was inferred for the converter."""
    for graph in graph_walk.graphs(model.graph):
        made = {name for node in graph.node for name in node.output}
        infos = {i.name: i for i in graph.value_info if i.name in declared and i.name in made}
        infos = [copy.deepcopy(info) for info in infos.values()]
        del graph.value_info[:]
        graph.value_info.extend(infos)


def _check(result, source):
    """Refuse a result whose types do not fit together where the source's do."""
    for how in ({"check_type": True, "strict_mode": True}, {"check_type": True}):
        try:
            onnx.shape_inference.infer_shapes(source, **how)
        except Exception:
            continue  # what the source does not pass says nothing of the conversion
        try:
            onnx.shape_inference.infer_shapes(result, **how)
            return
        except Exception as error:
            raise WorkerError(
                "RecipeError",
                "the converted model is not consistent: %s; keep_nodes can leave the node concerned "
                "in float32" % _one_line(error),
            ) from None
