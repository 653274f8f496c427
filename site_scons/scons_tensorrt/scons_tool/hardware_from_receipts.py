"""The hardware of restored engines, from their receipts, on a host without GPU or TensorRT.

The receipts name the runtime that built the engines. With it the filenames and keys are the same as
on the host that built them, so every engine that is still right is reused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ..artifact.filename import EngineFilename
from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..build.declared_engines import Declaration, last_declaration
from ..errors import EngineError
from ..files.digest_cache import DigestCache
from ..hardware.choose_hardware import Hardware
from ..hardware.runtime import Runtime
from ..hardware.signature import HardwareSignature
from ..values import Value

Resolve = Callable[[Callable[[str], Runtime]], Hardware]


class Restored(Value):
    """Where restored engines may be. hosts: where no hardware was named and there is no GPU, the
    products of which the engines' whole hardware may come from their receipts."""

    state: StateFolder
    digest_cache: DigestCache
    engine_dir: str
    hosts: Collection[str]


def restored_hardware(restored: Restored, product: str, resolve: Resolve) -> Hardware | None:
    """The hardware with the runtime that the receipts name; None if they name none.

    resolve: the hardware, given the runtime of a product. Of several runtimes it is the one with
    receipts for the most engines that the last run declared, then the newest.
    """
    receipts = list(_receipts(restored.state))
    candidates = _of_runtimes(receipts, product, resolve)
    candidates += _of_hosts(receipts, restored.hosts)
    if len(candidates) < 2:
        return _because(candidates[0], "") if candidates else None
    declaration = last_declaration(restored.state, restored.digest_cache)
    found: dict[Hardware, int] = {each: _complete(each, declaration, restored) for each in candidates}
    there = {each: _files(each, receipts, restored) for each in candidates}
    chosen = max(found, key=lambda each: (found[each], there[each], -candidates.index(each)))
    names = dict.fromkeys(_runtime(each) for each in candidates)
    declared = len(_declared(chosen, declaration))
    enough = f", with receipts for {found[chosen]} of {declared} declared engines" if declared else ""
    return _because(chosen, f" (of {', '.join(names)}{enough})")


def _because(hardware: Hardware, among: str) -> Hardware:
    missing = "runtime" if hardware.why else "NVIDIA GPU and no runtime"
    note = f"no {missing} here, so {_runtime(hardware)} is taken from the receipts{among}"
    return hardware._replace(note=note, from_receipts=True)


def _runtime(hardware: Hardware) -> str:
    return f"{hardware.signature.product} {hardware.signature.runtime_version}"


def _receipts(state: StateFolder) -> list[tuple[EngineFilename, Receipt]]:
    """Every readable receipt of an engine. Raises ReceiptError."""
    found = []
    for filename in state.receipts.filenames():
        with contextlib.suppress(EngineError):
            name = EngineFilename.parse(filename)
            found += [(name, receipt) for receipt in state.receipts.of_file(filename)]
    return found


def _of_runtimes(
    receipts: list[tuple[EngineFilename, Receipt]], product: str, resolve: Resolve
) -> list[Hardware]:
    """The hardware with each runtime of `product`, the newest first."""
    runtimes = set()
    for name, receipt in receipts:
        version = receipt.ingredients.get("hardware runtime_version")
        if version and receipt.ingredients.get("hardware product") == product:
            cuda = name.platform[2:] if name.platform.startswith("cu") else None
            runtimes.add(Runtime(product, version, cuda, "", ""))
    found = []
    for runtime in sorted(runtimes, key=lambda each: _version(each.version), reverse=True):
        with contextlib.suppress(EngineError):  # a damaged receipt names no version
            found.append(resolve(lambda _, chosen=runtime: chosen))  # type: ignore[misc]
    return found


def _of_hosts(receipts: list[tuple[EngineFilename, Receipt]], products: Collection[str]) -> list[Hardware]:
    """The hosts that built engines for themselves, the newest runtime first."""
    found: dict[tuple[object, ...], Hardware] = {}
    for _, receipt in receipts:
        with contextlib.suppress(EngineError, LookupError, TypeError):
            told = receipt.details["hardware"]
            signature = HardwareSignature.from_json(told["signature"], "receipt")
            if told["name"] is None and signature.product in products and not signature.plus:
                title = "the restored engines' host"
                found.setdefault(signature[:-1], Hardware(None, signature, "", title))
    order = sorted(found.values(), key=lambda h: _version(h.signature.runtime_version), reverse=True)
    return list(order)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _declared(hardware: Hardware, declaration: Declaration | None) -> list[Any]:
    engines = declaration.engines if declaration else []
    return [engine for engine in engines if engine.hardware == hardware.name]


def _complete(hardware: Hardware, declaration: Declaration | None, restored: Restored) -> int:
    """How many engines of the last run have a receipt for this hardware and the current inputs."""
    complete = 0
    for engine in _declared(hardware, declaration):
        with contextlib.suppress(EngineError):
            spec = engine.wanted_on(hardware)
            complete += restored.state.receipts.knows(spec.filename, spec.key)
    return complete


def _files(hardware: Hardware, receipts: list[tuple[EngineFilename, Receipt]], restored: Restored) -> int:
    """How many engines with a receipt for this hardware exist."""
    folder = Path(restored.engine_dir, hardware.name or "")
    fields = {f"hardware {name}": text for name, text in hardware.signature.key_fields().items()}
    names = {r.filename for _, r in receipts if fields.items() <= r.ingredients.items()}
    return sum(os.path.lexists(folder / name) for name in names)
