"""The ingredients of an engine's cache key that are not files, and how two sets of ingredients differ.

build/engine_spec.py adds the sha256 of each file; `make_key` in artifact/cache_key.py hashes all.
VERSION is part of every key: increment it only when the worker builds other bytes from the same ingredients.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..hardware.signature import HardwareSignature
from .options import DEFAULTS, Recipe
from .options_by_product import effective

VERSION = "1"
_GROUPS = ("input", "option", "hardware", "recipe")  # in this order in messages


def value_fields(recipe: Recipe, signature: HardwareSignature) -> dict[str, str]:
    """The ingredients that are not files: each becomes a Value node of the graph."""
    options = effective(recipe, signature.product).key_fields()
    return {
        "recipe version": VERSION,
        **{f"hardware {name}": text for name, text in signature.key_fields().items()},
        **{f"option {name}": text for name, text in options.items()},
    }


def input_name(role: str, name: str = "") -> str:
    """The ingredient name of a file: `input onnx`, `input data weights.bin`, `input plugin x.so`."""
    return " ".join(part for part in ("input", role, name) if part)


def differences(old: Mapping[str, str], new: Mapping[str, str], source: str) -> list[str]:
    """Descriptions of what changed from `old` to `new`. source: the user's name for the ONNX."""
    found = []
    for name in sorted({*old, *new}, key=_order):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        group, _, label = name.partition(" ")
        absent = "8.0 and later" if name == "hardware architectures" else "unknown"
        if group == "input":
            kind, _, file = label.partition(" ")
            labels = {"onnx": source, "data": f"external data {file}", "plugin": f"plugin {file}"}
            label, absent = labels.get(kind, label), "none"
            before, after = before and before[:12], after and after[:12]
        elif group == "option":
            absent = str(DEFAULTS.get(label) or "unset")
            before, after = _list_text(before), _list_text(after)
        else:
            label = name
        found.append(f"{label} changed: {before or absent} → {after or absent}")
    return found


def _list_text(value: str | None) -> str | None:
    """An option for messages: an empty list is an option, too (`tactic_sources=[]`)."""
    return "[]" if value == "" else value


def _order(name: str) -> tuple[int, str]:
    group = name.partition(" ")[0]
    return (_GROUPS.index(group) if group in _GROUPS else len(_GROUPS), name)
