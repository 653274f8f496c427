"""Compiles on other machines: scons has no TensorRT for RTX, a worker has, and what comes back is real.

Scheduler, workers and TLS are real, on loopback. A worker's interpreter can be held before a compile,
so that what dies, dies in the middle of one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import time
from pathlib import Path

import pytest

from conftest import Tree, fake_compiler, hardware, make_model, sha256, sound

pytest.importorskip("distributed")
pytest.importorskip("obstore")
pytest.importorskip("cryptography")
pytest.importorskip("trustme")

from loopback import Site, until, write_key

from scons_tensorrt.remote.tls import make_certificates

DESK = {
    "product": "tensorrt_rtx",
    "runtime_version": "1.7.1.116",
    "cuda": "13.0",
    "machine": None,
    **dict.fromkeys(("sm_count", "memory_gib", "memory_bus_bits", "l2_bytes", "gpu_name", "integrated")),
    "compute_capability": "8.9",
    "jetpack": None,
    "recorded": None,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A scheduler, and the worker `bench`."""
    site = Site(tmp_path_factory.mktemp("site") / "site")
    site.start_worker("bench").wait_for("connected to")
    yield site
    site.close()


@pytest.fixture
def far(site: Site, two: Tree) -> Tree:
    """A tree with two engines for a desktop, whose hardware this host cannot compile for; no two
    tests have the same models."""
    for seed, name in enumerate("ab"):
        make_model(two.path(f"models/{name}.onnx"), seed=time.monotonic_ns() % 10**9 + seed)
    hardware(two.path("hardware/desk.json"), **DESK)
    two.environment["TRT_HARDWARE"] = "desk"
    site.release()
    return site.tree(two)


def test_a_real_engine_comes_back_as_it_would_have_been_made_here(far: Tree, site: Site) -> None:
    run = far.scons("-j2", "engines")
    assert (run.status, run.names("DISPATCHED"), run.built) == (0, ["a", "b"], []), run.out
    assert f"SENT engines/desk/a__sm89_cu13.0_rtx1.7_fp32.engine: to {site.url}, because" in run.out
    assert "tensorrt_rtx is not installed for" in run.out
    assert ", 2 dispatched, 0 failed in " in run.summary
    there = far.engines("engines/desk")
    assert all(map(sound, there.values()))
    assert far.receipt("a")["dispatched"] == {"worker": "bench"}
    assert far.receipt("a")["inputs"][0]["name"] == "models/a.onnx"
    left = [path for path in (site.root / "bench").rglob("*") if "__sm89" in path.name and path.is_file()]
    assert left == []
    run = far.scons("-j2", "engines")
    assert (run.reused, run.names("SENT")) == (["a", "b"], [])
    here = far.copy(far.root.parent / "here", "models", "SConstruct", "hardware")
    here.environment = {"TRT_HARDWARE": "desk"}
    assert here.scons().built == ["a", "b"]
    assert sha256(here.engines("engines/desk")["a"]) == sha256(there["a"])


def test_a_model_in_pieces_converted_here_and_compiled_there(far: Tree) -> None:
    make_model(far.path("models/a.onnx"), seed=time.monotonic_ns() % 10**9, external="a.bin")
    far.write('env.Engine("a", "models/a.onnx", precision="fp16", shapes={"x": (1, 8, 16, 16)})')
    run = far.scons()
    assert (run.status, run.names("DISPATCHED"), len(run.lines("CONVERTED"))) == (0, ["a"], 1)
    assert sound(far.engines("engines/desk")["a"])


def test_what_the_compiler_refuses_there_is_told_here_with_its_log(far: Tree) -> None:
    far.write('env.Engine("a", "models/a.onnx", flags=["REFIT"])')
    run = far.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert "flag REFIT needs a GPU in TensorRT for RTX" in run.reason("a")
    found = re.search(r"\(on bench\); log: (\S+)$", run.reason("a"))
    assert "Input filename:   model.onnx" in far.path(found[1]).read_text()


def test_a_refusal_that_lasts_is_given_to_the_store_by_the_worker(far: Tree, site: Site) -> None:
    import onnx
    from onnx import TensorProto, helper

    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, []),
    ]
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, far.path("models/a.onnx"))
    far.write('env.Engine("a", "models/a.onnx")')
    first = far.scons()
    assert first.failed == ["a"], first.out
    (entry,) = (site.root / "store/no").iterdir()
    body = json.loads(json.loads(entry.read_text())["body"])
    assert "Det" in body["error"]
    assert "log:" not in body["error"]
    compiles = site.compiles()
    assert "recorded in the store on" in far.scons().reason("a")
    assert site.compiles() == compiles


def test_two_clones_of_a_team_compile_once(far: Tree, site: Site, tmp_path) -> None:
    far.write('env.Engine("a", "models/a.onnx")')
    other = far.copy(tmp_path / "other", "models", "SConstruct", "hardware")
    site.hold.touch()
    before = site.compiles()
    runs = [far.start()]
    site.wait_held()
    runs.append(other.start())
    assert any(line.startswith(b"SENT ") for line in iter(runs[1].stdout.readline, b""))
    site.release()
    said = [run.communicate(timeout=60)[0].decode() for run in runs]
    assert all("DISPATCHED engines/desk/a__" in text for text in said), said
    assert site.compiles() == before + 1
    assert sha256(far.engines("engines/desk")["a"]) == sha256(other.engines("engines/desk")["a"])


def test_scons_killed_the_compile_goes_on_and_the_next_run_fetches_it(far: Tree, site: Site) -> None:
    far.write('env.Engine("a", "models/a.onnx")')
    site.hold.touch()
    before = site.compiles()
    process = far.start()
    site.wait_held()
    process.kill()
    process.communicate()
    known = site.entries()
    site.release()
    until(lambda: site.entries() > known)
    run = far.scons(TRT_DISPATCH="")
    assert (run.status, run.names("FETCHED")) == (0, ["a"])
    assert site.compiles() == before + 1


def test_ctrl_c_ends_the_wait_at_once_and_not_the_compile(far: Tree, site: Site) -> None:
    far.write('env.Engine("a", "models/a.onnx")')
    site.hold.touch()
    process = far.start()
    site.wait_held()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    said = process.communicate(timeout=30)[0].decode()
    assert time.monotonic() - began < 10  # the compile is held for ever
    assert process.returncode == 2
    assert "INTERRUPTED engines/desk/a__sm89_cu13.0_rtx1.7_fp32.engine: stopped; the compile" in said
    assert "FAILED" not in said
    last = said.strip().splitlines()[-1]
    assert re.match(r"engines: 0 reused, 0 built, (0 dispatched, )?0 failed, 1 interrupted in ", last)
    site.release()
    until(lambda: far.scons(TRT_DISPATCH="").names("FETCHED") == ["a"])


def test_a_worker_killed_in_a_compile_is_followed_by_another(far: Tree, site: Site) -> None:
    far.write('env.Engine("a", "models/a.onnx")')
    site.hold.touch()
    process = far.start()
    os.kill(site.wait_held(), signal.SIGKILL)
    site.wait_held(2)
    site.release()
    said = process.communicate(timeout=60)[0].decode()
    assert "DISPATCHED engines/desk/a__" in said, said
    assert sound(far.engines("engines/desk")["a"])


@pytest.mark.slow
def test_a_compile_that_ends_two_workers_is_given_up_with_its_log(far: Tree, site: Site) -> None:
    far.write('env.Engine("a", "models/a.onnx")')
    site.hold.touch()
    process = far.start()
    for times in (1, 2):
        os.kill(site.wait_held(times), signal.SIGKILL)
    said = process.communicate(timeout=60)[0].decode()
    found = re.search(
        r"EngineBuildError: 2 workers died while compiling it \(bench, bench\); log: (\S+)", said
    )
    assert found, said
    assert far.path(found[1]).read_text().startswith("-- bench\n")
    site.release()
    run = far.scons(TRT_DISPATCH_WAIT="60")  # the nanny starts the third
    assert run.names("DISPATCHED") == ["a"]


def test_no_such_worker_is_told_at_once_with_who_is_connected(far: Tree, site: Site) -> None:
    hardware(far.path("hardware/nx.json"))
    hardware(far.path("hardware/old.json"), **{**DESK, "runtime_version": "1.6.0.1"})
    run = far.scons("-k", "engines", "HARDWARE=nx,old,desk")
    assert (run.status, run.names("DISPATCHED"), len(run.failed)) == (2, ["a", "b"], 4)
    failed = {line.split("/")[1]: line for line in reversed(run.lines("FAILED"))}
    start = f"DispatchError: no worker of {site.url} can compile for "
    assert f"{start}nx (Orin, sm87, 16 GiB" in failed["nx"]
    assert "connected: bench (product: wanted tensorrt, found tensorrt_rtx)" in failed["nx"]
    assert "connected: bench (runtime_version: wanted 1.6.0.1, found 1.7.1.116)" in failed["old"]


@pytest.mark.slow
def test_a_worker_may_be_waited_for(far: Tree, site: Site, driver: Path) -> None:
    """It plays a board, as far as a C library can play its driver: the probe, the offer, the GPU's lock
    and the way of the bytes are real, the compiler is not."""
    board = {"machine": platform.machine(), "jetpack": None, "cuda": "13.0"}
    hardware(far.path("hardware/nx.json"), **board)
    hardware(far.path("hardware/agx.json"), **board, sm_count=16, memory_gib=64)
    far.write('env.Engine("a", "models/a.onnx")')
    process = far.start("-k", "engines", "HARDWARE=nx", TRT_DISPATCH_WAIT="60")
    python = str(fake_compiler(site.root / "fake"))
    worker = site.start_worker("board", "--python", python, LD_LIBRARY_PATH=str(driver))
    said = process.communicate(timeout=60)[0].decode()
    assert "DISPATCHED engines/nx/a__sm87_cu13.0_trt10.3_fp32.engine" in said, said
    assert "worker board: offers Orin, tensorrt, 10.3.0.30" in worker.said
    assert (site.root / "fake/compiled").read_text() == "Orin\n"
    run = far.scons("engines", "HARDWARE=agx")
    assert "board (sm_count: wanted 16, found 8, memory_gib: wanted 64, found 16)" in run.reason("a")
    assert worker.end() == 0
    assert not [
        p for p in Path("/proc").glob("[0-9]*/cmdline") if str(worker.log.parent / "board") in _read(p)
    ]


def test_what_a_stranger_signs_is_not_taken(far: Tree, tmp_path) -> None:
    write_key(tmp_path / "other.pem")
    far.write('env.Engine("a", "models/a.onnx")')
    run = far.scons(TRT_STORE_TRUSTED_KEYS=str(tmp_path / "other.pem.pub"))
    assert (run.status, run.failed) == (2, ["a"])
    assert "bench compiled it, but the store's entry is untrusted here" in run.reason("a")


def test_a_certificate_of_another_authority_opens_nothing(far: Tree, tmp_path) -> None:
    make_certificates(tmp_path / "other", ["client"])
    began = time.monotonic()
    run = far.scons(TRT_DISPATCH_CERTIFICATES=str(tmp_path / "other/client"))
    assert "does not answer: TLS: " in run.reason("a")
    assert time.monotonic() - began < 20  # Dask alone tries for long


@pytest.mark.slow
def test_another_version_of_distributed_is_refused_on_both_sides(far: Tree, site: Site, tmp_path) -> None:
    """A scheduler whose installation says that it is another version."""
    (tmp_path / "distributed-2020.1.0.dist-info").mkdir()
    (tmp_path / "distributed-2020.1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: distributed\nVersion: 2020.1.0\n"
    )
    url, site.url = site.url, "tls://127.0.0.1:0"
    old = site.start_scheduler(FIRST=str(tmp_path))
    other, site.url = site.url, url
    run = far.scons(TRT_DISPATCH=other)
    assert (run.status, run.failed) == (2, ["a"])
    assert f"{other} runs distributed 2020.1.0, this host " in run.reason("a")
    worker = site.start_worker("late", url=other)
    assert worker.process.wait(timeout=30) == 1
    assert "runs distributed 2020.1.0" in worker.said
    assert old.end() == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"TRT_DISPATCH": "tcp://127.0.0.1:8786"},
            "write tls://HOST:PORT; without TLS anyone could run",
        ),
        ({"TRT_STORE": ""}, "needs STORE=URL, which transfers the files"),
        ({"TRT_DISPATCH_CERTIFICATES": ""}, "needs DISPATCH_CERTIFICATES=DIR"),
        ({"TRT_DISPATCH_WAIT": "soon"}, "DISPATCH_WAIT=soon: write seconds"),
    ],
)
def test_what_is_wrong_in_the_settings_is_told_at_once(far: Tree, more, message) -> None:
    run = far.scons(**more)
    assert run.status == 2
    assert message in run.out


@pytest.mark.slow
def test_a_scheduler_lost_is_told_and_the_compile_lands_all_the_same(far: Tree, site: Site) -> None:
    far.write('env.Engine("a", "models/a.onnx")')
    site.hold.touch()
    compiles, entries = site.compiles(), site.entries()
    process = far.start()
    site.wait_held()
    site.scheduler.end(signal.SIGKILL)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 2
    assert f"DispatchError: lost the connection to {site.url} while waiting for engines/desk/a__" in said
    run = far.scons()
    assert f"DispatchError: {site.url} does not answer: Connection refused" in run.reason("a")
    worker = site.services[1]
    before = worker.said.count("connected to")
    site.release()
    until(lambda: site.entries() > entries)
    site.scheduler = site.start_scheduler()
    assert far.scons().names("FETCHED") == ["a"]
    assert site.compiles() == compiles + 1
    worker.wait_for("connected to", before + 1)
    make_model(far.path("models/a.onnx"), seed=time.monotonic_ns() % 10**9)
    assert far.scons(TRT_DISPATCH_WAIT="60").names("DISPATCHED") == ["a"]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
