"""Trees that benchmarks build: engines by a stand-in for the compiler, and as many plain commands."""

from __future__ import annotations

import hashlib
from pathlib import Path

from common import Cost, count, run

from conftest import Tree, fake_compiler, hardware, make_model
from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.receipt import Receipt, ReceiptFolder

PLAIN = "DefaultEnvironment(tools=[])\nenv = Environment(tools=[])\n"


def engines(folder: Path, number: int, kinds: int = 0) -> Tree:
    """`number` models, and an engine declared of each for each of `kinds` kinds of hardware with a name;
    0: for the default hardware."""
    tree = _models(folder / "engines", number)
    product, version = ("tensorrt", "10.3.0.30") if kinds else ("tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(fake_compiler(folder / "fake", product=product, version=version))
    for kind in range(kinds):
        hardware(tree.path(f"hardware/board{kind}.json"), sm_count=8 + kind, recorded=None)
    declare(tree, number, kinds)
    return tree


def declare(tree: Tree, number: int, kinds: int = 0) -> None:
    """Write the SConstruct."""
    more = f", hardware={[f'board{kind}' for kind in range(kinds)]}" if kinds else ""
    tree.write(f'for i in range({number}): env.Engine(f"m{{i}}", f"models/m{{i}}.onnx"{more})')


def fill(tree: Tree, number: int, kinds: int = 0) -> None:
    """Compile the engines of the first model, and write the others with receipts of their own, as compiles
    would have left them: the next run reuses them all, or it compiles."""
    declare(tree, 1, kinds)
    build(tree)
    receipts = ReceiptFolder(tree.path(".trt/receipts"))
    for first in sorted(tree.path("engines").rglob("m0__*.engine")):
        stated = first.with_name(first.name + ".sha256").read_text()
        own = next(receipt for receipt in receipts.of_file(first.name) if receipt.sha256 == stated)
        for each in range(1, number):
            model = hashlib.sha256(tree.path(f"models/m{each}.onnx").read_bytes())
            plan = first.read_bytes()
            plan = (
                plan[:64] + model.digest() * 64 + plan[64 + 64 * 32 :]
            )  # as support/fake_compiler.py writes it
            digest, name = hashlib.sha256(plan).hexdigest(), first.name.replace("m0__", f"m{each}__")
            ingredients = {**own.ingredients, "input onnx": model.hexdigest()}
            key = make_key(name, ingredients)
            receipt = Receipt(name, key, digest, len(plan), ingredients, own.details)
            first.with_name(name).write_bytes(plan)
            first.with_name(name + ".sha256").write_text(digest)
            place = receipts.path(receipt)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(receipt.dump())  # not made to survive a power cut
    declare(tree, number, kinds)


def commands(folder: Path, number: int, kinds: int = 1) -> Tree:
    """`number` models, and `kinds` plain commands for each that make as many files as an engine has."""
    tree = _models(folder / "commands", number)
    tree.write(
        f"""
        sidecars = []
        for i in range({number}):
            for kind in range({kinds}):
                pair = [f"out/{{kind}}/m{{i}}.engine", f"out/{{kind}}/m{{i}}.engine.sha256"]
                copy = "cp $SOURCE $TARGET && cp $SOURCE ${{TARGETS[1]}}"
                made = env.Command(pair, f"models/m{{i}}.onnx", copy)
                sidecars.append(made[1])
        env.Alias("engines", sidecars)
        """,
        header=PLAIN,
    )
    return tree


def _models(root: Path, number: int) -> Tree:
    tree = Tree(root)
    for each in range(number):
        make_model(tree.path(f"models/m{each}.onnx"), seed=each)
    return tree


def change(tree: Tree, seed: int) -> None:
    """Another first model."""
    make_model(tree.path("models/m0.onnx"), seed=seed)


def build(tree: Tree, *arguments: str) -> Cost:
    return run(tree.command("engines", *arguments), tree.root, tree.env())


def count_build(tree: Tree) -> Cost:
    return count(tree.command("engines"), tree.root, tree.env())
