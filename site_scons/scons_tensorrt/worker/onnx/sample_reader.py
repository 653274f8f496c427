"""Samples from a Python function of the user's."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from scons_tensorrt.worker.common.errors import WorkerError, one_line, recipe_error
from scons_tensorrt.worker.onnx import import_user_code
from scons_tensorrt.worker.onnx.sample_set import ModelInput, SampleSet, with_batch

_END = object()
Result = TypeVar("Result")


class ReaderSamples(SampleSet):
    """A function without arguments that returns or yields one {input name: array} for each sample."""

    def __init__(self, spec: Mapping[str, Any], inputs: Sequence[ModelInput]) -> None:
        super().__init__(spec, inputs)
        self._function: str = spec["function"]
        self._code = import_user_code.import_from_source(self.path, spec.get("code"))

    def _read(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        folder = os.path.dirname(os.path.abspath(self.path))
        sys.path.insert(0, folder)
        try:
            samples = self._guarded(self._call)
            for index in range(sys.maxsize):
                sample = self._guarded(next, samples, _END)
                if sample is _END:
                    return
                where = "%s, %s(), sample %d" % (self.path, self._function, index)
                yield where, self._arrays(where, sample)
        finally:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)

    def _call(self) -> Iterator[object]:
        if not os.access(self.path, os.R_OK):
            raise recipe_error("%s cannot be read" % self.path)
        function = getattr(import_user_code.load(self.path, "_samples_reader"), self._function, None)
        if not callable(function):
            raise recipe_error(
                "%s has no function `%s`; define it or name another" % (self.path, self._function)
            )
        given = function()
        if isinstance(given, Mapping) or not hasattr(given, "__iter__"):
            raise recipe_error(
                "%s: %s() returned a %s; it must return or yield one {input name: array} for each sample"
                % (self.path, self._function, type(given).__name__)
            )
        return iter(given)

    def _guarded(self, call: Callable[..., Result], *arguments: object) -> Result:
        """The result of `call`, which runs the user's code. What that prints goes to standard error. Raises
        WorkerError for whatever it raises."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                given = call(*arguments)
            self._code.check()
            return given
        except WorkerError:
            raise
        except (Exception, SystemExit) as error:
            self._code.check(error)
            where = "%s, %s(), line %s" % (self.path, self._function, self._line_number(error))
            raise recipe_error("%s: %s: %s" % (where, type(error).__name__, one_line(error))) from None

    def _line_number(self, error: BaseException) -> int | str | None:
        """The last line of the user's file in the error's traceback, or `?`."""
        if isinstance(error, SyntaxError) and error.filename == self.path:
            return error.lineno
        frames = traceback.extract_tb(error.__traceback__)
        return next((f.lineno for f in reversed(frames) if f.filename == self.path), "?")

    def _arrays(self, where: str, sample: object) -> dict[str, np.ndarray]:
        if not isinstance(sample, Mapping):
            raise recipe_error("%s is a %s; give {input name: array}" % (where, type(sample).__name__))
        self._check_names(where, sample)
        arrays = {}
        for name, _, shape in self.inputs:
            array = self._guarded(np.asarray, sample[name])
            # "V" is numpy's kind of bfloat16 and float8
            if array.dtype.hasobject or array.dtype.kind not in "biufcV":
                raise recipe_error(
                    "%s, input `%s`: %s is not an array of numbers" % (where, name, array.dtype)
                )
            arrays[name] = with_batch(array, shape)
        return arrays
