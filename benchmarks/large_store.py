"""What maintenance of a large shared engine cache costs: CPU, wall, memory, and requests.

    python benchmarks/large_store.py [--entries 12500 125000] [--rounds N] [--in DIR]

A folder of signed entries, each with a sparse file of 40 MB as its data: 125,000 make 5 TB and take 1 GB.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from common import REPO, Cost, report, run

sys.path[:0] = [str(REPO / "site_scons")]

from conftest import Tree  # noqa: E402
from scons_tensorrt.artifact.receipt import make_key  # noqa: E402
from scons_tensorrt.cache.entry import ENGINE, CacheEntry, blob_path, sign_entry  # noqa: E402
from scons_tensorrt.files.signing_keys import load_signing_key  # noqa: E402

SIZE = 40_000_000  # bytes of an engine
DAY_S = 86400
DAYS = 105  # over which the entries were written
JOBS = {
    "gc --older": ["gc", "--older", "90", "--dry-run"],
    "gc --most": ["gc", "--most", "{half}", "--dry-run"],
    "verify --quick": ["verify", "--quick"],
    "stats": ["stats"],
}


def fill(folder: Path, entries: int, key: Path) -> None:
    """Write the entries of `entries` engines, as 1,000 engines for 20 boards change."""
    signing = load_signing_key(str(key))
    for name in ("ac", "cas", "no"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    newest = (folder / "ac").stat().st_mtime
    for number in range(entries):
        entry = entry_of(number)
        data, place = folder / blob_path(entry.sha256), folder / entry.path
        with open(data, "wb") as out:
            out.truncate(SIZE)
        place.write_bytes(sign_entry(entry, signing))
        written = newest - DAYS * DAY_S * number / entries
        for path in (data, place):
            os.utime(path, (written, written))


def entry_of(number: int) -> CacheEntry:
    """The entry of an engine: as large as one of a real build."""
    model, board = number % 1000, number // 1000 % 20
    name = f"model{model}__sm{80 + board}_jp6.2_trt10.3_fp16.engine"
    ingredients = {
        "recipe version": "1",
        "hardware product": "tensorrt",
        "hardware runtime_version": "10.3.0.30",
        "hardware compute_capability": "8.7",
        "hardware gpu_name": "Orin",
        "hardware sm_count": "8",
        "hardware memory_gib": "16",
        "option precision": "fp16",
        "option workspace_mb": "4096",
        "input onnx": f"{number:064x}",
    }
    recipe = {"precision": "fp16", "profiles": [{"x": [[1, 3, 224, 224]] * 3}], "workspace_mb": 4096}
    details = {
        "duration_s": 61.5,
        "started": "2026-11-25T03:00:00Z",
        "recipe": recipe,
        "inputs": [{"role": "onnx", "name": f"models/model{model}.onnx", "sha256": f"{number:064x}"}],
        "worker": {"machine": "aarch64", "python": "3.10.12", "tensorrt": "10.3.0"},
        "peak_memory_bytes": 200_000_000 + number,
        "reproducible": True,
        "log": f"logs/{name}.0123456789abcdef.log",
    }
    key = make_key(name, ingredients)
    return CacheEntry(ENGINE, key, name, ingredients, f"{number:064x}", SIZE, details=details)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[12_500, 125_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--in", dest="folder", type=Path, help="folder of the stores, which stay")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-store-") as temporary:
        folder = chosen.folder or Path(temporary)
        key = folder / "keys/team.pem"
        if not key.exists():
            run([sys.executable, "-m", "scons_tensorrt", "keygen", str(key)], REPO, environment())
        for entries in chosen.entries:
            if not (folder / f"{entries}").exists():
                fill(folder / f"{entries}", entries, key)
        for name, job in JOBS.items():
            measure(name, job, folder, chosen.entries, chosen.rounds)


def environment() -> dict[str, str]:
    return Tree.at(REPO, {}).env()


def measure(name: str, job: list[str], folder: Path, numbers: list[int], rounds: int) -> None:
    """Compare the cost for each number of entries with that for the first, times their ratio."""

    def once(entries: int) -> Cost:
        words = [word.format(half=entries * SIZE // 2) for word in job]
        store = [
            "--store",
            (folder / f"{entries}").as_uri(),
            "--trusted-key",
            str(folder / "keys/team.pem.pub"),
        ]
        return run([sys.executable, "-m", "scons_tensorrt", "store", *words, *store], folder, environment())

    costs = {entries: [once(entries) for _ in range(rounds)] for entries in numbers}
    for entries, these in costs.items():
        times = entries / numbers[0]
        base = [Cost(each.wall * times, each.cpu * times, each.peak) for each in costs[numbers[0]]]
        for field in ("cpu", "wall", "peak"):
            report(f"store {name}, {entries} entries / {times:g} x {numbers[0]}", these, base, field)


if __name__ == "__main__":
    main()
