"""The SCons tool: `Environment(tools=["trt_engines"])`."""

from scons_tensorrt.scons_tool.tool import exists, generate

__all__ = ["exists", "generate"]
