"""The shapes at which a model is compared with its original: minimum, optimum and maximum of each profile;
and the runs at each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx.draw_inputs import Drawer
from scons_tensorrt.worker.onnx.sample_set import ModelInput, shape_text

LARGE = 1 << 16  # elements of all inputs together: above, a corner is run once
TOO_LARGE = 1 << 24  # above, it is not run: its tensors may not fit in memory
NAMES = ("min", "opt", "max")

if TYPE_CHECKING:
    Profile = Mapping[str, Sequence[Sequence[int]]]


class Corner(NamedTuple):
    """name: as messages have it; shapes: of all inputs; values: of shape tensors, by input; batch: the inputs
    whose axis 0 is the batch; rows: the size of that batch, 0 if there is none; fewest: the smallest batch
    that the profile has; all_runs: whether there is more than the draw."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, np.ndarray]
    batch: frozenset[str]
    rows: int
    fewest: int
    all_runs: bool = False

    @property
    def size(self) -> int:
        """Elements of all inputs."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes.values())

    @property
    def label(self) -> str:
        """For messages."""
        return "corner %s (%s)" % (self.name, self.shapes_text())

    def shapes_text(self) -> str:
        return ", ".join("`%s` %s" % (name, shape_text(shape)) for name, shape in self.shapes.items())


class Run(NamedTuple):
    """One run at a corner. kind: "draw"; "others", whose row 0 is that of the draw; "alone", the first rows
    of the draw; "again", another draw of a model without a batch."""

    corner: Corner
    kind: str
    inputs: Mapping[str, np.ndarray]


def corners_of(profiles: Sequence[Profile], inputs: Sequence[ModelInput]) -> list[Corner]:
    """The corners without duplicates, in the order of the profiles; with no profile, the shape of the model.
    Raises WorkerError (RecipeError) for an input without a shape."""
    found: dict[Any, Corner] = {}
    for number, profile in enumerate(profiles or ({},)):
        place = "" if len(profiles) < 2 else "profile %d, " % number
        bounds = {item.name: _bounds(item, profile) for item in inputs}
        all_values = [
            {name: each.values[at] for name, each in bounds.items() if each.values} for at in range(3)
        ]
        shapes = [{name: each.shapes[at] for name, each in bounds.items()} for at in range(3)]
        batch = _batch(inputs, shapes)
        few = min((shapes[0][name][0] for name in batch), default=0)
        for at, word in enumerate(NAMES):
            rows = {shapes[at][name][0] for name in batch}
            key = repr((shapes[at], {name: array.tolist() for name, array in all_values[at].items()}))
            name = place + (word if profiles else "shape of the model")
            size = rows.pop() if len(rows) == 1 else 0
            found.setdefault(key, Corner(name, shapes[at], all_values[at], batch, size, few))
    return _with_rows(list(found.values()))


class _Bounds(NamedTuple):
    shapes: Sequence[tuple[int, ...]]
    values: Sequence[np.ndarray]


def _bounds(item: ModelInput, profile: Profile) -> _Bounds:
    given = profile.get(item.name)
    fixed = item.shape is not None and -1 not in item.shape
    if given is None:
        if not fixed:
            raise recipe_error("input `%s` is dynamic, and shapes= does not state its shape" % item.name)
        return _Bounds([tuple(item.shape or ())] * 3, [])
    if fixed and item.dtype.kind in "iu" and item.dtype.itemsize >= 4 and len(item.shape or ()) < 2:
        # A shape tensor: its bounds are values.
        shape = tuple(item.shape or ())
        return _Bounds([shape] * 3, [np.array(each, item.dtype).reshape(shape) for each in given])
    return _Bounds([tuple(each) for each in given], [])


def _batch(inputs: Sequence[ModelInput], shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> frozenset[str]:
    """The inputs whose axis 0 is the batch: those where it is dynamic, else all of rank 2 and more. They have
    equal sizes there; else there is no batch."""
    ranked = [item for item in inputs if shapes[0][item.name]]
    chosen = [item.name for item in ranked if item.shape is None or item.shape[0] < 0]
    chosen = chosen or [item.name for item in ranked if len(shapes[0][item.name]) > 1]
    same = all(len({each[name][0] for name in chosen}) == 1 for each in shapes)
    return frozenset(chosen) if same else frozenset()


def _with_rows(corners: list[Corner]) -> list[Corner]:
    """The corners, with all runs for small ones and for one that has rows. If the smallest with rows is
    large, a corner of two rows is added."""
    found = [corner._replace(all_runs=corner.size <= LARGE) for corner in corners]
    several = [corner for corner in found if corner.rows > 1]
    if not several or any(corner.all_runs for corner in several):
        return found
    small = min(found, key=lambda corner: corner.size)
    if small.rows == 1:
        shapes = {n: (2, *s[1:]) if n in small.batch else s for n, s in small.shapes.items()}
        two = small._replace(name="2 rows of %s" % small.name, shapes=shapes, rows=2, all_runs=True)
        return [*found, two]
    smallest = min(several, key=lambda corner: corner.size)
    return [corner._replace(all_runs=corner is smallest) for corner in found]


def runs_at(corner: Corner, drawer: Drawer) -> Iterator[Run]:
    """The runs at a corner, the draw first. In the draw, the first and the last row are the same."""
    draw = {**drawer.draw(corner.shapes, corner.name), **corner.values}
    if corner.rows > 1:
        for name in corner.batch:
            draw[name][-1] = draw[name][0]
    yield Run(corner, "draw", draw)
    if not corner.all_runs:
        return
    again = {**drawer.draw(corner.shapes, corner.name + " again"), **corner.values}
    if corner.rows < 2:
        yield Run(corner, "again", again)
        return
    for name in corner.batch:
        again[name][0] = draw[name][0]
    yield Run(corner, "others", {n: again[n] if n in corner.batch else a for n, a in draw.items()})
    few = max(corner.fewest, 1)
    if few < corner.rows:
        first = {n: np.ascontiguousarray(a[:few]) if n in corner.batch else a for n, a in draw.items()}
        yield Run(corner, "alone", first)
