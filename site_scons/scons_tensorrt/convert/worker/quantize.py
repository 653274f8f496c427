"""Q/DQ nodes by static quantization: `onnxruntime.quantization`, told to make what TensorRT takes.

TensorRT wants zero points of 0 (symmetric ranges), int8 and never uint8, and float biases; its
parser takes the standard operators alone. docs/quantization.md says why this quantizer.
"""

import logging
import os

from scons_tensorrt.compile.worker.failure import Refused

# Where int8 pays: TensorRT fuses the Q/DQ around these. Element-wise operators between them stay
# float, and TensorRT moves the Q/DQ over them where that is sound.
OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MIN_OPSET = 13  # the first with per-channel Q/DQ
PROTOBUF_BYTES = (1 << 31) - (1 << 20)


def quantize(source, target, options):
    """Write the ONNX at `source` with Q/DQ nodes to `target`; returns facts for a receipt.

    options: to ("int8"), method ("entropy", "minmax", "percentile"), percentile, per_channel, ops
    (empty for OPS), keep_ops, keep_nodes, samples (see samples.py), temporary (a folder). External
    data goes to `target`.data where the source has some. Samples are run one at a time.

    Refused with RecipeError.
    """
    import onnx

    if options["to"] != "int8":
        raise Refused(
            "RecipeError",
            "precision=%r: ONNX Runtime's quantizer makes no fp8 that TensorRT takes; give an ONNX "
            "with fp8 Q/DQ nodes, as NVIDIA's ModelOpt writes" % options["to"],
        )
    model = onnx.load(source)
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise Refused("RecipeError", "it has Q/DQ nodes already; leave out calibration")
    ops = sorted(set(options["ops"] or OPS) - set(options["keep_ops"]))
    kept = _nodes(model, options["keep_nodes"])
    _must_have(model, options["keep_ops"], "keep_ops")
    _must_have(model, options["ops"], "calibration ops")
    chosen = [n for n in model.graph.node if n.op_type in ops and n.name not in kept]
    if not chosen:
        raise Refused(
            "RecipeError", "nothing to quantize: it has no %s outside subgraphs" % " or ".join(ops)
        )
    model = _at_least_opset(model, MIN_OPSET)
    prepared = os.path.join(options["temporary"], "prepared.onnx")
    _save(model, prepared, _is_big(model))
    made = os.path.join(options["temporary"], "quantized.onnx")
    count = _quantize(prepared, made, model, ops, kept, options)
    result = onnx.load(made)
    _check(result)
    _save(result, target, _has_external(source) or _is_big(result))
    return {
        "converter": _versions(),
        "samples": count,
        "method": options["method"],
        "quantized": _counts(result),
    }


def _quantize(prepared, made, model, ops, kept, options):
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    logging.disable(logging.WARNING)  # it advises a pre-processing that TensorRT does itself
    methods = {
        "entropy": CalibrationMethod.Entropy,
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
    }
    reader = _reader(model, options["samples"])
    extra = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "ForceQuantizeNoInputCheck": True,
        "CalibTensorRangeSymmetric": options["method"] != "minmax",
        "CalibPercentile": options["percentile"],
        # Collect sample by sample, else every intermediate result of every sample is held.
        "CalibStridedMinMax": 1,
    }
    try:
        quantize_static(
            prepared,
            made,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=ops,
            nodes_to_exclude=sorted(kept),
            per_channel=options["per_channel"],
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[options["method"]],
            use_external_data_format=_is_big(model),
            extra_options=extra,
        )
    except Refused:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise Refused(
            "EngineBuildError", "ONNX Runtime's quantizer: %s: %s" % (type(error).__name__, text)
        ) from None
    return len(reader)


def _reader(model, spec):
    """The samples as the quantizer asks for them: their number, then a range at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    from scons_tensorrt.convert.worker import samples

    inputs = samples.inputs_of(model)
    count = sum(1 for _ in samples.read(spec, inputs))  # all are checked before any is run

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.all = samples.read(spec, inputs)
            self.left = 0

        def __len__(self):
            return count

        def set_range(self, start_index, end_index):
            self.left = end_index - start_index

        def get_next(self):
            if not self.left:
                return None
            self.left -= 1
            return next(self.all, None)

    return Reader()


def _nodes(model, wanted):
    there = {node.name for node in model.graph.node}
    _named(wanted, there, "keep_nodes", "node")
    return set(wanted)


def _must_have(model, wanted, option):
    _named(wanted, {node.op_type for node in model.graph.node}, option, "operator")


def _named(wanted, there, option, what):
    import difflib

    for name in wanted:
        if name in there:
            continue
        near = difflib.get_close_matches(name, sorted(there - {""}), 1, 0.5)
        hint = "did you mean `%s`?" % near[0] if near else "take the name from the ONNX"
        raise Refused("RecipeError", "%s: the model has no %s `%s`; %s" % (option, what, name, hint))


def _at_least_opset(model, least):
    from onnx import version_converter

    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if opset >= least:
        return model
    try:
        return version_converter.convert_version(model, least)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise Refused(
            "RecipeError",
            "opset %d is too old for Q/DQ nodes, and it cannot be converted to %d: %s; export it "
            "again" % (opset, least, text),
        ) from None


def _is_big(model):
    return model.ByteSize() > PROTOBUF_BYTES


def _has_external(source):
    import onnx
    from onnx.external_data_helper import uses_external_data

    model = onnx.load(source, load_external_data=False)
    return any(uses_external_data(tensor) for tensor in model.graph.initializer)


def _save(model, path, external):
    import onnx

    name = os.path.basename(path) + ".data"
    if external:
        onnx.save_model(model, path, save_as_external_data=True, location=name, size_threshold=1024)
    else:
        onnx.save_model(model, path)


def _check(model):
    """What TensorRT would refuse later, or take and mean something else."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise Refused("EngineBuildError", "the quantizer made %s:%s" % (node.domain, node.op_type))
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        zero = initializers.get(node.input[2])
        if zero is None or zero.data_type != TensorProto.INT8 or np.any(numpy_helper.to_array(zero)):
            raise Refused("EngineBuildError", "the quantizer made a zero point that is not int8 0")


def _counts(model):
    """How many nodes of each type have quantized inputs."""
    made = {o: n.op_type for n in model.graph.node for o in n.output}
    found = {}
    for node in model.graph.node:
        quantized = any(made.get(name) == "DequantizeLinear" for name in node.input)
        if quantized and node.op_type != "QuantizeLinear":
            found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


def _versions():
    import onnx
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}
