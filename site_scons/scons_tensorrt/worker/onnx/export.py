"""An ONNX from a Python function of the user's: `function(target, **options)`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from scons_tensorrt.worker.common.errors import WorkerError, one_line, recipe_error
from scons_tensorrt.worker.onnx import import_user_code


def export(
    script: str, function: str, target: str, options: Mapping[str, Any], copies: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Call the function, which writes an ONNX to `target`, with external data in `target`.data at most;
    return the facts that it returns, a JSON object, or {}.

    copies: of the user's code, as `sources.Code` takes them. Raises WorkerError: EngineBuildError with
    script, line and exception; RecipeError for an import that is not declared.
    """
    folder, name = os.path.split(script)
    sys.path.insert(0, folder)
    code = import_user_code.import_from_source(script, copies)
    try:
        module = import_user_code.load(script, os.path.splitext(name)[0])
        if not hasattr(module, function):
            raise recipe_error("%s has no function `%s`" % (name, function))
        facts = getattr(module, function)(target, **options)
    except WorkerError:
        raise
    except BaseException as error:
        refused = _build_error(_failure(error, script, name, code))
        code.check(error)
        raise refused from None
    code.check()
    if not os.path.isfile(target):
        raise _build_error("%s: `%s` wrote no ONNX to its target" % (name, function))
    if not isinstance(facts, dict):
        return {}
    try:
        return dict(json.loads(json.dumps(facts)))
    except (TypeError, ValueError) as error:
        raise _build_error(
            "%s: `%s` must return a JSON-serializable value: %s" % (name, function, error)
        ) from None


def _build_error(message: str) -> WorkerError:
    return WorkerError("EngineBuildError", message)


def _failure(error: BaseException, script: str, name: str, code: import_user_code.Code) -> str:
    """An exception of the user's function in one line; the traceback goes to the log."""
    traceback.print_exc()
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == script]
    where = ", line %s" % lines[-1] if lines else ""
    text = one_line(error)
    hidden = code.hides_installed() if isinstance(error, (ImportError, AttributeError)) else ""
    if isinstance(error, ModuleNotFoundError) and not hidden:
        hidden = "; install it for %s, or name another interpreter by TRT_ONNX_PYTHON" % sys.executable
    return "%s%s: %s: %s%s" % (name, where, type(error).__name__, text, hidden)
