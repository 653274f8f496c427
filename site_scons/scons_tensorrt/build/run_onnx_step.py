"""Runs an ONNX step in a child process of the interpreter that has onnx, and publishes its file."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..artifact.receipt import Receipt
from ..artifact.state_folder import DATA_SUFFIX, StateFolder
from ..errors import AccuracyError, EngineBuildError, EngineError, PublishError, RecipeError
from ..files.digest_cache import sha256_file
from ..files.engine_and_gpu_locks import engine_lock
from ..files.writing import cause, remove_tree, sync_file, sync_folder, unlink_link
from ..recipe.preparation import needed_for
from ..values import Value
from .child_process import run_program
from .child_programs import CONVERTER, EXPORTER
from .gates_from_search import GATE
from .make_job import fresh_log
from .onnx_context import OnnxContext
from .onnx_spec import VERBS, OnnxSpec, check_onnx_up_to_date
from .script_copies import copy_export
from .step_inputs import CODE, named_as_given, snapshot
from .up_to_date import UpToDateResult

PRIVATE = ("TRT_SIGNING_KEY", "TRT_STORE_SIGNING_KEY", "TRT_STORE_KEY")
PACKAGES = ("onnx", "numpy", "onnxruntime")  # what a step needs,
PACKAGES_OF = {"samples": ("onnx", "numpy"), "export": ()}  # but these


class OnnxOutcome(Value):
    """how: "reused", "made", "fetched" or "found" (not downloaded: there is no file)."""

    how: str
    up_to_date: UpToDateResult
    receipt: Receipt


def make_onnx(spec: OnnxSpec, context: OnnxContext) -> OnnxOutcome:
    """Bring the file up to date. Raises EngineError; an existing file is then unchanged."""
    state = context.state
    what = state.relative(spec.target)

    def waiting(holder: str) -> None:
        context.say(f"WAITING {what}: for {holder}")

    lock = state.lock(spec.target)
    context.stage("waiting for its lock")
    with engine_lock(lock, what, waiting, context.stopping, context.lock_timeout_s):
        context.stage("checking whether it is up to date")
        up_to_date = check_onnx_up_to_date(spec, state, context.digest_cache)
        if up_to_date.current and up_to_date.sha256:
            receipt = state.receipts.find_by_bytes(spec.target.name, spec.key, up_to_date.sha256)
            if receipt:
                return OnnxOutcome("reused", up_to_date, receipt)
        folder = state.partial(spec.target) / "step"
        try:
            unlink_link(folder.parent)
            finished = _finish(spec, context, folder)
            if finished:
                return OnnxOutcome("reused", up_to_date, finished)
            remove_tree(folder)
            found = _record_not_downloaded(spec, context)
            if found:
                return OnnxOutcome("found", up_to_date, found)
            folder.mkdir(parents=True)
            receipt = _fetch(spec, context, folder)
            how = "fetched" if receipt else "made"
            receipt = receipt or _make(spec, context, folder)
        except OSError as error:
            where = state.relative(error.filename or state.root)
            raise PublishError(
                f"{where}: {cause(error, 'make room or make the folder writable, then run again')}"
            ) from None
        finally:
            remove_tree(folder)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
    if how == "made":
        for listener in context.listeners:
            listener.made_step(spec, receipt)
    return OnnxOutcome(how, up_to_date, receipt)


def _finish(spec: OnnxSpec, context: OnnxContext, folder: Path) -> Receipt | None:
    """Publish a file that an earlier run completed, with its receipt, before it was killed."""
    made, data = folder / spec.target.name, _data_of(folder / spec.target.name)
    receipts = context.state.receipts.of_key(spec.target.name, spec.key)
    if not receipts or folder.is_symlink() or made.is_symlink() or not made.is_file():
        return None
    sha256 = sha256_file(made, follow=False)
    receipt = next((each for each in receipts if each.sha256 == sha256), None)
    if receipt is None:
        return None
    stated = receipt.details.get("data_sha256")
    there = next((path for path in (data, spec.data) if path.is_file() and not path.is_symlink()), None)
    if stated is not None and (there is None or sha256_file(there, follow=False) != stated):
        return None
    _move_into_place(spec, [path for path in (data, made) if path.exists()], keep=stated is not None)
    return receipt


def check_converter(kind: str, context: OnnxContext, needed_for: str = "") -> None:
    """Raise EngineBuildError unless the interpreter runs and has the packages that a step of this kind
    needs. needed_for: the beginning of the message."""
    job = {"kind": "check", "packages": PACKAGES_OF.get(kind, PACKAGES), "needed_for": needed_for}
    with tempfile.TemporaryDirectory() as folder:
        run_converter(job, Path(folder, "log"), context)


def tidy_step(target: Path, state: StateFolder) -> None:
    """Remove what a killed conversion of an up-to-date file left, unless another process makes it now."""
    with (
        contextlib.suppress(OSError, EngineError),
        engine_lock(state.lock(target), "", lambda holder: None, lambda: True),
    ):
        folder = state.partial(target)
        unlink_link(folder)
        remove_tree(folder / "step")
        folder.rmdir()


def _fetch(spec: OnnxSpec, context: OnnxContext, folder: Path) -> Receipt | None:
    made = folder / spec.target.name
    if context.providers:
        context.stage("asking the shared cache")
    for provider in context.providers:
        supplied = provider.supply_step(spec, made, context)
        if supplied:
            return _publish(spec, context, made, supplied.sha256, supplied.size, dict(supplied.details))
        for path in (made, _data_of(made)):
            path.unlink(missing_ok=True)
    return None


def _record_not_downloaded(spec: OnnxSpec, context: OnnxContext) -> Receipt | None:
    """The receipt of a file that need not be downloaded. A file of other inputs in its place is removed: it
    would be taken for this one."""
    for finder in context.finders:
        found = finder.find_step(spec, context)
        if found:
            more = spec.ingredients, dict(found.details)
            receipt = Receipt(spec.target.name, spec.key, found.sha256, found.size, *more)
            context.state.receipts.put(receipt)
            for path in (spec.target, spec.data):
                path.unlink(missing_ok=True)
            return receipt
    return None


def _make(spec: OnnxSpec, context: OnnxContext, folder: Path) -> Receipt:
    spec.bring()
    state, log = context.state, context.state.log(spec.target)
    fresh_log(log)
    made, started = folder / spec.target.name, time.time()
    known = context.known_gates.write(spec, made)
    if known is not None:
        return _publish_made(spec, context, made, known, started, time.time() - started)
    context.stage("copying its inputs")
    inputs = folder / "inputs"
    places, samples = snapshot(spec, inputs, state.top)
    job = {
        "kind": spec.kind,
        "options": dict(spec.options),
        "target": str(made),
        "temporary": str(folder / "temporary"),
        "onnx": places,
        "samples": samples,
        "needed_for": _needed_for(spec),
        **copy_export(spec, inputs / CODE, state.top),
    }
    (folder / "temporary").mkdir()
    started = time.time()
    verb, short = VERBS.get(spec.kind, VERBS[""])[2], " ".join(spec.target.name.split(".")[:2])
    context.stage("running the step")
    running = context.begin(verb, state.relative(spec.target), short, "")
    context.stage("starting the converter")

    def hear(event: Mapping[str, Any]) -> None:
        if event.get("event") == "stage":
            running.update(words=str(event.get("name")))

    try:
        facts, seconds = run_converter(job, log, context, hear)
    except (RecipeError, AccuracyError) as error:
        raise type(error)(f"{spec.source}: {named_as_given(str(error), spec, inputs)}") from None
    except EngineBuildError as error:
        text = named_as_given(str(error), spec, inputs)
        raise EngineBuildError(f"{spec.source}: {text}; log: {state.relative(log)}") from None
    finally:
        running.end()
    if not made.is_file():
        raise EngineBuildError(f"{spec.source}: the converter did not write {made.name}")
    return _publish_made(spec, context, made, facts, started, seconds)


def _publish_made(
    spec: OnnxSpec, context: OnnxContext, made: Path, facts: dict[str, Any], started: float, seconds: float
) -> Receipt:
    gate = facts.pop(GATE, None) if spec.kind == "precision" else None
    details = _details(spec, made, facts, started, seconds)
    receipt = _publish(spec, context, made, sha256_file(made), made.stat().st_size, details)
    if gate is not None:
        context.known_gates.add(spec, gate, receipt)
    return receipt


def _needed_for(spec: OnnxSpec) -> str:
    return needed_for(spec.options, spec.onnx["onnx"].summary) if spec.kind == "prepare" else ""


def _details(
    spec: OnnxSpec, made: Path, facts: Mapping[str, Any], started: float, seconds: float
) -> dict[str, Any]:
    """Details of the receipt."""
    details: dict[str, Any] = {
        "kind": spec.kind,
        "facts": facts,
        "inputs": {name: text for name, text in spec.ingredients.items() if name.startswith("input ")},
        "builder": {"scons_tensorrt": __version__},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(seconds, 3),
    }
    if _data_of(made).exists():
        details["data_sha256"] = sha256_file(_data_of(made))
    return details


def run_converter(
    job: Mapping[str, Any],
    log: Path,
    context: OnnxContext,
    progress: Callable[[Mapping[str, Any]], None] = lambda event: None,
) -> tuple[dict[str, Any], float]:
    """Run a job of worker/onnx: its facts, and the seconds it took. Raises as `run_program`.

    The environment is that of this process without signing keys: the child runs code of the user.
    """
    environment = {name: text for name, text in os.environ.items() if name not in PRIVATE}
    program = EXPORTER if job.get("kind") == "export" else CONVERTER
    done, seconds = run_program(program, context.python, job, log, context.stopping, environment, progress)
    return dict(done["facts"]), seconds


def _data_of(made: Path) -> Path:
    return made.with_name(made.name + DATA_SUFFIX)


def _publish(
    spec: OnnxSpec,
    context: OnnxContext,
    made: Path,
    sha256: str,
    size: int,
    details: Mapping[str, Any],
) -> Receipt:
    """Publish the external data, then the ONNX that refers to it. After a crash between the two, the file
    counts as modified and is made again."""
    data = _data_of(made)
    there = [path for path in (data, made) if path.exists()]
    context.stage("publishing")
    receipt = Receipt(spec.target.name, spec.key, sha256, size, spec.ingredients, details)
    for path in there:
        sync_file(path)
    context.state.receipts.put(receipt)
    _move_into_place(spec, there, keep=data in there)
    return receipt


def _move_into_place(spec: OnnxSpec, there: list[Path], keep: bool) -> None:
    """Rename the files to their final place. keep: whether the ONNX has external data."""
    folder = spec.target.parent
    folder.mkdir(parents=True, exist_ok=True)
    for path in there:
        os.replace(path, folder / path.name)
    if not keep:
        spec.data.unlink(missing_ok=True)
    sync_folder(folder)
