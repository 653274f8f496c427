"""A model of more than 2 GB, its weights in external data, against the raw API: wall time, memory
of the worker, and memory of SCons itself.

    python benchmarks/large.py [layers]      each layer has 256 MiB of weights; 9 make 2.4 GB
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from common import run
from conftest import Tree
from onnx import TensorProto, helper

from compile import RAW

SIZE = 8192
layers = int(sys.argv[1]) if len(sys.argv) > 1 else 9


def make(folder: Path) -> Path:
    """A chain of matrix products; the weights are written one by one, never held at once."""
    random = np.random.default_rng(0)
    weights, offset = [], 0
    with open(folder / "weights.bin", "wb") as out:
        for number in range(layers):
            data = (random.standard_normal((SIZE, SIZE), dtype=np.float32) / 90).tobytes()
            out.write(data)
            tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[SIZE, SIZE])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", offset), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            offset += len(data)
    nodes = []
    for number in range(layers):
        nodes.append(helper.make_node("MatMul", [f"h{number}", f"w{number}"], [f"m{number}"]))
        nodes.append(helper.make_node("Relu", [f"m{number}"], [f"h{number + 1}"]))
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE])
        for name in ("h0", f"h{layers}")
    ]
    graph = helper.make_graph(nodes, "large", tensors[:1], tensors[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "large.onnx")
    return folder / "large.onnx"


def peak_of(pid: int) -> int:
    """VmHWM of a process, bytes."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


with tempfile.TemporaryDirectory(dir=os.environ.get("LARGE_DIR")) as name:
    tree = Tree(Path(name) / "tree")
    model = make(tree.path("models"))
    size = tree.path("models/weights.bin").stat().st_size
    tree.write('env.Engine("large", "models/large.onnx")')
    tree.path("raw.py").write_text(RAW)
    raw_engine = tree.path("raw.engine")
    raw = run([sys.executable, str(tree.path("raw.py")), str(model), str(raw_engine)], tree.root)
    raw_engine.unlink()
    began = time.perf_counter()
    scons = subprocess.Popen(tree.command("engines"), cwd=tree.root, env=tree.env())
    peaks = [0]

    def watch() -> None:
        while scons.poll() is None:
            peaks[0] = max(peaks[0], peak_of(scons.pid))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(scons.pid, 0)
    wall = time.perf_counter() - began
    scons.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    print(f"weights {size / 1e9:.2f} GB; status {scons.returncode}")
    print(f"wall {wall:.1f} s against raw {raw.wall:.1f} s: {wall / raw.wall:.3f} x")
    print(f"worker peak {tree.receipt('large')['peak_memory_bytes'] / raw.peak:.3f} x raw's")
    print(f"SCons itself: peak {peaks[0] / 2**20:.0f} MiB (bound 150)")
    null = run(tree.command("engines"), tree.root, tree.env())
    null = run(tree.command("engines"), tree.root, tree.env())
    print(f"null build {null.wall:.2f} s")
