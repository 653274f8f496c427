"""Caches what `hardware/choose_hardware.py` decides for each set of settings, and the interpreters of a run.

Without an installed runtime, the receipts of restored engines name it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..artifact.filename import EngineFilename
from ..errors import EngineError, HardwareError
from ..files.json_cache import JsonCache
from ..hardware.choose_hardware import Hardware, resolve
from ..hardware.probe_host import CachedHost
from ..hardware.runtime import Interpreter, Runtime
from ..hardware.signature import PRODUCTS
from .run_files import RunFiles
from .settings import Settings


class HardwareCache:
    """host: this host; devices: the GPUs of earlier probes."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self.host = CachedHost()
        self.devices = JsonCache(files.state.root / "host.json")
        self._interpreters: dict[str, Interpreter] = {}
        self._resolved: dict[Settings, Hardware | EngineError] = {}

    def of(self, chosen: Settings) -> Hardware:
        """The hardware of these settings, cached. Raises HardwareError."""
        if chosen not in self._resolved:
            try:
                found = self._resolve(chosen)
                EngineFilename.of(found.signature, "x", "fp32")  # raises if a field is missing
                self._resolved[chosen] = found
            except EngineError as error:
                self._resolved[chosen] = error
        known = self._resolved[chosen]
        if isinstance(known, EngineError):
            raise known
        return known

    def _resolve(self, chosen: Settings) -> Hardware:
        """The hardware. Without an installed runtime, use the one that the receipts of restored engines
        name. Raises HardwareError."""
        missing: list[str] = []

        def installed(product: str) -> Runtime:
            try:
                return self.interpreter(chosen.python).runtime(product)
            except HardwareError:
                missing.append(product)
                raise

        def under(runtime: Callable[[str], Runtime]) -> Hardware:
            named, backend, jetpack = chosen.hardware, chosen.backend, chosen.jetpack
            more = backend or None, jetpack or None, self.host, self.devices
            return resolve(named or None, self._files.top, runtime, *more)

        try:
            return under(installed)
        except HardwareError:
            if not missing:
                raise
            from .hardware_from_receipts import Restored, restored_hardware

            named = chosen.hardware or chosen.jetpack or self.host.nvidia_evidence()
            hosts = () if named else (chosen.backend,) if chosen.backend else tuple(PRODUCTS)
            restored = Restored(self._files.state, self._files.digest_cache, chosen.engine_dir, hosts)
            found = restored_hardware(restored, missing[0], under)
            if found is None:
                raise
            return found

    def interpreter(self, python: str) -> Interpreter:
        """The interpreter of TRT_PYTHON. Raises HardwareError."""
        if python not in self._interpreters:
            cache = self._files.state.interpreter(python)
            self._interpreters[python] = Interpreter(python or None, cache)
        return self._interpreters[python]

    def save(self) -> None:
        """Save what was found. Raises OSError."""
        for interpreter in self._interpreters.values():
            interpreter.save()
        self.devices.save()
