"""Apply the recipe's settings (recipe/builder_settings.py) to TensorRT's builder configuration and network.

TensorRT only logs a value that it does not accept, so every value is read back.
"""

from __future__ import annotations

import json
import os

from scons_tensorrt.worker.common.errors import WorkerError, recipe_error
from scons_tensorrt.worker.trt.runtime import title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from scons_tensorrt.worker.trt.job import CompileJob

# Settings that are one attribute of the configuration, and the enumeration of its values.
ATTRIBUTES = {
    "optimization_level": ("builder_optimization_level", None),
    "max_aux_streams": ("max_aux_streams", None),
    "avg_timing_iterations": ("avg_timing_iterations", None),
    "tiling_optimization_level": ("tiling_optimization_level", "TilingOptimizationLevel"),
    "profiling_verbosity": ("profiling_verbosity", "ProfilingVerbosity"),
    "hardware_compatibility": ("hardware_compatibility_level", "HardwareCompatibilityLevel"),
    "max_num_tactics": ("max_num_tactics", None),
    "l2_limit_for_tiling": ("l2_limit_for_tiling", None),
    "build_route": ("build_route", None),
    "engine_capability": ("engine_capability", "EngineCapability"),
}
# TensorRT's names of the types in io_formats.
TYPES = {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8", "int32": "INT32"}


def apply_settings(trt: Any, builder: Any, network: Any, config: Any, job: CompileJob) -> None:
    """Raises WorkerError (RecipeError) for a setting or value that this TensorRT lacks."""
    for name, value in sorted(job.recipe.settings.items()):
        if name in ATTRIBUTES:
            _set(trt, config, name, value)
        elif name == "dla_core":
            _use_dla(trt, builder, config, int(value))
        elif name == "tactic_sources":
            _set_sources(trt, config, str(value))
        elif name == "preview_features":
            _set_features(trt, config, str(value))
        elif name == "io_formats":
            _set_formats(trt, network, json.loads(str(value)))
        elif name == "layer_devices":
            _set_devices(trt, network, config, json.loads(str(value)))
        elif name == "plugins_to_serialize":
            _serialize_plugins(trt, config, json.loads(str(value)), job)


def _lacks(trt: Any, text: str) -> WorkerError:
    return recipe_error("%s is not supported by %s" % (text, title(trt)))


def _refuses(trt: Any, text: str) -> WorkerError:
    return recipe_error("%s did not accept %s" % (title(trt), text))


def _members(trt: Any, name: str, enumeration: str, words: str) -> Iterator[Any]:
    """The members of an enumeration that a list names."""
    for word in words.split():
        member = getattr(getattr(trt, enumeration, None), word, None)
        if member is None:
            raise _lacks(trt, "%s %s" % (name, word))
        yield member


def _set(trt: Any, config: Any, name: str, value: Any) -> None:
    attribute, enumeration = ATTRIBUTES[name]
    wanted = value
    if enumeration:
        wanted = getattr(getattr(trt, enumeration, None), value.upper(), None)
    if wanted is None or not hasattr(config, attribute):
        raise _lacks(trt, "%s=%r" % (name, value))
    setattr(config, attribute, wanted)
    if getattr(config, attribute) != wanted:
        raise _refuses(trt, "%s=%r" % (name, value))


def _use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise recipe_error("dla_core=%d: this hardware has %d DLA cores" % (core, builder.num_DLA_cores))
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def _set_sources(trt: Any, config: Any, words: str) -> None:
    wanted = 0
    for member in _members(trt, "tactic_sources", "TacticSource", words):
        wanted |= 1 << int(member)
    if not config.set_tactic_sources(wanted) or config.get_tactic_sources() != wanted:
        raise _refuses(trt, "tactic_sources %s" % (words or "[]"))


def _set_features(trt: Any, config: Any, words: str) -> None:
    for member in _members(trt, "preview_features", "PreviewFeature", words):
        config.set_preview_feature(member, True)
        if not config.get_preview_feature(member):
            raise _refuses(trt, "preview_features %s" % member.name)


def set_parser_flags(trt: Any, parser: Any, words: str) -> None:
    """Raises WorkerError (RecipeError)."""
    for member in _members(trt, "parser_flags", "OnnxParserFlag", words):
        parser.set_flag(member)
        if not parser.get_flag(member):
            raise _refuses(trt, "parser_flags %s" % member.name)


def _set_formats(trt: Any, network: Any, formats: dict[str, str]) -> None:
    tensors = {tensor.name: tensor for tensor in _inputs_and_outputs(network)}
    for name, text in formats.items():
        if name not in tensors:
            raise recipe_error("io_formats: the network has no input or output `%s`" % name)
        kind, _, form = text.rpartition(":")
        if kind:
            _set_type(trt, tensors[name], getattr(trt.DataType, TYPES[kind]))
        member = getattr(trt.TensorFormat, form.upper(), None)
        if member is None:
            raise _lacks(trt, "io_formats %s" % form)
        tensors[name].allowed_formats = 1 << int(member)
        if tensors[name].allowed_formats != 1 << int(member):
            raise _refuses(trt, "io_formats %s for `%s`" % (form, name))


def _inputs_and_outputs(network: Any) -> Iterator[Any]:
    yield from map(network.get_input, range(network.num_inputs))
    yield from map(network.get_output, range(network.num_outputs))


def _set_type(trt: Any, tensor: Any, kind: Any) -> None:
    """Only a weakly typed network lets an input or output have another type than the ONNX."""
    if tensor.dtype == kind:
        return
    if hasattr(trt.BuilderFlag, "FP16"):
        tensor.dtype = kind
    if tensor.dtype != kind:
        text = "io_formats: `%s` is %s in the ONNX, and %s compiles it so; write only the format"
        raise recipe_error(text % (tensor.name, tensor.dtype.name, title(trt)))


def _set_devices(trt: Any, network: Any, config: Any, devices: dict[str, str]) -> None:
    layers = {layer.name: layer for layer in map(network.get_layer, range(network.num_layers))}
    for name, device in devices.items():
        layer = layers.get(name)
        if layer is None:
            raise recipe_error("layer_devices: the network has no layer `%s`" % name)
        if device == "dla" and not config.can_run_on_DLA(layer):
            raise recipe_error("layer_devices: `%s` cannot run on a DLA" % name)
        config.set_device_type(layer, getattr(trt.DeviceType, device.upper()))


def _serialize_plugins(trt: Any, config: Any, names: list[str], job: CompileJob) -> None:
    if not hasattr(config, "plugins_to_serialize"):
        raise _lacks(trt, "plugins_to_serialize")
    paths = [path for path, _ in job.plugins if os.path.basename(path) in names]
    config.plugins_to_serialize = paths
    if list(config.plugins_to_serialize) != paths:
        raise _refuses(trt, "plugins_to_serialize")
