"""This host, or a root file system given by path: what it is, read from files and the driver.

The driver is asked in a child process, because it can hang or crash; its answer is kept for as
long as boot, driver version, visible devices and power mode are the same, so that a warm run
neither calls CUDA nor starts a process.
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
from typing import Any, NamedTuple

from ..errors import HardwareError
from ..files.json_cache import JsonCache
from ..files.reading import text_of

SIGNS = ("/etc/nv_tegra_release", "/proc/driver/nvidia")
LIBRARIES = ("libcuda.so.1", "libcuda.so")
CUDA_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
PROBE_SECONDS = 60
GPU_NUMBERS = ("sm_count", "memory_bus_bits", "l2_bytes", "integrated")
_LIBRARY_FOLDERS = ("usr/lib", "usr/lib64", "lib", "lib64", "usr/lib/wsl/lib")
_PACKAGE = r"(?ms)^Package: (\S+)$.*?^Version: (\S+)$"
_NVINFER = r"(\d+\.\d+\.\d+\.\d+)-\d+\+cuda(\d+\.\d+)"


class Host(NamedTuple):
    """root: where its files are; `/` is the machine itself, and only it has a driver to ask."""

    root: Path = Path("/")

    @property
    def here(self) -> bool:
        return self.root == Path("/")

    def nvidia_evidence(self) -> str | None:
        """What speaks for NVIDIA hardware: a file, or a libcuda that could be loaded."""
        for sign in SIGNS:
            if (self.root / sign[1:]).exists():
                return sign
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
            known = (self.root / "etc/ld.so.cache").read_bytes()
        except OSError:
            known = b""
        return "libcuda.so.1 of /etc/ld.so.cache" if b"libcuda.so.1\0" in known else None

    def l4t(self) -> str | None:
        """The L4T release of a Jetson, '36.4.3'; None elsewhere. Raises HardwareError."""
        text = self._read("/etc/nv_tegra_release")
        if text is not None:
            from .jetpack import l4t_release  # which only a Jetson needs

            return l4t_release(text)
        version = self.packages().get("nvidia-l4t-core")
        return version.partition("-")[0] if version else None

    def jetpack(self, named: str | None) -> str | None:
        """JetPack of a Jetson: as named, else by its L4T release. Raises HardwareError."""
        release = self.l4t()
        if release is None:
            return None
        from .jetpack import jetpack

        return named or jetpack(release)

    def packages(self) -> dict[str, str]:
        """Version of each Debian package; Yocto images with dpkg have the same file."""
        text = self._read("/var/lib/dpkg/status") or ""
        found = (re.search(_PACKAGE, block) for block in text.split("\n\n"))
        return {match[1]: match[2] for match in found if match}

    def tensorrt(self) -> tuple[str, str] | None:
        """(version of four parts, CUDA it was built for) of a packaged TensorRT."""
        for name, version in self.packages().items():
            match = re.match(_NVINFER, version)
            if match and re.fullmatch(r"libnvinfer\d+", name):
                return match[1], match[2]
        return None

    def power_mode(self) -> str | None:
        """The power mode of a Jetson, '0 MAXN'; it gates SMs."""
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
        """What the driver says of its GPUs, see `cuda.devices`. Raises HardwareError."""
        stamp = self._stamp()
        known, answer = memo.get()
        if known != stamp or not _are_devices(answer):
            answer = _ask_driver()
            memo.put(stamp, answer)
        return list(answer)

    def recorded(self, device: dict[str, Any]) -> dict[str, str]:
        """The recorded group of this host."""
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
        chosen = (*CUDA_VARIABLES, "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
        variables = [os.environ.get(name) for name in chosen]
        boot = self._read("/proc/sys/kernel/random/boot_id")
        there = [self._names("/proc/driver/nvidia/gpus"), self._names("/dev", "nvidia")]
        return [boot, self.driver_version(), self.power_mode(), *variables, *there]

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
    """This host in one run, whose files are looked at once."""

    @cached_property
    def _sign(self) -> str | None:
        return super().nvidia_evidence()

    def nvidia_evidence(self) -> str | None:
        return self._sign


def _ask_driver() -> list[dict[str, Any]]:
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
        raise HardwareError(_unusable("its answer is not one"))
    return list(devices or ())


def _are_devices(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer) and all(map(_is_device, answer))


def _is_device(device: Any) -> bool:
    """Whether it has the fields that `cuda.devices` tells; the UUID names a lock file."""
    return (
        isinstance(device, dict)
        and all(isinstance(device.get(name), int) for name in ("memory_bytes", *GPU_NUMBERS))
        and isinstance(device.get("gpu_name"), str)
        and _matches(r"[0-9]{1,2}\.[0-9]", device.get("compute_capability"))
        and _matches(r"[0-9A-Za-z-]{1,64}", device.get("uuid"))
    )


def _matches(form: str, text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch(form, text) is not None


def _unusable(cause: str) -> str:
    return f"its driver is not usable: {cause}. Mend it, or name HARDWARE=, such as HARDWARE=rtx_portable"
