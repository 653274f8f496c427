"""Whether an engine is compatible with this host, by its name, its plan and its manifest.

A name alone accepts an AGX Orin's engine on an Orin Nano, and is undecided for an RTX engine for
several architectures: the manifest's signature decides the first case, the plan's capability mask the
second. Undecided means incompatible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..errors import HandoffError
from ..hardware.signature import DEVICE_CLASS, HARD, RTX_DEFAULT, SCHEMA, HardwareSignature
from .filename import EngineFilename
from .plan_header import PlanHeader

_COMPATIBILITY = "option hardware_compatibility"
_OF_THE_PLAN = ("compute_capability", "architectures")  # checked by its mask instead
_LATEST = max(RTX_DEFAULT)


class RecordedEngine(Protocol):
    """A manifest's entry of an engine. signature: fields of its hardware; recipe: its ingredients."""

    @property
    def name(self) -> str: ...

    @property
    def recipe(self) -> Mapping[str, str]: ...

    @property
    def signature(self) -> Mapping[str, Any]: ...


def why_not_here(
    name: EngineFilename, header: PlanHeader, host: HardwareSignature, entry: RecordedEngine | None
) -> str | None:
    """Why an engine is not for `host`; None if it is."""
    return (
        _by_name(name, host)
        or _by_plan(name, header, host)
        or (_by_signature(name, host, entry) if entry else None)
    )


def rtx_host(engines: Iterable[RecordedEngine], compute_capability: str | None) -> HardwareSignature | None:
    """This host's signature without an installed runtime: runtime and platform of the engines, and the host's
    compute capability if known. None unless all engines are of TensorRT
    for RTX; raises HandoffError if they are of several releases or platforms."""
    entries = list(engines)
    if not entries or any(each.signature.get("product") != "tensorrt_rtx" for each in entries):
        return None
    name = EngineFilename.parse(entries[0].name)
    releases = {(str(each.signature.get("runtime_version")), _platform(each)) for each in entries}
    if len(releases) > 1:
        listed = ", ".join(f"{version} on {platform_}" for version, platform_ in sorted(releases))
        raise HandoffError(
            f"the manifest lists engines of several releases of TensorRT for RTX ({listed}), "
            "and this Python has no such runtime to tell which applies; install it, or write a manifest "
            "for each release"
        )
    data = {
        "schema": SCHEMA,
        **entries[0].signature,
        name.platform[:2].replace("cu", "cuda").replace("jp", "jetpack"): name.platform[2:],
    }
    if compute_capability:
        sm = int(compute_capability.replace(".", ""))
        data.update(compute_capability=compute_capability, architectures=[sm])
    return HardwareSignature.from_json(data, "this host")


def _platform(engine: RecordedEngine) -> str:
    return EngineFilename.parse(engine.name).platform


def _by_name(name: EngineFilename, host: HardwareSignature) -> str | None:
    if name.matches_host(host) != "no":
        return None
    is_for = f"sm{name.sm}{'plus' if name.plus else ''}, {name.platform}, {name.runtime}"
    here = f"sm{host.sm}{'plus' if host.plus else ''}, {host.platform}, {host.runtime}"
    return f"it is for {is_for}, and this host is {here}"


def _by_plan(name: EngineFilename, header: PlanHeader, host: HardwareSignature) -> str | None:
    if host.product != "tensorrt_rtx":
        return None
    if header.version and ".".join(map(str, header.version)) != host.runtime_version:
        made = ".".join(map(str, header.version))
        return f"it was made by TensorRT for RTX {made}, and this host has {host.runtime_version}"
    if name.matches_host(host) == "yes":
        return None
    if not header.architectures:
        return "its plan does not state its architectures"
    needed = RTX_DEFAULT if host.rtx_default else (host.architectures or (host.sm,))
    later = {sm for sm in needed if header.later and sm > _LATEST}
    lacking = sorted({*needed} - {*header.architectures} - later)
    if lacking:
        has, needs = (", ".join(map(str, each)) for each in (header.architectures, lacking))
        return f"its plan is for SM {has}, and this host needs SM {needs}"
    return None


def _by_signature(name: EngineFilename, host: HardwareSignature, entry: RecordedEngine) -> str | None:
    here = host.to_json()
    for field in _fields(name, host, entry.recipe):
        spec, found = entry.signature.get(field), here.get(field)
        if spec is not None and found is not None and spec != found:
            return f"it was made for {field} {_text(spec)}, and this host has {_text(found)}"
    return None


def _fields(name: EngineFilename, host: HardwareSignature, recipe: Mapping[str, str]) -> list[str]:
    """The fields that must match: an engine for several devices need not match its build device."""
    hard = [field for field in HARD if field not in _OF_THE_PLAN]
    if host.product == "tensorrt_rtx":  # and an engine of it runs on every operating system and machine
        return [field for field in hard if field not in ("os", "machine")]
    if name.plus:
        return hard
    if recipe.get(_COMPATIBILITY) == "same_compute_capability":
        return list(HARD)
    return [*HARD, *DEVICE_CLASS]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
