"""Compares a model with its original at the corners of its profiles, on drawn inputs. The shapes:
profile_corners.py; the inputs: draw_inputs.py; the judgement: judge_corners.py."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from scons_tensorrt.worker.common.errors import WorkerError, accuracy_error
from scons_tensorrt.worker.onnx import draw_inputs, graph_walk, model_file, rounding_advice, step_stages
from scons_tensorrt.worker.onnx.cpu_model import CpuModel
from scons_tensorrt.worker.onnx.drawn_error_bounds import Answers, nudged
from scons_tensorrt.worker.onnx.judge_corners import ADVICE, CornerFigures
from scons_tensorrt.worker.onnx.judge_outputs import Figures
from scons_tensorrt.worker.onnx.profile_corners import LARGE, TOO_LARGE, Corner, Run, corners_of, runs_at

QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
UNJUDGED = ("int8", "fp8")  # precisions whose error on noise says nothing of real use
ONLY_ORIGINAL = "nothing to compare: the ONNX is compiled as it is"


class Original:
    """The original, and the inputs that are drawn for it.

    path: of the original; options: "profiles" and "precision" of the gate; spreads: of given samples.
    """

    def __init__(
        self,
        path: str,
        model: CpuModel,
        options: Mapping[str, Any],
        spreads: Mapping[str, draw_inputs.Spread],
    ) -> None:
        known = draw_inputs.spreads_of(model_file.load_model(path))
        self.path, self.model, self.names = path, model, model.comparable_outputs()
        self.corners = corners_of(options["profiles"], model.inputs)
        self._precision = options["precision"]
        self._drawer = draw_inputs.Drawer(model.inputs, {**known, **spreads})

    def run(self, corner: Corner) -> tuple[list[Run], list[dict[str, np.ndarray]], str]:
        """The runs at a corner, the original's outputs for each, and why they cannot be judged, if so.

        If the original fails or is not finite on normal numbers, numbers from 0 to 1 are tried.
        """
        if corner.size > TOO_LARGE:
            return [], [], "not run: its inputs have more than %d elements" % TOO_LARGE
        tried: list[tuple[list[Run], list[dict[str, np.ndarray]], str]] = []
        for positive in (False, True):
            self._drawer.positive = positive
            runs = list(runs_at(corner, self._drawer))
            try:
                outputs = [self.outputs(corner, run.inputs) for run in runs]
            except WorkerError as error:
                tried.append(([], [], "the original itself fails: %s" % error))
                continue
            bad = sorted({name for each in outputs for name, array in each.items() if not _finite(array)})
            if not bad:
                return runs, outputs, ""
            tried.append((runs, outputs, "the original itself is not finite in output `%s`" % bad[0]))
        return min(tried, key=lambda each: not each[0])

    def usual(self) -> Corner:
        """The optimum of the first profile."""
        return next((each for each in self.corners if each.name.endswith("opt")), self.corners[0])

    def moved(self, corner: Corner, draw: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The outputs for the nudged inputs of a draw."""
        return [self.outputs(corner, inputs) for inputs in nudged(draw, self._precision)]

    def outputs(self, corner: Corner, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.model.run(corner.label, inputs, self.names)
        return dict(zip(self.names, found))


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())


def judges_bound(compiled: str, precision: str) -> bool:
    """Whether draws judge the bound of the ONNX that is compiled: not if it is quantized."""
    nodes = graph_walk.all_nodes(model_file.load_model(compiled))
    return precision not in UNJUDGED and not any(node.op_type in QUANTIZED for node in nodes)


def compare_corners(
    original: Original,
    second: CpuModel | None,
    compiled: str,
    options: Mapping[str, Any],
    figures: Figures,
    what: str = "the converted model",
) -> dict[str, Any]:
    """Compare at every corner; returns the facts. second: None if the original itself is compiled; compiled:
    the path of the ONNX that is. Raises WorkerError (AccuracyError)."""
    began = time.perf_counter()
    judge = CornerFigures(figures, options, judges_bound(compiled, options["precision"]), what)
    for corner in original.corners:
        step_stages.begin("running corner %s" % corner.name.replace(",", ""))
        started = time.perf_counter()
        runs, outputs, why = original.run(corner)
        if runs:
            answers = [
                Answers(run.kind, wanted, _second(second, corner, run.inputs, original.names))
                for run, wanted in zip(runs, outputs)
            ]
            try:
                judge.add(corner, answers, partial(original.moved, corner, runs[0].inputs))
            except WorkerError as error:
                raise _explained(error, original.path, compiled, runs[0].inputs, options) from None
        else:
            judge.skip(corner)
        judge.table[-1].update(note=note(corner, why), seconds=round(time.perf_counter() - started, 3))
    return facts(judge, time.perf_counter() - began, second is not None)


def _explained(
    error: WorkerError,
    reference: str,
    compiled: str,
    inputs: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
) -> WorkerError:
    """The error, with the tensor that explains it in 16 bit."""
    usual = WorkerError(error.error_class, str(error).replace(ADVICE, rounding_advice.ADVICE))
    found = rounding_advice.explained(usual, reference, compiled, inputs)
    text = str(error if str(found) == str(usual) else found)
    return rounding_advice.BeyondBound(text, inputs, found.losses, options)


def _second(
    second: CpuModel | None, corner: Corner, inputs: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, np.ndarray] | None:
    if second is None:
        return None
    return dict(zip(names, second.run(corner.label, inputs, names)))


def note(corner: Corner, why: str) -> str:
    """What the report says of a corner."""
    once = "run once: its inputs have more than %d elements" % LARGE
    return why or ("" if corner.all_runs else once)


def facts(judge: CornerFigures, seconds: float, compared: bool) -> dict[str, Any]:
    """The facts of all corners, for receipts. compared: whether there is another model than the original.
    Raises WorkerError (AccuracyError) if there is, and neither samples nor draws could be compared."""
    ran = any(row["runs"] for row in judge.table)
    if compared and not judge.figures.compared and (judge.bound or not ran):
        why = judge.table[0].get("note", "") if judge.table else "there are none"
        if ran:
            why = why or "shapes of outputs depend on values, and differ"
            why = "on drawn inputs no output could be judged, at %s: %s" % (judge.table[0]["corner"], why)
        raise accuracy_error("no corner of shapes= could be compared: %s; give inputs= of real use" % why)
    judged = "the bound, finite values and rows" if judge.bound else "finite values and rows"
    return {
        "seed": draw_inputs.SEED,
        "judged": judged if compared else ONLY_ORIGINAL,
        "seconds": round(seconds, 3),
        "table": judge.table,
    }


def not_run(why: str) -> dict[str, Any]:
    """The facts if no corner of an original could be run. why: for the report."""
    return {"seed": draw_inputs.SEED, "judged": ONLY_ORIGINAL, "seconds": 0.0, "table": [], "note": why}
