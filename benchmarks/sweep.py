"""ONNX's own backend test models, each compiled by `scons -k engines`, and by the raw TensorRT for RTX API
in a process of its own.

    python benchmarks/sweep.py DATA [--work DIR] [--only TEXT] [--jobs 2] [--table docs/sweep.md]

DATA is `onnx/backend/test/data` of the wheel of onnx 1.19.1, the last that has all 1,764:
`pip install --no-deps --target there onnx==1.19.1`. What an earlier run left in DIR is not measured again.
The exit status is 1 if an outcome differs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
SCONSTRUCT = """
import json
DefaultEnvironment(tools=[])
env = Environment(tools=["trt_engines"], toolpath=[PyPackageDir("scons_tensorrt.tools")])
for name, onnx, shapes in json.load(open("models.json")):
    shapes = {key: tuple(tuple(each) for each in bounds) for key, bounds in shapes.items()}
    env.Engine(name, onnx, shapes=shapes or None, precision="mixed")
"""
# The same build by the raw API: the same options in the same order, and the shapes that `env.Engine` is
# given. If bytes differ, it runs again with other objects on the heap: some engines contain names and
# orders that derive from pointers.
RAW = """
import hashlib, json, sys
import tensorrt_rtx as trt

path, shapes, variation = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
errors = []

class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, message):
        if severity <= trt.ILogger.Severity.ERROR:
            errors.append(message)

class Monitor(trt.IProgressMonitor):
    def __init__(self):
        trt.IProgressMonitor.__init__(self)
    def phase_start(self, *rest):
        pass
    def phase_finish(self, *rest):
        pass
    def step_complete(self, *rest):
        return True

logger = Log()
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(path) or network.num_outputs == 0:
    print(json.dumps(["parser", ""]))
    sys.exit()
config = builder.create_builder_config()
config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 4096 << 20)
# No compute capability is set: rtx_portable is TensorRT for RTX's default target.
if shapes:
    profile = builder.create_optimization_profile()
    for name, bounds in sorted(shapes.items()):
        tensor = next(network.get_input(i) for i in range(network.num_inputs)
                      if network.get_input(i).name == name)
        if len(tensor.shape) <= 1 and tensor.is_shape_tensor:
            profile.set_shape_input(name, *bounds)
        else:
            profile.set_shape(name, *bounds)
    config.add_optimization_profile(profile)
if variation % 2:
    config.progress_monitor = monitor = Monitor()
junk = [bytes(size) for size in range(513, 513 + 1000 * (variation // 2), 7)]
plan = builder.build_serialized_network(network, config)
if plan is None:
    print(json.dumps(["builder", " ".join((errors or ["no reason"])[0].split())[:200]]))
else:
    print(json.dumps(["built", hashlib.sha256(bytes(plan)).hexdigest()]))
"""
INTEGERS = (6, 7)  # INT32, INT64


def models_of(data: Path) -> dict[str, Path]:
    """Every test model by a name that an engine can have."""
    found = {}
    for path in sorted(data.rglob("*.onnx")):
        parts = path.relative_to(data).with_suffix("").parts
        label = "_".join(part for part in parts if part != "model")
        name = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
        if len(name) > 64:
            name = f"{name[:55].strip('_')}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        assert name not in found, name
        found[name] = path
    return found


def shapes_of(path: Path) -> dict[str, list]:
    """A profile of the test data's shapes for what is dynamic, and the values of what may be a
    shape tensor."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    used = _shape_inputs(model)
    shapes = {}
    for number, each in enumerate(inputs):
        if each.type.WhichOneof("value") != "tensor_type":
            continue
        kind = each.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        data = path.parent / "test_data_set_0" / f"input_{number}.pb"
        if not data.exists():
            continue
        tensor = onnx.TensorProto.FromString(data.read_bytes())
        if each.name in used and kind.elem_type in INTEGERS and len(dims) <= 1 and -1 not in dims:
            values = np.atleast_1d(numpy_helper.to_array(tensor))
            shapes[each.name] = [[int(value) for value in values]] * 3
        elif -1 in dims or not kind.HasField("shape"):
            shapes[each.name] = [list(tensor.dims)] * 3
    return shapes


def _shape_inputs(model) -> set[str]:
    """Inputs that TensorRT takes for shape tensors, asked of its parser in a process of its own."""
    if not any(i.type.tensor_type.elem_type in INTEGERS for i in model.graph.input):
        return set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        script = (
            "import sys, json, tensorrt_rtx as trt\n"
            "logger = trt.Logger(trt.Logger.INTERNAL_ERROR)\n"
            "network = trt.Builder(logger).create_network(0)\n"
            "done = trt.OnnxParser(network, logger).parse_from_file(sys.argv[1])\n"
            "tensors = [network.get_input(i) for i in range(network.num_inputs)] if done else []\n"
            "print(json.dumps([t.name for t in tensors if len(t.shape) <= 1 and t.is_shape_tensor]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
    lines = done.stdout.strip().splitlines()
    return set(json.loads(lines[-1])) if done.returncode == 0 and lines else set()


def raw(path: Path, shapes: dict[str, list], variation: int = 0) -> list[str]:
    """What the raw API makes of a model: [built, sha256], [parser or builder, reason], [crash, why]."""
    command = [sys.executable, "-c", RAW, path.name, json.dumps(shapes), str(variation)]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        return ["crash", f"status {done.returncode}"]
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(work: Path, chosen: dict[str, Path], shapes: dict[str, dict], jobs: int) -> dict:
    """What `scons -k engines` makes of them all; the memory of SCons itself, MiB over time."""
    (work / "SConstruct").write_text(SCONSTRUCT)
    rows = [[name, str(path), shapes[name]] for name, path in chosen.items()]
    (work / "models.json").write_text(json.dumps(rows))
    environment = {**os.environ, "PYTHONPATH": str(REPO / "site_scons"), "TRT_HARDWARE": "rtx_portable"}
    environment["TRT_VERBOSE"] = "1"
    command = [sys.executable, "-m", "SCons", "-k", f"-j{jobs}", "engines"]
    memory, began = [], time.monotonic()
    with open(work / "scons.log", "w") as log:
        process = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=log)
        watch = threading.Thread(target=_watch, args=(process, memory), daemon=True)
        watch.start()
        status = process.wait()
    text = (work / "scons.log").read_text()
    assert "Traceback" not in text, "a traceback reached SCons: see scons.log"
    reasons = _reasons(work)
    outcomes = {}
    for line in text.splitlines():
        found = re.match(r"(BUILT|REUSED|FAILED) engines/(?:\w+/)?(\w+?)__\S+\.engine(.*)", line)
        if found:
            outcomes[found[2]] = _outcome(work, found[1], line, reasons.get(found[2], ""))
    return {
        "outcomes": outcomes,
        "memory": memory,
        "seconds": time.monotonic() - began,
        "status": status,
    }


def _reasons(work: Path) -> dict[str, str]:
    """Why each engine failed, by model: a line says it only for the first of a cause."""
    text = (work / ".trt" / "events.jsonl").read_text()
    events = [
        event for event in map(json.loads, text.splitlines()) if event["event"] == "engine.compile.error"
    ]
    return {event["model_name"]: event["reason_text"] for event in events}


def _outcome(work: Path, word: str, line: str, reason: str) -> list[str]:
    if word != "FAILED":
        engine = line.split()[1]
        return ["built", Path(f"{work / engine}.sha256").read_text()]
    if "the parser refused" in reason or "empty network" in reason:
        return ["parser", reason]
    if "the builder refused" in reason:
        return ["builder", reason]
    if "crashed" in reason:
        return ["crash", reason]
    return ["other", reason]


def _watch(process: subprocess.Popen, memory: list[float]) -> None:
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)
        except (OSError, TypeError):
            pass
        time.sleep(2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("sweep"))
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", type=Path)
    chosen = parser.parse_args()
    work = chosen.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    models = {n: p.absolute() for n, p in models_of(chosen.data).items() if chosen.only in n}
    known = work / "raw.json"
    raws = json.loads(known.read_text()) if known.exists() else {}
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        missing = [name for name in models if name not in raws]
        shapes = dict(zip(missing, pool.map(lambda name: shapes_of(models[name]), missing)))
        results = pool.map(lambda name: raw(models[name], shapes[name]), missing)
        for name, result in zip(missing, results):
            raws[name] = [shapes[name], *result]
    known.write_text(json.dumps(raws, indent=0))
    mine = ours(work, models, {name: raws[name][0] for name in models}, chosen.jobs)
    return report(models, raws, mine, chosen.table)


def report(models: dict[str, Path], raws: dict, mine: dict, table: Path | None) -> int:
    """Print, and write as Markdown, how the two compare."""
    different, unequal, unstable, dynamic = [], [], [], 0
    for name, path in models.items():
        shapes, kind, detail = raws[name]
        got = mine["outcomes"].get(name, ["none", "no line"])
        if got[0] != kind:
            different.append((name, kind, detail, got))
        elif kind == "built" and shapes:
            dynamic += 1
        elif kind == "built" and got[1] != detail:
            again = {raw(path, shapes, variation)[1] for variation in range(8)} | {detail}
            (unstable if len(again) > 1 else unequal).append(name)
    counts = Counter(raws[name][1] for name in models)
    memory = mine["memory"] or [0.0]
    middle = memory[len(memory) // 2 :]
    equal = counts["built"] - dynamic - len(unequal) - len(unstable)
    lines = [
        f"| models | {len(models)} |",
        "| --- | --- |",
        *(f"| raw API: {kind} | {count} |" for kind, count in counts.most_common()),
        f"| ours differs in outcome | {len(different)} |",
        f"| built with static shapes, bytes equal | {equal} |",
        f"| bytes differ, and so do the raw API's own with other things on the heap | {len(unstable)} |",
        f"| bytes differ otherwise | {len(unequal)} |",
        f"| built with a profile (bytes not compared) | {dynamic} |",
        f"| `scons -k engines` | {mine['seconds']:.0f} s, exit status {mine['status']} |",
        f"| memory of SCons | {memory[0]:.0f} MiB at first, {max(memory):.0f} MiB at most, "
        f"{max(middle) - min(middle):.0f} MiB of change in the second half |",
    ]
    if unstable:
        lines += [
            "",
            "Not repeated by the raw API itself: " + ", ".join(f"`{n}`" for n in unstable) + ".",
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    for name, kind, detail, got in different:
        print(f"DIFFERENT {name}: raw {kind} {detail}; ours {got}")
    for name in unequal:
        print(f"UNEQUAL {name}")
    if table:
        table.write_text(text)
    return 1 if different or unequal else 0


if __name__ == "__main__":
    sys.exit(main())
