"""The proof of a prepared ONNX: at min, opt and max of every profile, and on the samples that are given, it
computes what the original does.

Both run in ONNX Runtime on the CPU without its optimizer, so that a model whose structure alone was changed
gives the same bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

from scons_tensorrt.worker.common.errors import WorkerError, accuracy_error, one_line
from scons_tensorrt.worker.onnx import graph_walk, model_file
from scons_tensorrt.worker.onnx.proof_inputs import Point

# Where 8-bit rounding was replaced, the bound of an output's error: this share of its largest value, or, if
# more, this many times what the original's output changes with its float inputs by a share of NOISE.
ROUNDED, CHANGES, NOISE = 0.02, 3.0, 1e-3
# Within each slice of an output, such as the scores beside boxes in pixels, of its own largest value:
ROUNDED_SLICE, SMALLEST_SLICE = 0.25, 16  # elements
RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)


class Proof(NamedTuple):
    """outputs: {output: {"error": largest absolute difference, "bound": of it}}; never_finite: those that had
    no finite value in the original."""

    outputs: dict[str, dict[str, float]]
    never_finite: tuple[str, ...]


class Allowed(NamedTuple):
    """In what the prepared model may differ. rounding: 8-bit values were rounded differently, else every bit
    must be equal; kept_ones: sizes of 1 that the original drops may stay."""

    rounding: bool = False
    kept_ones: bool = False


def prove(
    source: str,
    target: str,
    points: Sequence[Sequence[Point]],
    frozen: Mapping[str, np.ndarray],
    allowed: Allowed,
) -> Proof:
    """Compare the models.

    points: for each place where to compare, the inputs to try until the original runs; frozen: values of the
    original's inputs that are constants in the prepared model. Raises
    WorkerError (AccuracyError) for an output that differs, and for a model that ONNX Runtime cannot run.
    """
    original = _Session(source, "the original", precise=allowed.rounding)
    expected = list(_expected(original, points, frozen))
    noisy = [
        original.run({**_with_noise(point.inputs), **frozen}) if allowed.rounding else []
        for point, _ in expected
    ]
    names = original.outputs
    del original
    prepared = _Session(target, "the prepared model", precise=False)
    figures: dict[str, dict[str, float]] = {}
    finite: set[str] = set()
    for number, (point, outputs) in enumerate(expected):
        for at, (name, one, two) in enumerate(zip(names, outputs, _made(prepared, point))):
            if not _is_numbers(one) or not one.size or bool(np.isfinite(one).any()):
                finite.add(name)
            bounds = _bounds(one, noisy[number][at]) if allowed.rounding else np.zeros(())
            if point.optional and allowed.rounding:
                _compare(name, point.where, one, two, np.full((), np.inf), allowed.kept_ones)
                continue
            error = _compare(name, point.where, one, two, bounds, allowed.kept_ones)
            bound = float(bounds.max()) if bounds.size else 0.0
            before = figures.get(name, {"error": -1.0, "bound": 0.0})
            if (error, bound) > (before["error"], before["bound"]):
                figures[name] = {"error": error, "bound": bound}
    return Proof(figures, tuple(name for name in figures if name not in finite))


def _made(prepared: _Session, point: Point) -> list[Any]:
    """The outputs of the prepared model. Raises WorkerError (AccuracyError) if it fails."""
    try:
        return prepared.run(point.inputs)
    except Exception as error:
        raise accuracy_error(
            "the prepared model fails at %s, and the original does not: %s; write prepare='none', and report "
            "the model" % (point.where, one_line(error))
        ) from None


def _expected(
    original: _Session, points: Sequence[Sequence[Point]], frozen: Mapping[str, np.ndarray]
) -> Iterator[tuple[Point, list[Any]]]:
    for tries in points:
        try:
            yield original.first_that_runs(tries, frozen)
        except WorkerError:
            if not tries[0].optional:
                raise


class _Session:
    """precise: compute 8-bit products without the 16-bit saturation of CPUs without VNNI, for which ONNX
    Runtime needs its optimizer."""

    def __init__(self, path: str, what: str, precise: bool) -> None:
        import onnxruntime

        from scons_tensorrt.worker.onnx.runtime_options import session_options

        options = session_options("ORT_ENABLE_EXTENDED" if precise else "ORT_DISABLE_ALL", log_level=4)
        options.add_session_config_entry("session.x64quantprecision", "1" if precise else "0")
        self._what = what
        try:
            self._session = onnxruntime.InferenceSession(
                _as_compared(path, precise) or path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise accuracy_error(
                "ONNX Runtime cannot load %s, so the prepared model cannot be compared: %s; give the ONNX as "
                "it was before it was quantized or optimized, or write prepare='none'"
                % (what, one_line(error))
            ) from None
        self.outputs = [output.name for output in self._session.get_outputs()]
        self._inputs = {given.name for given in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[Any]:
        given = {name: array for name, array in inputs.items() if name in self._inputs}
        return list(self._session.run(None, given))

    def first_that_runs(
        self, tries: Sequence[Point], frozen: Mapping[str, np.ndarray]
    ) -> tuple[Point, list[Any]]:
        """The first inputs with which the model runs and its outputs are finite, else with which it runs; and
        the outputs."""
        found = None
        for point in tries:
            try:
                outputs = self.run({**point.inputs, **frozen})
            except Exception as error:
                failed = error
                continue
            if all(not _is_numbers(each) or bool(np.isfinite(each).all()) for each in outputs):
                return point, outputs
            found = found or (point, outputs)
        if found:
            return found
        raise accuracy_error(
            "ONNX Runtime cannot run %s at %s, so the prepared model cannot be compared: %s; "
            "correct shapes=, make an input a constant (freeze=), give samples (accuracy=), or write "
            "prepare='none'" % (self._what, tries[-1].where, one_line(failed))
        )


def _as_compared(path: str, precise: bool) -> bytes | None:
    """The model as it is run, None for the file itself: with a seed for each random node, so that two models
    draw the same numbers, and if `precise` with a zero point for each 8-bit weight. Local functions are
    inlined as the rewrites do it, since seeds are by the nodes' outputs."""
    model = model_file.load_model(path)
    if any(_is_adapted(node, precise) for function in model.functions for node in function.node):
        model = model_file.inlined(model)
        graph_walk.make_names_unique(model.graph, set(), {})
    adapted = [node for node in graph_walk.all_nodes(model) if _is_adapted(node, precise)]
    if not adapted:
        return None
    for node in adapted:
        if node.op_type in RANDOM:
            kept = [each for each in node.attribute if each.name != "seed"]
            del node.attribute[:]
            node.attribute.extend(kept)
            seed = zlib.crc32(node.output[0].encode("utf-8")) % 1000
            node.attribute.append(onnx.helper.make_attribute("seed", float(seed)))
    _add_zero_points(model, [node for node in adapted if node.op_type == "MatMulInteger"])
    model_file.load_external(model, path)
    return bytes(model.SerializeToString())


def _is_adapted(node: onnx.NodeProto, precise: bool) -> bool:
    without_point = node.op_type == "MatMulInteger" and not "".join(node.input[3:])
    return node.op_type in RANDOM or (precise and without_point)


def _add_zero_points(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Write the default zero point of int8 weights: ONNX Runtime, up to 1.26 at least, aborts where
    `x64quantprecision` is set and a MatMulInteger has none."""
    types = graph_walk.types(onnx.shape_inference.infer_shapes(model)) if nodes else {}
    int8 = [node for node in nodes if types.get(node.input[1]) == onnx.TensorProto.INT8]
    if int8:
        taken = {name for node in graph_walk.all_nodes(model) for name in (*node.input, *node.output)}
        name = graph_walk.new_name("zero_point", taken)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.int8), name))
        for node in int8:
            given = [*node.input[:3], ""][:3]
            del node.input[:]
            node.input.extend([*given, name])


def _with_noise(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: np.asarray(array * (1 + NOISE * random.standard_normal(array.shape)), array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in inputs.items()
    }


def _bounds(output: Any, noisy: Any) -> np.ndarray:
    """The bound of the error of each element of an output. noisy: the output for inputs with noise."""
    if not _is_numbers(output) or output.size == 0:
        return np.zeros(())
    values = np.abs(np.where(np.isfinite(output), output, 0).astype(np.float64))
    changes = _error(output, noisy) if noisy.shape == output.shape else np.zeros_like(values)
    changes[~np.isfinite(changes)] = 0.0
    bounds = np.full(values.shape, max(ROUNDED * values.max(), CHANGES * changes.max()))
    for axis, size in enumerate(values.shape):
        if size > 1 and values.size // size >= SMALLEST_SLICE:
            others = tuple(each for each in range(values.ndim) if each != axis)
            largest, change = (each.max(axis=others, keepdims=True) for each in (values, changes))
            bounds = np.minimum(bounds, np.maximum(ROUNDED_SLICE * largest, CHANGES * change))
    return bounds


def _is_numbers(output: Any) -> bool:
    """Whether an output is a tensor of numbers: no engine has sequences, maps or texts."""
    return isinstance(output, np.ndarray) and output.dtype.kind in "fiub"


def _error(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The absolute difference of each element; 0 for two of the same NaN or infinity."""
    a, b = one.astype(np.float64), two.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        return np.where(same, 0.0, np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.inf))


def _compare(name: str, where: str, one: Any, two: Any, bounds: np.ndarray, kept_ones: bool) -> float:
    """The largest absolute difference of an output. bounds: of its elements, or of all. Raises WorkerError
    (AccuracyError) if one is beyond."""
    if not _is_numbers(one):
        return 0.0
    if kept_ones and _without_ones(one.shape) == _without_ones(two.shape):
        one, bounds = one.reshape(two.shape), bounds.reshape(two.shape if bounds.ndim else ())
    if one.shape != two.shape or one.dtype != two.dtype:
        found, original = ("%s%s" % (each.dtype, list(each.shape)) for each in (two, one))
        raise _differs(name, where, "it is " + found, original)
    if one.size == 0:
        return 0.0
    error = _error(one, two)
    beyond = error - bounds
    place = np.unravel_index(int(beyond.argmax()), error.shape)
    if not beyond[place] <= 0:
        bound = float(np.broadcast_to(bounds, error.shape)[place])
        at = [int(index) for index in place]
        raise _differs(name, where, "%.6g at %s" % (two[place], at), "%.6g" % one[place], bound)
    return float(error.max())


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _differs(name: str, where: str, found: str, original: str, bound: float = 0.0) -> WorkerError:
    allowed = " (error allowed: %.3g)" % bound if bound else ""
    return accuracy_error(
        "the prepared model does not compute what the original does: output `%s`, at %s: %s, and %s in the "
        "original%s; write prepare='none', and report the model" % (name, where, found, original, allowed)
    )
