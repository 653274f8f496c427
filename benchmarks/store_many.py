"""Fetching many small engines from a distant store: whole runs of `scons engines` in fresh clones.

    python benchmarks/store_many.py [--engines N ...] [--jobs N ...] [--rounds N] [--commit COMMIT]

Each against the same run by another commit (by default the last one without read-ahead), and against a
plain copy of the same objects, 16 at once, flushed to disk as the engines are. The store is a SeaweedFS on
loopback, behind a wire that delays each answer by --latency milliseconds; with --latency 0, a folder on this
disk. The engines have 100 KB and are made by a stand-in for the compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from common import REPO, Cost, report, run, side_by_side, workplace

sys.path[:0] = [str(REPO / "tests" / "cache"), str(REPO / "site_scons")]

import obstore  # noqa: E402
from parts import READER, S3, WRITER, generate  # noqa: E402

from conftest import Tree, fake_compiler, make_model  # noqa: E402

BEFORE = "6f9fe73"
SIZE = 100_000  # bytes
ACT = f"""
data = plan(job)
data = data[:16] + ({SIZE}).to_bytes(8, "little") + data[24:] + os.urandom({SIZE} - len(data))
done(write(data))
"""


class Distant:
    """A TCP port that leads to another, and delays what comes back."""

    def __init__(self, port: int, seconds: float) -> None:
        self._to, self._seconds = port, seconds
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                late: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                for work, *ends in (
                    (self._pipe, client, server.sendall, server),
                    (self._pipe, server, lambda data, late=late: late.put((self._due(), data)), None),
                    (self._send, late, client),
                ):
                    threading.Thread(target=work, args=ends, daemon=True).start()

    def _due(self) -> float:
        return time.monotonic() + self._seconds

    def _pipe(self, source: socket.socket, put: Callable[[bytes], None], to: socket.socket | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                put(data)
            (to.shutdown(socket.SHUT_WR) if to else put(b""))

    def _send(self, late: queue.SimpleQueue[tuple[float, bytes]], client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (found := late.get())[1]:
                time.sleep(max(0.0, found[0] - time.monotonic()))
                client.sendall(found[1])
            client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def store_of(folder: Path, latency_s: float) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    """Its URL, and the environments of who fills it and who reads it."""
    if not latency_s:
        yield (folder / "store").as_uri(), {}, {}
        return
    server = S3(folder / "seaweed")
    distant = Distant(server.port, latency_s)
    try:
        yield server.url, server.env(WRITER), server.env(READER, distant.port)
    finally:
        distant.close()
        server.close()


def plain_copies(url: str, env: dict[str, str], made: Path) -> float:
    """Copy every object of the store, 16 at once; the seconds that it took."""
    config = {"client_options": {"allow_http": True}} if env else {}
    os.environ.update(env)
    store = obstore.store.from_url(url, **config)
    names = [each["path"] for page in obstore.list(store) for each in page]
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()

    def copy(name: str) -> None:
        with open(made / name.replace("/", "-"), "wb") as out:
            for piece in obstore.get(store, name).stream():
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())

    began = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(copy, names))
    return time.perf_counter() - began


def filled(folder: Path, engines: int, url: str, env: dict[str, str]) -> Tree:
    """A tree that was never built, with a store that has its engines."""
    tree = Tree(folder / "sources")
    for number in range(engines):
        make_model(tree.path(f"models/m{number}.onnx"), seed=number)
    tree.write(f'for i in range({engines}): env.Engine(f"m{{i}}", f"models/m{{i}}.onnx")')
    python = fake_compiler(folder / "fake", ACT, "tensorrt_rtx", "1.7.1.116")
    with contextlib.redirect_stdout(sys.stderr):  # figures alone are on stdout
        generate(folder / "key")
    (folder / "keys").mkdir()
    shutil.copy(folder / "key.pub", folder / "keys")
    tree.environment = {"TRT_PYTHON": str(python), "TRT_STORE": url}
    shutil.copytree(tree.root, folder / "writer")
    more = {**env, "TRT_STORE_MODE": "write", "TRT_STORE_SIGNING_KEY": str(folder / "key")}
    run(tree.command("engines", "-j2"), folder / "writer", tree.env(**more))
    return tree


def compare(folder: Path, engines: int, chosen: argparse.Namespace) -> None:
    old = folder / "before"
    old.mkdir()
    archive = ["git", "archive", chosen.commit, "site_scons"]
    data = subprocess.run(archive, cwd=REPO, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x"], cwd=old, check=True, input=data)
    seconds = chosen.latency / 1000
    with store_of(folder, seconds) as (url, writes, reads):
        tree = filled(folder, engines, url, writes)
        reads = {**reads, "TRT_STORE_TRUSTED_KEYS": str(folder / "keys")}

        def fetch(jobs: int, **more: str) -> Cost:
            clone = folder / "clone"
            shutil.rmtree(clone, ignore_errors=True)
            shutil.copytree(tree.root, clone)
            os.sync()
            cost = run(tree.command("engines", f"-j{jobs}"), clone, tree.env(**reads, **more))
            assert len(list(clone.rglob("*.engine"))) == engines
            return cost

        def before(jobs: int) -> Cost:
            return fetch(jobs, PYTHONPATH=str(old / "site_scons"))

        def plain() -> Cost:
            os.sync()
            return Cost(plain_copies(url, {**reads, **READER} if seconds else {}, folder / "plain"), 0, 0)

        place = f"a store {chosen.latency} ms away" if seconds else "a folder"
        for jobs in chosen.jobs:
            title = f"{engines} engines of 100 KB from {place}, -j{jobs}"
            a, b = side_by_side(partial(fetch, jobs), partial(before, jobs), chosen.rounds)
            for field in ("wall", "cpu", "peak"):
                report(f"{title} / by {chosen.commit}", a, b, field)
        a, b = side_by_side(lambda: fetch(chosen.jobs[-1]), plain, chosen.rounds)
        report(f"{title} / plain copies of these files", a, b, "wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=int, default=30, help="milliseconds")
    parser.add_argument("--commit", default=BEFORE)
    chosen = parser.parse_args()
    for engines in chosen.engines:
        with workplace() as folder:
            compare(folder, engines, chosen)


if __name__ == "__main__":
    main()
