"""Resolve the hardware that a run compiles for. The first of these that applies:

1. a name given as HARDWARE= or TRT_HARDWARE: `hardware/<name>.json`, the path of such a file,
   or a built-in;
2. a probe of this host, if it has an NVIDIA GPU;
3. `rtx_portable`: TensorRT for RTX compiles without a GPU.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import HardwareError
from ..files.json_cache import JsonCache
from ..files.reading import read_small
from ..values import Value
from .probe_host import Host
from .runtime import Runtime
from .signature import OPTIONAL_FIELDS, PRODUCTS, RTX_DEFAULT, SCHEMA, HardwareSignature, check_fields

# `rtx_portable` is the default target of TensorRT for RTX. It excludes SM 75, for which fp32 transformers
# fail to compile.
RTX_SINGLE = (75, *RTX_DEFAULT)
BUILT_IN = ("rtx_portable", *(f"rtx_sm{sm}" for sm in RTX_SINGLE))
LARGEST = 1 << 20  # bytes of a hardware file
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class Hardware(Value):
    """name: the folder under `engines/`, None for the default host; title, why, note: for messages;
    from_receipts: taken from receipts, which suffices to reuse engines but not to remove them."""

    name: str | None
    signature: HardwareSignature
    why: str
    title: str = "this host"
    from_receipts: bool = False
    note: str = ""


def resolve(
    named: str | None,
    top: Path,
    runtime: Callable[[str], Runtime],
    backend: str | None = None,
    jetpack: str | None = None,
    host: Host | None = None,
    memo: JsonCache | None = None,
    whole: bool = False,
) -> Hardware:
    """The hardware for this run.

    named: the value of HARDWARE=; top: the folder that contains `hardware/`; runtime: returns the
    installed runtime of a product, called only if the hardware does not give its version; backend,
    jetpack: as on the command line; host, memo: for the probe; whole: with OPTIONAL_FIELDS of a probed
    host. Raises HardwareError.
    """
    if backend and backend not in PRODUCTS:
        raise HardwareError(f"BACKEND={backend}: unknown; write one of {', '.join(sorted(PRODUCTS))}")
    host = host or Host()
    if named:
        hardware = _named(named, top, runtime, host)
    else:
        evidence = host.nvidia_evidence()
        if evidence:
            return probe(host, evidence, runtime, backend, jetpack, memo or JsonCache(None), whole)
        hardware = Hardware(
            None,
            _built_in("rtx_portable", runtime("tensorrt_rtx")),
            "no NVIDIA GPU found",
            "rtx_portable",
        )
    signature = hardware.signature
    if backend and backend != signature.product:
        raise HardwareError(
            f"BACKEND={backend}: {hardware.name or hardware.title} is for {signature.product}; name "
            f"a HARDWARE= whose product is {backend}"
        )
    if jetpack:
        signature = _with_jetpack(signature, jetpack, hardware.name)
    return hardware._replace(signature=signature)


def probe(
    host: Host,
    evidence: str,
    runtime: Callable[[str], Runtime],
    backend: str | None,
    jetpack: str | None,
    memo: JsonCache,
    whole: bool = False,
) -> Hardware:
    """The hardware of this host. An unusable driver or a missing runtime is an error, never a
    silent fallback to another product. Raises HardwareError."""
    product = backend or "tensorrt"
    try:
        devices = host.devices(memo)
    except HardwareError as error:
        raise HardwareError(f"this host has NVIDIA hardware ({evidence}), but {error}") from None
    device = devices[0]
    try:
        found = runtime(product)
    except HardwareError as error:
        hint = ""
        if not backend:
            hint = "; TensorRT for RTX is used only where BACKEND=tensorrt_rtx asks for it"
        raise HardwareError(f"this host has an NVIDIA GPU ({evidence}), and {error}{hint}") from None
    data = _host_fields(host, device, found, jetpack)
    if whole and found.product == "tensorrt":
        data.update((name, device[name]) for name in OPTIONAL_FIELDS if name in device)
    note = ""
    if len(devices) > 1:
        note = f"this is the first of {len(devices)} GPUs; CUDA_VISIBLE_DEVICES chooses another"
    signature = HardwareSignature.from_json(data, "probe of this host")
    return Hardware(None, signature, "probed", note=note)


def _host_fields(
    host: Host, device: Mapping[str, Any], runtime: Runtime, jetpack: str | None
) -> dict[str, Any]:
    """TensorRT for RTX compiles on the CPU, so only the GPU's architecture matters to it."""
    rtx = runtime.product == "tensorrt_rtx"
    sm = str(device["compute_capability"])
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "product": runtime.product,
        "os": runtime.os or platform.system().lower(),
        "machine": runtime.machine or platform.machine(),
        "compute_capability": sm,
        "recorded": host.recorded(dict(device)),
        **runtime_fields(host, runtime),
    }
    on_jetson = host.jetpack(jetpack)
    if jetpack and not on_jetson:
        raise HardwareError(f"JETPACK={jetpack}: this host is not a Jetson; leave it out")
    if on_jetson:
        data["jetpack"] = on_jetson
        data.pop("cuda", None)
    if rtx:
        return {**data, "architectures": [int(sm.replace(".", ""))]}
    from .cuda import memory_class  # loads ctypes, only needed by a probe

    integrated = bool(device["integrated"])
    return {
        **data,
        **{field: device[field] for field in ("gpu_name", "sm_count", "integrated")},
        **{field: device[field] for field in ("memory_bus_bits", "l2_bytes") if device[field] > 0},
        "memory_gib": memory_class(int(device["memory_bytes"]), integrated),
    }


def runtime_fields(host: Host, runtime: Runtime) -> dict[str, str]:
    """Version and CUDA of an installed runtime. The Debian package of JetPack has the CUDA minor, which the
    Python metadata lacks. The version is the longer of the two: since JetPack 6 that of the Debian package,
    before it that of the Python metadata."""
    version, cuda = runtime.version, runtime.cuda
    packaged = host.tensorrt() if runtime.product == "tensorrt" else None
    if packaged and all(a == b for a, b in zip(packaged[0].split("."), version.split("."))):
        version, cuda = max(packaged[0], version, key=len), packaged[1]
    return {"runtime_version": version, **({"cuda": cuda} if cuda else {})}


def _named(named: str, top: Path, runtime: Callable[[str], Runtime], host: Host) -> Hardware:
    if "," in named:
        raise HardwareError(f"HARDWARE={named}: this command takes one hardware; name one")
    is_path = "/" in named or named.endswith(".json")
    path = (top / named) if is_path else (top / "hardware" / f"{named}.json")
    if os.path.isfile(path):  # unlike Path.is_file, no error if the name is too long
        return Hardware(_folder(path.stem), load(path, runtime, host), f"HARDWARE={named}")
    if not is_path and named in BUILT_IN:
        signature = _built_in(named, runtime("tensorrt_rtx"))
        return Hardware(named, signature, f"HARDWARE={named}")
    known = sorted({*BUILT_IN, *(p.stem for p in (top / "hardware").glob("*.json"))})
    place = f"no file {path}" if is_path else f"no hardware/{named}.json and no built-in"
    raise HardwareError(f"HARDWARE={named}: {place}; known: {', '.join(known)}")


def load(path: Path, runtime: Callable[[str], Runtime], host: Host | None = None) -> HardwareSignature:
    """Read a hardware file. `runtime_version` and `cuda` default to the installed ones.

    Raises HardwareError, naming the file.
    """
    host = host or Host()
    try:
        data = json.loads(read_small(path, LARGEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HardwareError(f"{path}: not readable as JSON ({error})") from None
    check_fields(data, str(path))
    if data.get("product") in PRODUCTS:
        on_jetson = "jetpack" in data
        if "runtime_version" not in data or not (on_jetson or "cuda" in data):
            found = runtime_fields(host, runtime(data["product"]))
            data.setdefault("runtime_version", found["runtime_version"])
            if not on_jetson and "cuda" in found:
                data.setdefault("cuda", found["cuda"])
    return HardwareSignature.from_json(data, str(path))


def _built_in(name: str, runtime: Runtime) -> HardwareSignature:
    sm = 0 if name == "rtx_portable" else int(name.removeprefix("rtx_sm"))
    return HardwareSignature.from_json(
        {
            "schema": SCHEMA,
            "product": runtime.product,
            "runtime_version": runtime.version,
            "compute_capability": f"{sm // 10}.{sm % 10}" if sm else "8.0+",
            **({"cuda": runtime.cuda} if runtime.cuda else {}),
        },
        name,
    )


def _with_jetpack(signature: HardwareSignature, jetpack: str, name: str | None) -> HardwareSignature:
    if signature.jetpack is None:
        raise HardwareError(f"JETPACK={jetpack}: {name or 'this host'} is not a Jetson; leave it out")
    data = {**signature.to_json(), "jetpack": jetpack}
    return HardwareSignature.from_json(data, "JETPACK=")


def _folder(stem: str) -> str:
    if not re.fullmatch(_NAME, stem):
        raise HardwareError(f"hardware name {stem!r}: write letters, digits, `.`, `_` and `-`")
    return stem
