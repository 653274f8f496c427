"""A cache hit of one engine, the whole `scons engines`: p50 and p99.

python benchmarks/cache_hit.py [rounds] [bytes; default: 200 MB]
"""

import statistics
import sys
import tempfile
from pathlib import Path

from common import percentile, run

from conftest import Tree, fake_compiler, make_model

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
SIZE = int(sys.argv[2]) if len(sys.argv) > 2 else 200_000_000
ACT = f"""
data = plan(job)
data = data[:16] + ({SIZE}).to_bytes(8, "little") + data[24:] + os.urandom({SIZE} - len(data))
done(write(data))
"""
with tempfile.TemporaryDirectory() as name:
    tree = Tree(Path(name) / "tree")
    make_model(tree.path("models/a.onnx"))
    python = fake_compiler(Path(name) / "fake", ACT, "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(python)
    tree.write('env.Engine("a", "models/a.onnx")')
    for _ in range(3):
        run(tree.command("engines"), tree.root, tree.env())
    for verify, bound in (("stat", 0.7), ("full", 1.2)):
        walls = [
            run(tree.command("engines", f"VERIFY={verify}"), tree.root, tree.env()).wall
            for _ in range(rounds)
        ]
        print(
            f"{SIZE / 1e6:.0f} MB, VERIFY={verify}: p50 {statistics.median(walls):.3f} s, p99 "
            f"{percentile(walls, 0.99):.3f} s of {rounds}"
            + (f" (bound {bound} s)" if SIZE <= 200_000_000 else "")
        )
