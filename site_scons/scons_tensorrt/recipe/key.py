"""The ingredients of an engine, their key, and how two sets of them differ.

VERSION is the one honest signal that the same ingredients would now give other bytes: bump
it when the worker's way of building changes, never for a refactor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..hardware.signature import HardwareSignature
from .backends import effective
from .options import Recipe, default_text

VERSION = "1"


def value_fields(recipe: Recipe, signature: HardwareSignature) -> dict[str, str]:
    """The ingredients that are not files: each becomes a Value node of the graph."""
    fields = {"recipe version": VERSION}
    fields.update({f"hardware {name}": text for name, text in signature.key_fields().items()})
    fields.update(
        {f"option {name}": text for name, text in effective(recipe, signature.product).key_fields().items()}
    )
    return fields


def input_name(role: str, name: str = "") -> str:
    """The ingredient name of a file: `input onnx`, `input data weights.bin`, `input plugin x.so`."""
    return " ".join(part for part in ("input", role, name) if part)


def differences(old: Mapping[str, str], new: Mapping[str, str], source: str) -> list[str]:
    """What changed from `old` to `new`, in words, old → new; `source` is what people call the ONNX."""
    return list(_differences(old, new, source))


def _differences(old: Mapping[str, str], new: Mapping[str, str], source: str) -> Iterable[str]:
    for name in sorted({*old, *new}, key=_order):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        group, _, rest = name.partition(" ")
        if group == "input":
            kind, _, file = rest.partition(" ")
            label = {"onnx": source, "data": f"external data {file}", "plugin": f"plugin {file}"}.get(
                kind, rest
            )
            yield _moved(label, before and before[:12], after and after[:12], "none")
        elif group == "option":
            unset = default_text(rest) or "unset"
            yield _moved(rest, before, after, unset)
        else:
            yield _moved(name, before, after, "unknown")


def _moved(label: str, before: str | None, after: str | None, absent: str) -> str:
    return f"{label} changed: {before or absent} → {after or absent}"


def _order(name: str) -> tuple[int, str]:
    groups = ("input", "option", "hardware", "recipe")
    group = name.partition(" ")[0]
    return (groups.index(group) if group in groups else len(groups), name)
