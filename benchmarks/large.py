"""A model of more than 2 GB, its weights in external data, against the raw API: wall time, memory
of the worker, and memory of SCons itself.

    python benchmarks/large.py [layers [precision]]

Each layer has 256 MiB of weights in float32; 9 make 2.4 GB. With fp16 the ONNX is converted first, and
the raw API is given what came out: 17 layers make 2.3 GB of that.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from common import Cost, report, run, say, workplace
from compile import RAW
from onnx import TensorProto, helper

from conftest import Tree

SIZE = 8192


def make(folder: Path, layers: int) -> Path:
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
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE]) for name in ("h0", f"h{layers}")
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


def converters_of(pid: int) -> list[int]:
    """The children of a process that convert; a compile is started with -I."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == str(pid) and b"-I" not in command:
            found.append(int(entry.name))
    return found


def raw(tree: Tree, model: Path) -> Cost:
    """The raw API's build of a model."""
    tree.path("raw.py").write_text(RAW)
    engine = tree.path("raw.engine")
    made = run([sys.executable, str(tree.path("raw.py")), str(model), str(engine)], tree.root)
    engine.unlink()
    return made


def ours(tree: Tree) -> dict[str, int]:
    """One `scons engines`: peaks of SCons itself and of its converters, bytes."""
    began = time.perf_counter()
    scons = subprocess.Popen(tree.command("engines"), cwd=tree.root, env=tree.env())
    peaks = {"scons": 0, "converter": 0}
    while scons.poll() is None:
        peaks["scons"] = max(peaks["scons"], peak_of(scons.pid))
        peaks["converter"] = max([peaks["converter"], *map(peak_of, converters_of(scons.pid))])
        time.sleep(0.02)
    say(f"status {scons.returncode}; wall {time.perf_counter() - began:.1f} s")
    return peaks


def main() -> None:
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    precision = sys.argv[2] if len(sys.argv) > 2 else "fp32"
    with workplace() as folder:
        tree = Tree(folder / "tree")
        model = make(tree.path("models"), layers)
        weights = tree.path("models/weights.bin").stat().st_size
        say(f"weights {weights / 1e9:.2f} GB")
        tree.write(f'env.Engine("large", "models/large.onnx", precision="{precision}")')
        bare = raw(tree, model) if precision == "fp32" else None
        peaks = ours(tree)
        receipt = tree.receipt("large")
        if bare is None:
            made = tree.path(f".trt/onnx/large.{precision}.onnx")
            say(f"converted: {Path(f'{made}.data').stat().st_size / 1e9:.2f} GB of data beside the ONNX")
            say(f"converter: peak {peaks['converter'] / 2**20:.0f} MiB")
            bare = raw(tree, made)
        worker = Cost(wall=receipt["duration_s"], cpu=0, peak=receipt["peak_memory_bytes"])
        title = f"compile of {weights / 1e9:.1f} GB in {precision} / raw API"
        report(title, [worker], [bare], "wall")
        report(title, [worker], [bare], "peak", 1.05)
        say(f"engine {receipt['size'] / 1e9:.2f} GB")
        say(f"SCons itself: peak {peaks['scons'] / 2**20:.0f} MiB (bound 150)")
        run(tree.command("engines"), tree.root, tree.env())
        say(f"null build {run(tree.command('engines'), tree.root, tree.env()).wall:.2f} s")


if __name__ == "__main__":
    main()
