"""A model repository of the Triton Inference Server: `<model>/config.pbtxt` and `<model>/1/model.plan`.

Fields: model_config.proto of triton-inference-server/common. What its `tensorrt` backend expects, from
model_state.cc and tensorrt_utils.cc of triton-inference-server/tensorrt_backend: with `max_batch_size` above
0, `dims` leave out the first dimension, which must be dynamic in every tensor; the largest batch is that of
the profiles that `instance_group` lists (without a list, only the first is used).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import HandoffError
from ...values import Value
from ..install_files import install_bytes, install_file
from .exported_engine import ExportedEngine, check_product
from .network_io import Network, Tensor

PLAN = "model.plan"
# The types of TensorRT, which has no double: its parser makes float32 of it.
TYPES = {
    "FLOAT": "FP32",
    "DOUBLE": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}


class Variant(Value):
    """An engine, and the name of its file in the repository."""

    engine: ExportedEngine
    filename: str


def write_repository(folder: Path, engines: Sequence[ExportedEngine]) -> list[Path]:
    """Write the repository of these engines; returns what was written. Raises HandoffError and OSError."""
    written = []
    for model, variants in _models(engines).items():
        config = configuration(model, variants)
        for each in variants:
            place = folder / model / "1" / each.filename
            install_file(each.engine.path, place, each.engine.sha256)
            written.append(place)
        install_bytes(folder / model / "config.pbtxt", config.encode())
        written.append(folder / model / "config.pbtxt")
    return written


def configuration(model: str, variants: Sequence[Variant]) -> str:
    """The text of config.pbtxt. Raises HandoffError."""
    texts = {_body(model, each.engine): each for each in variants}
    if len(texts) > 1:
        one, other = (each.engine.path for each in list(texts.values())[:2])
        raise HandoffError(
            f"{one} and {other}: one configuration cannot have the inputs, outputs and profiles of both; "
            "export them into different folders"
        )
    notes = "".join(
        f"# {each.filename}: {each.engine.path.name}, TensorRT {each.engine.version}, "
        f"sha256 {each.engine.sha256}\n"
        for each in variants
    )
    return notes + next(iter(texts)) + "".join(_by_capability(variants))


def _models(engines: Sequence[ExportedEngine]) -> dict[str, list[Variant]]:
    """The engines by the name of their model in the repository."""
    precisions: dict[str, set[str]] = {}
    for engine in engines:
        check_product(
            engine,
            "Triton's `tensorrt` backend",
            "compile it with TensorRT for its GPU (HARDWARE=), or use `export epcontext`",
        )
        precisions.setdefault(engine.name.model, set()).add(engine.name.precision)
    found: dict[str, list[ExportedEngine]] = {}
    for engine in engines:
        name = engine.name
        several = len(precisions[name.model]) > 1
        found.setdefault(f"{name.model}_{name.precision}" if several else name.model, []).append(engine)
    return {model: list(_variants(group)) for model, group in found.items()}


def _variants(group: Sequence[ExportedEngine]) -> Iterator[Variant]:
    """One engine, or one for Ampere and later, is the default; others are chosen by compute capability."""
    taken: dict[str, ExportedEngine] = {}
    for engine in group:
        default = len(group) == 1 or engine.name.plus
        filename = PLAN if default else f"model_sm{engine.name.sm}.plan"
        other = taken.setdefault(filename, engine)
        if other is not engine:
            raise HandoffError(
                f"{other.path} and {engine.path}: Triton chooses by compute capability alone, and both are "
                f"for {engine.capability}; export one of them"
            )
        yield Variant(engine, filename)


def _by_capability(variants: Sequence[Variant]) -> Iterator[str]:
    for each in variants:
        if each.filename != PLAN:
            pair = f"key: {_quoted(each.engine.capability)} value: {_quoted(each.filename)}"
            yield f"cc_model_filenames {{ {pair} }}\n"


def _body(model: str, engine: ExportedEngine) -> str:
    network = engine.network()
    batch = max_batch_size(engine, network)
    lines = [f"name: {_quoted(model)}", 'backend: "tensorrt"', f"max_batch_size: {batch}"]
    lines += [_tensor("input", each, engine, bool(batch)) for each in network.inputs]
    lines += [_tensor("output", each, engine, bool(batch)) for each in network.outputs]
    count = len(engine.profiles)
    profiles = "".join(f" profile: {_quoted(str(n))}" for n in range(count)) if count > 1 else ""
    lines.append(f"instance_group {{ kind: KIND_GPU count: 1{profiles} }}")
    return "\n".join(lines) + "\n"


def max_batch_size(engine: ExportedEngine, network: Network) -> int:
    """The largest batch of any profile; 0 unless the first dimension of every tensor is dynamic, or if a
    tensor is a shape tensor."""
    for each in (*network.inputs, *network.outputs):
        if each.values or not each.dims or isinstance(each.dims[0], int):
            return 0
    names = [each.name for each in network.inputs]
    found = [
        min(profile[name][2][0] for name in names if name in profile)
        for profile in engine.profiles
        if all(name in profile for name in names)
    ]
    return max(found, default=0)


def _tensor(kind: str, tensor: Tensor, engine: ExportedEngine, batched: bool) -> str:
    if tensor.dims is None:
        raise HandoffError(
            f"{engine.path}: Triton needs the rank of output `{tensor.name}`, and neither the ONNX nor shape "
            "inference tells it; export the ONNX with the shapes of its outputs"
        )
    sizes = [size if isinstance(size, int) else -1 for size in tensor.dims[int(batched) :]]
    scalar = " reshape { shape: [ ] }" if not sizes else ""
    dims = ", ".join(map(str, sizes or [1]))
    values = " is_shape_tensor: true" if tensor.values else ""
    return (
        f"{kind} {{ name: {_quoted(tensor.name)} data_type: TYPE_{_type(tensor, engine)} "
        f"dims: [ {dims} ]{scalar}{values} }}"
    )


def _type(tensor: Tensor, engine: ExportedEngine) -> str:
    if tensor.type not in TYPES:
        raise HandoffError(
            f"{engine.path}: Triton has no type for `{tensor.name}`, which is {tensor.type}; give the ONNX "
            "an input or output of another type"
        )
    if tensor.type == "INT64" and int(engine.version.partition(".")[0]) < 10:
        return "INT32"  # TensorRT has INT64 from 10.0
    return TYPES[tensor.type]


def _quoted(text: str) -> str:
    """A string of protobuf's text format: JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)
