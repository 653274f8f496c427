"""The options of ONNX Runtime's sessions."""

from __future__ import annotations

import onnxruntime


def session_options(optimizations: str, log_level: int = 3, threads: int = 0) -> onnxruntime.SessionOptions:
    """Options for a session on the CPU.

    optimizations: a name of `GraphOptimizationLevel`; log_level: 3 for errors, 4 for fatal ones;
    threads: 0 for one on each core.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, optimizations)
    options.log_severity_level = log_level
    options.intra_op_num_threads = threads
    # An idle thread waits instead of spinning, which takes the CPU from the other jobs of the build. Work is
    # divided among the threads as before, so results are the same.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
