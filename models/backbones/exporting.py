"""What the export scripts of this folder share: where weights come from, and an ONNX whose bytes
are the same in every process. The scripts find it by this folder on `sys.path`."""

import contextlib
import hashlib
import logging
import os
import warnings

import numpy as np
import torch

OPSET = 20  # the first that has Gelu in one piece; GridSample is of 16, LayerNormalization of 17
DERIVED = ("num_batches_tracked", "confidence_thresholds", "hw_grid")  # a checkpoint may lack them
INLINE_BYTES = 1024  # with external data, tensors below this size stay in the ONNX


def give_weights(module, checkpoint, seed, renamed=dict):
    """Fill a module from a checkpoint file, or with seeded random weights where there is none. Returns
    where they came from, for a receipt. ValueError: other keys or shapes.

    renamed: from the file's state dict to one with the module's names.
    """
    if checkpoint is None:
        _draw(module, seed)
        return f"random, seed {seed}"
    state = renamed(_read_state(checkpoint))
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    derived = {name for name in expected if name.endswith(DERIVED)}
    given = {name: tuple(value.shape) for name, value in state.items()}
    wrong = [
        ("lacks", expected.keys() - given.keys() - derived),
        ("has the unknown", given.keys() - expected.keys() - derived),
        ("has other shapes of", {n for n in expected.keys() & given.keys() if expected[n] != given[n]}),
    ]
    problems = [f"{what} {_some(names)}" for what, names in wrong if names]
    if problems:
        raise ValueError(f"{os.path.basename(checkpoint)} {'; '.join(problems)}")
    module.load_state_dict(state, strict=False)
    with open(checkpoint, "rb") as file:
        return f"checkpoint {hashlib.sha256(file.read()).hexdigest()}"


def _read_state(checkpoint):
    """The state dict in a `.safetensors` or a `.pth` file, with no code of the file's own run."""
    if checkpoint.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(checkpoint)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{os.path.basename(checkpoint)} is no state dict: names and tensors")
    return state


def _some(names):
    names = sorted(names)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(f"`{name}`" for name in names[:4]) + more


def _draw(module, seed):
    """Random weights that keep the variance of what flows through. They are drawn by numpy, from a
    uniform distribution: no function of a processor's vector library is in them, so that another
    machine draws the same bits. What scales (of norms, of layers) keeps its value."""
    random = np.random.default_rng(seed)
    for name, value in sorted(module.named_parameters()):
        if value.ndim > 1:
            width = (3 / np.prod(value.shape[1:])) ** 0.5
        elif name.endswith("bias"):
            width = 0.1
        else:
            continue
        drawn = random.uniform(-width, width, tuple(value.shape)).astype(np.float32)
        value.data.copy_(torch.from_numpy(drawn))


def write(network, inputs, outputs, target, external=False):
    """Write an ONNX of a network to `target`.

    inputs: {name: (example, {axis: name of a dimension that shall be dynamic})}; outputs: names.
    external: the weights go to one file beside it, `target`.data.
    """
    import onnx

    network.eval().requires_grad_(False)
    examples = tuple(example for example, _ in inputs.values())
    names = sorted({name for _, free in inputs.values() for name in free.values()})
    dimensions = {name: torch.export.Dim(name, min=1, max=1 << 16) for name in names}
    axes = tuple({axis: dimensions[name] for axis, name in free.items()} for _, free in inputs.values())
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network,
            examples,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=axes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        _fold(program.model)
    model = program.model_proto
    _forget_origin(model)
    onnx.checker.check_model(model)
    for path in (target, target + ".data"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # onnx appends to a data file that is there
    if external:
        onnx.external_data_helper.convert_model_to_external_data(
            model, location=os.path.basename(target) + ".data", size_threshold=INLINE_BYTES
        )
    onnx.save(model, target)
    if external:
        os.chmod(target + ".data", os.stat(target).st_mode)  # onnx leaves it to its owner alone


def _fold(model):
    """Compute what is constant, however large. A weight that is transposed in the graph is none to a
    quantizer, which would then give it one scale for all channels."""
    from onnxscript import optimizer

    optimizer.optimize(model, input_size_limit=1 << 40, output_size_limit=1 << 40)


@contextlib.contextmanager
def _quiet():
    """The exporter warns of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _forget_origin(model):
    """Take out what names the code and the machine that the ONNX comes from: stack traces, paths."""
    model.ClearField("producer_version")  # differs between builds of one torch; facts tell it
    model.ClearField("doc_string")
    del model.metadata_props[:]
    graph = model.graph
    for item in [graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]:
        item.ClearField("doc_string")
        del item.metadata_props[:]


def facts(network, weights, *packages):
    """Small facts for a receipt: weights, versions, and how many parameters the ONNX has."""
    from importlib.metadata import version

    return {
        "weights": weights,
        **{name: version(name) for name in ("torch", "onnxscript", "onnx", *packages)},
        "opset": OPSET,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
