"""The option `memory_pools`: the limits of TensorRT's memory pools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from .option_values import entry, hint, literal, option, setting

POOLS = ("dla_managed_sram", "dla_local_dram", "dla_global_dram", "tactic_dram", "tactic_shared_memory")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_pools(value: Any) -> dict[str, int]:
    """Bytes by pool. Raises RecipeError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        example = entry("tactic_dram", literal("1G"))
        raise RecipeError(f"{setting('memory_pools', value)}: write a map such as {example}")
    for name in value:
        if name == "workspace":
            raise RecipeError(f"memory_pools workspace: write {option('workspace_mb')} instead")
        if name not in POOLS:
            raise RecipeError(f"memory_pools {literal(name)}: unknown; {hint(str(name), POOLS)}")
    return {name: _bytes(name, value[name]) for name in sorted(value)}


def _bytes(name: str, value: Any) -> int:
    text = str(value) if type(value) is int else value
    parts = re.fullmatch(r"([1-9][0-9]{0,17})([KMG]?)", text) if isinstance(text, str) else None
    size = int(parts[1]) * _UNITS[parts[2]] if parts else 0
    if not 0 < size < 1 << 62:
        wrong = setting(f"memory_pools {name}", value)
        raise RecipeError(f"{wrong}: write a number of bytes, such as 4096 or {literal('1G')}")
    return size
