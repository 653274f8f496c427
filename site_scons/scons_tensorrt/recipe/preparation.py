"""The prepare step: whether an ONNX must be rewritten before TensorRT compiles it, and with which values.

worker/onnx/prepare.py rewrites it, and compares the result with the original.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RecipeError
from .conversion import Preparation, Step
from .onnx.needs_preparation import find_refused
from .onnx.summary import INTEGERS, OnnxInput, OnnxSummary
from .option_checks import one_of, setting
from .shapes import Profile, problems

WAYS = ("auto", "none")


def parse_preparation(way: Any, freeze: Any) -> Preparation:
    """The options `prepare` and `freeze` of `env.Engine`. Raises RecipeError."""
    way = one_of("prepare", way, WAYS)
    if freeze is None:
        return Preparation(way)
    if not isinstance(freeze, Mapping):
        raise RecipeError(f"{setting('freeze', freeze)}: write a map from input name to value, {_example()}")
    values = {str(name): _plain(str(name), freeze[name]) for name in sorted(freeze, key=str)}
    if values and way == "none":
        raise RecipeError(f"freeze has no effect with {setting('prepare', 'none')}; leave one of them out")
    return Preparation(way, values)


def _plain(name: str, value: Any) -> Any:
    """The value as JSON has it: a number, or nested lists of numbers."""
    value = value.tolist() if hasattr(value, "tolist") else value  # of numpy
    if isinstance(value, (list, tuple)):
        return [_plain(name, each) for each in value]
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    wrong = setting(f"freeze {name}", value)
    raise RecipeError(f"{wrong}: write a number, or a list of numbers, {_example()}")


def _example() -> str:
    return f"such as {setting('freeze', {'sr': 16000})}"


def problems_with_frozen(
    wanted: Preparation, profiles: Sequence[Profile], inputs: Sequence[OnnxInput]
) -> list[str]:
    """Why the profiles and the inputs to freeze do not fit a model with these inputs, each with the
    correction."""
    freeze, known = wanted.freeze, {each.name for each in inputs}
    listed = ", ".join(map(str, inputs)) or "none"
    found = [f"freeze: the model has no input `{n}`; inputs: {listed}" for n in freeze if n not in known]
    shaped = dict.fromkeys(name for profile in profiles for name in profile)
    found += [f"shapes: input `{name}` is frozen; leave out its shape" for name in shaped if name in freeze]
    rest = [{name: profile[name] for name in profile if name not in freeze} for profile in profiles]
    return found + problems(rest, [each for each in inputs if each.name not in freeze])


def find_reasons(wanted: Preparation, profiles: Sequence[Profile], summary: OnnxSummary) -> tuple[str, ...]:
    """What TensorRT would refuse in the ONNX, each as a phrase for messages. Empty if it is compiled as it
    is."""
    if wanted.way == "none":
        return ()
    found = find_refused(summary, profiles)
    return found + tuple(f"input `{name}` to freeze" for name in wanted.freeze)


def would_rewrite(profiles: Sequence[Profile], summary: OnnxSummary) -> str:
    """The advice to write `prepare="auto"`, with what it would rewrite; empty if that is nothing."""
    found = find_refused(summary, profiles)
    return f"{setting('prepare', 'auto')} would rewrite the ONNX ({', '.join(found)})" if found else ""


def to_convert(wanted: Preparation, profiles: Sequence[Profile], summary: OnnxSummary) -> OnnxSummary:
    """The summary of what a calibration quantizes: without Q/DQ nodes if the step makes such nodes float32.
    Some may stay; then the calibration says so."""
    reasons = find_reasons(wanted, profiles, summary) if summary.quantized and summary.refused else ()
    return summary._replace(quantized=False) if any(INTEGERS in each for each in reasons) else summary


def prepare_step(wanted: Preparation, profiles: Sequence[Profile]) -> Step:
    """The step that rewrites an ONNX for these profiles."""
    shapes = [{name: [*map(list, bounds)] for name, bounds in profile.items()} for profile in profiles]
    return Step("prepare", {"shapes": shapes, "freeze": dict(wanted.freeze) or None})


def needed_for(options: Mapping[str, Any], summary: OnnxSummary | None) -> str:
    """Why an ONNX needs the step with these options, for the message where the step cannot run."""
    freeze, profiles = options.get("freeze") or {}, options.get("shapes") or ()
    found = find_reasons(Preparation(freeze=freeze), profiles, summary) if summary else ()
    return f"it must be rewritten for TensorRT ({', '.join(found)}), and packages for that are missing: "
