"""A cache hit of one engine, the whole `scons engines`, against an empty SConstruct.

python benchmarks/cache_hit.py [rounds] [bytes; default: 200 MB]
"""

import statistics
import sys

from common import percentile, report, run, say, side_by_side, workplace

from conftest import Tree, fake_compiler, make_model

BOUNDS = {"stat": 0.7, "full": 1.2}  # seconds, of an engine of 200 MB
ACT = """
data = plan(job)
data = data[:16] + ({0}).to_bytes(8, "little") + data[24:] + os.urandom({0} - len(data))
done(write(data))
"""


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 200_000_000
    with workplace() as folder:
        tree, empty = Tree(folder / "tree"), Tree(folder / "empty")
        empty.write("", header="DefaultEnvironment(tools=[])\nenv = Environment(tools=[])\n")
        make_model(tree.path("models/a.onnx"))
        python = fake_compiler(folder / "fake", ACT.format(size), "tensorrt_rtx", "1.7.1.116")
        tree.environment["TRT_PYTHON"] = str(python)
        tree.write('env.Engine("a", "models/a.onnx")')
        for _ in range(3):
            run(tree.command("engines"), tree.root, tree.env())
        for verify, bound in BOUNDS.items():
            command = tree.command("engines", f"VERIFY={verify}")
            a, b = side_by_side(
                lambda command=command: run(command, tree.root, tree.env()),
                lambda: run(empty.command("."), empty.root, empty.env()),
                rounds,
            )
            title = f"cache hit of {size / 1e6:.0f} MB, VERIFY={verify}"
            report(f"{title} / empty SConstruct", a, b, "wall")
            walls = [cost.wall for cost in a]
            promise = f" (bound {bound} s)" if size <= 200_000_000 else ""
            p50, p99 = statistics.median(walls), percentile(walls, 0.99)
            say(f"{title}: p50 {p50:.3f} s, p99 {p99:.3f} s of {rounds}{promise}")


if __name__ == "__main__":
    main()
