"""Whether the rows of a batch are kept apart: the same input gives the same output in every row, whatever the
other rows are, and alone. The original is tried first; only what it keeps apart is asked of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scons_tensorrt.worker.common.errors import accuracy_error
from scons_tensorrt.worker.onnx.drawn_error_bounds import Answers, Movement, both_finite, measured
from scons_tensorrt.worker.onnx.profile_corners import Corner

APART = 1e-4  # relative: rows of an original that differ by less are kept apart
EXACT = 1e-3  # how much rows with the same input may differ in fp32, relative to their largest value
ROUNDED = 2.0**-6  # the same in 16 and 8 bit


class _Pair(NamedTuple):
    """Rows with the same input. what: for messages; run: that has the first; rows: of its batch; here, there:
    the rows of this run and of the draw."""

    what: str
    run: Answers
    rows: int
    here: slice
    there: slice


def check_rows(
    corner: Corner, runs: Sequence[Answers], movement: Movement, options: Mapping[str, Any], what: str
) -> str:
    """What the report says of the rows at a corner. runs: the draw first; what: the compared thing. Raises
    WorkerError (AccuracyError) if the original keeps the rows apart and the other does not."""
    if corner.rows < 2:
        return "one row" if corner.rows else "no batch"
    told = []
    for pair in _pairs(corner, runs):
        told += [(pair.what, _apart(name, pair, runs[0], corner.rows)) for name in runs[0].original]
        if runs[0].other is None:
            continue
        for name in runs[0].original:
            if _apart(name, pair, runs[0], corner.rows):
                _check(name, pair, runs[0], corner.rows, movement, options, what)
    mixed = list(dict.fromkeys(words for words, apart in told if apart is False))
    if not any(apart for _, apart in told):
        return "mixed by the original" if mixed else "no output has rows"
    return "kept apart" + ("; not by the original: %s" % ", ".join(mixed) if mixed else "")


def _pairs(corner: Corner, runs: Sequence[Answers]) -> list[_Pair]:
    rows, last, few = corner.rows, corner.rows - 1, max(corner.fewest, 1)
    found = [_Pair("rows 0 and %d with the same input" % last, runs[0], rows, slice(last, rows), slice(0, 1))]
    for run in runs[1:]:
        if run.kind == "others":
            found.append(_Pair("row 0 beside other rows", run, rows, slice(0, 1), slice(0, 1)))
        elif run.kind == "alone":
            name = "row 0 alone" if few == 1 else numbers(range(few)) + " alone"
            text = "%s and in a batch of %d" % (name, rows)
            found.append(_Pair(text, run, few, slice(0, few), slice(0, few)))
    return found


def _apart(name: str, pair: _Pair, draw: Answers, rows: int) -> bool | None:
    """Whether the original keeps the rows apart; None if the output has no rows."""
    first = _rows_of(pair.run.original[name], pair.rows, pair.here)
    second = _rows_of(draw.original[name], rows, pair.there)
    if first is None or second is None or first.shape != second.shape:
        return None
    return _difference(first, second) <= APART


def _check(
    name: str,
    pair: _Pair,
    draw: Answers,
    rows: int,
    movement: Movement,
    options: Mapping[str, Any],
    what: str,
) -> None:
    assert pair.run.other is not None
    assert draw.other is not None
    first = _rows_of(pair.run.other[name], pair.rows, pair.here)
    second = _rows_of(draw.other[name], rows, pair.there)
    if first is None or second is None or first.shape != second.shape:
        return  # the shape depends on the data
    differ, limit = _difference(first, second), EXACT if options["precision"] == "fp32" else ROUNDED
    if differ <= limit:
        return
    if pair.run.kind == "alone":
        found = measured(name, *both_finite(second, first), options, movement)
        if found.passes:
            return
        differ, limit = found.figures["error"], found.figures["bound"]
    elif differ <= movement.allowed(name, _difference):
        return
    raise accuracy_error(
        "output `%s`: %s differ by %.4g, beyond %.4g (relative), and not in the original: %s mixes the rows "
        "of a batch; make its batch axis dynamic, or leave the batch out of shapes="
        % (name, pair.what, differ, limit, what)
    )


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the largest value; infinite where one alone is not finite."""
    if not a.size:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    if np.isfinite(a).all() and np.isfinite(b).all():
        largest, size = float(np.abs(a - b).max()), float(np.abs(b).max())
        return largest / size if size else (0.0 if largest == 0 else float("inf"))
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        difference = np.where(same, 0.0, np.abs(a - b))
        largest = float(np.where(np.isnan(difference), np.inf, difference).max())
        size = float(np.where(np.isfinite(b), np.abs(b), 0.0).max())
    return largest / size if size else (0.0 if largest == 0 else float("inf"))


def _rows_of(output: np.ndarray, rows: int, chosen: slice) -> np.ndarray | None:
    """These rows of an output whose axis 0 is a multiple of the batch; else None."""
    if not output.ndim or not output.size or output.shape[0] % rows:
        return None
    return output.reshape(rows, -1)[chosen]


def numbers(rows: Sequence[int]) -> str:
    """`row 3`, `rows 1 to 7`, or `rows 1, 3, 5 and 4 more`."""
    if len(rows) == 1:
        return "row %d" % rows[0]
    if len(rows) == rows[-1] - rows[0] + 1:
        return "rows %d to %d" % (rows[0], rows[-1])
    more = " and %d more" % (len(rows) - 3) if len(rows) > 3 else ""
    return "rows %s%s" % (", ".join(str(row) for row in rows[:3]), more)
