"""The accuracy gate: the option `accuracy` of `env.Engine`. Pass or fail is decided in
worker/onnx/judge_outputs.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..values import Value
from .option_checks import count, flag, is_number, one_of, option, setting
from .sample_options import Samples, parse_samples, sample_options

METRICS = ("elemwise", "max", "mean", "median", "cosine")
_GATE = "rtol atol metric reference corners record"  # options of accuracy=, besides those of samples


class Gate(Value):
    """The accuracy gate: how much outputs may differ from the reference's.

    samples: None to judge by drawn inputs alone; reference: path or node of an ONNX, None for the source;
    corners: whether inputs are drawn at the corners of the profiles, None for where they are dynamic; metric
    "elemwise": |error| <= atol + rtol * |reference| for every element; "max", "mean", "median": the same for
    that statistic over an output's elements; "cosine": 1 - cosine <= atol. record: how many samples and their
    outputs a file beside the engine holds, for `scons-tensorrt check`.
    """

    samples: Samples | None
    rtol: float = 1e-2
    atol: float = 1e-2
    metric: str = "elemwise"
    reference: Any = None
    corners: bool | None = None
    record: int = 0

    def key_fields(self) -> dict[str, Any]:
        return {"rtol": self.rtol, "atol": self.atol, "metric": self.metric}


def parse_gate(value: Any) -> Gate | None:
    """The option `accuracy` of `env.Engine`. Raises RecipeError."""
    if value is None:
        return None
    options = dict(value) if isinstance(value, Mapping) else {"inputs": value}
    if options.get("inputs", "") is None:
        del options["inputs"]
    options = sample_options("accuracy", options, "inputs", _GATE, optional=True)
    bounds = {}
    for name in ("rtol", "atol"):
        bounds[name] = options.pop(name, 1e-2)
        if not is_number(bounds[name]) or not 0 <= bounds[name] < math.inf:
            raise RecipeError(f"{setting(f'accuracy {name}', bounds[name])}: write a number from 0 up")
    metric = one_of("accuracy metric", options.pop("metric", "elemwise"), METRICS)
    reference, corners = options.pop("reference", None), options.pop("corners", None)
    record = count("accuracy record", options.pop("record", 0), least=0)
    if corners is not None:
        flag("accuracy corners", corners)
    samples = None
    if "inputs" in options:
        options["data"] = options.pop("inputs")
        samples = parse_samples("accuracy", options, 1)
    elif corners is False:
        off, inputs = setting("corners", False), option("inputs")
        raise RecipeError(f"accuracy: {off} without {inputs} leaves nothing to run; add {inputs}")
    elif options:
        name, given = next(iter(options.items()))
        wrong, inputs = setting(f"accuracy {name}", given), option("inputs")
        raise RecipeError(f"{wrong}: only with {inputs}; add {inputs} or leave it out")
    return Gate(samples, float(bounds["rtol"]), float(bounds["atol"]), metric, reference, corners, record)


def share_of_bound(error: float | None, bound: float | None) -> float:
    """error / bound: 1.0 is just allowed. 0.0 if either is unknown. The output with the largest share is
    the worst."""
    if not error or bound is None:
        return 0.0
    share = error / bound if bound else math.inf
    return math.inf if math.isnan(share) else share
