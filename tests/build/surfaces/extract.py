"""Cut the part of an API surface that the worker may use out of a whole one.

    python extract.py 10.3.0.json > tensorrt-10.3.0.json
    python extract.py > tensorrt-8.6.1.json  # of the `tensorrt` that this Python (3.8 or later) has

A whole surface lists every class of a TensorRT's Python bindings with its methods, each with
the signature in the first line of its docstring. Here: class -> {method: [parameters] or null
where the bindings do not say}, "property", or an enum's members.

TensorRT 8 is imported without a GPU over stub libraries: see stub_libraries.py.
"""

import inspect
import json
import re
import sys

KEEP = """Builder BuilderFlag ComputeCapability DataType IBuilderConfig IHostMemory ILayer ILogger
IInt8EntropyCalibrator2 IInt8MinMaxCalibrator
INetworkDefinition IOptimizationProfile IProgressMonitor IStreamWriter ITensor ITimingCache LayerType
MemoryPoolType NetworkDefinitionCreationFlag OnnxParser ParserError init_libnvinfer_plugins DeviceType
HardwareCompatibilityLevel ProfilingVerbosity TilingOptimizationLevel Runtime ICudaEngine
IExecutionContext IOutputAllocator TensorFormat TensorIOMode TensorLocation
EngineCapability OnnxParserFlag PreviewFeature TacticSource TimingCacheKey TimingCacheValue""".split()


def parameters(signature):
    inside = re.match(r"\w+\((.*)\) ->", signature)
    if not inside or inside[1].startswith("*"):
        return None
    names = re.findall(r"(?:^|, )(\w+): ", inside[1])
    return [name for name in names if name != "self"]


def member(kind):
    return "property" if kind == "property" else parameters(kind)


def first_line(thing):
    return next(iter((thing.__doc__ or "").strip().splitlines()), "")


def surface_of(thing):
    if hasattr(thing, "__members__"):
        return {"enum": sorted(thing.__members__)}
    if not inspect.isclass(thing):
        return {"function": first_line(thing)}
    found = {name: inspect.getattr_static(thing, name) for name in dir(thing) if name[0] != "_"}
    return {"class": {n: "property" if isinstance(m, property) else first_line(m) for n, m in found.items()}}


def imported():
    import tensorrt

    api = {name: surface_of(getattr(tensorrt, name)) for name in KEEP if hasattr(tensorrt, name)}
    return {"version": tensorrt.__version__, "api": api}


if sys.argv[1:]:
    with open(sys.argv[1]) as source:
        whole = json.load(source)
else:
    whole = imported()
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
