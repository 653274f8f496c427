"""ONNX steps are forked from a process that has imported onnx: each as a new process would be."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scons_tensorrt.build import fork_server
from scons_tensorrt.build.child_process import run_program
from scons_tensorrt.build.child_programs import CONVERTER, EXPORTER
from scons_tensorrt.errors import EngineBuildError, EngineError, Interrupted

READER = """
import json, os, sys, time
import numpy as np

def random():  # no two processes draw the same
    yield {"x": np.random.rand(3).astype(np.float32)}

def state():  # 1 in a process that another job has changed
    changed = hasattr(np, "changed_by_a_job") or "CHANGED_BY_A_JOB" in os.environ
    np.changed_by_a_job = os.environ["CHANGED_BY_A_JOB"] = "yes"
    yield {"x": np.full(3, changed, np.float32)}

def slow():
    with open(os.environ["STARTED"], "w") as started:
        started.write(str(os.getpid()))
    while not os.path.exists(os.environ["STARTED"] + ".go"):
        time.sleep(0.01)
    yield {"x": np.ones(3, np.float32)}
"""


@pytest.fixture
def converter(tmp_path, monkeypatch):
    """Runs a job that reads samples, in a child of the server; returns the bytes it wrote."""
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph), tmp_path / "a.onnx")
    (tmp_path / "reader.py").write_text(READER)

    def convert(function, program=CONVERTER, stopping=lambda: False, timeout_s=None, name="made"):
        path = {"path": str(tmp_path / "reader.py"), "function": function, "code": None}
        samples = {"kind": "reader", "most": None, "at_least": 1, **path}
        job = {"kind": "samples", "onnx": {"onnx": str(tmp_path / "a.onnx")}, "options": {}, "files": {}}
        job.update(samples=samples, target=str(tmp_path / name), temporary=str(tmp_path))
        log, more = tmp_path / f"{name}.log", {"timeout_s": timeout_s}
        run_program(program, sys.executable, job, log, stopping, dict(os.environ), **more)
        return (tmp_path / name).read_bytes()

    convert.folder = tmp_path
    yield convert
    server = fork_server._server
    fork_server._forget()
    if server:
        server.process.wait(60)


def wait_for(condition):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            if condition():
                return
        time.sleep(0.01)
    raise AssertionError("it did not happen in a minute")


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class Slow(threading.Thread):
    """A job that runs until `go`. pid: of its process."""

    def __init__(self, convert, **more):
        super().__init__(daemon=True)
        self._convert, self._more, self.made, self.error = convert, more, None, None
        self.start()
        started = convert.folder / "started"
        wait_for(lambda: int(started.read_text()))
        self.pid = int(started.read_text())

    def run(self):
        try:
            self.made = self._convert("slow", name="slow", **self._more)
        except EngineError as error:
            self.error = error

    def go(self):
        (self._convert.folder / "started.go").touch()
        self.join(60)
        return self.made


def test_a_job_gives_the_bytes_of_a_new_process_and_leaves_nothing_to_the_next(converter):
    new = converter("state", program=EXPORTER)
    assert converter("state") == new
    server = fork_server._server.process.pid
    assert converter("state") == new
    assert fork_server._server.process.pid == server
    assert converter("random") != converter("random")


def test_a_job_that_is_killed_leaves_the_others_and_the_server(converter):
    slow = Slow(converter)
    assert converter("state")  # beside it
    server = fork_server._server.process.pid
    os.kill(slow.pid, signal.SIGKILL)
    slow.join(60)
    assert isinstance(slow.error, EngineBuildError)
    assert "killed (SIGKILL): most often the kernel, out of memory" in str(slow.error)
    assert converter("state")
    assert fork_server._server.process.pid == server


def test_a_server_that_is_killed_is_replaced_and_its_jobs_go_on(converter):
    slow = Slow(converter)
    server = fork_server._server.process
    server.kill()
    server.wait()
    assert converter("state")
    assert fork_server._server.process.pid != server.pid
    assert slow.go()


def test_a_server_that_cannot_start_costs_a_new_process_for_each_job(converter, monkeypatch):
    monkeypatch.setattr(fork_server, "text_of", lambda name: "raise SystemExit(1)")
    assert converter("state") == converter("state", program=EXPORTER)


@pytest.mark.parametrize("how", ["stopped", "too long"])
def test_a_job_that_is_stopped_is_ended(converter, how):
    stop = threading.Event()
    assert converter("state")  # the server's start is no part of the limit
    slow = Slow(converter, stopping=stop.is_set, timeout_s=None if how == "stopped" else 3.0)
    if how == "stopped":
        stop.set()
    slow.join(60)
    assert isinstance(slow.error, Interrupted if how == "stopped" else EngineBuildError)
    assert is_gone(slow.pid)
    assert converter("state")


@pytest.mark.parametrize(
    "signal_number",
    [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["kill", "ctrl-c"],
)
def test_server_and_jobs_end_with_the_parent(converter, signal_number):
    program = """
import json, os, sys
from pathlib import Path
from scons_tensorrt.build import fork_server
from scons_tensorrt.build.child_programs import CONVERTER
from scons_tensorrt.build.child_process import run_program
job, log = json.loads(sys.argv[1]), Path(sys.argv[2])
check = {"kind": "check", "packages": []}
run_program(CONVERTER, sys.executable, check, log, lambda: False, dict(os.environ))
print(fork_server._server.process.pid, flush=True)
run_program(CONVERTER, sys.executable, job, log, lambda: False, dict(os.environ))
"""
    folder = converter.folder
    samples = {"kind": "reader", "path": str(folder / "reader.py"), "function": "slow", "code": None}
    job = {"kind": "samples", "onnx": {"onnx": str(folder / "a.onnx")}, "options": {}, "files": {}}
    job.update(samples={**samples, "most": None, "at_least": 1}, target=str(folder / "made"))
    arguments = [sys.executable, "-c", program, json.dumps(job), str(folder / "log")]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as parent:
        server = int(parent.stdout.readline())
        wait_for(lambda: int((folder / "started").read_text()))
        child = int((folder / "started").read_text())
        if signal_number == signal.SIGINT:
            os.killpg(parent.pid, signal_number)  # as a terminal does
        else:
            parent.kill()
    wait_for(lambda: is_gone(server) and is_gone(child))


@pytest.mark.slow
def test_a_server_without_jobs_ends(converter, monkeypatch):
    text = fork_server.text_of("scons_tensorrt.worker.common.fork_server")
    short = text.replace("IDLE_MS = 30000", "IDLE_MS = 50")
    assert short != text
    monkeypatch.setattr(
        fork_server, "text_of", lambda name: short if name.endswith("fork_server") else TEXT_OF(name)
    )
    assert converter("state")
    server = fork_server._server.process
    server.wait(60)
    assert converter("state")
    assert fork_server._server.process.pid != server.pid


TEXT_OF = fork_server.text_of


@pytest.mark.slow
def test_the_environment_is_that_of_the_job(converter, monkeypatch):
    new = converter("state", program=EXPORTER)
    assert converter("state") == new
    monkeypatch.setenv("CHANGED_BY_A_JOB", "set outside")
    assert converter("state") != new


@pytest.mark.slow
def test_threads_share_one_server(converter):
    made = {}

    def convert(name):
        made[name] = converter("state", name=name)

    threads = [threading.Thread(target=convert, args=(f"made{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 6
    assert len(set(made.values())) == 1
    assert np.frombuffer(next(iter(made.values())), np.uint8).size


def test_a_program_that_never_answers_is_no_server(tmp_path, monkeypatch):
    silent = tmp_path / "python"
    silent.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setattr(fork_server, "START_SECONDS", 0.5)
    began = time.monotonic()
    for _ in range(2):
        assert fork_server.start(CONVERTER, str(silent), tmp_path / "log", {}) is None
    assert time.monotonic() < began + 5
    (pid,) = (tmp_path / "pids").read_text().split()  # the second time it was not tried
    assert not Path("/proc", pid).exists()
