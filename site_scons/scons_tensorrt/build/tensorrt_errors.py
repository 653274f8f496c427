"""What an error of TensorRT's parser or builder means for the ONNX: the node, its line in the user's
program, and what helped others."""

from __future__ import annotations

import re
from pathlib import Path

from ..recipe.onnx.find_node import OnnxNode, find_node
from ..values import Value

_PARSER = re.compile(r"the parser refused node (-?\d+)(?: `(.+?)`)?(?: \(\w+\))?( in )?")
_ALONE = re.compile(r"the parser refused node \d+(?=:)")  # TensorRT 8 names neither node nor operator
_BUILDER = "the builder refused the network: "
_SPLIT = re.compile(r"\.\.\.| \+ ")
# Positions in TensorRT's own source, and the GPU that is missing on a host that only compiles.
_NOISE = (
    re.compile(r" In \w+(?:\(\))? at /\S+?:\d+"),
    re.compile(r" \[checkMacros\.cpp::catchCudaError.*", re.DOTALL),
    re.compile(r"Assertion failed: "),
)


class Refusal(Value):
    """text: a pattern of TensorRT's message, after which stands the node's operator with its domain, as in
    ` [com.microsoft::FusedMatMul]`; advice: what to do; issues: public ones with this message, where any was
    found; seen: whether TensorRT for RTX 1.7 refuses a small ONNX so, in
    tests/end_to_end/test_refused_models.py; else the entry is by the issues only."""

    text: str
    advice: str
    issues: tuple[str, ...]
    seen: bool = True


# The first that fits counts.
REFUSALS = (
    Refusal(
        r"(neither an operator nor a plugin|does not support this operator).* \[com\.microsoft",
        "ONNX Runtime's optimizer made this operator: give the ONNX as it was exported",
        ("NVIDIA/TensorRT#1515", "microsoft/onnxruntime#10905"),
    ),
    Refusal(
        r"neither an operator nor a plugin.* \[::",
        "if it is an operator of ONNX, export with an older opset, or update TensorRT",
        ("NVIDIA/TensorRT#2875", "NVIDIA/TensorRT#2657"),
    ),
    Refusal(
        r"\[::(Sequence\w+|SplitToSequence|ConcatFromSequence)\]|SequenceEmpty",
        "TensorRT has no sequences: use stack, cat and slices instead of lists of tensors; "
        "torch.onnx.export(dynamo=False) makes fewer",
        ("onnx/onnx-tensorrt#1044", "onnx/onnx-tensorrt#863"),
    ),
    Refusal(
        r"does not support this operator.*\[::(DynamicQuantizeLinear|MatMulInteger|ConvInteger|QLinear\w+)\]",
        "TensorRT takes only Q/DQ nodes: give the float32 ONNX and calibration=, or quantize with "
        "quant_format=QDQ",
        ("NVIDIA/TensorRT#4698",),
    ),
    Refusal(
        r"Cannot infer squeeze dimensions|ISqueezeLayer without an axes",
        "name the axes: in PyTorch, squeeze(dim)",
        ("modelscope/modelscope#1576", "NVIDIA/TensorRT#3515"),
        seen=False,
    ),
    Refusal(
        r"OutputLayer.*(equal ranks|same shape|not compatible)|graphScope|If condition must be",
        "the branches of an If differ in rank: if an input chooses the branch, make it a constant with "
        "freeze=; else export only the branch that you need",
        ("NVIDIA/TensorRT#3321", "NVIDIA/TensorRT#4032", "NVIDIA/TensorRT#938"),
    ),
    Refusal(
        r"K exceeds the maximum value",
        "TopK takes 3840 at most: choose fewer, or split the input and choose from the parts",
        ("NVIDIA/TensorRT#4244", "NVIDIA/TensorRT#4390"),
    ),
    Refusal(
        r"input K as an initializer",
        "the K of TopK must be a constant: export with a fixed number",
        ("open-mmlab/mmdeploy#835",),
        seen=False,
    ),
    Refusal(
        r"Could not find any implementation",
        "raise workspace_mb=, since kernels are skipped that need more memory; else write the operators of "
        "this node differently, or update TensorRT",
        ("NVIDIA/TensorRT#2035", "yuanyang1991/birefnet_tensorrt#4", "NVIDIA/TensorRT#2918"),
        seen=False,
    ),
    Refusal(
        r"[Aa]ntialias",
        "export the resize with antialias=False, or resize before the network",
        ("NVIDIA/TensorRT#3560",),
    ),
    Refusal(
        r"scales must be an initializer|shape tensor and must have type|scales\.is_weights",
        "sizes must be integers that are known or computed from shapes: resize to a size, not by a factor",
        ("SangbumChoi/MobileHumanPose#20", "NVIDIA/TensorRT#1346"),
    ),
    Refusal(
        r"must have same input types|element type \(\w+\) differs|incompatible input types",
        "cast one of the inputs in the ONNX; or give the float32 ONNX and let precision= convert it",
        ("the-database/mpv-AnimeJaNai#36", "NVIDIA/TensorRT#1872"),
    ),
    Refusal(
        r"Non-zero zero point|symmetric quantization",
        "TensorRT quantizes symmetrically: quantize to int8 with zero point 0 (ActivationSymmetric and "
        "WeightSymmetric), or give the float32 ONNX and calibration=",
        ("NVIDIA/TensorRT#4698", "NVIDIA/TensorRT#2774"),
    ),
    Refusal(
        r"ScatterND with reduction|Attribute reduction|Unsupported reduction type|reduction is not supported",
        "TensorRT scatters without adding: add with a MatMul by a one-hot matrix, or give a plugin",
        ("onnx/onnx-tensorrt#957", "NVIDIA/TensorRT#2396", "microsoft/onnxruntime#23618"),
    ),
    Refusal(
        r"ONNX dat[ae] type|unsupported datatype",
        "TensorRT has no tensors of this type (strings, complex and some integers): cut that part off the "
        "ONNX, or cast before the network",
        ("NVIDIA/TensorRT#1784", "NVIDIA/TensorRT#2026", "onnx/onnx-tensorrt#563"),
    ),
    Refusal(
        r"unsupported input type of INT|getType\(\) != nvinfer1::DataType::kINT32|has type Int\d+ but must",
        "cast to float before this operator, and back after it",
        ("onnx/onnx-tensorrt#450",),
    ),
    Refusal(
        r"given inputs with type BOOL|input types Float and Bool|of floating point types",
        "cast the inputs to a type that the operator takes",
        ("NVIDIA/TensorRT#1872",),
    ),
    Refusal(
        r"more than one -1 wildcard|-1 has no (integer )?solution",
        "only one size of a reshape may be unknown: compute the others from Shape, or fix them",
        ("NVIDIA/TensorRT#944", "NVIDIA/TensorRT#1225", "pytorch/TensorRT#1555"),
    ),
    Refusal(
        r"must match|mismatched at index|incompatible dimensions|violate shape constraints",
        "the sizes do not fit together: check that ONNX Runtime runs the model at all sizes in shapes=",
        ("NVIDIA/TensorRT#1947",),
    ),
    Refusal(
        r"axis >= 0 && axis < nbDims",
        "the parser lost the rank of a tensor: update TensorRT, or fold the constants of the ONNX",
        ("NVIDIA/TensorRT#1569", "open-mmlab/mmdetection#5108"),
        seen=False,
    ),
    Refusal(
        r"training_mode == 1",
        "export the model in evaluation mode: model.eval()",
        (),
    ),
)


def explain(message: str, onnx: Path, first: str = "") -> str:
    """The message of a refusal, without TensorRT's internals, with the node's place and advice. Another
    message is unchanged. onnx: what was compiled; first: advice before that of `REFUSALS`."""
    parsed = _PARSER.match(message)
    if parsed is None and not message.startswith(_BUILDER):
        return message
    if parsed:
        number, name, in_function = int(parsed[1]), parsed[2], parsed[3]
        by_name = in_function or number < 0
        node = find_node(onnx, None if by_name else number, [name] if name else ())
        if node and _ALONE.match(message):
            name = f" `{node.name}`" * bool(node.name) + f" ({node.operator})"
            message = message[: parsed.end()] + name + message[parsed.end() :]
            parsed = _PARSER.match(message) or parsed
        if node and node.made_at:
            end = parsed.start(3) if in_function else parsed.end()
            message = f"{message[:end]}, made at {node.made_at},{message[end:]}".replace(",:", ":")
    else:
        node = find_node(onnx, None, _names(message))
        if node:
            made_at = f", made at {node.made_at}" if node.made_at else ""
            message += f"; node {node.number} `{node.name}` ({node.operator}){made_at}"
    for noise in _NOISE:
        message = noise.sub("", message)
    message = message.replace("refused node -1:", "refused an input or output:")
    return "; ".join([message, *([first] if first else []), *_advice(message, node)])


def _advice(message: str, node: OnnxNode | None) -> list[str]:
    text = f"{message} [{node.domain}::{node.operator}]" if node else message
    return [each.advice for each in REFUSALS if re.search(each.text, text, re.DOTALL)][:1]


def _names(message: str) -> list[str]:
    """What may be names of nodes in a message of the builder, which has `ITopKLayer NAME: ` or
    `{ForeignNode[NAME...NAME + NAME]}`."""
    found = re.findall(r"\bI\w+Layer (\S+?):? ", message)
    for inside in re.findall(r"\bnode \{?(?:ForeignNode\[)?([^\]}]+)", message):
        found += _SPLIT.split(inside.strip(" .)"))
    return [name.strip().rstrip(":").removesuffix("_OutputLayer") for name in found]
