"""What the commands cost in a tree of many engines, and how the cost grows with their number.

    python benchmarks/bulk.py [--engines 1000 5000 10000] [--size BYTES] [--rounds N] [--in DIR] [--only WORD]
    python benchmarks/bulk.py --calls [--engines 1000]

One engine is compiled. The package's own code publishes the others: the header of that plan and bytes of
their own, under the key of a network of their own, with the receipt of the engine that was compiled. --in
keeps the trees for the next run. --calls counts system calls for each engine (strace).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common import REPO, Cost, report, run

sys.path[:0] = [str(REPO / "site_scons")]

from conftest import Tree, make_model  # noqa: E402
from scons_tensorrt.artifact.publish import Publication  # noqa: E402
from scons_tensorrt.artifact.receipt import Receipt  # noqa: E402
from scons_tensorrt.build.declared_engines import DeclaredEngine, declarations  # noqa: E402
from scons_tensorrt.build.engine_spec import made_from  # noqa: E402

SCONSTRUCT = """
card = dict(
    license="Apache-2.0",
    supplier="Example GmbH <models@example.com>",
    version="1",
    url="https://example.com/models",
    copyright="2026 Example GmbH",
    intended_use="a benchmark",
    training_data="random numbers",
)
made = [env.Engine(f"m{{i:05}}", f"models/m{{i:05}}.onnx", model_card=card) for i in range({count})]
manifest = env.EngineManifest("dist/manifest.json", made)
env.InstallEngines(Dir("installed").abspath, made, manifest=manifest)
"""
COMMANDS = {
    "null build": ["-m", "SCons", "-s", "engines"],
    "status": ["status"],
    "status --full": ["status", "--full"],
    "verify": ["verify", "engines"],
    "verify --manifest": ["verify", "--manifest", "installed/manifest.json"],
    "explain": ["explain", "m00007"],
    "query dependents": ["query", "dependents", "models/m00007.onnx"],
    "query diff": ["query", "diff", "m00007", "m00008"],
    "query what-if": ["query", "what-if", "--runtime", "rtx1.8"],
    "bom --check": ["bom", "--check", "dist/manifest.json"],
    "report": ["report"],
    "prune": ["prune"],
}
ENVIRONMENT = {"TRT_VERBOSE": "", "SOURCE_DATE_EPOCH": "1764374400"}
CALLS = ("fsync", "openat", "newfstatat", "read", "write", "rename", "unlink", "mkdir", "getdents64")
_COUNT = re.compile(r"^ *(\d+) (\w+)$", re.MULTILINE)


def prepare(root: Path, count: int, size: int | None) -> Tree:
    """A tree of `count` engines that are up to date, with manifest, bills of materials and installation.
    size: of all but the first, in bytes."""
    if (root / "ready").exists():
        return Tree.at(root, ENVIRONMENT)
    shutil.rmtree(root, ignore_errors=True)
    tree = Tree(root)
    tree.environment.update(ENVIRONMENT)
    networks(tree, count)
    tree.write(SCONSTRUCT.format(count=count))
    for targets in (["m00000"], None, ["engines", "dist", "install"]):
        if targets is None:
            publish(tree, size)
        else:
            run([*tree.command("-s"), *targets], root, tree.env())
    (root / "ready").touch()
    return tree


def networks(tree: Tree, count: int) -> None:
    """`count` networks, which differ in one weight."""
    first = make_model(tree.path("models/m00000.onnx")).read_bytes()
    weight = first.rindex(b"w2J\x80\x01") + 5
    for number in range(1, count):
        data = first[:weight] + number.to_bytes(4, "little") + first[weight + 4 :]
        tree.path(f"models/m{number:05}.onnx").write_bytes(data)


def publish(tree: Tree, size: int | None) -> None:
    """Publish every declared engine but the one that was compiled. Their logs and locks are copies."""
    (declaration,) = declarations(tree.path(".trt"))
    first, *others = declaration.engines
    state = declaration.state
    (built,) = state.receipts.of_file(first.path.name)
    plan = first.path.read_bytes()
    os.fsync = lambda descriptor: None  # the tree need not survive a power cut
    for number, engine in enumerate(others, 1):
        data = plan[:size] + number.to_bytes(8, "little")
        data = data[:16] + len(data).to_bytes(8, "little") + data[24:]
        receipt = receipt_of(engine, built, data)
        publication = Publication(state, engine.path, receipt.key)
        publication.open().write_bytes(data)
        publication.commit(receipt, state.receipts)
        publication.finish()
        for path in (state.lock, state.log):
            shutil.copyfile(path(first.path), path(engine.path))
        shutil.copyfile(
            state.lock(first.path).with_suffix(".holder"), state.lock(engine.path).with_suffix(".holder")
        )


def receipt_of(engine: DeclaredEngine, built: Receipt, data: bytes) -> Receipt:
    import hashlib

    spec, state = engine.spec(), engine.declaration.state
    details = {**built.details, **made_from(spec, state), "log": state.relative(state.log(engine.path))}
    digest = hashlib.sha256(data).hexdigest()
    return Receipt(spec.filename, spec.key, digest, len(data), spec.ingredients, details)


def command_of(name: str) -> list[str]:
    program = [sys.executable] if name == "null build" else [sys.executable, "-m", "scons_tensorrt"]
    return [*program, *COMMANDS[name]]


def once(tree: Tree, name: str) -> Cost:
    return run(command_of(name), tree.root, tree.env())


def calls(tree: Tree, name: str, count: int) -> None:
    """Print how many system calls a command makes for each engine."""
    with tempfile.NamedTemporaryFile("r") as table:
        command = ["strace", "-f", "-c", "-U", "calls,name", "-o", table.name, *command_of(name)]
        subprocess.run(command, cwd=tree.root, env=tree.env(), stdout=subprocess.DEVNULL, check=True)
        found = Counter({each: int(number) for number, each in _COUNT.findall(table.read())})
    shown = {each: found[each] / count for each in CALLS}
    print(f"{name}: " + ", ".join(f"{each} {number:.2f}" for each, number in shown.items() if number >= 0.01))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[1000, 5000, 10_000])
    parser.add_argument("--size", type=int, help="bytes of an engine (default: 2,000)", default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in", dest="folder", type=Path, help="folder of the trees, which stay")
    parser.add_argument("--only", help="commands with this word")
    parser.add_argument("--calls", action="store_true", help="count system calls")
    chosen = parser.parse_args()
    names = [name for name in COMMANDS if not chosen.only or chosen.only in name]
    with tempfile.TemporaryDirectory(prefix="bulk-") as temporary:
        folder = chosen.folder or Path(temporary)
        trees = {n: prepare(folder / f"{n}x{chosen.size}", n, chosen.size) for n in chosen.engines}
        for name in names:
            if chosen.calls:
                calls(trees[chosen.engines[0]], name, chosen.engines[0])
            else:
                measure(name, trees, chosen.rounds)


def measure(name: str, trees: dict[int, Tree], rounds: int) -> None:
    """Compare the cost for each number of engines with that for the first, times their ratio."""
    costs = {count: [once(tree, name) for _ in range(rounds)] for count, tree in trees.items()}
    (least, base), *_ = costs.items()
    for count, these in costs.items():
        for field in ("cpu", "wall", "peak"):
            times = count / least
            scaled = [Cost(each.wall * times, each.cpu * times, each.peak) for each in base]
            report(f"{name}, {count} engines / {times:g} x {least}", these, scaled, field)


if __name__ == "__main__":
    main()
