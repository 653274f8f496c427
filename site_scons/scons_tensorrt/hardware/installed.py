"""Find the TensorRT of an interpreter from folder names, without importing it.

Also runs standalone in another interpreter (`python -c`), so it imports nothing from this package and
prints JSON.
"""

import json
import os
import re
import sys

_DIST = re.compile(r"(tensorrt(?:_rtx)?)(?:_cu(\d+))?(_bindings|_libs)?-([0-9.]+)\.(?:dist|egg)-info")


def installed(path: list) -> dict:
    """{product: {"version", "cuda", "folder"}} for the folders of `path`; the first match wins.

    version: of the distribution; cuda: "13.0" for a distribution named ..._cu13 (wheels name the major
    version only, within which CUDA keeps its ABI), else None; folder: the entry of `path`.
    """
    found = {}
    for folder in path:
        for product in ("tensorrt", "tensorrt_rtx"):
            if product in found or not os.path.lexists(os.path.join(folder or ".", product)):
                continue
            try:
                names = [name for name in os.listdir(folder or ".") if name.startswith(product)]
            except OSError:
                continue
            dists = [m for m in map(_DIST.fullmatch, names) if m and m[1] == product]
            versions = sorted((m[2] is not None, m[3] or "", m[4]) for m in dists)
            if versions:
                cuda = next((m[2] for m in dists if m[2]), None)
                found[product] = {
                    "version": versions[0][2],
                    "cuda": cuda and cuda + ".0",
                    "folder": os.path.abspath(folder or "."),
                }
    return found


def answer() -> dict:
    """Describe this interpreter. os, machine: as its programs see them, which an emulator such as QEMU's user
    mode decides."""
    path = sys.path[1:] if sys.path[:1] == [""] else sys.path  # `-c` puts the working folder first
    folders = [os.path.abspath(folder or ".") for folder in path if os.path.isdir(folder or ".")]
    return {
        "python": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable,
        "os": os.uname().sysname.lower(),
        "machine": os.uname().machine,
        "path": folders,
        "products": installed(path),
    }


if __name__ == "__main__":
    print(json.dumps(answer()))
