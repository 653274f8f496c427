"""1,000 engine pairs against 1,000 plain env.Command pairs, null build: CPU time.

The engines are made by a stand-in for the compiler: what is measured is the graph.

    python benchmarks/thousand.py [rounds] [pairs]
"""

import sys
import tempfile
from pathlib import Path

from common import report, run, side_by_side

from conftest import Tree, fake_compiler, make_model

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
with tempfile.TemporaryDirectory() as name:
    engines, plain = Tree(Path(name) / "engines"), Tree(Path(name) / "plain")
    for tree in (engines, plain):
        for number in range(pairs):
            make_model(tree.path(f"models/m{number}.onnx"), seed=number)
    engines.environment["TRT_PYTHON"] = str(
        fake_compiler(Path(name) / "fake", product="tensorrt_rtx", version="1.7.1.116")
    )
    engines.write(f'for i in range({pairs}): env.Engine(f"m{{i}}", f"models/m{{i}}.onnx")')
    plain.write(
        f"""
        sidecars = []
        for i in range({pairs}):
            pair = [f"out/m{{i}}.engine", f"out/m{{i}}.engine.sha256"]
            copy = "cp $SOURCE $TARGET && cp $SOURCE ${{TARGETS[1]}}"
            made = env.Command(pair, f"models/m{{i}}.onnx", copy)
            sidecars.append(made[1])
        env.Alias("engines", sidecars)
        """,
        header="DefaultEnvironment(tools=[])\nenv = Environment(tools=[])\n",
    )

    def once(tree: Tree):
        return run(tree.command("engines"), tree.root, tree.env())

    for _ in range(3):
        once(engines)
        once(plain)
    a, b = side_by_side(lambda: once(engines), lambda: once(plain), rounds)
    report(f"{pairs} engine pairs / plain pairs", a, b, "cpu", 1.1)
    report(f"{pairs} engine pairs / plain pairs", a, b, "wall")
    report(f"{pairs} engine pairs / plain pairs", a, b, "peak")
