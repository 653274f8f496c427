"""What a machine can compile for: this host, and any that offers itself.

TensorRT for RTX compiles for every architecture on a CPU, so that its release, the operating system
and the machine decide. TensorRT compiles only on the GPU it compiles for: every known field does.
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
    """Why a machine of these fields cannot compile for `wanted`; empty where it can."""
    if found.get("product") != spec.product:
        return [f"product: wanted {spec.product}, found {found.get('product')}"]
    fields = machine_fields(spec)
    return [
        f"{name}: wanted {value}, found {found.get(name)}"
        for name, value in fields.items()
        if not _alike(name, value, found.get(name))
    ]


def _alike(name: str, spec: Any, found: Any) -> bool:
    """Of two versions, as many parts as both have, as the compile itself judges."""
    if name == "runtime_version" and isinstance(found, str):
        pairs = list(zip(str(spec).split("."), found.split(".")))
        return len(pairs) > 1 and all(a == b for a, b in pairs)
    return bool(spec == found)


def here(
    product: str, runtime: Callable[[str], Runtime], host: Host, devices: JsonCache
) -> HardwareSignature:
    """What this host is for `product`, as far as `machine_fields` asks. Raises HardwareError where it
    cannot compile with it at all."""
    found = runtime(product)
    if product == "tensorrt_rtx":
        return HardwareSignature(
            *(product, found.version, platform.system().lower(), platform.machine(), "8.0+")
        )
    sign = host.nvidia_evidence()
    if not sign:
        raise HardwareError("no NVIDIA GPU found")
    jetpack = "0.0" if host.l4t() else None  # any: it names files, and decides no compile
    return probe(host, sign, runtime, product, jetpack, devices).signature


def why_not_here(
    spec: HardwareSignature, runtime: Callable[[str], Runtime], host: Host, devices: JsonCache
) -> str | None:
    """Why this host cannot compile for `wanted`, in words; None where it can."""
    try:
        found = here(spec.product, runtime, host, devices)
    except HardwareError as error:
        return str(error).partition(": run `")[0]
    return "; ".join(differences(spec, machine_fields(found))) or None
