"""An ONNX with an EPContext node around an engine, as ONNX Runtime's providers of NVIDIA read it.

Attributes and checks, from the source of NVIDIA's provider package (onnx_ctx_model_helper.cc and
tensorrt_rtx_execution_provider.cc) and of ONNX Runtime (docs of the EPContext design):
`source` must be the provider's name, and the graph have this one node; `ep_cache_context` holds the engine
(`embed_mode` 1), or a path below the ONNX's own folder (0); `hardware_architecture` is compared with the GPU;
`partition_name` names the provider's cache of compiled kernels. `main_context` is 0 in what the provider
writes: each node has an engine of its own. The metadata `ep_compatibility_info.<provider>` is the first 64
bytes of the engine in hex, which the provider asks the runtime about before it loads the engine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ...errors import HandoffError, one_line
from .exported_engine import ExportedEngine
from .network_io import Network, Tensor

DOMAIN, OPERATOR = "com.microsoft", "EPContext"
PROVIDERS = {
    "tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
COMPATIBILITY = "ep_compatibility_info."
IR_VERSION, OPSET = 10, 21  # read by every ONNX Runtime with a provider package
LARGEST = (2 << 30) - (1 << 20)  # bytes of an embedded engine: a protobuf message has less than 2 GiB


def context_model(engine: ExportedEngine, beside: str | None) -> bytes:
    """The bytes of the ONNX. beside: the path of the engine, relative to the ONNX's folder; None to embed it.

    Raises HandoffError, and OSError.
    """
    network = engine.network()
    from onnx import checker, helper

    node = helper.make_node(
        OPERATOR,
        [each.name for each in network.inputs],
        [each.name for each in network.outputs],
        name=engine.path.stem,
        domain=DOMAIN,
        **_attributes(engine, beside),
    )
    graph = helper.make_graph([node], engine.name.model, *_values(helper, network))
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(
        graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="scons-tensorrt"
    )
    helper.set_model_props(
        model, {COMPATIBILITY + PROVIDERS[engine.product]: compatibility(engine), **_origin(engine)}
    )
    if all(each.dims is not None for each in (*network.inputs, *network.outputs)):
        _check(checker, model, engine)  # which wants a shape for each
    return bytes(model.SerializeToString(deterministic=True))


def is_context(path: Path) -> bool:
    """Whether a file is an ONNX with an EPContext node."""
    from onnx import load

    try:
        nodes = load(str(path), load_external_data=False).graph.node
    except Exception:  # of protobuf, or OSError
        return False
    return any((node.op_type, node.domain) == (OPERATOR, DOMAIN) for node in nodes)


def _check(checker: Any, model: Any, engine: ExportedEngine) -> None:
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise HandoffError(
            f"{engine.path}: onnx refuses its EPContext model: {one_line(str(error))}; correct the "
            f"inputs and outputs of {engine.onnx}"
        ) from None


def compatibility(engine: ExportedEngine) -> str:
    """The compatibility string: the engine's header in hex. Raises OSError."""
    return engine.header().hex()


def provider(engine: ExportedEngine) -> str:
    """The name of the execution provider that loads the engine."""
    return PROVIDERS[engine.product]


def _attributes(engine: ExportedEngine, beside: str | None) -> dict[str, Any]:
    return {
        "main_context": 0,
        "embed_mode": int(beside is None),
        "ep_cache_context": _content(engine) if beside is None else beside,
        "source": PROVIDERS[engine.product],
        "ep_sdk_version": engine.version,
        "hardware_architecture": f"{engine.name.sm}{'+' * engine.name.plus}",
        "partition_name": engine.path.stem,
        "onnx_model_filename": engine.onnx.name,
        "notes": f"{engine.path.name}, sha256 {engine.sha256}",
    }


def _content(engine: ExportedEngine) -> bytes:
    """The bytes of the engine, verified again as they are read."""
    from ...artifact.verify_pair import load_verified

    size = engine.path.stat().st_size
    if size > LARGEST:
        raise HandoffError(
            f"{engine.path}: an ONNX of {size} bytes is more than protobuf allows; leave the engine beside it"
        )
    data = load_verified(engine.path)
    if hashlib.sha256(data).hexdigest() != engine.sha256:
        raise HandoffError(f"{engine.path}: changed while it was exported; run again")
    return data


def _origin(engine: ExportedEngine) -> dict[str, str]:
    return {"scons_tensorrt.engine_sha256": engine.sha256, "scons_tensorrt.recipe_digest": engine.key}


def _values(helper: Any, network: Network) -> tuple[list[Any], list[Any]]:
    def value(each: Tensor) -> Any:
        return helper.make_tensor_value_info(each.name, each.dtype, each.dims)

    return [value(each) for each in network.inputs], [value(each) for each in network.outputs]
