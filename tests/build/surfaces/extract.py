"""Cut the part of an API surface that the worker may use out of a whole one.

    python extract.py 10.3.0.json > tensorrt-10.3.0.json

A whole surface lists every class of a TensorRT's Python bindings with its methods, each with
the signature in the first line of its docstring. Here: class -> {method: [parameters] or null
where the bindings do not say}, "property", or an enum's members.
"""

import json
import re
import sys

KEEP = """Builder BuilderFlag ComputeCapability DataType IBuilderConfig IHostMemory ILayer ILogger
IInt8EntropyCalibrator2 IInt8MinMaxCalibrator
INetworkDefinition IOptimizationProfile IProgressMonitor IStreamWriter ITensor ITimingCache LayerType
MemoryPoolType NetworkDefinitionCreationFlag OnnxParser ParserError init_libnvinfer_plugins DeviceType
HardwareCompatibilityLevel ProfilingVerbosity TilingOptimizationLevel Runtime ICudaEngine
IExecutionContext IOutputAllocator TensorFormat TensorIOMode TensorLocation""".split()


def parameters(signature):
    inside = re.match(r"\w+\((.*)\) ->", signature)
    if not inside or inside[1].startswith("*"):
        return None
    names = re.findall(r"(?:^|, )(\w+): ", inside[1])
    return [name for name in names if name != "self"]


def member(kind):
    return "property" if kind == "property" else parameters(kind)


with open(sys.argv[1]) as source:
    whole = json.load(source)
out = {}
for name in KEEP:
    found = whole["api"].get(name)
    if found is None:
        continue
    if "enum" in found:
        out[name] = found["enum"]
    elif "function" in found:
        out[name] = parameters(found["function"])
    else:
        out[name] = {method: member(kind) for method, kind in sorted(found["class"].items())}
version = whole["version"]
version = version if isinstance(version, str) else "".join(version)
json.dump({"version": version, "api": out}, sys.stdout, indent=1)
print()
