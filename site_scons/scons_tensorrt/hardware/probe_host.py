"""Probe this host, or a root file system given by path, from its files and the CUDA driver.

The driver is queried in a child process, because it can hang or crash. Its answer is cached until the
boot, driver version, visible devices or power mode change, so that a warm run starts no process.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import HardwareError
from ..files.json_cache import JsonCache
from ..files.reading import text_of
from ..values import Value
from .signature import OPTIONAL_FIELDS

EVIDENCE_FILES = ("/etc/nv_tegra_release", "/proc/driver/nvidia")
LIBRARIES = ("libcuda.so.1", "libcuda.so")
CUDA_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
PROBE_SECONDS = 60
ANSWER = "ecc"  # the newest attribute in a cached answer; an older answer is asked again
GPU_NUMBERS = ("sm_count", "memory_bus_bits", "l2_bytes", "integrated")
_LIBRARY_FOLDERS = ("usr/lib", "usr/lib64", "lib", "lib64", "usr/lib/wsl/lib")
_PACKAGE = r"(?ms)^Package: (\S+)$.*?^Version: (\S+)$"
_NVINFER = r"(\d+\.\d+\.\d+(?:\.\d+)?)-\d+\+cuda(\d+\.\d+)"  # three parts in JetPack 5.1
_PYTHON = "usr/lib/python3*/dist-packages/tensorrt-{}.*.dist-info"  # four parts


class Host(Value):
    """A host. root: of its file system; only `/`, the machine itself, has a driver to query."""

    root: Path = Path("/")

    @property
    def here(self) -> bool:
        return self.root == Path("/")

    def nvidia_evidence(self) -> str | None:
        """The evidence of an NVIDIA GPU: a file or a loadable libcuda; None if there is none."""
        for file in EVIDENCE_FILES:
            if (self.root / file[1:]).exists():
                return file
        machine = f"{platform.machine()}-linux-gnu"
        folders = [*_LIBRARY_FOLDERS, f"usr/lib/{machine}", f"usr/lib/{machine}/tegra"]
        folders.append(f"usr/lib/{machine}/nvidia")
        paths = [os.path.join(self.root, folder, name) for folder in folders for name in LIBRARIES]
        if self.here:
            listed = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
            paths += [os.path.join(folder, LIBRARIES[0]) for folder in listed if folder]
        for path in paths:
            if os.path.exists(path):
                return path
        try:
            loader_cache = (self.root / "etc/ld.so.cache").read_bytes()
        except OSError:
            loader_cache = b""
        return "libcuda.so.1 in /etc/ld.so.cache" if b"libcuda.so.1\0" in loader_cache else None

    def l4t(self) -> str | None:
        """The L4T release of a Jetson, '36.4.3'; None elsewhere. Raises HardwareError."""
        text = self._read("/etc/nv_tegra_release")
        if text is not None:
            from .jetpack import l4t_release  # needed only on a Jetson

            return l4t_release(text)
        version = self.packages().get("nvidia-l4t-core")
        return version.partition("-")[0] if version else None

    def jetpack(self, named: str | None) -> str | None:
        """The JetPack version of a Jetson: `named`, or from its L4T release; None elsewhere.

        Raises HardwareError.
        """
        release = self.l4t()
        if release is None:
            return None
        from .jetpack import jetpack

        return named or jetpack(release)

    def packages(self) -> dict[str, str]:
        """The version of each Debian package. Yocto images with dpkg have the same file."""
        text = self._read("/var/lib/dpkg/status") or ""
        found = (re.search(_PACKAGE, block) for block in text.split("\n\n"))
        return {match[1]: match[2] for match in found if match}

    def tensorrt(self) -> tuple[str, str] | None:
        """(version, CUDA version it was built for) of a packaged TensorRT. The version has four parts, or
        three where neither package has the fourth."""
        for name, version in self.packages().items():
            match = re.match(_NVINFER, version)
            if match and re.fullmatch(r"libnvinfer\d+", name):
                names = sorted(path.name for path in self.root.glob(_PYTHON.format(match[1])))
                full = names[0].removeprefix("tensorrt-").removesuffix(".dist-info") if names else match[1]
                return full, match[2]
        return None

    def power_mode(self) -> str | None:
        """The power mode of a Jetson, such as '0 MAXN'; it can disable SMs."""
        status = self._read("/var/lib/nvpmodel/status")
        match = re.search(r"(\d+)\s*$", status or "")
        if not match:
            return None
        number = int(match[1])
        conf = self._read("/etc/nvpmodel.conf") or ""
        name = re.search(rf"POWER_MODEL\s+ID={number}\s+NAME=(\S+)", conf)
        return f"{number} {name[1]}" if name else str(number)

    def driver_version(self) -> str | None:
        text = self._read("/proc/driver/nvidia/version") or ""
        match = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\S+)", text)
        return match[1] if match else self._read("/sys/module/nvidia/version")

    def devices(self, memo: JsonCache) -> list[dict[str, Any]]:
        """The GPUs, as `cuda.devices` describes them. Raises HardwareError."""
        stamp = self._stamp()
        known, answer = memo.get()
        if known != stamp or not _are_devices(answer):
            answer = _query_driver()
            memo.put(stamp, answer)
        return list(answer)

    def recorded(self, device: dict[str, Any]) -> dict[str, str]:
        """The recorded fields of this host's signature."""
        found = {
            "driver": self.driver_version(),
            "cuda": device.get("driver_cuda"),
            "l4t": self.l4t(),
            "power_mode": self.power_mode(),
            "gpu_uuid": device.get("uuid"),
            "host_name": platform.node(),
        }
        return {name: str(value).strip() for name, value in found.items() if value}

    def _stamp(self) -> list[Any]:
        """Changes when the driver's answer may change."""
        names = (*CUDA_VARIABLES, "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
        variables = [os.environ.get(name) for name in names]
        boot = self._read("/proc/sys/kernel/random/boot_id")
        devices = [self._names("/proc/driver/nvidia/gpus"), self._names("/dev", "nvidia")]
        return [ANSWER, boot, self.driver_version(), self.power_mode(), *variables, *devices]

    def _names(self, folder: str, prefix: str = "") -> list[str]:
        try:
            return sorted(n for n in os.listdir(self.root / folder[1:]) if n.startswith(prefix))
        except OSError:
            return []

    def _read(self, name: str) -> str | None:
        try:
            return (self.root / name[1:]).read_bytes().decode("utf-8", "replace")
        except OSError:
            return None


class CachedHost(Host):
    """A host that looks for evidence of an NVIDIA GPU once."""

    @cached_property
    def _evidence(self) -> str | None:
        return super().nvidia_evidence()

    def nvidia_evidence(self) -> str | None:
        return self._evidence


def _query_driver() -> list[dict[str, Any]]:
    text = text_of(f"{__package__}.cuda")
    command = [sys.executable, "-I", "-B", "-c", text]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=PROBE_SECONDS, check=False
        )
        if done.returncode < 0:
            raise HardwareError(_unusable(f"it crashed with signal {-done.returncode}"))
        answer = json.loads(done.stdout.splitlines()[-1] if done.stdout else b"")
    except subprocess.TimeoutExpired:
        raise HardwareError(_unusable(f"it did not answer within {PROBE_SECONDS} s")) from None
    except (OSError, ValueError) as error:
        raise HardwareError(_unusable(str(error))) from None
    if isinstance(answer, dict) and "error" in answer:
        raise HardwareError(_unusable(answer["error"]))
    devices = answer.get("devices") if isinstance(answer, dict) else None
    if not _are_devices(devices):
        raise HardwareError(_unusable("it gave an invalid answer"))
    return list(devices or ())


def _are_devices(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer) and all(map(_is_device, answer))


def _is_device(device: Any) -> bool:
    """Whether the fields of `cuda.devices` are valid. The UUID is part of a lock file's name."""
    return (
        isinstance(device, dict)
        and all(isinstance(device.get(name), int) for name in ("memory_bytes", *GPU_NUMBERS))
        and isinstance(device.get("gpu_name"), str)
        and all(isinstance(device.get(name, 0), int) for name in OPTIONAL_FIELDS)
        and _matches(r"[0-9]{1,2}\.[0-9]", device.get("compute_capability"))
        and _matches(r"[0-9A-Za-z-]{1,64}", device.get("uuid"))
    )


def _matches(pattern: str, text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch(pattern, text) is not None


def _unusable(cause: str) -> str:
    return f"its driver is not usable: {cause}. Fix it, or set HARDWARE=, such as HARDWARE=rtx_portable"
