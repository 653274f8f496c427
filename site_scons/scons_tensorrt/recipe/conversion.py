"""Steps between an ONNX and its compile: conversion to another precision, quantization, accuracy gate.

A strongly typed runtime (TensorRT 11, TensorRT for RTX) compiles the types in the ONNX, so another
precision needs another ONNX: a step of the graph with its own key and receipt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..hardware.signature import HardwareSignature
from ..values import Value
from .onnx.summary import OnnxSummary
from .values import count, flag, is_number, literal, names, one_of, option, setting

METHODS = ("entropy", "minmax", "percentile")
METRICS = ("elemwise", "max", "mean", "median", "cosine")
WAYS = ("qdq", "calibrator")
FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16  # DataType numbers of onnx.proto3
CONVERTED = ("fp16", "bf16", "int8", "fp8")  # precisions that may need a step
_TYPE = {"fp16": FLOAT16, "bf16": BFLOAT16}
AUTO = "auto"  # of keep_nodes: search for the nodes
_GATE = "rtol atol metric reference corners record"  # options of accuracy=, besides those of samples
READER = re.compile(r"(.+\.py):([A-Za-z_][A-Za-z0-9_]*)")


class Samples(Value):
    """A set of samples. where: path or node of a `.npz`, a folder of `.npy`, or a reader's `.py`;
    function: of the reader; most: how many to use, None for all; at_least: how many there must be; files:
    other files that the reader reads."""

    where: Any
    function: str | None = None
    most: int | None = None
    at_least: int = 1
    files: tuple[Any, ...] = ()

    def key_fields(self) -> dict[str, Any]:
        """What, besides the files, determines which samples are used."""
        return {"function": self.function, "most": self.most, "at_least": self.at_least}


class Calibration(Value):
    """How the ranges of activations are measured. ops: operators to quantize, empty for the quantizer's
    default; by: "qdq" (Q/DQ nodes in the ONNX), or "calibrator" (TensorRT 10's own)."""

    samples: Samples
    method: str = "percentile"
    percentile: float = 99.99
    per_channel: bool = True
    ops: tuple[str, ...] = ()
    by: str = "qdq"


class Gate(Value):
    """The accuracy gate: how much outputs may differ from the reference's.

    samples: None to judge by drawn inputs alone; reference: path or node of an ONNX, None for the source;
    corners: whether inputs are drawn at the corners of the profiles, None for where they are dynamic; metric
    "elemwise": |error| <= atol + rtol * |reference| for every element; "max", "mean", "median": the same for
    that statistic over an output's elements; "cosine": 1 - cosine <= atol. record: how many samples and their
    outputs a file beside the engine holds, for `scons-tensorrt check`.
    """

    samples: Samples | None
    rtol: float = 1e-2
    atol: float = 1e-2
    metric: str = "elemwise"
    reference: Any = None
    corners: bool | None = None
    record: int = 0

    def key_fields(self) -> dict[str, Any]:
        return {"rtol": self.rtol, "atol": self.atol, "metric": self.metric}


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
    """kind: "prepare", "precision" or "quantize"; options: JSON, part of the step's key."""

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
            f"write {setting('strongly_typed', True)} too"
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


def share_of_bound(error: float | None, bound: float | None) -> float:
    """error / bound: 1.0 is just allowed. 0.0 if either is unknown. The output with the largest share is
    the worst."""
    if not error or bound is None:
        return 0.0
    share = error / bound if bound else math.inf
    return math.inf if math.isnan(share) else share


# Parsing of options.


def parse_calibration(value: Any) -> Calibration | None:
    """The option `calibration` of `env.Engine`. Raises RecipeError."""
    if value is None:
        return None
    options = _options("calibration", value, "data", "method percentile per_channel ops by")
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
    samples = _samples("calibration", options, 8)
    return Calibration(samples, method, float(percentile), per_channel, ops, by)


def parse_gate(value: Any) -> Gate | None:
    """The option `accuracy` of `env.Engine`. Raises RecipeError."""
    if value is None:
        return None
    options = dict(value) if isinstance(value, Mapping) else {"inputs": value}
    if options.get("inputs", "") is None:
        del options["inputs"]
    options = _options("accuracy", options, "inputs", _GATE, optional=True)
    bounds = {}
    for name in ("rtol", "atol"):
        bounds[name] = options.pop(name, 1e-2)
        if not is_number(bounds[name]) or not 0 <= bounds[name] < math.inf:
            raise RecipeError(f"{setting(f'accuracy {name}', bounds[name])}: write a number from 0 up")
    metric = one_of("accuracy metric", options.pop("metric", "elemwise"), METRICS)
    reference, corners = options.pop("reference", None), options.pop("corners", None)
    record = count("accuracy record", options.pop("record", 0), least=0)
    if corners is not None:
        flag("accuracy corners", corners)
    samples = None
    if "inputs" in options:
        options["data"] = options.pop("inputs")
        samples = _samples("accuracy", options, 1)
    elif corners is False:
        off = f"{option('inputs')} and {setting('corners', False)}"
        raise RecipeError(f"accuracy: no {off}, so nothing would be run; leave out one")
    elif options:
        name, given = next(iter(options.items()))
        wrong, inputs = setting(f"accuracy {name}", given), option("inputs")
        raise RecipeError(f"{wrong}: only with {inputs}; add {inputs} or leave it out")
    return Gate(samples, float(bounds["rtol"]), float(bounds["atol"]), metric, reference, corners, record)


def _options(what: str, value: Any, first: str, more: str, optional: bool = False) -> dict[str, Any]:
    """The option as a map; a bare set of samples stands for {first: set}. optional: whether the set may be
    left out."""
    options = dict(value) if isinstance(value, Mapping) else {first: value}
    known = [first, *more.split(), "function", "most", "at_least", "files"]
    for name in options:
        if name not in known:
            raise RecipeError(f"{what}: unknown {setting(name, options[name])}; known: {', '.join(known)}")
    if not options.get(first) and not (optional and first not in options):
        raise RecipeError(
            f"{what}: no {option(first)}: give a .npz, a folder of .npy, or {literal('reader.py:function')}"
        )
    return options


def _samples(what: str, options: dict[str, Any], at_least: int) -> Samples:
    where, function = options.pop("data"), options.pop("function", None)
    reader = READER.fullmatch(where) if isinstance(where, str) else None
    if reader:
        where, function = reader[1], reader[2]
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise RecipeError(f"{what} {setting('function', function)}: write the name of a function")
    counts = {"most": options.pop("most", None), "at_least": options.pop("at_least", at_least)}
    for name, given in counts.items():
        if given is not None or name != "most":
            count(f"{what} {name}", given)
    if counts["most"] is not None and counts["most"] < counts["at_least"]:
        raise RecipeError(
            f"{what} {setting('most', counts['most'])}: fewer than {setting('at_least', counts['at_least'])}"
        )
    files = options.pop("files", ())
    files = tuple(files) if isinstance(files, (list, tuple)) else (files,)
    if files and not function:
        raise RecipeError(f"{what} {option('files')}: only for a reader, {literal('reader.py:function')}")
    return Samples(where, function, counts["most"], counts["at_least"], files)


def parse_conversion(chosen: Mapping[str, Any]) -> Conversion:
    """The conversion in the options of `env.Engine`. Raises RecipeError."""
    auto = chosen["keep_nodes"] == AUTO
    if auto and chosen["accuracy"] is None:
        auto, gate = setting("keep_nodes", "auto"), option("accuracy")
        raise RecipeError(f"{auto} needs {gate}, whose bound decides; add it, or write a list")
    return Conversion(
        names("keep_ops", chosen["keep_ops"]),
        () if auto else names("keep_nodes", chosen["keep_nodes"]),
        flag("keep_io", chosen["keep_io"]),
        parse_calibration(chosen["calibration"]),
        auto,
    )
