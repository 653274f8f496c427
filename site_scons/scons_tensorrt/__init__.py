"""scons-tensorrt: a TensorRT engine as a node in SCons's dependency graph.

Rooms, top to bottom, imports going down only: `graph` (the one room that imports SCons)
and `cli`, `compile`, `recipe`, `integrity`, `identity`. `identity` and `integrity` use
the standard library alone, so that a device with nothing but Python can name, parse and
verify an engine.
"""

__version__ = "0.1.0"
