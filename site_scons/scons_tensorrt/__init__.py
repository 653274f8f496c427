"""scons-tensorrt: a TensorRT engine as a node in SCons's dependency graph.

Rooms, top to bottom, imports going down only: `graph` (the one room that imports SCons)
and `cli`, `compile`, `recipe`, `integrity`, `identity`. `identity` and `integrity` use
the standard library alone, so that a device with nothing but Python can name, parse and
verify an engine: `from scons_tensorrt import load_verified`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifact.verify import load_verified as load_verified

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """As late as it is asked for: to import the package alone imports nothing."""
    if name == "load_verified":
        from .artifact.verify import load_verified

        return load_verified
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
