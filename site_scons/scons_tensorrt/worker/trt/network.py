"""Parse an ONNX into a TensorRT network, and check that its types match the recipe's precision."""

from __future__ import annotations

from scons_tensorrt.worker.common.errors import WorkerError, recipe_error
from scons_tensorrt.worker.trt.runtime import title
from scons_tensorrt.worker.trt.settings import set_parser_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# By precision, the type that some tensor must have; and the types that need a precision that allows them.
MUST = {"fp16": "HALF", "bf16": "BF16", "int8": "INT8", "fp8": "FP8"}
NARROW = ("HALF", "BF16", "INT8", "FP8", "INT4", "FP4")


def parse(
    trt: Any, builder: Any, logger: Any, onnx: str, strong: bool = False, flags: str = ""
) -> tuple[Any, Any]:
    """The network of the ONNX at `onnx`, and its parser.

    strong: a strongly typed network, also in 10.x; flags: names of OnnxParserFlag. Raises WorkerError with
    the node, operator and message of the parser's first error; also for an empty network, which the parser
    makes of a file that is not an ONNX.
    """
    network = builder.create_network(_network_flags(trt, builder, strong))
    parser = trt.OnnxParser(network, logger)
    set_parser_flags(trt, parser, flags)
    if not parser.parse_from_file(onnx):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        # An unsupported operator fails on every host; another error may be for lack of memory.
        lasting = bool(errors) and all("UNSUPPORTED" in str(error.code()) for error in errors)
        raise WorkerError("EngineBuildError", _parser_message(errors, logger), lasting)
    if network.num_outputs == 0:
        text = "the parser returned an empty network; is the file an ONNX?"
        raise WorkerError("EngineBuildError", text)
    return network, parser


def _network_flags(trt: Any, builder: Any, strong: bool) -> int:
    """Bits of NetworkDefinitionCreationFlag. Later versions have fewer, since they have fewer kinds of
    networks: TensorRT 8 alone has implicit batches, of which the builder has a maximum size."""
    known = trt.NetworkDefinitionCreationFlag
    flags = 0
    if hasattr(builder, "max_batch_size"):
        flags |= 1 << int(known.EXPLICIT_BATCH)
    if strong and hasattr(trt.BuilderFlag, "FP16"):
        if not hasattr(known, "STRONGLY_TYPED"):
            raise recipe_error("strongly_typed is not supported by %s; leave it out" % title(trt))
        flags |= 1 << int(known.STRONGLY_TYPED)
    return flags


def _parser_message(errors: Sequence[Any], logger: Any) -> str:
    if not errors:
        reason = logger.errors[0] if logger.errors else "no reason given"
        return "the parser refused the model: %s" % reason
    first = errors[0]
    place = "node %d" % first.node()
    if not hasattr(first, "node_name"):  # TensorRT 8: the parent finds the name in the ONNX
        more = " (and %d more in the log)" % (len(errors) - 1) if len(errors) > 1 else ""
        return "the parser refused %s: %s%s" % (place, _cause(first), more)
    if first.node_name():
        place += " `%s`" % first.node_name()
    if first.node_operator():
        place += " (%s)" % first.node_operator()
    stack = list(first.local_function_stack()) if first.local_function_stack_size() else []
    if stack:
        place += " in " + " > ".join(stack)
    more = " (and %d more in the log)" % (len(errors) - 1) if len(errors) > 1 else ""
    return "the parser refused %s: %s%s" % (place, _cause(first), more)


def _cause(error: Any) -> str:
    """The text of a parser error, or a clearer one for a failed assertion of the parser."""
    text = " ".join(error.desc().split())
    if "Plugin not found" in text:
        return (
            "TensorRT has neither an operator nor a plugin of this name, version and namespace; "
            "give the plugin's library with plugins=, or replace the operator in the ONNX"
        )
    if text == "false":
        return "TensorRT does not support this operator; replace it in the ONNX, or give a plugin"
    return text


def strongly_typed(trt: Any, asked: bool = False) -> bool:
    """Whether the types of the ONNX decide: always in 11.x and RTX, in 10.x only if `asked`."""
    return asked or not hasattr(trt.BuilderFlag, "FP16")


def check_precision(
    trt: Any, network: Any, precision: str, strong: bool = False, calibrated: bool = False
) -> None:
    """Raise WorkerError (RecipeError) unless the engine will have the precision that its filename states.

    fp16 and bf16 need tensors of that type, unless the runtime is weakly typed and has a flag for it; int8
    and fp8 need Q/DQ nodes. calibrated: TensorRT's calibrator sets the ranges, and Q/DQ nodes are refused.
    A quantized model is fp16 or bf16 if its other tensors are.
    """
    if precision == "mixed":
        return
    types = types_of(network)
    wanted = MUST.get(precision)
    if calibrated and "INT8" in types:
        raise recipe_error("it has Q/DQ nodes already; leave out calibration")
    by_flag = calibrated or (precision in ("fp16", "bf16") and not strongly_typed(trt, strong))
    if wanted and wanted not in types and not by_flag:
        what = "an ONNX converted to %s" % precision
        if precision in ("int8", "fp8"):  # others become float32 (prepare=)
            what = "calibration=, an ONNX with Q/DQ nodes of %s and zero point 0" % precision
        raise recipe_error(
            "precision=%r, but no tensor of the model is %s: give %s, or precision='fp32'"
            % (precision, wanted, what)
        )
    allowed = {wanted}
    if precision in ("int8", "fp8"):
        allowed = set(MUST.values())
    elif precision in ("fp16", "bf16"):
        allowed |= quantized_types(types)
    others = sorted(types.intersection(NARROW) - allowed)
    if others:
        raise recipe_error(
            "precision=%r, but the model has %s tensors: write precision=%r"
            % (precision, ", ".join(others), _precision_of(types))
        )


def quantized_types(types: set[str]) -> set[str]:
    """Of a network's types, those that Q/DQ nodes make, for which a weakly typed builder needs flags."""
    return types & {"INT8", "FP8"}


def inputs_of(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def is_shape_tensor(tensor: Any) -> bool:
    """A shape tensor has rank 0 or 1; some bindings must not be asked about others."""
    return len(tensor.shape) <= 1 and bool(tensor.is_shape_tensor)


def types_of(network: Any) -> set[str]:
    """Names of the tensors' types. INT8 counts only in a quantized network; else it is plain data."""
    found = {tensor.dtype.name for tensor in inputs_of(network)}
    for layer in map(network.get_layer, range(network.num_layers)):
        outputs = map(layer.get_output, range(layer.num_outputs))
        found.update(tensor.dtype.name for tensor in outputs if tensor is not None)
    return found if _quantized(network) else found - {"INT8"}


def _quantized(network: Any) -> bool:
    kinds = {network.get_layer(i).type.name for i in range(network.num_layers)}
    return not kinds.isdisjoint(("QUANTIZE", "DEQUANTIZE", "DYNAMIC_QUANTIZE"))


def renumbered(network: Any) -> bool:
    """Whether RTX 1.7 numbers the tensors of this network differently in each build.

    It did, with everything else held constant, for all six networks with Q/DQ nodes (int8 and fp8) and a
    dynamic input, and for none with static shapes or without Q/DQ nodes.
    """
    return any(-1 in tuple(tensor.shape) for tensor in inputs_of(network)) and _quantized(network)


def _precision_of(types: set[str]) -> str:
    """The precision that a network of these types has."""
    narrow = [precision for precision, name in MUST.items() if name in types]
    if len(narrow) == 1 and not types.intersection(NARROW) - {MUST[narrow[0]]}:
        return narrow[0]
    return "mixed"
