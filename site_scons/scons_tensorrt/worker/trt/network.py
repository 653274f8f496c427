"""From an ONNX to a TensorRT network that is what the recipe says it is."""

from scons_tensorrt.worker.common.errors import WorkerError

# Types of the network that an engine of this precision must have, and those it must not.
MUST = {"fp16": "HALF", "bf16": "BF16", "int8": "INT8", "fp8": "FP8"}
NARROW = ("HALF", "BF16", "INT8", "FP8", "INT4", "FP4")


def parse(trt, builder, logger, onnx, strong=False):
    """The network of the ONNX at `onnx`. Raises WorkerError with the parser's node, op and message.

    strong: its own types shall decide in 10.x, too. A file that is not an ONNX parses without an
    error into an empty network.
    """
    flags = 0
    if strong and hasattr(trt.BuilderFlag, "FP16"):  # later versions always are
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(onnx):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        # What is unsupported is so on any host; what else stopped it may have been memory.
        lasting = bool(errors) and all("UNSUPPORTED" in str(error.code()) for error in errors)
        raise WorkerError("EngineBuildError", _parser_message(errors, logger), lasting)
    if network.num_outputs == 0:
        raise WorkerError("EngineBuildError", "the parser made an empty network of it; is it an ONNX?")
    return network, parser


def _parser_message(errors, logger):
    if not errors:
        return "the parser refused it: " + (logger.errors[0] if logger.errors else "no reason given")
    first = errors[0]
    place = "node %d" % first.node()
    if first.node_name():
        place += " `%s`" % first.node_name()
    if first.node_operator():
        place += " (%s)" % first.node_operator()
    stack = list(first.local_function_stack()) if first.local_function_stack_size() else []
    if stack:
        place += " in " + " > ".join(stack)
    more = " (and %d more in the log)" % (len(errors) - 1) if len(errors) > 1 else ""
    return "the parser refused %s: %s%s" % (place, _cause(first), more)


def _cause(error):
    """An error's text; where it is that of an assertion, what that means."""
    text = " ".join(error.desc().split())
    if "Plugin not found" in text:
        return (
            "TensorRT has neither an operator nor a plugin of this name, version and namespace; "
            "give the plugin's library with plugins=, or replace the operator in the ONNX"
        )
    if text == "false":
        return "TensorRT does not support this operator; replace it in the ONNX, or give a plugin"
    return text


def strongly_typed(trt, asked=False):
    """11.x and RTX compile the ONNX's own types; 10.x chooses types by builder flags unless asked."""
    return bool(asked) or not hasattr(trt.BuilderFlag, "FP16")


def check_precision(trt, network, precision, strong=False, calibrated=False):
    """Refuse a network whose types are not what the filename would promise.

    On a strongly typed runtime an fp16 engine needs an fp16 ONNX; on a weakly typed one the
    builder flag makes it, but int8 and fp8 need Q/DQ nodes on both; calibrated: unless TensorRT's
    calibrator gives the ranges, of which it takes none where there are Q/DQ nodes. A quantized
    model is fp16 or bf16 when what is not quantized is.
    """
    if precision == "mixed":
        return
    types = types_of(network)
    wanted = MUST.get(precision)
    if calibrated and "INT8" in types:
        raise WorkerError("RecipeError", "it has Q/DQ nodes already; leave out calibration")
    by_flag = calibrated or (precision in ("fp16", "bf16") and not strongly_typed(trt, strong))
    if wanted and wanted not in types and not by_flag:
        raise WorkerError(
            "RecipeError",
            "precision=%r, but no tensor of the model is %s: give an ONNX converted to %s, or "
            "precision='fp32'" % (precision, wanted, precision),
        )
    allowed = {wanted}
    if precision in ("int8", "fp8"):
        allowed = set(MUST.values())
    elif precision in ("fp16", "bf16"):
        allowed |= quantized_types(types)
    strange = sorted(types.intersection(NARROW) - allowed)
    if strange:
        raise WorkerError(
            "RecipeError",
            "precision=%r, but the model has %s tensors: write precision=%r"
            % (precision, ", ".join(strange), _precision_of(types)),
        )


def quantized_types(types):
    """Those of a network's types that Q/DQ nodes make and a weakly typed builder has flags for."""
    return types & {"INT8", "FP8"}


def types_of(network):
    """Names of the tensors' types; INT8 only of a quantized network, else it is plain data."""
    found = set()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        for j in range(layer.num_outputs):
            tensor = layer.get_output(j)
            if tensor is not None:
                found.add(tensor.dtype.name)
    for i in range(network.num_inputs):
        found.add(network.get_input(i).dtype.name)
    return found if _quantized(network) else found - {"INT8"}


def _quantized(network):
    kinds = {network.get_layer(i).type.name for i in range(network.num_layers)}
    return not kinds.isdisjoint(("QUANTIZE", "DEQUANTIZE", "DYNAMIC_QUANTIZE"))


def renumbered(network):
    """Whether RTX 1.7 numbers tensors of this network by no order that repeats: so it did, whatever
    was held still, in each of six networks with Q/DQ nodes and a dynamic input, int8 and fp8, and in
    none of theirs with static shapes or without Q/DQ nodes."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    return any(-1 in tuple(tensor.shape) for tensor in inputs) and _quantized(network)


def _precision_of(types):
    """The precision whose name would hold for these types."""
    narrow = [precision for precision, name in MUST.items() if name in types]
    if len(narrow) == 1 and not types.intersection(NARROW) - {MUST[narrow[0]]}:
        return narrow[0]
    return "mixed"
