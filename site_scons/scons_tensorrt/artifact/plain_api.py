"""Names and sidecars for programs that do not know this package's own types."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import EngineFilenameError
from ..files.digest_cache import sha256_file
from ..files.writing import write_atomic
from ..hardware.signature import SCHEMA, HardwareSignature
from .filename import EngineFilename
from .sidecar import read_sidecar, sidecar_bytes, sidecar_of


@dataclass(frozen=True)
class HostCapabilities:
    """The short form of a Jetson's hardware signature. sm: compute capability without its dot (87); jp:
    JetPack version ("6.2"); trt: TensorRT version ("10.3", or with up to four parts). Raises
    EngineFilenameError, a ValueError."""

    sm: int
    jp: str
    trt: str

    def __post_init__(self) -> None:
        for name, version, most in (("jp", self.jp, 3), ("trt", self.trt, 4)):  # a float loses the 0 of 10.10
            parts = version.split(".") if isinstance(version, str) else []
            if not (2 <= len(parts) <= most and all(part.isascii() and part.isdigit() for part in parts)):
                raise EngineFilenameError(f"{name}={version!r}: write a version as text, such as '10.3'")
        if type(self.sm) is not int or not 10 <= self.sm < 1000:
            raise EngineFilenameError(
                f"sm={self.sm!r}: write a compute capability without its dot, such as 87"
            )

    def signature(self) -> HardwareSignature:
        """The hardware signature with what is known of it."""
        major, minor = divmod(self.sm, 10)
        fields = {
            "schema": SCHEMA,
            "product": "tensorrt",
            "runtime_version": self.trt,
            "os": "linux",
            "machine": "aarch64",
            "compute_capability": f"{major}.{minor}",
            "jetpack": self.jp,
        }
        return HardwareSignature.from_json(fields, "HostCapabilities")


class EngineFilenameSchema:
    """`<model>__sm<SM>_jp<JetPack>_trt<TensorRT>_<precision>.engine`; see artifact/filename.py."""

    @staticmethod
    def build(*, model_name: str, sm: int, jp: str, trt: str, precision: str) -> str:
        """The filename. Raises EngineFilenameError, a ValueError."""
        return EngineFilename.of(HostCapabilities(sm, jp, trt).signature(), model_name, precision).build()

    @staticmethod
    def parse(name: str) -> EngineFilename:
        """The fields of a filename, the inverse of `build`. Raises EngineFilenameError, a ValueError."""
        return EngineFilename.parse(name)

    @staticmethod
    def matches_host(name: str, host: HostCapabilities | HardwareSignature) -> bool:
        """Whether the engine of this name may load on the host; its precision does not matter. Raises
        EngineFilenameError, a ValueError."""
        signature = host.signature() if isinstance(host, HostCapabilities) else host
        return EngineFilename.parse(name).matches_host(signature) != "no"


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
        write_atomic(sidecar_of(path), sidecar_bytes(digest))
        return digest

    @staticmethod
    def verify(path: str | os.PathLike[str]) -> bool:
        """Whether a file has the sha256 that its sidecar states; False where the file is missing or not a
        regular one. Raises SidecarError for a missing or malformed sidecar, OSError."""
        if not os.path.isfile(path) or os.path.islink(path):
            return False
        return sha256_file(path, follow=False) == read_sidecar(path)
