"""One conversion, from the job to the `done` event. Every failure is an `error` event."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError, one_line

NO_ARGUMENTS = ("import ", "data ")  # files of a job with these prefixes are not arguments of the function
NEEDED = (
    "run `%s -m pip install numpy onnx onnxruntime` (the extra `convert`), or name another interpreter by "
    "TRT_ONNX_PYTHON"
)


def main(job: Mapping[str, Any]) -> None:
    """Run a job of `run_onnx_step.py`, `compare_on_gpu.py` or `measure_sensitivity.py` in build/. Ends the
    process."""
    parent.claim_stdout()
    parent.die_with_parent()
    sys.meta_path.insert(0, _SentModules(job["later"]))
    sys.path[:] = [path for path in sys.path if path]  # `-c` puts the current folder first
    try:
        parent.send("done", facts=_run(job))
        os._exit(0)
    except WorkerError as refused:
        error_class, message = refused.error_class, str(refused)
    except ImportError as error:
        traceback.print_exc()
        error_class, message = (
            "EngineBuildError",
            "%s%s; %s"
            % (
                job.get("needed_for", ""),
                error,
                NEEDED % sys.executable,
            ),
        )
    except OSError as error:
        where = " (%s)" % error.filename if error.filename else ""
        error_class = "PublishError"
        message = "%s%s; make room or make the folder writable" % (error.strerror or error, where)
    except BaseException as error:
        traceback.print_exc()
        error_class, message = "EngineBuildError", "%s: %s" % (type(error).__name__, one_line(error))
    parent.send("error", error_class=error_class, message=message)
    os._exit(1)


class _SentModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules that came with the job. texts: {module: source}."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name in self._texts else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        exec(compile(self._texts[name], "<%s>" % name, "exec"), module.__dict__)


def _module(name: str) -> Any:
    """A module of this room, imported for the kinds of job that need it: what it imports may be missing."""
    return importlib.import_module("scons_tensorrt.worker.onnx." + name)


def _run(job: Mapping[str, Any]) -> Any:
    """The facts of a job. Raises WorkerError, and ImportError for a missing package."""
    kind = job["kind"]
    if kind in _ALONE:
        return _ALONE[kind](job)
    stages = _module("step_stages")
    stages.tell(lambda words: parent.send("stage", name=words))
    stages.begin("importing its packages")
    return _STEPS[kind](job, job["onnx"], dict(job["options"]))


def _import_packages(job: Mapping[str, Any]) -> Any:
    """What another job needs."""
    for name in job["packages"]:
        importlib.import_module(name)
    return {}


def _prepare(job: Mapping[str, Any], onnx: Mapping[str, str], options: dict[str, Any]) -> Any:
    prepare = _module("prepare")
    _module("step_stages").begin("preparing")
    shapes, freeze = options.get("shapes") or (), options.get("freeze") or {}
    request = prepare.read_request(shapes, freeze, job["samples"], job["temporary"])
    made = prepare.prepare(onnx["onnx"], job["target"], request)
    return {"changes": ", ".join(made.changes), "outputs": made.outputs}


def _convert(job: Mapping[str, Any], onnx: Mapping[str, str], options: dict[str, Any]) -> Any:
    if options["keep_nodes"] == "auto":
        original = onnx.get("reference", onnx["onnx"])
        search = onnx["onnx"], original, job["target"], options, job["samples"], job["temporary"]
        return _module("precision_search").convert(*search)
    precision = _module("precision")
    _module("step_stages").begin("converting")
    return precision.convert(onnx["onnx"], job["target"], options)


def _quantize(job: Mapping[str, Any], onnx: Mapping[str, str], options: dict[str, Any]) -> Any:
    options.update(samples=job["samples"], temporary=job["temporary"])
    return _module("quantize").quantize(onnx["onnx"], job["target"], options)


def _accuracy(job: Mapping[str, Any], onnx: Mapping[str, str], options: dict[str, Any]) -> Any:
    models = onnx["reference"], onnx.get("converted")
    return _module("converted_accuracy").compare(*models, job["target"], job["samples"], options)


def _export(job: Mapping[str, Any], onnx: Mapping[str, str], options: dict[str, Any]) -> Any:
    function = options.pop("function")
    given = {name: path for name, path in job["files"].items() if not name.startswith(NO_ARGUMENTS)}
    options.update(given)
    return _module("export").export(job["script"], function, job["target"], options, job["code"])


# Jobs that say nothing of what they do next.
_ALONE: dict[str, Any] = {
    "check": _import_packages,
    "unpack": lambda job: _module("compare_recorded").unpack(job["recorded"], job["files"]),
    "compare": lambda job: _module("compare_recorded").compare(job["files"], job["options"]),
}
_STEPS: dict[str, Any] = {
    "prepare": _prepare,
    "precision": _convert,
    "quantize": _quantize,
    "samples": lambda job, onnx, _: _module("calibration_batches").write(
        onnx["onnx"], job["target"], job["samples"]
    ),
    "record": lambda job, onnx, options: _module("write_recorded").record(
        onnx["reference"], onnx["converted"], job["target"], job["samples"], options
    ),
    "accuracy": _accuracy,
    "sensitivity": lambda job, onnx, options: _module("layer_sensitivity").measure_sensitivity(
        onnx["reference"], onnx["converted"], job["samples"], options, parent.send
    ),
    "expect": lambda job, onnx, options: _module("engine_accuracy").expect(
        onnx["reference"], onnx["converted"], job["samples"], job["files"], options
    ),
    "judge": lambda job, onnx, options: _module("engine_accuracy").judge(
        job["files"], job["target"], options
    ),
    "export": _export,
}
