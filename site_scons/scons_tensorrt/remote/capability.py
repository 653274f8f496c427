"""What a worker can compile for, encoded as the name of a Dask resource.

The scheduler knows resources only by name. So the name holds the worker's hardware and versions; a
client reads them from it and requests the resource by that name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..hardware.signature import HardwareSignature
from ..recipe.key import VERSION
from .local_capability import differences, machine_fields
from .plain_data import fields_of, line

PREFIX = "scons-tensorrt "
LONGEST = 200  # characters of a text that a worker sends


class WorkerCapability(NamedTuple):
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
        values = [recipe, distributed]
        if not isinstance(machine, dict) or not all(map(_is_short, values + list(machine.values()))):
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
        known = self.machine
        parts = [known.get("gpu_name"), known.get("product"), known.get("runtime_version")]
        return ", ".join(str(part) for part in (*parts, known.get("machine")) if part)


def _is_short(value: Any) -> bool:
    """Whether a value from a worker fits into a message."""
    if isinstance(value, str):
        return len(value) <= LONGEST and value.isprintable()
    return value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 1 << 63)


class Worker(NamedTuple):
    """A connected worker. offers: one for each installed product."""

    name: str
    address: str
    offers: tuple[WorkerCapability, ...]


def workers(identity: Mapping[str, Any]) -> list[Worker]:
    """The build workers in a scheduler's identity."""
    found = []
    known = fields_of(fields_of(identity).get("workers"))
    for address, each in sorted(known.items(), key=lambda item: str(item[0])):
        said = fields_of(each)
        offers = tuple(filter(None, map(WorkerCapability.read, fields_of(said.get("resources")))))
        if offers:
            found.append(Worker(line(str(said.get("name")), LONGEST), str(address), offers))
    return found


def choose(known: list[Worker], spec: HardwareSignature, distributed: str) -> tuple[str, list[Worker]]:
    """The suitable resource that most workers offer, and these workers. Empty if there is none."""
    by_resource: dict[str, list[Worker]] = {}
    for worker in known:
        for offer in worker.offers:
            if not offer.faults(spec, distributed):
                by_resource.setdefault(offer.resource, []).append(worker)
    if not by_resource:
        return "", []
    best = max(sorted(by_resource), key=lambda name: len(by_resource[name]))
    return best, by_resource[best]


def connected(known: list[Worker], spec: HardwareSignature, distributed: str) -> str:
    """The connected workers and why each is unsuitable, for an error message."""
    words = []
    for worker in known[:8]:
        lacks = [offer.faults(spec, distributed) for offer in worker.offers]
        words.append(f"{worker.name} ({', '.join(sorted(lacks, key=len)[0])})")
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return f"connected: {', '.join(words)}{more}" if words else "no build worker is connected"
