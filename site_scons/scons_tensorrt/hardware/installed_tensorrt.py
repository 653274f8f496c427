"""Find the TensorRT of an interpreter from folder names, without importing it.

Also runs standalone in another interpreter (`python -c`), so it imports nothing from this package and
prints JSON.
"""

import json
import os
import sys

_ENDS = (".dist-info", ".egg-info")


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
            dists = sorted(filter(None, (_distribution(name, product) for name in names)))
            if dists:
                cuda = next((cuda for cuda, _, _ in dists if cuda), None)
                found[product] = {
                    "version": dists[0][2],
                    "cuda": cuda and cuda + ".0",
                    "folder": os.path.abspath(folder or "."),
                }
    return found


def _distribution(name: str, product: str):
    """(cuda, part, version) of a folder such as tensorrt_cu12_bindings-10.13.3.dist-info: ("12", "_bindings",
    "10.13.3"), "" for no cuda or part; None for another. No regex: compiling one costs a null build more."""
    if not name.endswith(_ENDS):
        return None
    project, dash, version = name.rpartition(".")[0].partition("-")
    rest, part = project[len(product) :], ""
    for known in ("_bindings", "_libs"):
        if rest.endswith(known):
            rest, part = rest[: -len(known)], known
    cuda = rest[3:] if rest.startswith("_cu") else ""
    if not dash or (rest and not cuda.isdigit()) or not version or version.strip("0123456789."):
        return None
    return cuda, part, version


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
