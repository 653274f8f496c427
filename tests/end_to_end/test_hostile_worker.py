"""A worker with a valid certificate whose code is somebody else's: nothing of it runs in scons."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from conftest import Tree, hardware, make_model, sound

pytest.importorskip("distributed")
pytest.importorskip("obstore")
pytest.importorskip("cryptography")
pytest.importorskip("trustme")

from loopback import Service, Site
from test_dispatch import DESK

# Runs at the start of every Python of the worker, before the worker's own code.
HOSTILE = '''
import sys
if "scons_tensorrt" in " ".join(sys.orig_argv) or "spawn_main" in " ".join(sys.orig_argv):
    import pickle
    import distributed
    from distributed.protocol import to_serialize
    from scons_tensorrt.remote import task

    class Evil:
        """Writes a file where scons unpickles it; the scheduler and workers are Dask's own to guard."""
        def __reduce__(self):
            return exec, ("import sys\\nif 'SCons' in sys.modules: open({marker!r}, 'a').close()",)

    whole = distributed.Worker.get_data
    async def get_data(self, comm, keys=None, who=None, serializers=None, **more):
        return await whole(self, comm, keys=keys, who=who, serializers=None, **more)
    if {pickles}:
        distributed.Worker.get_data = get_data

    honest = task.compile_action
    def compile_action(digest, key):
        say = distributed.get_worker().log_event
        topic = task.topic_of(key)
        {act}
    compile_action.__module__ = task.__name__
    task.compile_action = compile_action
'''
EVENTS = """
        evil = pickle.dumps(Evil())
        say("warn", dict(message=evil, category=evil))
        say("print", dict(args=("printed by a worker",)))
        say("print", to_serialize(Evil()))
        for said in (to_serialize(Evil()), evil, [], 7, dict(key=[1]), dict(key=key)):
            say(topic, said)
        for name in ("started", "doing", "log", "by"):
            for value in (None, 1, [], {}, "x\\x1b[2J\\n", [1], [[], {}, 2], [-1, -1, None], evil):
                say(topic, {"key": key, name: value})
        say(topic, dict(key=key, doing=[1, 2, to_serialize(Evil())], by=to_serialize(Evil())))
        return honest(digest, key)
"""
ANSWERS = {
    "an object": "return Evil()",
    "an object in a list": "return ['made', Evil()]",
    "text that is no answer": "return 'made'",
    "an answer of other types": """return '{"outcome": "made", "worker": {}, "seconds": "1"}'""",
    "no end of nesting": "return '[' * 100000",
    "seconds without end": """return '{"outcome":"made","worker":"w","seconds":1' + '0' * 400 + '}'""",
}


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    yield site
    site.close()


@pytest.fixture
def far(site: Site, two: Tree) -> Tree:
    make_model(two.path("models/a.onnx"), seed=time.monotonic_ns() % 10**9)
    hardware(two.path("hardware/desk.json"), **DESK)
    two.write('env.Engine("a", "models/a.onnx")')
    two.environment["TRT_HARDWARE"] = "desk"
    return site.tree(two)


def start_hostile(site: Site, act: str) -> Path:
    """A worker that does this in the place of a compile; the file that is there once scons ran a
    line of its code."""
    marker = site.root / "ran"
    (site.root / "first").mkdir()
    code = HOSTILE.replace("{marker!r}", repr(str(marker))).replace("{act}", act.strip())
    code = code.replace("{pickles}", str("Evil()" in act and act != EVENTS))
    (site.root / "first/sitecustomize.py").write_text(code)
    worker = site.start_worker("bench", FIRST=str(site.root / "first"))
    worker.wait_for("connected to")
    return marker


@pytest.mark.parametrize("how", ANSWERS)
def test_whatever_a_worker_returns_is_no_code(far: Tree, site: Site, how: str) -> None:
    marker = start_hostile(site, ANSWERS[how])
    run = far.scons()
    assert (run.status, run.failed) == (2, ["a"]), run.out
    assert "DispatchError: the worker's answer is malformed" in run.reason("a")
    assert "Traceback" not in run.out
    assert not marker.exists()


@pytest.mark.slow
def test_a_worker_cannot_say_that_this_run_was_stopped(far: Tree, site: Site) -> None:
    said = '{"outcome": "failed", "worker": "w", "error_class": "Interrupted", "message": "no more"}'
    start_hostile(site, f"return {said!r}")
    run = far.scons()
    assert (run.status, run.failed) == (2, ["a"]), run.out
    assert "DispatchError: no more (on w)" in run.reason("a")
    assert "INTERRUPTED" not in run.out


@pytest.mark.slow
def test_an_exception_of_a_worker_is_words(far: Tree, site: Site) -> None:
    marker = start_hostile(site, "raise RuntimeError('it is over', Evil())")
    run = far.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert "DispatchError: the worker failed: " in run.reason("a")
    assert "Traceback" not in run.out
    assert not marker.exists()


def test_what_a_worker_says_meanwhile_runs_prints_and_breaks_nothing(far: Tree, site: Site) -> None:
    marker = start_hostile(site, EVENTS)
    run = far.scons()
    assert (run.status, run.names("DISPATCHED")) == (0, ["a"]), run.out
    assert sound(far.engines("engines/desk")["a"])
    assert "printed by a worker" not in run.out
    assert "\x1b[2J" not in run.out
    assert not marker.exists()


def listening(service: Service) -> set[int]:
    """TCP ports on which a service or a process of its group listens."""
    inodes = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(place.name)) == service.process.pid:
                inodes |= {os.readlink(each) for each in (place / "fd").iterdir()}
        except OSError:
            continue
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in map(str.split, Path(table).read_text().splitlines()[1:]):
            if row[3] == "0A" and f"socket:[{row[9]}]" in inodes:
                ports.add(int(row[1].rpartition(":")[2], 16))
    return ports


def test_neither_scheduler_nor_worker_answers_without_a_certificate(site: Site) -> None:
    worker = site.start_worker("bench")
    worker.wait_for("connected to")
    assert listening(site.scheduler) == {int(site.url.rpartition(":")[2])}
    ports = listening(site.scheduler) | listening(worker)
    assert len(ports) > 1
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            try:
                assert b"HTTP" not in plain.recv(100)
            except ConnectionResetError:
                pass
