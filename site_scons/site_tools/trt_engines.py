"""The door to the tool: `Environment(tools=["trt_engines"])`."""

from scons_tensorrt.scons_tool.tool import exists, generate

__all__ = ["exists", "generate"]
