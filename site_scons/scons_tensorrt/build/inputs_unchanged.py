"""Check that an engine and its ONNX steps read the same bytes of each file.

A gate can take an hour, and an engine can wait for its turn. If somebody edits the model meanwhile, or
another build in this tree converts it again, the figures of the gate are not those of the engine. During
the compile, `check_inputs` of check_before_publish.py watches the inputs of the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..artifact.receipt import Receipt
from ..artifact.state_folder import DATA_SUFFIX
from ..errors import EngineBuildError
from ..values import Value
from .engine_spec import EngineSpec
from .onnx_spec import OnnxSpec


class DoneStep(Value):
    """An ONNX step of this run. label: of its file, for messages; spec: with the present inputs; known:
    whether this run checked it or made it; made: its file; receipt: of what was checked or made, None if that
    failed."""

    label: str
    spec: OnnxSpec
    known: bool
    made: Path
    receipt: Receipt | None


def check_unchanged(spec: EngineSpec, steps: Iterable[DoneStep]) -> None:
    """Raise EngineBuildError unless each step is as this run checked or made it, its inputs are
    unchanged, and the engine uses the files that the steps made."""
    known = {path: spec.ingredients[name] for name, path in spec.inputs().items()}
    for step in steps:
        for path, sha256 in _files(step):
            if known.setdefault(path, sha256) != sha256:
                raise _changed(path.name)


def _files(step: DoneStep) -> Iterator[tuple[Path, str]]:
    """Each file that the step used or made, with its sha256."""
    now, receipt = step.spec, step.receipt
    if step.known:
        if receipt is None:
            raise EngineBuildError(f"{step.label} could not be built, see error above")
        if receipt.key != now.key:
            raise _changed(_what_differs(receipt, now))
        yield step.made, receipt.sha256
        data = receipt.details.get("data_sha256")
        if data is not None:
            yield step.made.with_name(step.made.name + DATA_SUFFIX), data
    for name, path in now.inputs().items():
        yield path, now.ingredients[name]


def _what_differs(receipt: Receipt, now: OnnxSpec) -> str:
    """The name of an input that differs from the receipt."""
    paths, before = now.inputs(), receipt.ingredients
    for name, sha256 in now.ingredients.items():
        if before.get(name) != sha256 and name.startswith("input "):
            return paths[name].name if name in paths else name.split(" ", 2)[-1]
    return now.source


def _changed(name: str) -> EngineBuildError:
    return EngineBuildError(f"{name} changed since it was checked; run again")
