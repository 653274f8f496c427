"""Configuration files of DeepStream's Gst-nvinfer: `<model>.txt`, and the engine beside it.

A key file of GLib with the group `[property]`; keys, values and defaults: "Gst-nvinfer File Configuration
Specifications" of the DeepStream documentation. Only what follows from the engine is set: nvinfer is told to
attach the raw outputs (`network-type=100`, `output-tensor-meta=1`), so it needs no parser. What depends on
the model's training is a comment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import HandoffError
from ..install_files import install_bytes, install_file
from .exported_engine import ExportedEngine, check_product
from .network_io import Tensor

MODES = {"int8": 1, "fp16": 2}  # of the key network-mode; 0 is FP32, which is also the default here
CHANNELS = (1, 3)
NOTES = """
# Add what the training of the model decides:
#   net-scale-factor, offsets, model-color-format: the preprocessing; nvinfer computes
#     net-scale-factor * (pixel - offset) of 8-bit pixels, and its defaults are 1.0, none and RGB
#   maintain-aspect-ratio, symmetric-padding: how frames are scaled
#   labelfile-path: the names of the classes
#   network-type=0, num-detected-classes, cluster-mode, custom-lib-path, parse-bbox-func-name: to detect
#   network-type=1, classifier-threshold: to classify; network-type=2: to segment
#   process-mode=2, operate-on-gie-id: to run on the objects that another nvinfer found
"""


def write_configurations(folder: Path, engines: Sequence[ExportedEngine]) -> list[Path]:
    """Write a file for each engine, and the engine; returns what was written. Raises HandoffError and
    OSError."""
    files = [
        (folder / f"{engine.path.stem}.txt", engine, configuration(engine, number))
        for number, engine in enumerate(engines, 1)
    ]
    written = []
    for path, engine, text in files:
        place = path.with_name(engine.path.name)
        install_file(engine.path, place, engine.sha256)
        install_bytes(path, text.encode())
        written += [place, path]
    return written


def configuration(engine: ExportedEngine, unique_id: int) -> str:
    """The text of the file. unique_id: of this nvinfer in its pipeline, from 1. Raises HandoffError."""
    check_product(engine, "DeepStream's nvinfer", "compile it with TensorRT for its GPU (HARDWARE=)")
    network = engine.network()
    image, *more = network.inputs
    batch, dims, order = _image(engine, image)
    others = "".join(
        f"# {each} is a second input: nvinfer needs custom-lib-path with NvDsInferInitializeInputLayers\n"
        for each in more
    )
    keys = {
        "gie-unique-id": unique_id,
        "model-engine-file": engine.path.name,
        "batch-size": batch,
        "network-mode": MODES.get(engine.name.precision, 0),
        "network-type": 100,
        "output-tensor-meta": 1,
        "infer-dims": ";".join(map(str, dims)),
        "network-input-order": order,
        "output-blob-names": ";".join(each.name for each in network.outputs),
    }
    head = f"# {engine.path.name}: TensorRT {engine.version}, sha256 {engine.sha256}\n{others}"
    return head + "[property]\n" + "".join(f"{k}={v}\n" for k, v in keys.items()) + NOTES


def _image(engine: ExportedEngine, image: Tensor) -> tuple[int, list[int], int]:
    """The largest batch, channels, height and width (in elements), and 0 for NCHW or 1 for NHWC.

    Of a dynamic height or width, the optimum of the first profile.
    """
    bounds = engine.profiles[0].get(image.name) if engine.profiles else None
    usual = bounds[1] if bounds else tuple(size for size in image.dims or () if isinstance(size, int))
    if image.dims is None or len(image.dims) != 4 or len(usual) != 4:
        raise _no_image(engine, image)
    found = [profile[image.name] for profile in engine.profiles if image.name in profile]
    batch = max((high[0] for _, _, high in found), default=usual[0])
    if usual[1] in CHANNELS:
        return batch, list(usual[1:]), 0
    if usual[3] in CHANNELS:
        return batch, [usual[3], usual[1], usual[2]], 1
    raise _no_image(engine, image)


def _no_image(engine: ExportedEngine, image: Tensor) -> HandoffError:
    return HandoffError(
        f"{engine.path}: nvinfer takes images of 1 or 3 channels, [N, C, H, W] or [N, H, W, C], and its "
        f"first input is {image}; use Gst-nvinferserver with `export triton`"
    )
