"""An ONNX by a Python function of the user's: `function(target, **options)`."""

import json
import os
import sys
import traceback

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import sources


def export(script, function, target, options, told):
    """Call the function, which writes an ONNX to `target`, with one file of external data at most,
    `target`.data beside it; the facts that it returns, a JSON object, or none.

    told: of its code, as `sources.Code` has it. Raises WorkerError: EngineBuildError that names script,
    line and exception; RecipeError for an import that is not declared.
    """
    folder, name = os.path.split(script)
    sys.path.insert(0, folder)
    code = sources.import_from_source(script, told)
    try:
        module = sources.load(script, os.path.splitext(name)[0])
        if not hasattr(module, function):
            raise WorkerError("RecipeError", "%s has no function `%s`" % (name, function))
        facts = getattr(module, function)(target, **options)
    except WorkerError:
        raise
    except BaseException as error:
        refused = _told(error, script, name, code)
        code.check(error)
        raise refused from None
    code.check()
    if not os.path.isfile(target):
        raise WorkerError("EngineBuildError", "%s: `%s` wrote no ONNX to its target" % (name, function))
    facts = {} if facts is None else facts
    try:
        return {} if not isinstance(facts, dict) else json.loads(json.dumps(facts))
    except (TypeError, ValueError) as error:
        what = "%s: `%s` shall return what JSON can hold: %s" % (name, function, error)
        raise WorkerError("EngineBuildError", what) from None


def _told(error, script, name, code):
    """One line of an exception in a user's function; the whole of it is in the log."""
    traceback.print_exc()
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == script]
    where = ", line %d" % lines[-1] if lines else ""
    text = " ".join(str(error).split())[:300]
    hidden = code.hidden() if isinstance(error, (ImportError, AttributeError)) else ""
    if hidden:
        text += hidden
    elif isinstance(error, ModuleNotFoundError):
        text += "; install it for %s, or name another interpreter by TRT_ONNX_PYTHON" % sys.executable
    return WorkerError("EngineBuildError", "%s%s: %s: %s" % (name, where, type(error).__name__, text))
