"""One conversion, from the job to the `done` event; whatever goes wrong is an `error` event."""

import importlib
import importlib.util
import os
import sys
import traceback

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError

NO_ARGUMENTS = ("import ", "data ")  # how the names of files begin that a function is not given
NEEDED = "run `%s -m pip install numpy onnx onnxruntime`, or name another interpreter by TRT_ONNX_PYTHON"


def main(job):
    """Run a job: see `build/onnx_spec.py` for its fields. Ends the process."""
    parent.claim_stdout()
    parent.die_with_parent()
    sys.meta_path.insert(0, _Sent(job["later"]))
    sys.path[:] = [path for path in sys.path if path]  # `-c` puts the current folder first
    try:
        facts = KINDS[job["kind"]](job)
    except WorkerError as refused:
        parent.send("error", error_class=refused.error_class, message=str(refused))
        os._exit(1)
    except ImportError as error:
        parent.send("error", error_class="EngineBuildError", message=_missing(error))
        os._exit(1)
    except OSError as error:
        where = " (%s)" % error.filename if error.filename else ""
        message = "%s%s; make room or make the folder writable" % (error.strerror or error, where)
        parent.send("error", error_class="PublishError", message=message)
        os._exit(1)
    except BaseException as error:
        traceback.print_exc()
        message = "%s: %s" % (type(error).__name__, " ".join(str(error).split())[:500])
        parent.send("error", error_class="EngineBuildError", message=message)
        os._exit(1)
    parent.send("done", facts=facts)
    os._exit(0)


def _missing(error):
    traceback.print_exc()
    return "%s; %s" % (error, NEEDED % sys.executable)


class _Sent:
    """Imports the modules that came with the job."""

    def __init__(self, texts):
        self.texts = texts

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name in self.texts else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        exec(compile(self.texts[name], "<%s>" % name, "exec"), module.__dict__)


def _module(name):
    """A module of this room: what it needs and is missing, is said by its own kind of job alone."""
    return importlib.import_module("scons_tensorrt.worker.onnx." + name)


def _precision(job):
    return _module("precision").convert(job["onnx"]["onnx"], job["target"], job["options"])


def _quantize(job):
    options = dict(job["options"], samples=job["samples"], temporary=job["temporary"])
    return _module("quantize").quantize(job["onnx"]["onnx"], job["target"], options)


def _accuracy(job):
    onnx, options = job["onnx"], job["options"]
    return _module("accuracy").compare(
        onnx["reference"], onnx["converted"], job["target"], job["samples"], options
    )


def _samples(job):
    return _module("calibration_batches").write(job["onnx"]["onnx"], job["target"], job["samples"])


def _export(job):
    options = dict(job["options"])
    function = options.pop("function")
    options.update((k, path) for k, path in job["files"].items() if not k.startswith(NO_ARGUMENTS))
    return _module("export").export(job["script"], function, job["target"], options, job["code"])


def _expect(job):
    onnx, files = job["onnx"], job["files"]
    return _module("engine_accuracy").expect(onnx["reference"], onnx["converted"], job["samples"], files)


def _judge(job):
    return _module("engine_accuracy").judge(job["files"], job["target"], job["options"])


KINDS = {
    "expect": _expect,
    "judge": _judge,
    "precision": _precision,
    "quantize": _quantize,
    "accuracy": _accuracy,
    "export": _export,
    "samples": _samples,
}
