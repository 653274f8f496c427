"""The tensor that explains why a 16-bit model is beyond its bound, for the message."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import model_file
from scons_tensorrt.worker.onnx.rounded_on_cpu import TYPES
from scons_tensorrt.worker.onnx.rounding_losses import Loss, find_losses
from scons_tensorrt.worker.onnx.tensor_values import LARGEST

ADVICE = "widen rtol= or atol=, or keep more in float32"
LISTED = 6  # nodes that the message names


class BeyondBound(WorkerError):
    """An AccuracyError. inputs: on which the model is beyond its bound; losses: for these, see
    rounding_losses.py; options: rtol, atol and metric, if others than the gate's."""

    def __init__(
        self,
        message: str,
        inputs: Mapping[str, np.ndarray],
        losses: Sequence[Loss],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__("AccuracyError", message)
        self.inputs, self.losses, self.options = inputs, losses, options


def explained(
    error: WorkerError, reference: str, converted: str, inputs: Mapping[str, np.ndarray]
) -> BeyondBound:
    """The error, with the tensor of the model at `converted` that is the first to be infinite or NaN, or is
    cut, or loses most, and the nodes that keep it in float32; unchanged for a model without 16-bit tensors.
    reference: path of the original; inputs: the sample to run."""
    try:
        losses = find_losses(converted, inputs)
    except WorkerError:  # the error counts more than its cause
        losses = []
    cut = "" if any(each.overflows for each in losses) else _cut_weight(reference, converted)
    advice = cut or advice_for(losses)
    return BeyondBound(str(error).replace(ADVICE, advice or ADVICE), inputs, losses)


def _cut_weight(reference: str, converted: str) -> str:
    """The weight of the original that is furthest beyond its 16-bit type."""
    narrow = {each.name: each for each in model_file.load_model(converted).graph.initializer}
    folder = os.path.dirname(os.path.abspath(reference))
    found = "", "", 0.0
    for tensor in model_file.load_model(reference).graph.initializer:
        to = TYPES.get(narrow[tensor.name].data_type) if tensor.name in narrow else None
        if tensor.data_type != TensorProto.FLOAT or to is None:
            continue
        sizes = np.abs(onnx.numpy_helper.to_array(tensor, folder))
        peak = float(sizes.max(initial=0, where=np.isfinite(sizes)))
        if peak > max(LARGEST[to], found[2]):
            found = tensor.name, to, peak
    name, to, peak = found
    if not name:
        return ""
    return "weight `%s` was cut to %s's %s (max %s); keep what reads it in float32 by keep_nodes=" % (
        *(name, to, number(LARGEST[to]), number(peak)),
    )


def advice_for(losses: Sequence[Loss]) -> str:
    beyond = [each for each in losses if each.overflows]
    broken = [each for each in losses if each.finite == (False, True)]
    worst = max(losses, key=lambda each: each.growth, default=None)
    if beyond:
        to = beyond[0].to
        what = "overflows %s (max %s > %s)" % (to, number(beyond[0].peak), number(LARGEST[to]))
    elif broken:
        what = "is not finite in %s (max %s in float32)" % (broken[0].to, number(broken[0].peak))
    elif worst is not None and worst.growth > 0:
        figures = worst.to, worst.error, worst.before
        what = "loses most in %s (relative error %.2g, and %.2g of what it reads)" % figures
    else:
        return ""
    named = beyond or broken[:1] or [each for each in losses if each is worst]
    nodes = list(dict.fromkeys(name for each in named for name in each.nodes))
    others = len(named) - 1
    more = ", like %d more tensor%s" % (others, "s" * (others > 1)) if others else ""
    keep = "keep_nodes='auto' finds the nodes to keep in float32"
    if nodes and len(nodes) <= LISTED:
        keep = "keep_nodes=%r keeps %s in float32" % (nodes, "them" if more else "it")
        keep += "" if beyond or broken else ", and keep_nodes='auto' finds the fewest for the bound"
    return "%s %s%s; %s" % (_label(named[0]), what, more, keep)


def _label(loss: Loss) -> str:
    if not loss.op_type:
        return loss.label
    return "`%s`" % loss.label + ("" if loss.op_type in loss.label else " (%s)" % loss.op_type)


def number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= abs(value) < 1e9 else "%.4g" % value
