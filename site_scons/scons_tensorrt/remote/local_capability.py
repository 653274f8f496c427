"""What this host can compile for, and the comparison for any host.

TensorRT for RTX compiles for every architecture on a CPU: only its release, the operating system and
the machine matter. TensorRT compiles only on the target GPU: every known field matters.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import HardwareError
from ..files.json_cache import JsonCache
from ..hardware.host import Host
from ..hardware.resolve import probe
from ..hardware.runtime import Runtime
from ..hardware.signature import DEVICE_CLASS, HardwareSignature

_MACHINE = ("os", "machine")
_GPU = ("compute_capability", *DEVICE_CLASS)


def machine_fields(signature: HardwareSignature) -> dict[str, Any]:
    """The fields of a machine that decide what it can compile for."""
    gpu = _GPU if signature.product == "tensorrt" else ()
    names = ("product", "runtime_version", *_MACHINE, *gpu)
    return {name: getattr(signature, name) for name in names if getattr(signature, name) is not None}


def differences(spec: HardwareSignature, found: Mapping[str, Any]) -> list[str]:
    """Why a machine with these fields cannot compile for `spec`; empty if it can."""
    if found.get("product") != spec.product:
        return [f"product: wanted {spec.product}, found {found.get('product')}"]
    fields = machine_fields(spec)
    return [
        f"{name}: wanted {value}, found {found.get(name)}"
        for name, value in fields.items()
        if not _alike(name, value, found.get(name))
    ]


def _alike(name: str, spec: Any, found: Any) -> bool:
    """Equal; of versions, in the parts that both have, as in the compile's own check."""
    if name == "runtime_version" and isinstance(found, str):
        pairs = list(zip(str(spec).split("."), found.split(".")))
        return len(pairs) > 1 and all(a == b for a, b in pairs)
    return bool(spec == found)


def host_signature(
    product: str, runtime: Callable[[str], Runtime], host: Host, devices: JsonCache
) -> HardwareSignature:
    """This host's signature for `product`, as complete as `machine_fields` needs. Raises HardwareError if
    it cannot compile with it."""
    found = runtime(product)
    if product == "tensorrt_rtx":
        return HardwareSignature(
            *(product, found.version, platform.system().lower(), platform.machine(), "8.0+")
        )
    sign = host.nvidia_evidence()
    if not sign:
        raise HardwareError("no NVIDIA GPU found")
    jetpack = "0.0" if host.l4t() else None  # any value: it only names files
    return probe(host, sign, runtime, product, jetpack, devices).signature


def why_not_here(
    spec: HardwareSignature, runtime: Callable[[str], Runtime], host: Host, devices: JsonCache
) -> str | None:
    """Why this host cannot compile for `spec`; None if it can."""
    try:
        found = host_signature(spec.product, runtime, host, devices)
    except HardwareError as error:
        return str(error).partition(": run `")[0]
    return "; ".join(differences(spec, machine_fields(found))) or None
