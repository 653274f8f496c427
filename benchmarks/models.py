"""Every engine that this tree declares, beside the raw API's compile of the same ONNX: a table.

    python benchmarks/models.py [--table docs/models.md]

Builds what is not built (`scons engines`), then reads the receipts: seconds and peak memory of
the worker that compiled, the engine's bytes, the figures of the accuracy gates. The raw compile is
one run in a bare script, now; the ONNX is the one that was compiled, converted or not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from common import REPO, run

RAW = """
import json, sys
import tensorrt_rtx as trt
path, recipe, architectures = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
assert parser.parse_from_file(path)
config = builder.create_builder_config()
config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe["workspace_mb"] << 20)
if recipe["precision"] == "fp32":
    config.clear_flag(trt.BuilderFlag.TF32)
config.num_compute_capabilities = len(architectures)
for index, sm in enumerate(architectures):
    config.set_compute_capability(getattr(trt.ComputeCapability, "SM%d" % sm), index)
for wanted in recipe["profiles"]:
    profile = builder.create_optimization_profile()
    for name, bounds in wanted.items():
        profile.set_shape(name, *bounds)
    config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
open(sys.argv[4], "wb").write(plan)
"""


def rows() -> list[list[str]]:
    state, found = REPO / ".trt", []
    for item in json.loads((state / "declared.json").read_text())["engines"]:
        engine = REPO / item["engine"]
        digest = Path(f"{engine}.sha256").read_text()
        folder = state / "receipts" / engine.name.removesuffix(".engine")
        receipts = (json.loads(path.read_text()) for path in folder.glob("*.json"))
        receipt = next(each for each in receipts if each["sha256"] == digest)
        onnx = (REPO / item["onnx"]).resolve()
        signature = receipt["hardware"]["signature"]
        out = REPO / ".trt" / "raw.engine"
        sms = json.dumps(signature["architectures"])
        command = [sys.executable, "-c", RAW, str(onnx), json.dumps(receipt["recipe"]), sms, str(out)]
        raw = run(command, REPO)
        found.append(
            [
                f"`{item['name']}`",
                receipt["recipe"]["precision"],
                _mib(_bytes_of(onnx)),
                _mib(receipt["size"]),
                _mib(out.stat().st_size),
                f"{receipt['duration_s']:.1f}",
                f"{raw.wall:.1f}",
                _mib(receipt["peak_memory_bytes"]),
                _mib(raw.peak),
                _accuracy(receipt),
            ]
        )
        out.unlink()
    return found


def _bytes_of(onnx: Path) -> int:
    data = onnx.with_name(onnx.name + ".data")
    return onnx.stat().st_size + (data.stat().st_size if data.exists() else 0)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _accuracy(receipt: dict) -> str:
    figures = receipt.get("accuracy", {}).get("onnx")
    if not isinstance(figures, dict):
        return "unchanged"
    told = (
        f"{name}: max {each['max_abs']:.2g}, mean {each['mean_abs']:.2g}, cosine {each['cosine']:.5f}"
        for name, each in sorted(figures["outputs"].items())
    )
    return "; ".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, help="where to write the table, as Markdown")
    parser.add_argument("--arguments", default="", help="of scons, such as CORPUS=backbones")
    chosen = parser.parse_args()
    environment = {**os.environ, "TRT_HARDWARE": "rtx_portable"}
    command = [sys.executable, "-m", "SCons", "-k", *chosen.arguments.split(), "engines"]
    subprocess.run(command, cwd=REPO, env=environment, check=False)
    head = ["model", "precision", "ONNX", "engine", "raw engine", "compile", "raw compile"]
    head += ["peak memory", "raw peak", "converted against original, worst sample"]
    units = ["", "", "MiB", "MiB", "MiB", "s", "s", "MiB", "MiB", ""]
    titles = [f"{name}, {unit}" if unit else name for name, unit in zip(head, units)]
    lines = ["| " + " | ".join(each) + " |" for each in (titles, ["---"] * len(head), *rows())]
    print("\n".join(lines))
    if chosen.table:
        chosen.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
