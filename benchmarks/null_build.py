"""A null build of this repo's own engines against an empty SConstruct: wall time. Beside it, the
same graph of plain `env.Command`s, with the manifest and the installed copies: what SCons itself needs.

python benchmarks/null_build.py [rounds]
"""

import functools
import json
import subprocess
import sys
from pathlib import Path

from common import REPO, count, report, run, side_by_side, workplace
from trees import PLAIN as EMPTY

OURS = "null build of nine engines and ten steps"
# As many nodes and dependencies as ours; what is unchanged by its stat is not read again.
PLAIN = """
import json
DefaultEnvironment(tools=[])
env = Environment(tools=[])
env.Decider("content-timestamp")
engines = []
touch = Action(lambda target, source, env: [open(str(t), "w").close() for t in target] and None, None)
told = json.load(open("declared.json"))
def values(each):
    return [env.Value(f"{name}={text}") for name, text in each["ingredients"].items()]
def place(path):
    return path if path.startswith("/") else "#" + path
for step in told["steps"]:
    files = [onnx["path"] for onnx in step["onnx"].values()]
    files += (step["samples"] or {}).get("files", [])
    env.Depends(env.Command(place(step["step"]), list(map(place, files)), touch), values(step))
for engine in told["engines"]:
    pair = [place(engine["engine"]), place(engine["engine"] + ".sha256")]
    made = env.Command(pair, place(engine["onnx"]), touch)
    gates = [place(engine["gate"])] if "gate" in engine else []
    env.Depends(made, values(engine) + gates)
    env.Alias("engines", made)
    engines.append(made)
manifest = ["dist/manifest.json", "dist/manifest.json.sha256", "dist/SHA256SUMS"]
bills = env.Command([f"{manifest[0]}.{kind}.json" for kind in ("cdx", "spdx")], engines, touch)
copies = [[*env.Command(manifest, engines, touch), *bills], *engines]
for files in copies:
    installed = [f"build/install/share/engines/{node.name}" for node in files]
    env.Alias("install", env.Command(installed, files, touch))
"""


def plain_graph(clone: Path, folder: Path) -> None:
    """The graph that `clone` declared, of plain commands, in `folder`."""
    told = json.loads((clone / ".trt" / "declared.json").read_text())
    for step in told["steps"]:
        onnx, samples = step["onnx"].values(), step["samples"]
        for each in onnx:
            if not each["path"].startswith(".trt"):
                each["path"] = str((clone / each["path"]).resolve())
        if samples:
            samples["files"] = [str((clone / name).resolve()) for name in samples["files"]]
    for engine in told["engines"]:
        if not engine["onnx"].startswith(".trt"):
            engine["onnx"] = str((clone / engine["onnx"]).resolve())
    folder.mkdir()
    (folder / "declared.json").write_text(json.dumps(told))
    (folder / "SConstruct").write_text(PLAIN)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 41
    scons = [sys.executable, "-m", "SCons"]
    with workplace() as top:
        clone, empty, plain = top / "clone", top / "empty", top / "plain"
        subprocess.run(["git", "clone", "-q", REPO, clone], check=True)
        empty.mkdir()
        (empty / "SConstruct").write_text(EMPTY)
        for _ in range(3):
            run([*scons, "engines"], clone)
        plain_graph(clone, plain)
        for _ in range(3):
            run([*scons, "engines"], plain)
        nothing = functools.partial(run, [*scons, "."], empty)
        a, b = side_by_side(lambda: run([*scons, "engines"], clone), nothing, rounds)
        report(f"{OURS} / empty SConstruct", a, b, "wall", 1.15)
        report(f"{OURS} / empty SConstruct", a, b, "cpu")
        a, b = side_by_side(lambda: run([*scons, "engines"], plain), nothing, rounds)
        report("the same graph of plain commands / empty SConstruct", a, b, "wall")
        commands = count([*scons, "engines"], plain)
        mine = count([*scons, "engines"], clone)
        report(f"{OURS} / the same graph of plain commands", [mine], [commands], "instructions")


if __name__ == "__main__":
    main()
