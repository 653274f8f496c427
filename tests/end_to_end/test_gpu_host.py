"""A host with an NVIDIA GPU, as far as one can be had here: a C library plays the driver, and
TensorRT is either a stand-in, or 11.4's own bindings over the libraries of RTX."""

import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_pinned_kernels import make_host

from conftest import Tree, fake_compiler, hardware, make_model

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@pytest.fixture
def host(two: Tree, driver: Path) -> Tree:
    """Two engines on a host whose driver tells of an Orin, with a stand-in for TensorRT."""
    two.environment["LD_LIBRARY_PATH"] = str(driver)
    two.environment["PLAY_LOG"] = str(two.path("asked"))
    two.environment["TRT_PYTHON"] = str(fake_compiler(two.path("fake")))
    return two


def asked(tree: Tree) -> int:
    return len(tree.path("asked").read_text().splitlines())


def test_the_hosts_own_hardware_is_probed_and_named(host: Tree) -> None:
    run = host.scons()
    assert (run.status, run.built) == (0, ["a", "b"])
    assert host.engine("a").parent == host.path("engines")
    assert "__sm87_cu13.0_trt10.3_fp32.engine" in host.engine("a").name
    assert "engines: for this host (Orin, " in run.out
    assert "): probed\n" in run.out


@needs_strace
def test_a_warm_run_neither_calls_cuda_nor_starts_a_process(host: Tree) -> None:
    host.scons()
    host.scons()  # the stand-in keeps its notes in a folder of its path, which counts as an install
    assert asked(host) == 1
    trace = host.path("trace")
    subprocess.run(
        ["strace", "-f", "-e", "trace=execve", "-o", trace, *host.command("engines")],
        cwd=host.root,
        env=host.env(),
        check=True,
        capture_output=True,
    )
    assert len([line for line in trace.read_text().splitlines() if "= 0" in line and "execve(" in line]) == 1
    assert asked(host) == 1


def test_another_visible_gpu_is_another_engine(host: Tree) -> None:
    host.environment["PLAY_GPUS"] = "2"
    host.scons()
    run = host.scons(CUDA_VISIBLE_DEVICES="1")
    assert run.built == ["a", "b"]
    assert "__sm120_" in run.lines("BUILT")[0]
    assert host.scons(CUDA_VISIBLE_DEVICES="0").reused == ["a", "b"]


def test_an_unusable_driver_is_one_line_and_unrelated_targets_build(host: Tree) -> None:
    host.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Command("hello", [], "echo hi > $TARGET")
        """
    )
    run = host.scons(PLAY_INIT="100")
    assert (run.status, run.failed) == (2, ["a"])
    assert run.reason("a").startswith("HardwareError: this host has NVIDIA hardware (")
    assert "its driver is not usable: cuInit: no CUDA-capable device" in run.reason("a")
    assert host.scons("hello", PLAY_INIT="100").status == 0


def test_no_tensorrt_on_a_gpu_host_is_never_silently_rtx(host: Tree) -> None:
    del host.environment["TRT_PYTHON"]
    run = host.scons()
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert "tensorrt is not installed for" in run.reason("a")
    assert "only where BACKEND=tensorrt_rtx asks for it" in run.reason("a")


def test_without_tensorrt_the_receipts_name_it(host: Tree) -> None:
    host.scons()
    host.environment["TRT_PYTHON"] = "/no/such/python"
    run = host.scons()
    assert (run.status, run.reused) == (0, ["a", "b"]), run.out
    assert "): probed\n" in run.out
    assert "engines: no runtime here, so tensorrt 10.3.0.30 is taken from the receipts" in run.out
    assert host.scons(CUDA_VISIBLE_DEVICES="1", PLAY_GPUS="2").status == 2


@pytest.mark.slow
def test_without_the_gpu_too_they_name_the_host_that_built(host: Tree) -> None:
    host.scons()
    host.environment["TRT_PYTHON"] = "/no/such/python"
    del host.environment["LD_LIBRARY_PATH"]
    run = host.scons()
    assert (run.status, run.reused) == (0, ["a", "b"]), run.out
    assert "engines: for the restored engines' host (Orin, " in run.out
    make_model(host.path("models/a.onnx"), seed=9)
    run = host.scons("-k", "engines")
    assert (run.status, run.reused, run.failed) == (2, ["b"], ["a"]), run.out
    assert "use a Python with TensorRT" in run.reason("a")


def test_rtx_on_a_gpu_host_where_it_is_asked_for(host: Tree) -> None:
    del host.environment["TRT_PYTHON"]
    run = host.scons("engines", "BACKEND=tensorrt_rtx", CUDA_VISIBLE_DEVICES="1")
    assert (run.status, run.built) == (0, ["a", "b"])
    assert host.engine("a").read_bytes()[32] == 0x10


def test_cleaning_needs_no_driver_that_works(host: Tree) -> None:
    host.scons()
    assert host.scons("-c", "engines", PLAY_INIT="100").status == 0
    assert host.engines() == {}


def test_one_compile_a_gpu_across_trees_and_threads(host: Tree, tmp_path) -> None:
    act = f"""
log = {str(tmp_path / "times")!r}
began = time.monotonic(); time.sleep(0.3); data = write()
with open(log, "a") as out: out.write("%f %f\\n" % (began, time.monotonic()))
done(data)
"""
    other = Tree(tmp_path / "other")
    for seed, name in enumerate("cd"):
        make_model(other.path(f"models/{name}.onnx"), seed=seed + 9)
    other.write('for n in "cd": env.Engine(n, f"models/{n}.onnx")')
    python = str(fake_compiler(tmp_path / "slow", act))
    for tree in (host, other):
        tree.environment.update(host.environment, TRT_PYTHON=python)
    running = [tree.start("-j4", "engines") for tree in (host, other)]
    said = [process.communicate()[0].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    lines = (tmp_path / "times").read_text().splitlines()
    times = sorted(tuple(map(float, line.split())) for line in lines)
    assert len(times) == 4
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))
    assert any("WAITING" in text and "compiling engines/" in text for text in said)


@pytest.mark.slow
def test_lock_timeout_is_an_error_that_says_who(host: Tree) -> None:
    python = fake_compiler(host.path("slow"), "time.sleep(3); done(write())")
    first = host.start("engines", TRT_PYTHON=str(python))
    while not host.path("slow/compiled").exists():
        time.sleep(0.01)
    run = host.scons(TRT_PYTHON=str(python), TRT_LOCK_TIMEOUT="0.3")
    assert (run.status, run.failed) == (2, ["a"])
    assert f"LockTimeout: waited 0.3 s (TRT_LOCK_TIMEOUT) for process {first.pid}" in run.reason("a")
    first.kill()
    first.wait()


# TensorRT 11.4's bindings over RTX's libraries, in the place of an installed TensorRT.


@pytest.fixture
def bindings(host: Tree, driver: Path, tmp_path) -> Tree:
    rtx, there = (importlib.util.find_spec(n) for n in ("tensorrt_rtx_libs", "tensorrt_bindings"))
    if not (rtx and there):
        pytest.skip("tensorrt-cu13-bindings or tensorrt-rtx is missing")
    libraries = Path(rtx.submodule_search_locations[0])
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "libnvinfer.so.11").symlink_to(libraries / "libtensorrt_rtx.so.1")
    (folder / "libnvonnxparser.so.11").symlink_to(libraries / "libtensorrt_onnxparser_rtx.so.1")
    (folder / "p.c").write_text("int initLibNvInferPlugins(void *l, const char *n) { return 1; }\n")
    plugin = ["cc", "-shared", "-fPIC", "-o", folder / "libnvinfer_plugin.so.11", folder / "p.c"]
    subprocess.run(plugin, check=True)
    site = tmp_path / "site"
    (site / "tensorrt").mkdir(parents=True)
    (site / "tensorrt" / "__init__.py").write_text(
        f"import sys; sys.path.append({str(Path(there.submodule_search_locations[0]).parent)!r})\n"
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    (site / "tensorrt_cu13-11.4.0.106.dist-info").mkdir()
    del host.environment["TRT_PYTHON"]
    host.environment["LD_LIBRARY_PATH"] = f"{driver}:{folder}:{libraries}"
    host.environment["EXTRA_PATH"] = str(site)
    return host


def scons(tree: Tree, *arguments: str):
    path = f"{tree.environment['EXTRA_PATH']}:{tree.env()['PYTHONPATH']}"
    return tree.scons(*arguments, PYTHONPATH=path)


def test_another_board_is_refused_before_the_compile(bindings: Tree) -> None:
    import platform

    fields = {"machine": platform.machine(), "runtime_version": "11.4.0.106", "jetpack": "7.2"}
    hardware(bindings.path("hardware/agx.json"), **fields, sm_count=16, memory_gib=64)
    run = scons(bindings, "engines", "HARDWARE=agx")
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert "sm_count: wanted 16, found 8; memory_gib: wanted 64, found 16" in run.reason("a")
    assert "it can be compiled only on agx (Orin, sm87, 64 GiB" in run.reason("a")
    assert not list(bindings.path(".trt/logs").glob("*")) or "Engine generation" not in "".join(
        log.read_text() for log in bindings.path(".trt/logs").glob("*")
    )


def test_another_version_is_refused_before_the_compile(bindings: Tree) -> None:
    import platform

    hardware(bindings.path("hardware/nx.json"), machine=platform.machine(), jetpack="7.2")
    run = scons(bindings, "engines", "HARDWARE=nx")
    assert "runtime_version: wanted 10.3.0.30, found 11.4.0.106" in run.reason("a")


def test_what_the_bench_makes_for_the_probed_gpu_is_never_published(bindings: Tree) -> None:
    """The real worker passes its own checks and builds; over the bench the stream stays empty."""
    run = scons(bindings, "engines")
    assert (run.status, run.failed) == (2, ["a"])
    log = bindings.path(run.reason("a").rpartition("log: ")[2])
    assert "Input filename:   model.onnx" in log.read_text()
    assert not list(bindings.path("engines").glob("*.engine"))
    assert json.loads(bindings.path(".trt/declared.json").read_text())["engines"]


@pytest.mark.slow
def test_an_interpreter_under_an_emulator_builds_for_its_own_machine(tree: Tree, driver, tmp_path) -> None:
    """setarch stands for the emulator: the kernel then tells another machine, in the worker too."""
    said = subprocess.run("setarch i686 uname -m", shell=True, capture_output=True, check=False)
    if said.stdout != b"i686\n":
        pytest.skip("setarch i686 is missing or forbidden here")
    played = make_host(tree, tmp_path / "site", driver, "a")
    tree.write('env.Engine("a", "models/a.onnx")')
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec setarch i686 {sys.executable} "$@"\n')
    python.chmod(0o755)
    tree.environment.update(TRT_HARDWARE="", TRT_PYTHON=str(python))
    run = played.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    receipt = tree.receipt("a")
    assert receipt["ingredients"]["hardware machine"] == receipt["worker"]["machine"] == "i686"
    assert played.scons().reused == ["a"]
