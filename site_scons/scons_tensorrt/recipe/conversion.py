"""What becomes of an ONNX before its compile: another precision, quantization, an accuracy gate.

A strongly typed runtime (TensorRT 11, TensorRT for RTX) compiles the ONNX's own types, so
another precision is another ONNX: a step of the graph, with a key and a receipt of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import RecipeError
from ..hardware.signature import HardwareSignature
from .onnx.summary import OnnxSummary

METHODS = ("entropy", "minmax", "percentile")
METRICS = ("elemwise", "max", "mean", "median", "cosine")
WAYS = ("qdq", "calibrator")
# DataType of a tensor in onnx.proto3.
FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16
CONVERTED = ("fp16", "bf16", "int8", "fp8")  # of which an ONNX may have to be made first
_TYPE = {"fp16": FLOAT16, "bf16": BFLOAT16}
READER = re.compile(r"(.+\.py):([A-Za-z_][A-Za-z0-9_]*)")


class Samples(NamedTuple):
    """A set of samples. where: what a user wrote, a path or node: a `.npz`, a folder of `.npy`,
    a reader's `.py`; function: of the reader; most: how many to use, None for all; at_least:
    how many there must be; files: what else a reader reads."""

    where: Any
    function: str | None = None
    most: int | None = None
    at_least: int = 1
    files: tuple[Any, ...] = ()

    def key_fields(self) -> dict[str, Any]:
        """What decides which samples are taken, the files apart."""
        return {"function": self.function, "most": self.most, "at_least": self.at_least}


class Calibration(NamedTuple):
    """How activations get their ranges. ops: types to quantize, empty for the quantizer's choice;
    by: "qdq" (Q/DQ nodes in the ONNX), or "calibrator" (TensorRT 10's own)."""

    samples: Samples
    method: str = "percentile"
    percentile: float = 99.99
    per_channel: bool = True
    ops: tuple[str, ...] = ()
    by: str = "qdq"


class Gate(NamedTuple):
    """How far outputs may be from those of the `reference`, a path or node, None for the source.

    elemwise: |error| <= atol + rtol * |reference| for every element; max, mean, median: the
    same of that statistic over an output's elements; cosine: 1 - cosine <= atol.
    """

    samples: Samples
    rtol: float = 1e-2
    atol: float = 1e-2
    metric: str = "elemwise"
    reference: Any = None

    def key_fields(self) -> dict[str, Any]:
        return {"rtol": self.rtol, "atol": self.atol, "metric": self.metric}


class Conversion(NamedTuple):
    """keep_ops, keep_nodes: what stays float32; keep_io: inputs and outputs keep their types."""

    keep_ops: tuple[str, ...] = ()
    keep_nodes: tuple[str, ...] = ()
    keep_io: bool = True
    calibration: Calibration | None = None


class Step(NamedTuple):
    """A conversion to make. kind: "precision", "quantize"; options: JSON, all of the key."""

    kind: str
    options: Mapping[str, Any] = {}


def strongly_typed(signature: HardwareSignature) -> bool:
    """Whether the runtime always compiles the ONNX's own types: RTX, and TensorRT from 11 on."""
    return signature.product != "tensorrt" or int(signature.runtime_version.split(".")[0]) >= 11


def already(summary: OnnxSummary, precision: str) -> bool:
    """Whether a model is of this precision as it is: most of its weights are, or its inputs where
    it has none; for int8 and fp8, whether it has Q/DQ nodes."""
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
    """What must be made of the ONNX so that it compiles to `precision`; None for nothing.

    strong: whether the network's own types decide; summary: None while the ONNX is not there,
    and then the step itself finds out.
    """
    if summary is not None and already(summary, precision):
        return None
    kept = {"keep_ops": list(wanted.keep_ops), "keep_nodes": list(wanted.keep_nodes)}
    calibration = wanted.calibration
    if precision in _TYPE and strong:
        return Step("precision", {"to": precision, **kept, "keep_io": wanted.keep_io})
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
    """What of a conversion's options cannot be, or would have no effect, each with what to write."""
    found = []
    calibration = wanted.calibration
    quantizes = precision in ("int8", "fp8")
    by_qdq = quantizes and calibration is not None and calibration.by == "qdq"
    converts = by_qdq or (precision in _TYPE and strong)
    if not converts:
        given = [name for name in ("keep_ops", "keep_nodes") if getattr(wanted, name)]
        given += ["keep_io=False"] * (not wanted.keep_io)
        serves = (
            "write strongly_typed=True too"
            if precision in _TYPE and not strong
            else "it is for fp16 and bf16, and for int8 and fp8 with a calibration"
        )
        found += [f"{name} has no effect with precision={precision!r} here; {serves}" for name in given]
    if calibration and not quantizes:
        found.append(f"calibration has no effect with precision={precision!r}; write 'int8'")
    if calibration and calibration.by == "calibrator" and strong:
        why = "a strongly typed runtime has none"
        found.append(f"calibration by='calibrator': {why}; write by='qdq', which every runtime takes")
    if precision == "fp8" and calibration and calibration.method == "entropy":
        found.append("calibration method='entropy' is for int8's even steps; 'percentile' or 'minmax'")
    if summary is None or not quantizes:
        return found
    if calibration and summary.quantized:
        found.append("it has Q/DQ nodes already; leave out calibration")
    if not calibration and not summary.quantized:
        found.append(
            f"precision={precision!r}, and it has no Q/DQ nodes: give calibration=, a set of samples, "
            "or an ONNX that is quantized"
        )
    return found


# Reading what a user wrote.


def parse_calibration(value: Any) -> Calibration | None:
    """`calibration=` of `env.Engine`. Raises RecipeError."""
    if value is None:
        return None
    options = _options("calibration", value, "data", "method percentile per_channel ops by")
    by = _one_of("calibration by", options.pop("by", "qdq"), WAYS)
    usual = "entropy" if by == "calibrator" else "percentile"
    method = _one_of("calibration method", options.pop("method", usual), METHODS)
    for name in ("percentile", "per_channel", "ops"):
        if by == "calibrator" and name in options:
            raise RecipeError(f"calibration {name}=: a calibrator has none; leave it out, or by='qdq'")
    percentile = options.pop("percentile", 99.99)
    if not _is_number(percentile) or not 50 < percentile <= 100:
        raise RecipeError(f"calibration percentile={percentile!r}: write a number above 50, up to 100")
    if by == "calibrator" and method == "percentile":
        raise RecipeError("calibration method='percentile': a calibrator has entropy and minmax")
    per_channel = flag("calibration per_channel", options.pop("per_channel", True))
    ops = names("calibration ops", options.pop("ops", ()))
    samples = _samples("calibration", options, 8)
    return Calibration(samples, method, float(percentile), per_channel, ops, by)


def parse_gate(value: Any) -> Gate | None:
    """`accuracy=` of `env.Engine`. Raises RecipeError."""
    if value is None:
        return None
    options = _options("accuracy", value, "inputs", "rtol atol metric reference")
    bounds = {}
    for name in ("rtol", "atol"):
        bounds[name] = options.pop(name, 1e-2)
        if not _is_number(bounds[name]) or not 0 <= bounds[name] < float("inf"):
            raise RecipeError(f"accuracy {name}={bounds[name]!r}: write a number from 0 up")
    metric = _one_of("accuracy metric", options.pop("metric", "elemwise"), METRICS)
    reference = options.pop("reference", None)
    options["data"] = options.pop("inputs")
    samples = _samples("accuracy", options, 1)
    return Gate(samples, float(bounds["rtol"]), float(bounds["atol"]), metric, reference)


def _options(what: str, value: Any, first: str, more: str) -> dict[str, Any]:
    """The map that a user wrote; a bare set of samples stands for {first: set}."""
    options = dict(value) if isinstance(value, Mapping) else {first: value}
    known = [first, *more.split(), "function", "most", "at_least", "files"]
    for name in options:
        if name not in known:
            raise RecipeError(f"{what}: unknown {name}={options[name]!r}; known: {', '.join(known)}")
    if not options.get(first):
        raise RecipeError(f"{what}: no {first}=: give a .npz, a folder of .npy, or 'reader.py:function'")
    return options


def _samples(what: str, options: dict[str, Any], at_least: int) -> Samples:
    where, function = options.pop("data"), options.pop("function", None)
    reader = READER.fullmatch(where) if isinstance(where, str) else None
    if reader:
        where, function = reader[1], reader[2]
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise RecipeError(f"{what} function={function!r}: write the name of a function")
    counts = {"most": options.pop("most", None), "at_least": options.pop("at_least", at_least)}
    for name, count in counts.items():
        if not (count is None and name == "most") and (type(count) is not int or count < 1):
            raise RecipeError(f"{what} {name}={count!r}: write a whole number above 0")
    if counts["most"] is not None and counts["most"] < counts["at_least"]:
        raise RecipeError(f"{what} most={counts['most']}: fewer than at_least={counts['at_least']}")
    files = options.pop("files", ())
    files = tuple(files) if isinstance(files, (list, tuple)) else (files,)
    if files and not function:
        raise RecipeError(f"{what} files=: they are for a reader, 'reader.py:function'")
    return Samples(where, function, counts["most"], counts["at_least"], files)


def names(what: str, value: Any) -> tuple[str, ...]:
    """A list of names. Raises RecipeError."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise RecipeError(f"{what}={value!r}: write a list of names")
    if not all(isinstance(name, str) and name for name in value):
        raise RecipeError(f"{what}={value!r}: write a list of names, each a text")
    return tuple(sorted(set(value)))


def parse_conversion(chosen: Mapping[str, Any]) -> Conversion:
    """The conversion in the options of `env.Engine`. Raises RecipeError."""
    return Conversion(
        names("keep_ops", chosen["keep_ops"]),
        names("keep_nodes", chosen["keep_nodes"]),
        flag("keep_io", chosen["keep_io"]),
        parse_calibration(chosen["calibration"]),
    )


def flag(name: str, value: Any) -> bool:
    """A bool. Raises RecipeError."""
    if not isinstance(value, bool):
        raise RecipeError(f"{name}={value!r}: write True or False")
    return value


def _one_of(name: str, value: Any, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise RecipeError(f"{name}={value!r}: write one of {', '.join(known)}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
