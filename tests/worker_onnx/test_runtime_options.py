"""ONNX Runtime's idle threads do not take the CPU from the other jobs of a build."""

import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from scons_tensorrt.worker.onnx.runtime_options import session_options

WORKER = Path(__file__).parents[2] / "site_scons/scons_tensorrt/worker/onnx"


def _cpu_seconds(options):
    """CPU time of a session that runs 20 times for a moment."""
    values = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [256, 256]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"])], "g", *([each] for each in values)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    x = np.ones((256, 256), np.float32)
    session.run(None, {"x": x})
    began = time.process_time()
    for _ in range(20):
        session.run(None, {"x": x})
        time.sleep(0.002)
    return time.process_time() - began


def test_an_idle_thread_does_not_spin():
    spinning = onnxruntime.SessionOptions()
    spinning.intra_op_num_threads = 4
    assert _cpu_seconds(session_options("ORT_ENABLE_BASIC", threads=4)) < 0.6 * _cpu_seconds(spinning)


def test_every_session_has_these_options():
    makers = [path.name for path in sorted(WORKER.glob("*.py")) if "SessionOptions()" in path.read_text()]
    assert makers == ["runtime_options.py"]
