"""Texts of the details section, which shows each engine in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import format
from .tolerant import listing, mapping, text


def pairs(fields: Mapping[str, Any]) -> list[str]:
    """Fields as "name value"."""
    return [f"{name} {value}" for name, value in fields.items()]


def option_chips(options: Mapping[str, Any]) -> list[str]:
    """The options without shapes, which have their own line."""
    return pairs({name: value for name, value in options.items() if not name.startswith("shapes ")})


def shape_chips(profiles: list[Any]) -> list[str]:
    """The inputs of each optimization profile with their shapes; empty for static shapes."""
    found = [mapping(each) for each in profiles]
    return [f"{name} {format.profile(ranges)}" for each in found for name, ranges in each.items()]


def step_lines(steps: Any) -> list[str]:
    """One line per ONNX step."""
    return [_step(mapping(each)) for each in listing(steps)]


def _step(step: Mapping[str, Any]) -> str:
    found = mapping(step.get("facts"))
    facts = {
        key: value
        for key, value in found.items()
        if isinstance(value, (str, int, float)) and not isinstance(value, bool)
    }
    facts.update(mapping(found.get("converter")))
    more = ", ".join(pairs(facts))
    return f"{text(step.get('kind'))}: {text(step.get('file'))}{f' ({more})' if more else ''}"
