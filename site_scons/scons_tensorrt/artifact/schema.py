"""Names and sidecars for programs that do not know this package's own types."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import EngineFilenameError
from ..files.digest_cache import sha256_file
from ..files.writing import write_atomic
from ..hardware.signature import HardwareSignature
from .filename import EngineFilename
from .sidecar import read_sidecar, sidecar_of


@dataclass(frozen=True)
class HostCapabilities:
    """A Jetson, in short. sm: compute capability without its dot (87); jp: JetPack version ("6.2"); trt:
    TensorRT version ("10.3", or with up to four parts). Raises EngineFilenameError, a ValueError."""

    sm: int
    jp: str
    trt: str

    def __post_init__(self) -> None:
        for name, version, most in (("jp", self.jp, 3), ("trt", self.trt, 4)):  # a float loses the 0 of 10.10
            parts = version.split(".") if isinstance(version, str) else []
            if not (2 <= len(parts) <= most and all(part.isascii() and part.isdigit() for part in parts)):
                raise EngineFilenameError(f"{name}={version!r}: write a version as text, such as '10.3'")
        self.filename("x", "fp32")

    def filename(self, model_name: str, precision: str) -> EngineFilename:
        """The name of a model's engine on this host. Raises EngineFilenameError, a ValueError."""
        platform, runtime = f"jp{_major_minor(self.jp)}", f"trt{_major_minor(self.trt)}"
        return EngineFilename(model_name, self.sm, False, platform, runtime, precision)


class EngineFilenameSchema:
    """`<model>__sm<SM>_jp<JetPack>_trt<TensorRT>_<precision>.engine`; see artifact/filename.py."""

    @staticmethod
    def build(*, model_name: str, sm: int, jp: str, trt: str, precision: str) -> str:
        """The filename. Raises EngineFilenameError, a ValueError."""
        return HostCapabilities(sm, jp, trt).filename(model_name, precision).build()

    @staticmethod
    def parse(name: str) -> EngineFilename:
        """The fields of a filename, the inverse of `build`. Raises EngineFilenameError, a ValueError."""
        return EngineFilename.parse(name)

    @staticmethod
    def matches_host(name: str, host: HostCapabilities | HardwareSignature) -> bool:
        """Whether the engine of this name may load on the host; its precision does not matter. Raises
        EngineFilenameError, a ValueError."""
        fields = EngineFilename.parse(name)
        if isinstance(host, HardwareSignature):
            return fields.matches_host(host) != "no"
        same = host.filename(fields.model, fields.precision)
        if fields.plus:
            return fields._replace(sm=same.sm, plus=False) == same and fields.sm <= same.sm
        return fields == same


class Sha256Sidecar:
    """`<file>.sha256`: exactly 64 lowercase hex characters."""

    @staticmethod
    def write_atomic_and_sidecar(path: str | os.PathLike[str], data: bytes) -> str:
        """Write a file and its sidecar, each at once and durably; returns the sha256. A process that is
        killed in between leaves a pair that does not verify. Raises OSError."""
        path = Path(path)
        digest = hashlib.sha256(data).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
        write_atomic(sidecar_of(path), digest.encode("ascii"))
        return digest

    @staticmethod
    def verify(path: str | os.PathLike[str]) -> bool:
        """Whether a file has the sha256 that its sidecar states; False where the file is missing or not a
        regular one. Raises SidecarError for a missing or malformed sidecar, OSError."""
        if not os.path.isfile(path) or os.path.islink(path):
            return False
        return sha256_file(path, follow=False) == read_sidecar(path)


def _major_minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
