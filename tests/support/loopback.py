"""A site on loopback: certificates, a store, a scheduler and workers, all real and in processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from conftest import CLEAN, REPO, Tree
from scons_tensorrt.files.signing_keys import generate
from scons_tensorrt.remote.tls import make_certificates

PATIENCE_S = 60.0


class Service:
    """A command of ours that serves, and what it said. group: the process leads one of its own."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        path = os.pathsep.join(filter(None, [environment.pop("FIRST", ""), str(REPO / "site_scons")]))
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scons_tensorrt", *arguments],
                env={**CLEAN, "PYTHONPATH": path, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, words: str, times: int = 1) -> str:
        """The line that has these words, for the so many-th time."""
        until(lambda: self.said.count(words) >= times or self.process.poll() is not None)
        lines = [line for line in self.said.splitlines() if words in line]
        assert len(lines) >= times, self.said
        return lines[-1]

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_S)


class Site:
    """hold: while this file is there, compiles of `python` wait; each says its process in `held`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        make_certificates(root / "certificates", ["scheduler", "worker", "client"])
        write_key(root / "key.pem")
        self.store = f"file://{root}/store"
        self.hold, self.held, self.compiled = (root / name for name in ("hold", "held", "compiled"))
        self.python = self._python(root / "python")
        self.url = "tls://127.0.0.1:0"
        self.services: list[Service] = []
        self.scheduler = self.start_scheduler()

    def _python(self, script: Path) -> Path:
        """An interpreter that has TensorRT for RTX, notes each compile, and can be held in one."""
        script.write_text(
            f"""#!/bin/sh
case "$*" in *-S*)
    echo $$ >> {self.compiled}
    if [ -e {self.hold} ]; then
        echo $PPID >> {self.held}
        while [ -e {self.hold} ]; do sleep 0.02; done
    fi
esac
exec {sys.executable} "$@"
"""
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return script

    def start_scheduler(self, **environment: str) -> Service:
        where = ("--listen", self.url, "--certificates", str(self.root / "certificates/scheduler"))
        log = self.root / f"scheduler{len(self.services)}.log"
        service = Service(log, "scheduler", *where, **environment)
        self.services.append(service)
        self.url = service.wait_for("scheduler: tls://").split()[-1]
        return service

    def start_worker(self, name: str, *more: str, url: str = "", **environment: str) -> Service:
        arguments = {
            "--scheduler": url or self.url,
            "--certificates": str(self.root / "certificates/worker"),
            "--store": self.store,
            "--signing-key": str(self.root / "key.pem"),
            "--folder": str(self.root / name),
            "--python": str(self.python),
            "--name": name,
            "--host": "127.0.0.1",
        }
        given = [word for pair in arguments.items() for word in pair]
        service = Service(self.root / f"{name}.log", "worker", *given, *more, **environment)
        self.services.append(service)
        return service

    def tree(self, tree: Tree) -> Tree:
        """Let a tree's compiles of what its own interpreter cannot go to this site."""
        tree.environment.update(
            TRT_STORE=self.store,
            TRT_STORE_TRUSTED_KEYS=str(self.root / "key.pem.pub"),
            TRT_DISPATCH=self.url,
            TRT_DISPATCH_CERTIFICATES=str(self.root / "certificates/client"),
            TRT_PYTHON=str(bare(self.root)),
        )
        return tree

    def entries(self) -> set[Path]:
        """What the store knows; whoever writes first makes the folder."""
        return set((self.root / "store").glob("ac/*"))

    def compiles(self) -> int:
        return len(self.compiled.read_text().splitlines()) if self.compiled.exists() else 0

    def wait_held(self, times: int = 1) -> int:
        """The process of a worker whose compile is held, for the so many-th time."""
        until(lambda: self.held.exists() and len(self.held.read_text().splitlines()) >= times)
        return int(self.held.read_text().splitlines()[times - 1])

    def release(self) -> None:
        self.hold.unlink(missing_ok=True)
        self.held.unlink(missing_ok=True)

    def close(self) -> None:
        self.release()
        for service in self.services:
            if service.process.poll() is None:
                service.end(signal.SIGKILL)


def write_key(private: Path) -> None:
    """A key that signs, and beside it its public half."""
    data, public, _ = generate()
    private.write_bytes(data)
    private.with_name(f"{private.name}.pub").write_bytes(public)


def bare(folder: Path) -> Path:
    """An interpreter without TensorRT: what scons runs with has it."""
    script = folder / "bare"
    if not script.exists():
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def until(condition, seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
