"""A first build of this repo's engines against the same by another commit.

Both are measured with and without the corners of the accuracy gates.

python benchmarks/first_build.py [rounds] [jobs] [commit]
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import REPO, Cost, report, run, say, side_by_side

STATE = (".trt", "engines", "dist", "share")


def source(place: Path, commit: str) -> Path:
    """The files of a commit; of the working tree for ""."""
    place.mkdir()
    if commit:
        archive = subprocess.run(["git", "archive", commit], cwd=REPO, check=True, capture_output=True)
        subprocess.run(["tar", "x"], cwd=place, check=True, input=archive.stdout)
    else:
        for name in ("site_scons", "models", "SConstruct"):
            copy = shutil.copytree if (REPO / name).is_dir() else shutil.copy
            copy(REPO / name, place / name)
    return place


def without_corners(place: Path) -> None:
    script = place / "models" / "SConscript"
    text = script.read_text()
    for gate in ("gate = {", "accuracy={"):
        assert text.count(gate) == 1
        text = text.replace(gate, gate + '"corners": False, ')
    script.write_text(text)


def first_build(place: Path, jobs: int) -> Cost:
    for name in STATE:
        shutil.rmtree(place / name, ignore_errors=True)
    (place / ".sconsign.dblite").unlink(missing_ok=True)
    command = [sys.executable, "-m", "SCons", "engines", f"-j{jobs}", "HARDWARE=rtx_portable"]
    return run(command, place)


def steps_of(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.glob(".trt/onnx/*"))}


def compare(folder: Path, rounds: int, jobs: int, commit: str, corners: bool) -> None:
    ours, theirs = source(folder / "ours", ""), source(folder / "theirs", commit)
    for place in () if corners else (ours, theirs):
        without_corners(place)
    a, b = side_by_side(lambda: first_build(ours, jobs), lambda: first_build(theirs, jobs), rounds)
    say(f"now beside {commit}")
    title = f"first build, -j{jobs}, {'with' if corners else 'without'} corners / by another commit"
    for field in ("wall", "cpu", "peak"):
        report(title, a, b, field, 0.75 if field == "wall" else None)
    same = steps_of(ours) == steps_of(theirs)
    say(f"files of the {len(steps_of(ours))} steps: {'the same' if same else 'OTHERS'}")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    jobs = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    commit = sys.argv[3] if len(sys.argv) > 3 else "HEAD~1"
    for corners in (True, False):
        with tempfile.TemporaryDirectory() as name:
            compare(Path(name), rounds, jobs, commit, corners)


if __name__ == "__main__":
    main()
