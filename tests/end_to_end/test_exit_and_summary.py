"""What a run says last, and its exit status: dry runs, Ctrl-C, a SConstruct that cannot be read, and a
standard output that takes nothing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

from conftest import Tree, fake_compiler, flip_last_bit, hardware, make_model, sound


def to(stream: str, tree: Tree, *arguments: str) -> tuple[int, str]:
    """Exit status, and standard error, of a run whose standard output is `stream`."""
    with open(stream, "wb") as out:
        done = subprocess.run(
            tree.command(*arguments),
            cwd=tree.root,
            env=tree.env(),
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("more", [[], ["-k"], ["-j4"]])
def test_a_dry_run_that_would_fail_exits_2(built: Tree, more: list[str]) -> None:
    built.path("models/a.onnx").write_text("<html>404</html>")
    run = built.scons("-n", *more, "engines")
    assert run.names("WOULD FAIL") == ["a"]
    assert run.status == 2, run.out


def test_a_dry_run_that_would_only_build_exits_0(two: Tree) -> None:
    run = two.scons("-n", "engines")
    assert (run.status, run.names("WOULD BUILD")) == (0, ["a", "b"])


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_change_nothing(two: Tree, closed: str) -> None:
    """With -Q: SCons's own first line fails on a closed standard output."""
    done = subprocess.run(
        ["bash", "-c", f'"$@" {closed}', "bash", *two.command("-Q", "engines")],
        cwd=two.root,
        env=two.env(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert all(sound(engine) for engine in two.engines().values())
    assert two.scons("engines").reused == ["a", "b"]
    status = [sys.executable, "-m", "scons_tensorrt", "status"]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {closed}', "bash", *status], cwd=two.root, env=two.env(), check=False
    )
    assert done.returncode == 0


def test_a_dry_run_without_hardware_exits_2(two: Tree) -> None:
    assert two.scons("-n", "engines", "HARDWARE=nonsense").status == 2


def test_a_dry_run_without_the_tensorrt_of_its_hardware_fails_as_the_real_one(two: Tree) -> None:
    hardware(two.path("hardware/nx.json"))
    dry, real = two.scons("-n", "-k", "engines", "HARDWARE=nx"), two.scons("-k", "engines", "HARDWARE=nx")
    assert dry.names("WOULD FAIL") == real.failed == ["a", "b"]
    assert "can be compiled only on nx" in dry.out
    assert dry.status == real.status == 2


GATED = """
env.Engine("a", "models/a.onnx", precision="fp16",
           accuracy=dict(inputs="models/a.npz", rtol=0, atol=1e-12))
env.Engine("b", "models/b.onnx")
"""


@pytest.fixture
def gated(two: Tree) -> Tree:
    """An engine that no gate lets pass, and another."""
    numpy.savez(two.path("models/a.npz"), x=numpy.ones((1, 8, 16, 16), "float32"))
    two.write(GATED)
    return two


@pytest.mark.parametrize("targets", [["."], ["engines"], []], ids=["top", "alias", "none"])
def test_the_engine_behind_a_gate_that_fails_has_failed(gated: Tree, targets: list[str]) -> None:
    run = gated.scons("-Q", *targets)
    assert "FAILED engines/a__" in run.out
    assert " 1 failed in" in run.out
    assert gated.cli("report", "--junit", "junit.xml").status == 1


def test_an_option_that_is_put_back_is_the_reason_of_its_conversion(two: Tree) -> None:
    text = 'env.Engine("a", "models/a.onnx", precision="fp16", keep_ops=[{}])'
    for kept in ('"Conv"', ""):
        two.write(text.format(kept))
        assert two.scons(".trt/onnx/a.fp16.onnx").status == 0
    two.write(text.format('"Conv"'))
    (line,) = two.scons(".trt/onnx/a.fp16.onnx").lines("CONVERTED")
    assert "keep_ops changed" in line


def test_a_dry_run_tells_what_waits_for_a_step_that_would_fail(gated: Tree) -> None:
    gated.path("models/a.onnx").write_bytes(b"no model")
    run = gated.scons("-n", "-k", "engines")
    assert run.names("WOULD FAIL")[-1:] == ["a"]
    assert run.names("WOULD BUILD") == ["b"]
    assert run.status == 2


def slow(tree: Tree) -> None:
    act = "(open(job['folder'] + '/began', 'w').close(), time.sleep(60))"
    python = fake_compiler(tree.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(python)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_engine_is_not_counted_as_failed(two: Tree, number: int) -> None:
    slow(two)
    process = two.start("engines")
    end = time.monotonic() + 60
    while not list(two.root.rglob("began")):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    out = process.communicate(timeout=20)[0].decode()
    assert process.returncode == 2, out
    assert "INTERRUPTED engines/a__" in out
    assert "FAILED" not in out
    last = next(line for line in out.splitlines() if line.startswith("engines: 0 reused"))
    assert last.startswith("engines: 0 reused, 0 built, 0 failed, 1 interrupted in ")
    assert last.endswith(" (stopped: 1 not reached)")


def test_an_interrupted_conversion_is_not_counted_as_failed(two: Tree) -> None:
    slow(two)
    export = "import pathlib, time\ndef f(target):\n    pathlib.Path({!r}).touch()\n    time.sleep(60)\n"
    two.path("models/e.py").write_text(export.format(str(two.path("began"))))
    two.write('env.Engine("c", env.OnnxExport("c", "models/e.py:f"))')
    process = two.start("engines")
    end = time.monotonic() + 60
    while not two.path("began").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=20)[0].decode()
    assert process.returncode == 2, out
    assert "INTERRUPTED .trt/onnx/c.onnx" in out
    assert "FAILED" not in out
    last = next(line for line in out.splitlines() if line.startswith("engines: 0 reused"))
    assert "0 failed" in last
    assert "stopped: 1 not reached" in last


def test_a_sconstruct_that_cannot_be_read_ends_without_a_summary(two: Tree) -> None:
    two.write('env.Engine("a", "models/a.onnx")\nenv.Engine("B", "models/b.onnx")')
    declared = two.path(".trt/declared.json")
    assert two.scons().status == 2
    assert "reused" not in two.scons().out
    assert not declared.exists(), "half a graph is no graph"


@pytest.mark.parametrize("arguments", [["engines"], ["-k", "engines"], ["engines", "-n"]])
def test_a_full_disk_behind_standard_output_is_one_line(built: Tree, arguments: list[str]) -> None:
    make_model(built.path("models/a.onnx"), seed=7)
    status, said = to("/dev/full", built, *arguments)
    assert said == "engines: standard output: No space left on device; make room for it\n"
    assert status == 2


@pytest.mark.slow
def test_a_full_disk_is_no_reason_to_lose_an_engine(two: Tree) -> None:
    assert to("/dev/full", two, "engines")[0] == 2
    assert two.scons().reused == ["a", "b"]


def test_a_reader_that_has_gone_fails_no_build(built: Tree) -> None:
    make_model(built.path("models/a.onnx"), seed=7)
    command = subprocess.list2cmdline(built.command("engines"))
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        cwd=built.root,
        env=built.env(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert built.scons().reused == ["a", "b"]


@pytest.mark.parametrize("targets", [[], ["engines"], ["."]], ids=["none", "alias", "top"])
def test_a_dry_run_of_a_restored_clone_says_what_the_real_run_does(
    two: Tree, tmp_path: Path, targets: list[str]
) -> None:
    two.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    assert two.scons("engines").built == ["a"]
    clone = two.copy(tmp_path / "clone", "SConstruct", "models", "engines", ".trt")
    dry = clone.scons("-Q", "-n", *targets)
    assert (dry.status, dry.lines("WOULD BUILD"), dry.names("WOULD REUSE")) == (0, [], ["a"]), dry.out
    assert clone.scons("-Q", *targets).reused == ["a"]


def test_an_engine_whose_model_could_not_be_made_is_counted(two: Tree) -> None:
    two.write(
        """
        env.Engine("a", env.Command("made.onnx", [], "false"))
        env.Engine("b", "models/b.onnx")
        """
    )
    run = two.scons("-k", "engines")
    assert (run.status, run.failed, run.built) == (2, ["a"], ["b"])
    assert run.reason("a") == "EngineBuildError: made.onnx could not be built, see error above"
    assert run.summary.startswith("engines: 0 reused, 1 built, 1 failed")


def test_a_reader_that_goes_away_costs_nothing(built: Tree) -> None:
    command = " ".join(built.command("engines"))
    done = subprocess.run(
        f"{command} | head -1",
        shell=True,
        cwd=built.root,
        env=built.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "BrokenPipe" not in done.stderr
    assert built.events()[-1]["event"] == "engine.compile.summary"
    assert len(built.events()) == 6


def test_a_failed_rebuild_tells_the_miss_and_its_reason_too(built: Tree) -> None:
    flip_last_bit(built.engine("a"))
    python = fake_compiler(built.path("fake"), "sys.exit(1)", "tensorrt_rtx", "1.7.1.116")
    built.scons(TRT_PYTHON=str(python))
    last = [(e["event"], e.get("outcome"), e.get("reason")) for e in built.events()][-5:-1]
    assert ("engine.sidecar.mismatch", "failed", "engine_tampered") in last
    assert ("engine.compile.error", "failed", "error") in last
