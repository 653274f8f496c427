"""Tests that need an NVIDIA GPU: `python3 -m pytest tests/gpu`. Elsewhere each is skipped, with the reason.

They end in a table of times, to copy into docs/hardware.md with the GPU's name and the date.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Run, Tree, make_model
from scons_tensorrt.hardware import cuda
from scons_tensorrt.worker.common import recorded_file

TIMES: list[tuple[str, float]] = []
GPU: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TIMES:
        terminalreporter.section(f"times on {', '.join(GPU)}")
        for what, seconds in TIMES:
            terminalreporter.write_line(f"{seconds:9.3f} s  {what}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    TIMES.append((what, time.monotonic() - began))


@pytest.fixture(scope="session")
def gpu() -> dict[str, Any]:
    """The first GPU as the driver describes it, asked in a child process."""
    done = subprocess.run([sys.executable, cuda.__file__], capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"error": f"the query of the driver ended with status {done.returncode}"}
    if "error" in answer:
        pytest.skip(f"no usable NVIDIA GPU: {answer['error']}")
    if not GPU:
        GPU.append(answer["devices"][0]["gpu_name"])
    return dict(answer["devices"][0])


def version_of(*names: str) -> tuple[int, ...]:
    """The version of the first of these distributions that is installed; skips the test if none is."""
    for name in names:
        try:
            return tuple(map(int, re.findall(r"\d+", importlib.metadata.version(name))))
        except importlib.metadata.PackageNotFoundError:
            continue
    pytest.skip(f"{names[0]} is not installed")


@pytest.fixture
def rtx(gpu: dict[str, Any], tree: Tree) -> Tree:
    """A tree that builds with TensorRT for RTX for this host's GPU."""
    version_of("tensorrt-rtx")
    tree.environment.update(TRT_BACKEND="tensorrt_rtx")
    return tree


@pytest.fixture
def tensorrt(gpu: dict[str, Any], tree: Tree) -> Tree:
    """A tree that builds with TensorRT for this host's GPU."""
    version_of("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    return tree


@pytest.fixture
def network() -> Callable[..., None]:
    """network(tree, name="a", batch=1, ...): write a convolution network and its samples."""

    def write(tree: Tree, name: str = "a", batch: int | str = 1, **more: Any) -> Path:
        x = np.random.default_rng(3).standard_normal((4, 1, 8, 32, 32)).astype(np.float32)
        tree.path("models").mkdir(exist_ok=True)
        np.savez(tree.path(f"models/{name}.npz"), x=x)
        return make_model(tree.path(f"models/{name}.onnx"), shape=(batch, 8, 32, 32), **more)

    return write


def built(tree: Tree, what: str, *arguments: str, **environment: str) -> Run:
    """A run that must build everything, timed."""
    with timed(what):
        run = tree.scons("engines", *arguments, **environment)
    unsupported = re.search(r"SM \d+ is not supported by TensorRT for RTX.*", run.out)
    if unsupported:
        pytest.skip(unsupported[0])
    assert run.status == 0, run.out
    assert run.built, run.out
    return run


def record_two(tree: Tree, network: Callable[..., None]) -> None:
    """Declare engine `a`, with two samples recorded beside it."""
    network(tree)
    tree.write("""
        env.Engine("a", "models/a.onnx", accuracy=dict(inputs="models/a.npz", rtol=0.01, atol=0.05, record=2))
        """)


def check(tree: Tree, *options: str) -> subprocess.CompletedProcess[str]:
    """`scons-tensorrt check` of engine `a`."""
    command = [sys.executable, "-m", "scons_tensorrt", "check", str(tree.engine("a")), *options]
    return subprocess.run(command, env=tree.env(), capture_output=True, text=True, timeout=300, check=False)


def check_against_recorded(tree: Tree, gpu: dict[str, Any]) -> None:
    """`check` accepts engine `a` by its recorded outputs, and refuses it by those of the other sample."""
    done = check(tree)
    assert (done.returncode, done.stdout.startswith("OK ")) == (0, True), done.stdout + done.stderr
    assert f"(2 samples, on {gpu['gpu_name']})" in done.stdout
    other = tree.path("other.npz")
    recorded = tree.engine("a").with_name(tree.engine("a").name + ".recorded.npz")
    samples, options = recorded_file.read(str(recorded))
    swapped = [(samples[1][0], samples[0][1]), (samples[0][0], samples[1][1])]
    recorded_file.write(str(other), swapped, options)
    done = check(tree, "--samples", str(other))
    assert (done.returncode, done.stdout.startswith("FAILED ")) == (20, True), done.stdout + done.stderr


# Loads an engine that load_verified returns, runs it on zeros and prints times, in a process of its own.
LOAD = """
import importlib, json, sys, time
from scons_tensorrt import load_verified
trt = importlib.import_module(sys.argv[1])
data = load_verified(sys.argv[2])
logger = trt.Logger(trt.Logger.WARNING)
began = time.monotonic()
engine = trt.Runtime(logger).deserialize_cuda_engine(data)
if engine is None:
    sys.exit("the runtime refuses the engine")
loaded = time.monotonic()
if sys.argv[3:]:  # the file of a runtime cache
    config = engine.create_runtime_config()
    cache = config.create_runtime_cache()
    try:
        cache.deserialize(open(sys.argv[3], "rb").read())
    except FileNotFoundError:
        pass
    config.set_runtime_cache(cache)
    context = engine.create_execution_context(config)
else:
    context = engine.create_execution_context()
if context is None:
    sys.exit("the runtime makes no execution context")
ready = time.monotonic()
if sys.argv[3:]:
    open(sys.argv[3], "wb").write(bytes(cache.serialize()))
print(json.dumps({"load": loaded - began, "context": ready - loaded, "inputs": engine.num_io_tensors}))
"""


def load(tree: Tree, engine: Path, module: str, *cache: str) -> subprocess.CompletedProcess[str]:
    """Load an engine in a process of its own: status 0 and a line of JSON, or the reason."""
    command = [sys.executable, "-c", LOAD, module, str(engine), *cache]
    return subprocess.run(command, env=tree.env(), capture_output=True, text=True, timeout=300, check=False)
