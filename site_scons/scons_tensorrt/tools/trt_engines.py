"""The door to the tool: `Environment(tools=["trt_engines"])`."""

from scons_tensorrt.graph.tool import exists, generate

__all__ = ["exists", "generate"]
