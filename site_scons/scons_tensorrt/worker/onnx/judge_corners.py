"""The judgement of the runs at a corner: finite values, the bound, and rows that are kept apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scons_tensorrt.worker.common.errors import WorkerError, accuracy_error
from scons_tensorrt.worker.onnx.drawn_error_bounds import (
    MOVES,
    NOT_JUDGED,
    RELATIVE,
    SHARE,
    Answers,
    Movement,
    both_finite,
    measured,
)
from scons_tensorrt.worker.onnx.judge_outputs import Figures, bound_text, measure, share
from scons_tensorrt.worker.onnx.profile_corners import Corner
from scons_tensorrt.worker.onnx.row_checks import check_rows, numbers

if TYPE_CHECKING:
    from scons_tensorrt.worker.onnx.drawn_error_bounds import Outputs

ADVICE = "correct the model"


class CornerFigures:
    """figures: gets the figures of every draw whose bound is judged, unless it has those of samples.
    options: see `draw_bounds.options_of_draws`; bound: whether the bound is judged; what: the compared thing,
    for messages.

    table: for each corner its name, shapes, number of runs, outputs with the worst error, and rows.
    """

    def __init__(self, figures: Figures, options: Mapping[str, Any], bound: bool, what: str) -> None:
        self.figures, self.bound = figures, bound
        self._options, self._what = options, what
        self.table: list[dict[str, Any]] = []

    def add(self, corner: Corner, runs: Sequence[Answers], moved: Callable[[], Sequence[Outputs]]) -> None:
        """Judge the runs at a corner, the draw first. moved: see `Movement`. Raises WorkerError
        (AccuracyError)."""
        row = self.skip(corner)
        row["runs"] = len(runs)
        movement = Movement(runs[0].original, moved, self._options)
        try:
            for run in runs:
                for name in run.original if run.other is not None else ():
                    self._add_output(name, run, runs, movement, row)
            row["rows"] = check_rows(corner, runs, movement, self._options, self._what)
        except WorkerError as error:
            raise accuracy_error("%s: %s" % (corner.label, error)) from None

    def skip(self, corner: Corner) -> dict[str, Any]:
        """The row of the table of a corner that is not run."""
        row = {"corner": corner.name, "shapes": corner.shapes_text(), "runs": 0, "outputs": {}, "rows": ""}
        self.table.append(row)
        return row

    def _add_output(
        self, name: str, run: Answers, runs: Sequence[Answers], movement: Movement, row: dict[str, Any]
    ) -> None:
        assert run.other is not None
        original, other = run.original[name], run.other[name]
        if original.shape != other.shape:
            if self._may_differ(name, run, runs, movement):
                return
            measure(name, original, other, self._options)  # raises
        _check_finite(name, original, other)
        if not self.bound or (original.size and not np.isfinite(original).any()):
            return
        found = measured(name, *both_finite(original, other), self._options, movement)
        if not found.passes:
            raise self._beyond(name, original, other, found.figures, found.measure)
        if found.measure == NOT_JUDGED:
            row["outputs"].setdefault(name, {"error": found.figures["error"], "bound": None})
            return
        figures = {**found.figures, "corner": row["corner"]}
        if not self._options["sampled"]:
            self.figures.keep(name, figures, original, other)
        known = row["outputs"].get(name)
        if known is None or known["bound"] is None or share(figures) > share(known):
            row["outputs"][name] = {key: figures.get(key) for key in ("error", "bound", "cosine")}

    def _may_differ(self, name: str, run: Answers, runs: Sequence[Answers], movement: Movement) -> bool:
        """Whether another shape of an output is no error, because it depends on the values of inputs. For the
        same values, fp32 has almost the same shape: a count moves with the inputs, or by a `SHARE`."""
        assert run.other is not None
        moved = movement.shapes(name)
        if len(moved | {each.original[name].shape for each in runs if each.kind != "alone"}) < 2:
            return False
        wanted, shape = run.original[name].shape, run.other[name].shape
        exact = self._options["precision"] == "fp32" and self._options["on_cpu"]  # a GPU may use TF32
        if run is not runs[0] or not exact:
            return True
        return len(wanted) == len(shape) and all(
            abs(size - other) <= max(1, SHARE * size, MOVES * max(abs(size - each[axis]) for each in moved))
            for axis, (size, other) in enumerate(zip(wanted, shape))
        )

    def _beyond(
        self, name: str, original: np.ndarray, other: np.ndarray, figures: Mapping[str, Any], measure: str
    ) -> WorkerError:
        bound = bound_text(self._options)
        if measure == "relative":
            bound = "%g of the size of an output that is smaller than the bound" % SHARE
        elif measure in RELATIVE:
            bound = "%g of the spread of an output whose mean would pass the bound" % figures["bound"]
        a, b = (each.astype(np.float64) for each in both_finite(original, other))
        return accuracy_error(
            "output `%s`: %s error %.4g, beyond %.4g (%s; worst at %s: %.6g, and %.6g in the original%s); "
            "give inputs= of real use, widen rtol= or atol=, or %s"
            % (
                *(name, measure, figures["error"], figures["bound"], bound),
                *(figures["at"], figures["converted"], figures["original"]),
                *(_rows_text(np.abs(a - b) > 0.5 * np.abs(a - b).max()), ADVICE),
            )
        )


def _check_finite(name: str, original: np.ndarray, other: np.ndarray) -> None:
    """Raise WorkerError (AccuracyError) for infinity or NaN where the original is finite."""
    bad = np.isfinite(original) & ~np.isfinite(other)
    if bad.any():
        at = np.unravel_index(int(bad.argmax()), bad.shape)
        raise accuracy_error(
            "output `%s` is %s at %s, and %.6g in the original (%d such values%s); %s"
            % (
                name,
                float(other[at]),
                [int(i) for i in at],
                original[at],
                int(bad.sum()),
                _rows_text(bad),
                ADVICE,
            )
        )


def _rows_text(bad: np.ndarray) -> str:
    """Which indices of axis 0 are concerned, for messages."""
    if not bad.ndim or bad.shape[0] < 2:
        return ""
    found = np.flatnonzero(bad.reshape(bad.shape[0], -1).any(axis=1)).tolist()
    return ", in %s of %d" % (numbers(found), bad.shape[0])
