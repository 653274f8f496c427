"""Compare what an engine computes with a recorded file, on a device that has numpy but perhaps no onnx.

`unpack` prepares the run of the engine (worker/trt/run_engine.py), and `compare` judges it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from scons_tensorrt.worker.common import array_file, recorded_file
from scons_tensorrt.worker.common.errors import WorkerError, accuracy_error, one_line


def unpack(recorded: str, files: Mapping[str, str]) -> dict[str, Any]:
    """Write the recorded inputs and outputs to the paths `inputs` and `expected` in the format of
    common/array_file.py; returns the names of the runs and the options of the file. Raises WorkerError
    (HandoffError) for a file that is not of its format."""
    try:
        samples, options = recorded_file.read(recorded)
    except ValueError as error:
        raise WorkerError("HandoffError", "%s: damaged: %s" % (recorded, error)) from None
    with open(files["inputs"], "wb") as inputs, open(files["expected"], "wb") as expected:
        for given, wanted in samples:
            array_file.write(inputs, [(name, *each) for name, each in given.items()])
            array_file.write(expected, [(name, *each) for name, each in wanted.items()])
    runs = ["sample %d" % number for number in range(len(samples))]
    return {"runs": runs, "options": options}


def compare(files: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The worst figures of each output, by name, as judge_outputs.py has them, or why they cannot be
    compared. Raises WorkerError (AccuracyError) if an output is missing or has another shape."""
    try:
        import numpy  # noqa: F401  # for the next modules
    except ImportError as error:
        return {"not_run_because": "numpy cannot be imported by %s: %s" % (sys.executable, one_line(error))}
    from scons_tensorrt.worker.onnx.judge_outputs import Figures
    from scons_tensorrt.worker.onnx.plain_arrays import array_of

    with open(files["expected"], "rb") as expected, open(files["outputs"], "rb") as outputs:
        figures, got = Figures([], options), array_file.read(outputs)
        for number, wanted in enumerate(array_file.read(expected)):
            made = next(got, {})
            missing = sorted(wanted.keys() - made.keys())
            if missing:
                raise accuracy_error("sample %d: the engine has no output `%s`" % (number, missing[0]))
            figures.add(number, {name: (array_of(*wanted[name]), array_of(*made[name])) for name in wanted})
    return {"not_run_because": "", "outputs": figures.worst()}
