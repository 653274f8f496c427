"""Check that an engine and its steps read the same bytes of each file.

A gate can take an hour, and an engine can wait for its turn. If somebody edits the model meanwhile, or
another build in this tree converts it again, the figures of the gate are not those of the engine. During
the compile, `build.checks.check_inputs` watches the inputs of the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.receipt import Receipt
from ..artifact.state_folder import DATA_SUFFIX
from ..build.onnx_spec import OnnxSpec
from ..build.spec import EngineSpec
from ..errors import EngineBuildError
from .nodes import real_path

if TYPE_CHECKING:
    from .onnx_target import OnnxTarget


def check_unchanged(spec: EngineSpec, steps: Iterable[OnnxTarget]) -> None:
    """Raise EngineBuildError unless each step is as this run checked or made it, its inputs are
    unchanged, and the engine uses the files that the steps made."""
    known = {path: spec.ingredients[name] for name, path in spec.inputs().items()}
    for step in steps:
        for path, sha256 in _files(step):
            if known.setdefault(path, sha256) != sha256:
                raise _changed(path.name)


def _files(step: OnnxTarget) -> Iterator[tuple[Path, str]]:
    """Each file that the step used or made, with its sha256."""
    now = step.spec()
    if step.known:
        receipt = step.receipt()
        if receipt is None:
            raise EngineBuildError(f"{step.label} could not be built, see error above")
        if receipt.key != now.key:
            raise _changed(_what_differs(receipt, now))
        made = real_path(step.target)
        yield made, receipt.sha256
        data = receipt.details.get("data_sha256")
        if data is not None:
            yield made.with_name(made.name + DATA_SUFFIX), data
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
