"""Which hardware this run compiles for, and why. First found wins:

1. a name: HARDWARE= on the command line or TRT_HARDWARE, which is `hardware/<name>.json`,
   the path of such a file, or a built-in;
2. a probe of this host, where anything speaks for NVIDIA hardware;
3. `rtx_portable`, where nothing does: TensorRT for RTX compiles on a CPU alone.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import HardwareError
from .filename import PRODUCTS
from .runtime import Runtime
from .signature import SCHEMA, HardwareSignature

# SMs that TensorRT for RTX compiles for when it is told nothing (its documentation, and the
# capability mask of such a plan). SM 75 is left out: with it, fp32 transformers fail.
RTX_PORTABLE = (80, 86, 89, 120, 121)
RTX_SINGLE = (75, *RTX_PORTABLE)
BUILT_IN = ("rtx_portable", *(f"rtx_sm{sm}" for sm in RTX_SINGLE))
SIGNS_OF_NVIDIA = ("/etc/nv_tegra_release", "/proc/driver/nvidia")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Hardware:
    """name: the folder under `engines/`, None for the default host; why: for people."""

    name: str | None
    signature: HardwareSignature
    why: str


def resolve(
    named: str | None,
    top: Path,
    runtime: Callable[[str], Runtime],
    backend: str | None = None,
    jetpack: str | None = None,
    host_root: Path = Path("/"),
) -> Hardware:
    """The hardware for this run.

    named: as after HARDWARE=; top: where `hardware/` lies; runtime: the installed runtime of
    a product, asked only where the name does not say its version; backend, jetpack: as on the
    command line. Raises HardwareError.
    """
    if backend and backend not in PRODUCTS:
        raise HardwareError(f"BACKEND={backend}: unknown; write one of {', '.join(sorted(PRODUCTS))}")
    if named:
        hardware = _named(named, top, runtime)
    else:
        sign = sign_of_nvidia(host_root)
        if sign:
            raise HardwareError(
                f"this host has NVIDIA hardware ({sign}), and this version cannot probe it: "
                "name HARDWARE=, such as HARDWARE=rtx_portable or a file under hardware/"
            )
        hardware = Hardware(
            None,
            _built_in("rtx_portable", runtime("tensorrt_rtx")),
            "nothing here speaks for NVIDIA hardware and no HARDWARE= was named",
        )
    signature = hardware.signature
    if backend and backend != signature.product:
        raise HardwareError(
            f"BACKEND={backend}: {hardware.name or 'this host'} is for {signature.product}; name "
            f"a HARDWARE= whose product is {backend}"
        )
    if jetpack:
        signature = _with_jetpack(signature, jetpack, hardware.name)
    return replace(hardware, signature=signature)


def sign_of_nvidia(root: Path = Path("/")) -> str | None:
    """What on this host speaks for NVIDIA hardware: a file, a loadable libcuda, or nothing."""
    for sign in SIGNS_OF_NVIDIA:
        if (root / sign.lstrip("/")).exists():
            return sign
    machine = f"{platform.machine()}-linux-gnu"
    for folder in ("usr/lib", "usr/lib64", f"usr/lib/{machine}", f"usr/lib/{machine}/nvidia"):
        for name in ("libcuda.so.1", "libcuda.so"):
            if (root / folder / name).exists():
                return f"/{folder}/{name}"
    return None


def _named(named: str, top: Path, runtime: Callable[[str], Runtime]) -> Hardware:
    if "," in named:
        raise HardwareError(f"HARDWARE={named}: one kind of hardware a run; name one")
    is_path = "/" in named or named.endswith(".json")
    path = (top / named) if is_path else (top / "hardware" / f"{named}.json")
    if path.is_file():
        return Hardware(_folder(path.stem), load(path, runtime), f"HARDWARE={named}")
    if not is_path and named in BUILT_IN:
        signature = _built_in(named, runtime("tensorrt_rtx"))
        return Hardware(named, signature, f"HARDWARE={named}")
    known = sorted({*BUILT_IN, *(p.stem for p in (top / "hardware").glob("*.json"))})
    place = f"no file {path}" if is_path else f"no hardware/{named}.json and no built-in"
    raise HardwareError(f"HARDWARE={named}: {place}; known: {', '.join(known)}")


def load(path: Path, runtime: Callable[[str], Runtime]) -> HardwareSignature:
    """The signature in a hardware file.

    A file may leave out `runtime_version` and `cuda`: they are then the installed ones.
    Raises HardwareError, naming the file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HardwareError(f"{path}: not readable as JSON ({error})") from None
    if isinstance(data, dict) and data.get("product") in PRODUCTS:
        on_jetson = "jetpack" in data
        if "runtime_version" not in data or not (on_jetson or "cuda" in data):
            found = runtime(data["product"])
            data.setdefault("runtime_version", found.version)
            if not on_jetson and found.cuda:
                data.setdefault("cuda", found.cuda)
    signature = HardwareSignature.from_json(data, str(path))
    if signature.product == "tensorrt_rtx" and signature.architectures is None:
        signature = replace(signature, architectures=(signature.sm,))
    return signature


def _built_in(name: str, runtime: Runtime) -> HardwareSignature:
    portable = name == "rtx_portable"
    architectures = RTX_PORTABLE if portable else (int(name[len("rtx_sm") :]),)
    lowest = architectures[0]
    return HardwareSignature.from_json(
        {
            "schema": SCHEMA,
            "product": runtime.product,
            "runtime_version": runtime.version,
            "os": platform.system().lower(),
            "machine": platform.machine(),
            "compute_capability": f"{lowest // 10}.{lowest % 10}" + ("+" if portable else ""),
            "architectures": architectures,
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
    if not _NAME.fullmatch(stem):
        raise HardwareError(f"hardware name {stem!r}: write letters, digits, `.`, `_` and `-`")
    return stem
