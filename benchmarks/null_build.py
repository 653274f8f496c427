"""A null build of this repo's own engines against an empty SConstruct: wall time.

python benchmarks/null_build.py [rounds]
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import REPO, report, run, side_by_side

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 41
with tempfile.TemporaryDirectory() as name:
    top = Path(name)
    clone, empty = top / "clone", top / "empty"
    subprocess.run(["git", "clone", "-q", REPO, clone], check=True)
    empty.mkdir()
    (empty / "SConstruct").write_text("DefaultEnvironment(tools=[])\nenv = Environment(tools=[])\n")
    scons = [sys.executable, "-m", "SCons"]
    for _ in range(3):
        run([*scons, "engines"], clone)
    a, b = side_by_side(
        lambda: run([*scons, "engines"], clone), lambda: run([*scons, "."], empty), rounds
    )
    report("null build of nine engines and ten steps / empty SConstruct", a, b, "wall", 1.15)
    report("null build of nine engines and ten steps / empty SConstruct", a, b, "cpu")
    shutil.rmtree(clone)
