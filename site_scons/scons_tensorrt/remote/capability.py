"""What a host can compile for.

TensorRT for RTX compiles for every architecture on a CPU: only its release, the operating system and
the machine matter. TensorRT compiles only on the target GPU: every known field matters.

A worker offers what it can compile for as the name of a Dask resource: the scheduler knows resources
only by name. The name holds the worker's hardware and versions; a client reads them from it and requests
the resource by that name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import HardwareError
from ..files.json_cache import JsonCache
from ..hardware.choose_hardware import probe
from ..hardware.probe_host import Host
from ..hardware.runtime import Runtime
from ..hardware.signature import DEVICE_CLASS, HardwareSignature
from ..recipe.key_ingredients import VERSION
from ..values import Value
from .plain_data import fields_of, line

PREFIX = "scons-tensorrt "
LONGEST = 200  # characters of a text that a worker sends
_GPU = ("compute_capability", *DEVICE_CLASS)


def machine_fields(signature: HardwareSignature) -> dict[str, Any]:
    """The fields of a machine that decide what it can compile for."""
    gpu = _GPU if signature.product == "tensorrt" else ()
    names = ("product", "runtime_version", "os", "machine", *gpu)
    return {name: getattr(signature, name) for name in names if getattr(signature, name) is not None}


def differences(spec: HardwareSignature, found: Mapping[str, Any]) -> list[str]:
    """Why a machine with these fields cannot compile for `spec`; empty if it can."""
    if found.get("product") != spec.product:
        return [f"product: wanted {spec.product}, found {found.get('product')}"]
    return [
        f"{name}: wanted {value}, found {found.get(name)}"
        for name, value in machine_fields(spec).items()
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
        return HardwareSignature(product, found.version, None, None, "8.0+")
    sign = host.nvidia_evidence()
    if not sign:
        raise HardwareError("no NVIDIA GPU found")
    jetpack = "0.0" if host.l4t() else None  # any value: it only names files
    return probe(host, sign, runtime, product, jetpack, devices, whole=True).signature


def why_not_here(
    spec: HardwareSignature, runtime: Callable[[str], Runtime], host: Host, devices: JsonCache
) -> str | None:
    """Why this host cannot compile for `spec`; None if it can."""
    try:
        found = host_signature(spec.product, runtime, host, devices)
    except HardwareError as error:
        return str(error).partition(": run `")[0]
    return "; ".join(differences(spec, machine_fields(found))) or None


class WorkerCapability(Value):
    """machine: see `machine_fields`; recipe: its recipe version; distributed: its version of that
    package."""

    machine: Mapping[str, Any]
    recipe: str
    distributed: str

    @classmethod
    def of(cls, signature: HardwareSignature, distributed: str) -> WorkerCapability:
        return cls(machine_fields(signature), VERSION, distributed)

    @property
    def resource(self) -> str:
        return PREFIX + json.dumps([dict(self.machine), *self[1:]], sort_keys=True)

    @classmethod
    def read(cls, resource: Any) -> WorkerCapability | None:
        """The capability in a resource name; None for any other resource."""
        if not isinstance(resource, str) or not resource.startswith(PREFIX):
            return None
        try:
            machine, recipe, distributed = json.loads(resource.removeprefix(PREFIX))
        except (ValueError, TypeError, RecursionError):
            return None
        if not isinstance(machine, dict) or not all(map(_is_short, (recipe, distributed, *machine.values()))):
            return None
        return cls(machine, str(recipe), str(distributed))

    def faults(self, spec: HardwareSignature, distributed: str) -> list[str]:
        """Why this worker cannot compile for `spec`; empty if it can."""
        found = differences(spec, self.machine)
        if self.recipe != VERSION:
            found.append(f"its scons-tensorrt uses recipe version {self.recipe}, not {VERSION}")
        if self.distributed != distributed:
            found.append(f"it runs distributed {self.distributed}, this host {distributed}")
        return found

    def describe(self) -> str:
        names = ("gpu_name", "product", "runtime_version", "machine")
        return ", ".join(str(self.machine[name]) for name in names if self.machine.get(name))


def _is_short(value: Any) -> bool:
    """Whether a value from a worker fits into a message."""
    if isinstance(value, str):
        return len(value) <= LONGEST and value.isprintable()
    return value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 1 << 63)


class Worker(Value):
    """A connected worker. offers: one for each installed product."""

    name: str
    offers: tuple[WorkerCapability, ...]


def workers(identity: Any) -> list[Worker]:
    """The build workers in a scheduler's identity."""
    found = []
    known = fields_of(fields_of(identity).get("workers"))
    for _, each in sorted(known.items(), key=lambda item: str(item[0])):
        said = fields_of(each)
        offers = tuple(filter(None, map(WorkerCapability.read, fields_of(said.get("resources")))))
        if offers:
            found.append(Worker(line(str(said.get("name")), LONGEST), offers))
    return found


def choose(known: list[Worker], spec: HardwareSignature, distributed: str) -> str:
    """The suitable resource that most workers offer; "" if there is none."""
    suitable = sorted(
        offer.resource for worker in known for offer in worker.offers if not offer.faults(spec, distributed)
    )
    return max(suitable, key=suitable.count, default="")


def connected(known: list[Worker], spec: HardwareSignature, distributed: str) -> str:
    """The connected workers and why each is unsuitable, for an error message."""
    words = []
    for worker in known[:8]:
        lacks = [offer.faults(spec, distributed) for offer in worker.offers]
        words.append(f"{worker.name} ({', '.join(sorted(lacks, key=len)[0])})")
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return f"connected: {', '.join(words)}{more}" if words else "no build worker is connected"
