"""Trees that benchmarks build: engines by a stand-in for the compiler, and as many plain commands."""

from __future__ import annotations

from pathlib import Path

from common import Cost, count, run

from conftest import Tree, fake_compiler, make_model

PLAIN = "DefaultEnvironment(tools=[])\nenv = Environment(tools=[])\n"


def engines(folder: Path, number: int) -> Tree:
    """`number` models, and an engine declared of each."""
    tree = _models(folder / "engines", number)
    python = fake_compiler(folder / "fake", product="tensorrt_rtx", version="1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(python)
    tree.write(f'for i in range({number}): env.Engine(f"m{{i}}", f"models/m{{i}}.onnx")')
    return tree


def commands(folder: Path, number: int) -> Tree:
    """`number` models, and a plain command for each that makes as many files as an engine has."""
    tree = _models(folder / "commands", number)
    tree.write(
        f"""
        sidecars = []
        for i in range({number}):
            pair = [f"out/m{{i}}.engine", f"out/m{{i}}.engine.sha256"]
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
