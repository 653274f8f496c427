"""How far an engine is from its original: the samples and expected outputs for the engine's run, and the
judgement of its outputs, by judge_outputs.py and judge_corners.py.

The engine runs in between, in the interpreter that has TensorRT (worker/trt/run_engine.py), so samples and
outputs are exchanged in files that need no numpy (worker/common/array_file.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from io import BufferedIOBase
from typing import Any

import numpy as np

from scons_tensorrt.worker.common import array_file
from scons_tensorrt.worker.common.errors import accuracy_error
from scons_tensorrt.worker.onnx import run_corners
from scons_tensorrt.worker.onnx.drawn_error_bounds import NUDGES, Answers
from scons_tensorrt.worker.onnx.judge_corners import CornerFigures
from scons_tensorrt.worker.onnx.judge_outputs import Figures
from scons_tensorrt.worker.onnx.plain_arrays import array_of, described
from scons_tensorrt.worker.onnx.profile_corners import Corner


def expect(
    reference: str,
    compiled: str,
    spec: Mapping[str, Any] | None,
    files: Mapping[str, str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Run the original on samples, and on inputs drawn at the corners of the profiles; return the names of
    the runs, for messages.

    reference: the path of the original; compiled: of the ONNX that the engine is made of, whose inputs may
    have other types; spec: the samples, as `samples.read` takes them, or None; files: the paths to write to:
    `inputs`, for the engine, `expected`, the original's outputs, `moved`, those for nudged draws, and `plan`,
    the corners; options: as of `accuracy.compare`. Raises WorkerError.
    """
    from scons_tensorrt.worker.onnx import draw_inputs, drawn_error_bounds, model_file, open_samples
    from scons_tensorrt.worker.onnx.cpu_model import CpuModel
    from scons_tensorrt.worker.onnx.rounded_on_cpu import without_bf16

    original = CpuModel(without_bf16(reference), "the original")
    names = original.comparable_outputs()
    types = {name: dtype for name, dtype, _ in open_samples.inputs_of(model_file.load_model(compiled))}
    told, spreads = [], draw_inputs.SampleSpreads()
    with open(files["inputs"], "wb") as inputs, open(files["expected"], "wb") as expected:

        def add(where: str, given: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
            cast = ((name, array.astype(types.get(name, array.dtype))) for name, array in given.items())
            array_file.write(inputs, [described(*each) for each in cast])
            array_file.write(expected, [described(*each) for each in outputs.items()])
            told.append(where)

        for number, sample in enumerate(open_samples.read(spec, original.inputs) if spec else ()):
            where = "sample %d" % number
            add(where, sample, dict(zip(names, original.run(where, sample, names))))
            spreads.add(sample)
        plan: dict[str, Any] = {"samples": len(told), "corners": []}
        if options.get("corners"):
            options = drawn_error_bounds.options_of_draws(options, sampled=spec is not None)
            tried = run_corners.Original(reference, original, options, spreads.spreads())
            plan["bound"] = run_corners.judges_bound(compiled, options["precision"])
            with open(files["moved"], "wb") as moved:
                plan["corners"] = [_expect_corner(tried, corner, add, moved) for corner in tried.corners]
    with open(files["plan"], "w", encoding="utf-8") as out:
        json.dump(plan, out)
    return {"runs": told}


def _expect_corner(
    original: run_corners.Original, corner: Corner, add: Callable[..., None], moved: BufferedIOBase
) -> dict[str, Any]:
    """Run the original at a corner; returns the corner for the plan."""
    runs, outputs, why = original.run(corner)
    for run, wanted in zip(runs, outputs):
        add(corner.label, run.inputs, wanted)
    for each in original.moved(corner, runs[0].inputs) if runs else ():
        array_file.write(moved, [described(*pair) for pair in each.items()])
    plain = corner._replace(values={}, batch=frozenset())._asdict()
    note = run_corners.note(corner, why)
    return {**plain, "batch": [], "kinds": [run.kind for run in runs], "note": note}


def judge(files: Mapping[str, str], target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the engine's outputs with the original's; return all figures, also written to `target`.

    files: the paths of `expected`, `moved`, `plan` and `outputs`; options: as of `accuracy.compare`. Raises
    WorkerError (AccuracyError) if an output is missing or beyond its bound.
    """
    from scons_tensorrt.worker.onnx.drawn_error_bounds import options_of_draws

    with open(files["plan"], encoding="utf-8") as text:
        plan = json.load(text)
    with open(files["expected"], "rb") as expected, open(files["outputs"], "rb") as outputs:
        pairs = _pairs(array_file.read(expected), array_file.read(outputs))
        figures = Figures([], options, histograms=True)
        for number in range(plan["samples"]):
            figures.add(number, next(pairs))
        if not plan["corners"]:
            if not plan["samples"]:
                raise accuracy_error("there are no outputs to compare")
            return figures.judged(target)
        figures.judge()
        began = time.perf_counter()
        options = {**options_of_draws(options, sampled=plan["samples"] > 0), "on_cpu": False}
        corners = CornerFigures(figures, options, plan["bound"], "the engine")
        with open(files["moved"], "rb") as file:
            moved = array_file.read(file)
            for each in plan["corners"]:
                _judge_corner(corners, each, pairs, moved)
        found = run_corners.facts(corners, time.perf_counter() - began, compared=True)
        return figures.judged(target, corners=found)


def _judge_corner(
    figures: CornerFigures,
    planned: dict[str, Any],
    pairs: Iterator[dict[str, tuple[np.ndarray, np.ndarray]]],
    moved: Iterator[Mapping[str, Any]],
) -> None:
    kinds, note = planned.pop("kinds"), planned.pop("note")
    corner = Corner(**planned)
    if not kinds:
        figures.skip(corner)["note"] = note
        return
    runs = []
    for kind in kinds:
        pair = next(pairs)
        original, other = ({name: both[at] for name, both in pair.items()} for at in (0, 1))
        runs.append(Answers(kind, original, other))
    nudges = [{name: array_of(*each) for name, each in next(moved).items()} for _ in NUDGES]
    figures.add(corner, runs, lambda: nudges)
    figures.table[-1]["note"] = note


def _pairs(
    expected: Iterator[Mapping[str, Any]], outputs: Iterator[Mapping[str, Any]]
) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Yield {output: (the original's, the engine's)} of each run."""
    for number, wanted in enumerate(expected):
        got = next(outputs, {})
        missing = sorted(set(wanted) - set(got))
        if missing:
            raise accuracy_error("run %d: the engine has no output `%s`" % (number, missing[0]))
        yield {name: (array_of(*wanted[name]), array_of(*got[name])) for name in wanted}
