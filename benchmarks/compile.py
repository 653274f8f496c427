"""A compile by `scons engines` against the same build by the raw API in a bare script.

python benchmarks/compile.py [rounds] [depth]
"""

import statistics
import sys
import tempfile
from pathlib import Path

from common import report, run, say, side_by_side

from conftest import Tree, make_model

RAW = """
import sys
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
assert parser.parse_from_file(sys.argv[1])
config = builder.create_builder_config()
config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 4096 << 20)
config.clear_flag(trt.BuilderFlag.TF32)
plan = builder.build_serialized_network(network, config)
open(sys.argv[2], "wb").write(plan)
"""


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    depth = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    with tempfile.TemporaryDirectory() as name:
        tree = Tree(Path(name) / "tree")
        model = make_model(tree.path("models/a.onnx"), shape=(1, 8, 64, 64), depth=depth, width=256)
        tree.write('env.Engine("a", "models/a.onnx")')
        script = tree.path("raw.py")
        script.write_text(RAW)

        def ours():
            tree.scons("-c", "engines")
            return run(tree.command("engines"), tree.root, tree.env())

        def raw():
            return run([sys.executable, str(script), str(model), str(tree.path("raw.engine"))], tree.root)

        a, b = side_by_side(ours, raw, rounds)
        size = tree.path("raw.engine").stat().st_size
        say(f"model {model.stat().st_size / 2**20:.0f} MiB, engine {size / 2**20:.0f} MiB")
        report(f"scons engines of {depth} layers / raw API", a, b, "wall")
        beyond = statistics.median(x.wall - 1.05 * y.wall for x, y in zip(a, b))
        say(f"wall beyond 1.05 x raw: median {beyond:.3f} s (bound 0.5 s)")
        report(f"scons engines of {depth} layers / raw API", a, b, "peak", 1.05)


if __name__ == "__main__":
    main()
