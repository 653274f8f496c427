"""Steps between an ONNX and its compile: conversion to another precision, quantization, accuracy gate.

A strongly typed runtime (TensorRT 11, TensorRT for RTX) compiles the types in the ONNX, so another
precision needs another ONNX: a step of the graph with its own key and receipt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..hardware.signature import HardwareSignature
from ..values import Value
from .onnx.summary import OnnxSummary
from .option_checks import flag, is_number, is_text, literal, names, one_of, option, setting
from .sample_options import Samples, parse_samples, sample_options

METHODS = ("entropy", "minmax", "percentile")
WAYS = ("qdq", "calibrator")
FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16  # DataType numbers of onnx.proto3
CONVERTED = ("fp16", "bf16", "int8", "fp8")  # precisions that may need a step
_TYPE = {"fp16": FLOAT16, "bf16": BFLOAT16}
AUTO = "auto"  # of keep_nodes: search for the nodes


class Calibration(Value):
    """How the ranges of activations are measured. ops: operators to quantize, empty for the quantizer's
    default; by: "qdq" (Q/DQ nodes in the ONNX), or "calibrator" (TensorRT 10's own)."""

    samples: Samples
    method: str = "percentile"
    percentile: float = 99.99
    per_channel: bool = True
    ops: tuple[str, ...] = ()
    by: str = "qdq"


class Conversion(Value):
    """keep_ops, keep_nodes: operators and names of nodes that stay float32; keep_io: whether inputs and
    outputs keep their types; auto: whether the nodes are searched for, by the accuracy gate."""

    keep_ops: tuple[str, ...] = ()
    keep_nodes: tuple[str, ...] = ()
    keep_io: bool = True
    calibration: Calibration | None = None
    auto: bool = False


class Preparation(Value):
    """way: "auto" (rewrite an ONNX that TensorRT would refuse) or "none"; freeze: values of inputs that
    become constants, as JSON."""

    way: str = "auto"
    freeze: Mapping[str, Any] = {}


class Step(Value):
    """kind: one of VERSIONS in build/onnx_spec.py; options: JSON, part of the step's key."""

    kind: str
    options: Mapping[str, Any] = {}


def strongly_typed(signature: HardwareSignature) -> bool:
    """Whether the runtime always compiles the types in the ONNX: TensorRT for RTX, and TensorRT 11 or
    later."""
    return signature.product != "tensorrt" or int(signature.runtime_version.split(".")[0]) >= 11


def already(summary: OnnxSummary, precision: str) -> bool:
    """Whether the model has this precision: in most of its weights or, without weights, in an input. For
    int8 and fp8, whether it has Q/DQ nodes."""
    if precision in ("int8", "fp8"):
        return summary.quantized
    wanted = _TYPE.get(precision)
    if wanted is None:
        return True
    weights = summary.elements
    if weights.get(wanted) or weights.get(FLOAT):
        return weights.get(wanted, 0) >= weights.get(FLOAT, 0)
    return any(i.dtype == wanted for i in summary.inputs)


def next_step(precision: str, wanted: Conversion, strong: bool, summary: OnnxSummary | None) -> Step | None:
    """The step that the ONNX needs before it compiles to `precision`; None if it needs none.

    strong: whether the runtime is strongly typed; summary: None if the ONNX does not exist yet; then the
    step itself checks whether it is needed.
    """
    if summary is not None and already(summary, precision):
        return None
    kept = {"keep_ops": list(wanted.keep_ops), "keep_nodes": list(wanted.keep_nodes)}
    calibration = wanted.calibration
    if precision in _TYPE and strong:
        more = {"keep_nodes": AUTO} if wanted.auto else {}
        return Step("precision", {"to": precision, **kept, **more, "keep_io": wanted.keep_io})
    if precision in ("int8", "fp8") and calibration and calibration.by == "qdq":
        chosen = {
            "method": calibration.method,
            "percentile": calibration.percentile,
            "per_channel": calibration.per_channel,
            "ops": list(calibration.ops),
        }
        return Step("quantize", {"to": precision, **kept, **chosen})
    return None


def faults(precision: str, wanted: Conversion, strong: bool, summary: OnnxSummary | None) -> list[str]:
    """The options of a conversion that contradict each other or the model, or would have no effect, each
    with the correction."""
    found = []
    calibration = wanted.calibration
    quantizes = precision in ("int8", "fp8")
    by_qdq = quantizes and calibration is not None and calibration.by == "qdq"
    converts = by_qdq or (precision in _TYPE and strong)
    if not converts:
        given = [name for name in ("keep_ops", "keep_nodes") if getattr(wanted, name)]
        given += [setting("keep_nodes", "auto")] * wanted.auto
        given += [setting("keep_io", False)] * (not wanted.keep_io)
        serves = (
            f"write {setting('strongly_typed', True)} too (from TensorRT 10)"
            if precision in _TYPE and not strong
            else "it applies to fp16 and bf16, and to int8 and fp8 with a calibration"
        )
        found += [
            f"{name} has no effect with {setting('precision', precision)} here; {serves}" for name in given
        ]
    elif wanted.auto and quantizes:
        found.append(f"{setting('keep_nodes', 'auto')} is for fp16 and bf16; write a list of nodes")
    if calibration and not quantizes:
        found.append(
            f"calibration has no effect with {setting('precision', precision)}; write {literal('int8')}"
        )
    if calibration and calibration.by == "calibrator" and strong:
        found.append(
            f"calibration {setting('by', 'calibrator')}: not supported by a strongly typed runtime; write "
            f"{setting('by', 'qdq')}, which every runtime supports"
        )
    if precision == "fp8" and calibration and calibration.method == "entropy":
        found.append(
            f"calibration {setting('method', 'entropy')} is only for int8; write {literal('percentile')} or "
            f"{literal('minmax')}"
        )
    if summary is None or not quantizes:
        return found
    if calibration and summary.quantized:
        found.append("it has Q/DQ nodes already; leave out calibration")
    if not calibration and not summary.quantized:
        found.append(
            f"{setting('precision', precision)}, but it has no Q/DQ nodes: give {option('calibration')}, a "
            "set of samples, or a quantized ONNX"
        )
    return found


# Parsing of options.


def parse_calibration(value: Any) -> Calibration | None:
    """The option `calibration` of `env.Engine`. Raises RecipeError."""
    if value is None:
        return None
    options = sample_options("calibration", value, "data", "method percentile per_channel ops by")
    by = one_of("calibration by", options.pop("by", "qdq"), WAYS)
    methods = ("entropy", "minmax") if by == "calibrator" else METHODS
    usual = "entropy" if by == "calibrator" else "percentile"
    method = one_of("calibration method", options.pop("method", usual), methods)
    for name in ("percentile", "per_channel", "ops"):
        if by == "calibrator" and name in options:
            raise RecipeError(f"calibration {option(name)}: only with {setting('by', 'qdq')}; leave it out")
    percentile = options.pop("percentile", 99.99)
    if not is_number(percentile) or not 50 < percentile <= 100:
        raise RecipeError(
            f"{setting('calibration percentile', percentile)}: write a number above 50, up to 100"
        )
    per_channel = flag("calibration per_channel", options.pop("per_channel", True))
    ops = names("calibration ops", options.pop("ops", ()))
    samples = parse_samples("calibration", options, 8)
    return Calibration(samples, method, float(percentile), per_channel, ops, by)


def parse_conversion(chosen: Mapping[str, Any]) -> Conversion:
    """The conversion in the options of `env.Engine`. Raises RecipeError."""
    auto = is_text(chosen["keep_nodes"], AUTO)
    if auto and chosen["accuracy"] is None:
        wish, gate = setting("keep_nodes", AUTO), option("accuracy")
        raise RecipeError(f"{wish} needs {gate}, whose bound decides; add it, or write a list")
    return Conversion(
        names("keep_ops", chosen["keep_ops"]),
        () if auto else names("keep_nodes", chosen["keep_nodes"]),
        flag("keep_io", chosen["keep_io"]),
        parse_calibration(chosen["calibration"]),
        auto,
    )
