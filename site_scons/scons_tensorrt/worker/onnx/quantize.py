"""From a float32 ONNX and samples to an ONNX with Q/DQ nodes, which TensorRT runs in int8 or fp8.

Scales and Q/DQ nodes are made by ONNX Runtime's quantizer, on a skeleton of the graph that has
nothing but the tensors to quantize; docs/quantization.md says why, and why the ranges of
activations are collected here. Only inputs are quantized, never a bias or an output, so TensorRT
fuses what follows a Conv or MatMul into it.
"""

import os
from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import samples as sample_sets
from scons_tensorrt.worker.onnx import tensors

# Operators with weights, and Add where it joins a residual branch to a Conv's output.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OPS = {"int8": (*WEIGHTED, "Add"), "fp8": ("Conv", "Gemm", "MatMul", "Add")}
QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
E4M3_MAX = 448.0
MAX_PROTOBUF = (2 << 30) - (1 << 20)  # bytes; the rest is room for what is no weight
BINS = 4096  # of a histogram; at least half of them are in use
LEVELS = 128  # magnitudes of an int8
CANDIDATES = 256  # thresholds that entropy tries
ALMOST_NOTHING = 1e-4  # of one value
SKIPPED_TOLD = 20


def quantize(source, target, options):
    """Write the quantized `source` to `target`; return the facts for a receipt.

    options: see `docs/quantization.md`; `samples` is a spec of `samples.read`, `temporary` a folder.
    Raises WorkerError (RecipeError) with what is wrong with the model, an option or a sample.
    """
    import onnxruntime

    _check_options(options)
    model, external = _load(source)
    model = _upgraded(model, _opset_for(options))
    graph = _Graph(model)
    places, skipped = _choose(graph, options)
    session = _session(model, [place.tensor for place in places], external, options["temporary"])
    places = _of_float32(places, session, skipped)
    if not places:
        raise _refused(_nothing_to_quantize(options, skipped))
    inputs = sample_sets.inputs_of(model)
    ranges, count = _ranges(session, sample_sets.read(options["samples"], inputs), places, options)
    places = [place for place in places if _has_range(place, ranges, skipped)]
    if not places:
        raise _refused("every sample is 0 in all that would be quantized; give samples of real use")
    _insert(graph, places, ranges, options)
    _save(model, target, external)
    quantized = Counter(place.node.op_type for place in places)
    return {
        "converter": {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__},
        "samples": count,
        "quantized": dict(sorted(quantized.items())),
        "method": options["method"],
        "skipped": ["%s: %s" % pair for pair in skipped[:SKIPPED_TOLD]],
        "skipped_count": len(skipped),
    }


def _refused(text):
    return WorkerError("RecipeError", text)


def _check_options(options):
    allowed = OPS[options["to"]]
    for name in options["ops"]:
        if name not in allowed:
            raise _refused(
                "ops: %s is not quantized to %s; choose of %s" % (name, options["to"], ", ".join(allowed))
            )
    if options["to"] == "fp8" and options["method"] == "entropy":
        raise _refused("method entropy is for the even steps of int8; take minmax or percentile for fp8")
    if not 50 <= options["percentile"] <= 100:
        raise _refused("percentile=%s is not between 50 and 100" % options["percentile"])


# The model.


def _load(source):
    """(the model with its external data, whether it had any)."""
    try:
        model = onnx.load(source, load_external_data=False)
    except OSError as error:
        raise _refused("it cannot be read: %s" % (error.strerror or error)) from None
    except Exception as error:  # protobuf and onnx raise what they like
        raise _refused("it is no ONNX, or is damaged: %s" % _line(error)) from None
    if model.functions:
        model = tensors.inlined(model)
    external = tensors.load_external(model, os.path.dirname(os.path.abspath(source)))
    if any(node.op_type in QUANTIZED for graph in _graphs(model.graph) for node in graph.node):
        raise _refused("it has Q/DQ nodes already; leave out calibration")
    return model, external


def _line(error):
    return " ".join(str(error).split())[:300]


def _graphs(graph):
    """A graph and all that its nodes contain."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                yield from _graphs(inner)


def _tensors(graph):
    for each in _graphs(graph):
        yield from each.initializer
        for node in each.node:
            yield from (a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)


def _opset_for(options):
    """The oldest opset whose QuantizeLinear does what is wanted."""
    if options["to"] == "fp8":
        return 19
    return 13 if options["per_channel"] else 10


def _upgraded(model, wanted):
    """`model` with at least that opset."""
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version >= wanted:
        return model
    try:
        made = onnx.version_converter.convert_version(model, wanted)
    except Exception as error:  # whatever its C++ raises
        raise _refused(
            "opset %d has not the Q/DQ nodes that are wanted and onnx cannot make %d of it (%s); export "
            "the ONNX with opset %d or later" % (version, wanted, _line(error), wanted)
        ) from None
    if wanted >= 19:
        made.ir_version = max(made.ir_version, 9)  # the first that knows float8
    return made


class _Graph:
    """Who makes and who takes each tensor of the main graph; what is constant in it."""

    def __init__(self, model):
        self.model = model
        self.nodes = list(model.graph.node)
        self.made_by = {name: node for node in self.nodes for name in node.output if name}
        self.order = {id(node): index for index, node in enumerate(self.nodes)}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.taken = Counter(name for node in self.nodes for name in _inputs(node))
        self.taken.update(output.name for output in model.graph.output)
        self.names = {n.name for n in self.nodes} | set(self.made_by) | set(self.initializers)
        self.names.update(value.name for value in model.graph.input)
        for inner in _graphs(model.graph):
            self.names.update(name for node in inner.node for name in (*node.input, *node.output))
        self.labels = self._labels()

    def _labels(self):
        """A name for each node, which messages and `keep_nodes` use; exporters leave some out."""
        counts = Counter(node.name for node in self.nodes)
        labels = {}
        for index, node in enumerate(self.nodes):
            own = node.name and counts[node.name] == 1
            labels[id(node)] = node.name if own else "%s_%d" % (node.op_type, index)
        return labels

    def root(self, name):
        """`name` without the Identities it went through."""
        while name in self.made_by and self.made_by[name].op_type == "Identity":
            name = self.made_by[name].input[0]
        return name

    def constant(self, name):
        """The value of a tensor that is stored in the model, or transposed from one; else None."""
        name = self.root(name)
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = self.made_by.get(name)
        if node is None or node.op_type not in ("Constant", "Transpose"):
            return None
        if node.op_type == "Constant":
            return next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
        value = self.constant(node.input[0])
        axes = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        return None if value is None else np.ascontiguousarray(np.transpose(value, axes))

    def new_name(self, name):
        """A name that is no prefix of one in use, because the quantizer appends to it."""
        tried, number = name, 1
        while any(used.startswith(tried) for used in self.names if len(used) >= len(tried)):
            number += 1
            tried = "%s_quantized%d" % (name, number)
        self.names.add(tried)
        return tried


def _inputs(node):
    """What a node takes, with what the graphs within it take from outside."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
            names += [name for inner in graph.node for name in _inputs(inner)]
    return names


# Where to quantize.


class _Place:
    """A node to quantize: the input that is an activation, and that of the weight or None."""

    def __init__(self, label, node, activation, weight=None):
        self.label = label
        self.node = node
        self.slot = activation
        self.tensor = node.input[activation]
        self.weight = weight


def _choose(graph, options):
    """([places], [(node name, why it is left out)]) in the graph's order."""
    wanted = set(options["ops"] or OPS[options["to"]]) - set(options["keep_ops"])
    kept = set(options["keep_nodes"])
    unknown = sorted(kept - set(graph.labels.values()))
    if unknown:
        raise _refused("keep_nodes names `%s`, which is no node of it" % unknown[0])
    places, skipped = [], []
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPS["int8"]:
            continue
        label = graph.labels[id(node)]
        if node.op_type == "Add":
            place = _residual(graph, node)
            if place is None or "Add" not in wanted or label in kept:
                continue
            places.append(place)
        elif label in kept:
            skipped.append((label, "named by keep_nodes"))
        elif node.op_type in wanted:
            why = _unsuited(graph, node)
            if why:
                skipped.append((label, why))
            else:
                places.append(_Place(label, node, 0, 1))
        else:
            skipped.append((label, "%s is not to be quantized" % node.op_type))
    for inner in list(_graphs(graph.model.graph))[1:]:
        weighted = (node for node in inner.node if node.op_type in WEIGHTED)
        skipped += [(node.name or node.op_type, "it is inside an If, Loop or Scan") for node in weighted]
    return places, skipped + _in_functions(graph)


def _in_functions(graph):
    """[(name, why)] of the calls of functions with weighted nodes that onnx could not inline."""
    functions = {(f.domain, f.name): f for f in graph.model.functions}
    skipped = []
    for node in graph.nodes:
        function = functions.get((node.domain, node.op_type))
        if function and any(each.op_type in WEIGHTED for each in function.node):
            why = "it is a function of another opset than the model's, so it was not inlined"
            skipped.append((graph.labels[id(node)], why))
    return skipped


def _unsuited(graph, node):
    """Why a node with weights is left in float, or ''."""
    if graph.constant(node.input[0]) is not None:
        return "its first input is constant"
    weight = graph.constant(node.input[1])
    if weight is None:
        return "its second input is no constant weight"
    if weight.dtype != np.float32:
        return "its weight is %s, not float32" % weight.dtype
    if node.op_type == "MatMul" and weight.ndim != 2:
        return "its weight has rank %d, not 2" % weight.ndim
    if weight.size == 0 or not np.isfinite(weight).all():
        return "its weight is empty or not finite"
    return ""


def _residual(graph, node):
    """The place of an Add that joins a residual branch to a Conv's output, or None.

    The Conv must have no other taker, so that TensorRT can fuse the Add into it; then the other
    input is what it reads from memory, in one byte a value when it is quantized.
    """
    ends = [index for index in (0, 1) if _is_end_of_conv(graph, node.input[index])]
    if not ends or any(graph.constant(name) is not None for name in node.input):
        return None
    if len(ends) == 2:  # the branch that ends first is the shortcut
        made = [graph.order[id(graph.made_by[name])] for name in node.input]
        ends = [0 if made[0] > made[1] else 1]
    return _Place(graph.labels[id(node)], node, 1 - ends[0])


def _is_end_of_conv(graph, name):
    """Is this the output of a Conv, its bias added, that nothing else takes?"""
    while graph.taken[name] == 1 and name in graph.made_by:
        node = graph.made_by[name]
        if node.op_type in ("Conv", "ConvTranspose"):
            return graph.constant(node.input[1]) is not None
        bias = node.op_type == "Add" and graph.constant(node.input[1]) is not None
        if not bias and node.op_type != "BatchNormalization":
            return False
        name = node.input[0]
    return False


def _nothing_to_quantize(options, skipped):
    wanted = ", ".join(options["ops"] or OPS[options["to"]])
    why = "; %s: %s" % skipped[0] if skipped else ""
    return (
        "nothing in it can be quantized: it has no %s with constant float32 weights%s; leave out "
        "calibration" % (wanted, why)
    )


# The ranges of activations.


def _session(model, tensors, external, temporary):
    """A session that also gives `tensors`; the model is as before when this returns."""
    import onnxruntime

    known = {value.name for value in (*model.graph.output, *model.graph.input)}
    added = [name for name in dict.fromkeys(tensors) if name not in known]
    before = len(model.graph.output)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors; its warnings are about the exporter's leavings
    options.intra_op_num_threads = 1  # how a sum is shared out shows in the last bits of a scale
    try:
        feed = _on_disk(model, temporary) if external or _is_big(model) else model.SerializeToString()
        return onnxruntime.InferenceSession(feed, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise WorkerError("PublishError", "%s: %s" % (temporary, error.strerror or error)) from None
    except Exception as error:  # classes of its own, which differ between versions
        raise _refused("ONNX Runtime cannot run it, so it cannot be calibrated: %s" % _line(error)) from None
    finally:
        del model.graph.output[before:]


def _on_disk(model, temporary):
    """The path of a copy with external data, for a model that is too large for one message."""
    path = os.path.join(temporary, "calibrate.onnx")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save_model(copy, path, save_as_external_data=True, location="calibrate.onnx.data")
    return path


def _is_big(model):
    sizes = (len(t.raw_data) + 4 * len(t.float_data) for t in _tensors(model.graph))
    return sum(sizes) > MAX_PROTOBUF


def _of_float32(places, session, skipped):
    """The places whose activation is float32."""
    types = {value.name: value.type for value in (*session.get_outputs(), *session.get_inputs())}
    good = []
    for place in places:
        if types[place.tensor] == "tensor(float)":
            good.append(place)
        else:
            skipped.append((place.label, "its input is %s" % types[place.tensor]))
    return good


def _ranges(session, samples, places, options):
    """({tensor: the largest magnitude to represent}, number of samples). One pass over the samples,
    of which one at a time is held with the tensors to quantize."""
    tensors = list(dict.fromkeys(place.tensor for place in places))
    fed = {value.name for value in session.get_inputs()}
    asked = [name for name in tensors if name not in fed]
    seen = {name: _Magnitudes(options["method"] != "minmax") for name in tensors}
    count = 0
    for sample in samples:
        try:
            values = dict(zip(asked, session.run(asked, sample))) if asked else {}
        except Exception as error:
            raise _refused(
                "%s, sample %d: ONNX Runtime cannot run the model on it: %s"
                % (options["samples"]["path"], count, _line(error))
            ) from None
        for name in tensors:
            value = values.pop(name) if name in values else sample[name]
            if not seen[name].add(value):
                raise _refused(
                    "%s, sample %d makes NaN or Inf in tensor `%s` of the model; leave it out, or "
                    "by keep_nodes the node that takes it" % (options["samples"]["path"], count, name)
                )
        count += 1
    return {name: seen[name].limit(options) for name in tensors}, count


class _Magnitudes:
    """What is kept of a tensor: its largest magnitude and a histogram of all of them.

    The histogram ends at a power of two and doubles by joining neighbours, so its size is bounded
    and it does not depend on the order of the samples.
    """

    def __init__(self, with_histogram):
        self.largest = 0.0
        self.counts = np.zeros(BINS, np.int64) if with_histogram else None
        self.top = 0.0  # where the histogram ends; 0 as long as all values were

    def add(self, values):
        """Take the values of one sample; False when they are not all finite."""
        values = np.abs(values, dtype=np.float32).ravel()
        largest = float(values.max(initial=0.0))
        if not np.isfinite(largest):
            return False
        self.largest = max(self.largest, largest)
        if self.counts is not None:
            self._widen(largest)
            index = values * np.float32(BINS / self.top) if self.top else np.zeros(values.size)
            index = np.minimum(index.astype(np.int64), BINS - 1)
            self.counts += np.bincount(index, minlength=BINS)
        return True

    def _widen(self, largest):
        if largest > self.top == 0.0:
            self.top = max(2.0 ** np.frexp(largest)[1], 2.0**-100)
        while largest > self.top:
            self.top *= 2
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([joined, np.zeros(BINS // 2, np.int64)])

    def limit(self, options):
        """The largest magnitude that is to be represented; 0 when every value was 0."""
        if self.counts is None or not self.largest:
            return self.largest
        used = min(int(self.largest * (BINS / self.top)), BINS - 1) + 1
        counts = self.counts[:used]
        if options["method"] == "percentile":
            share = np.cumsum(counts) / counts.sum()
            end = int(np.searchsorted(share, options["percentile"] / 100)) + 1
        else:
            end = _entropy_end(counts)
        return min(end * (self.top / BINS), self.largest)


def _entropy_end(counts):
    """How many bins to represent, for the least loss of information by 128 even steps.

    The method of TensorRT's entropy calibration as NVIDIA published it: the cut histogram, its tail
    in the last bin, against itself in 128 steps, by Kullback-Leibler divergence. The first bin, all
    zeros of a ReLU, would outweigh the rest; it counts as its neighbour.
    """
    counts = counts.astype(np.float64)
    if len(counts) <= LEVELS:
        return len(counts)
    counts[0] = counts[1]
    tails = counts[::-1].cumsum()[::-1]
    best, best_end = np.inf, len(counts)
    for end in np.unique(np.linspace(LEVELS, len(counts), CANDIDATES).astype(int))[::-1]:
        cut = counts[:end]
        step = np.arange(end) * LEVELS // end
        filled = cut > 0
        bins = np.bincount(step, filled, LEVELS)[step]
        coarse = np.where(filled, np.bincount(step, cut, LEVELS)[step] / np.maximum(bins, 1), 0)
        exact = cut.copy()
        exact[-1] += tails[end] if end < len(counts) else 0
        loss = _divergence(exact, coarse)
        if loss < best:
            best, best_end = loss, int(end)
    return best_end


def _divergence(exact, coarse):
    """Kullback-Leibler's. Where `coarse` has nothing it counts as almost nothing: else a tail that
    falls into an empty bin would forbid the cut, however little it is."""
    used = exact > 0
    p, q = exact[used], np.maximum(coarse[used], ALMOST_NOTHING)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def _has_range(place, ranges, skipped):
    if ranges[place.tensor] == 0.0:
        skipped.append((place.label, "its input was 0 in every sample"))
    return ranges[place.tensor] != 0.0


# The Q/DQ nodes.


def _insert(graph, places, ranges, options):
    """Put Q/DQ nodes in front of the places' inputs."""
    skeleton, tensor_of = _skeleton(graph, places)
    made = _quantized(skeleton, tensor_of, ranges, options)
    if options["to"] == "fp8":
        _to_fp8(made)
    wired = {node.name: node for node in made.node if node.op_type not in QUANTIZED}
    makers = {node.output[0]: node for node in made.node if node.op_type in QUANTIZED}
    scales = {name for node in makers.values() for name in node.input[1:]}
    graph.model.graph.initializer.extend(t for t in made.initializer if t.name in scales)
    before = {}  # id of a real node: the new ones in front of it
    for index, place in enumerate(places):
        fed = wired["node%d" % index].input
        slots = [(place.slot, fed[0])] + ([(place.weight, fed[1])] if place.weight is not None else [])
        for slot, name in slots:
            place.node.input[slot] = name
            dequantize = makers.pop(name, None)
            if dequantize is not None:  # else a node before has the pair in front of it
                quantize = makers.pop(dequantize.input[0])
                quantize.input[0] = tensor_of[quantize.input[0]]
                before.setdefault(id(place.node), []).extend([quantize, dequantize])
    ordered = [each for node in graph.nodes for each in (*before.get(id(node), ()), node)]
    ordered = _without_left_over(graph, ordered)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.model.graph.node[:]
    graph.model.graph.node.extend(copies)


def _without_left_over(graph, nodes):
    """`nodes` without the constants that were taken and are no more; so too the initializers."""
    taken = Counter(output.name for output in graph.model.graph.output)
    taken.update(name for node in nodes for name in _inputs(node))
    left = []
    for node in reversed(nodes):
        if node.op_type in ("Constant", "Identity", "Transpose"):
            name = node.output[0]
            if graph.taken[name] and not taken[name]:
                taken.subtract(_inputs(node))
                continue
        left.append(node)
    # One that is also listed among the inputs, as old exporters do, would be asked for without it.
    taken.update(value.name for value in graph.model.graph.input)
    initializers = graph.model.graph.initializer
    for index in reversed(range(len(initializers))):
        if graph.taken[initializers[index].name] and not taken[initializers[index].name]:
            del initializers[index]
    return left[::-1]


def _skeleton(graph, places):
    """(a model of the places alone, {its tensor: the real one}).

    The quantizer names its tensors after those it finds, rewires every taker, adapts weights to
    biases and knows nothing of graphs within nodes; here it finds nothing to spoil.
    """
    nodes, tensor_of, alias, weights = [], {}, {}, []
    for index, place in enumerate(places):
        node = place.node
        if place.tensor not in alias:
            alias[place.tensor] = graph.new_name(place.tensor + "_input")
            tensor_of[alias[place.tensor]] = place.tensor
        inputs = [alias[place.tensor]]
        if place.weight is not None:
            key = (graph.root(node.input[1]), _axis(node))
            if key not in alias:
                alias[key] = graph.new_name(key[0] + "_weight")
                value = graph.constant(key[0])
                weights.append(numpy_helper.from_array(value, alias[key]))
                tensor_of[alias[key]] = _stored(graph, key[0], value)
            inputs.append(alias[key])
        copy = helper.make_node(node.op_type, inputs, ["node%d_out" % index], "node%d" % index)
        copy.attribute.extend(a for a in node.attribute if a.name in ("transB", "group"))
        nodes.append(copy)
    activations = [
        helper.make_tensor_value_info(alias[name], TensorProto.FLOAT, None)
        for name in dict.fromkeys(place.tensor for place in places)
    ]
    made = helper.make_graph(nodes, "skeleton", activations, [], weights)
    model = helper.make_model(made, opset_imports=list(graph.model.opset_import))
    # What the quantizer marks a model with whose types it need not infer any more.
    helper.set_model_props(model, {"onnx.infer": "onnxruntime.quant"})
    return model, tensor_of


def _axis(node):
    """The axis of a weight's output channels, or None for one scale in all."""
    if node.op_type == "ConvTranspose":
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        return 1 if groups == 1 else None
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return {"Conv": 0, "MatMul": 1}[node.op_type]


def _stored(graph, name, value):
    """The tensor of the model that holds a weight; one that is transposed is stored anew."""
    if name in graph.initializers or graph.made_by[name].op_type == "Constant":
        return name
    stored = graph.new_name(name + "_stored")
    graph.model.graph.initializer.append(numpy_helper.from_array(value, stored))
    return stored


def _quantized(skeleton, tensor_of, ranges, options):
    """The graph that ONNX Runtime makes of the skeleton."""
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData

    limits = {value.name: ranges[tensor_of[value.name]] for value in skeleton.graph.input}
    bounds = {
        name: TensorData(lowest=np.array(-limit, np.float32), highest=np.array(limit, np.float32))
        for name, limit in limits.items()
    }
    whole = {  # one scale for the whole tensor
        node.input[1]: [{"symmetric": True}]
        for node in skeleton.graph.node
        if len(node.input) == 2 and _axis(node) is None
    }
    types = sorted({node.op_type for node in skeleton.graph.node})
    quantizer = QDQQuantizer(
        skeleton,
        options["per_channel"],
        False,  # the whole range of int8
        QuantType.QInt8,
        QuantType.QInt8,
        bounds,
        [],
        [],
        types,
        {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "OpTypesToExcludeOutputQuantization": types,
            "TensorQuantOverrides": whole,
        },
    )
    quantizer.quantize_model()
    return quantizer.model.model.graph


def _to_fp8(graph):
    """Make E4M3 of int8: the same magnitude is then the largest of E4M3, 448, and not 127."""
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            zeros = bytes(int(np.prod(tensor.dims, dtype=np.int64)))
            kind = TensorProto.FLOAT8E4M3FN
            tensor.CopyFrom(helper.make_tensor(tensor.name, kind, tensor.dims, zeros, raw=True))
    scales = {node.input[1] for node in graph.node if node.op_type in QUANTIZED}
    for tensor in graph.initializer:
        if tensor.name in scales:
            scale = numpy_helper.to_array(tensor).astype(np.float64) * (127 / E4M3_MAX)
            tensor.CopyFrom(numpy_helper.from_array(scale.astype(np.float32), tensor.name))


def _save(model, target, external):
    """Write the result; weights go to one file beside it when they did before, or must."""
    try:
        if external or _is_big(model):
            data = os.path.basename(target) + ".data"
            beside = os.path.join(os.path.dirname(target), data)
            if os.path.exists(beside):
                os.unlink(beside)  # it would be appended to
            onnx.save_model(model, target, save_as_external_data=True, location=data)
        else:
            onnx.save_model(model, target)
    except OSError as error:
        raise WorkerError("PublishError", "%s: %s" % (target, error.strerror or error)) from None
