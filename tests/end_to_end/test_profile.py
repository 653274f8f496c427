"""`scons engines PROFILE=profile.json`: what a run did, and when, as Perfetto shows it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from traces import CHAIN, Trace, read_trace

from conftest import Run, Tree, fake_compiler, flip_last_bit, make_model

FAILS = """
env.Engine("a", "models/a.onnx")
env.Engine("b", "models/missing.onnx")
"""
STEPS = """
env.Command("models/c.onnx", "models/a.onnx", Copy("$TARGET", "$SOURCE"))
env.Engine("c", "models/c.onnx", precision="fp16")
env.Engine("b", "models/b.onnx")
"""


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, Run]:
    """A run with a Command, a conversion and two compiles, with two jobs."""
    tree = Tree(tmp_path_factory.mktemp("profiled") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    make_model(tree.path("models/b.onnx"), seed=2)
    tree.write(STEPS)
    run = tree.scons("-j2", "engines", "PROFILE=out/profile.json")
    assert (run.status, run.built) == (0, ["b", "c"]), run.out
    return tree, run


@pytest.fixture
def trace(profiled: tuple[Tree, Run]) -> Trace:
    return read_trace(profiled[0].path("out/profile.json"))


def test_the_phases_follow_each_other_and_are_the_wall_time_of_the_summary(
    profiled: tuple[Tree, Run], trace: Trace
) -> None:
    phases = trace.of("phase")
    assert [each.name for each in phases] == ["start", "reading", "build", "end"]
    assert phases[0].ts == 0
    assert all(0 <= after.ts - before.end < 1000 for before, after in pairwise(phases))
    wall_s = phases[-1].end / 1e6
    assert sum(trace.facts["seconds"].values()) == pytest.approx(wall_s, abs=0.005)
    line = next(line for line in profiled[1].lines("profile:") if " s: start " in line)
    said = re.match(
        r"profile: ([\d.]+) s: start ([\d.]+), reading ([\d.]+), build ([\d.]+), end ([\d.]+);", line
    )
    assert said
    assert [float(each) for each in said.groups()] == pytest.approx(
        [wall_s, *(each.dur / 1e6 for each in phases)], abs=0.011
    )
    assert max(each.end for each in trace.all()) == phases[-1].end


def test_a_compile_holds_its_stages_in_order_and_they_fill_it(trace: Trace) -> None:
    task = trace.engine("b")
    assert task.args["outcome"] == "built"
    assert task.args["reason_text"] == "not built before"
    stages = task.stages()
    first = ["preparing", "waiting for its lock", "checking whether it is up to date"]
    first += ["waiting for an engine with the same inputs", "looking for a kept engine"]
    assert stages == [*first, "compiling on this host", "publishing"]
    (compiling,) = [each for each in task.walk() if each.name == "compiling"]
    inner = compiling.stages()
    assert inner[:3] == ["hashing its inputs", "starting the compiler", "reading the network"]
    assert "Building engine" in inner
    assert inner[-3:] == ["writing the engine", "ending the compiler", "checking the engine"]
    for slice in (task, compiling):
        assert sum(each.dur for each in slice.inner if each.kind == "stage") >= 0.9 * slice.dur
    seconds = task.args["compile_duration_s"]
    assert compiling.dur / 1e6 >= seconds - 0.002


def test_a_conversion_holds_the_stages_of_its_child_process(trace: Trace) -> None:
    (step,) = [each for each in trace.of("task") if each.name == ".trt/onnx/c.fp16.onnx"]
    assert step.args["outcome"] == "made"
    assert step.stages()[-3:] == ["copying its inputs", "running the step", "publishing"]
    (converting,) = [each for each in step.walk() if each.name == "converting" and each.kind == "work"]
    assert converting.args == {"file": ".trt/onnx/c.fp16.onnx"}
    assert converting.stages() == ["starting the converter", "importing its packages", "converting"]


def test_jobs_have_tracks_of_their_own_and_the_counter_ends_at_none(trace: Trace) -> None:
    assert set(trace.tracks) == {CHAIN, "SCons", "job 1", "job 2"}
    assert (min(trace.jobs), max(trace.jobs) in (1, 2), trace.jobs[-1]) == (0, True, 0)
    tasks = trace.of("task")
    assert 0 < trace.facts["busy"] <= 1
    busy_s = sum(each.dur for each in tasks) / 1e6
    assert busy_s / trace.facts["seconds"]["build"] / 2 == pytest.approx(trace.facts["busy"], abs=0.01)


def test_the_chain_leads_from_the_command_to_the_last_compile(
    profiled: tuple[Tree, Run], trace: Trace
) -> None:
    chain = trace.tracks[CHAIN]
    assert [each.name for each in chain if "c." in each.name or "c__" in each.name] == [
        "models/c.onnx",
        ".trt/onnx/c.fp16.onnx",
        next(path for path in map(str, _paths(profiled[0])) if "/c__" in path),
    ]
    waited = {each.name: each.args["waited_for"] for each in chain}
    assert waited[".trt/onnx/c.fp16.onnx"] == "input"
    assert trace.engine("c").args["inputs"] == [".trt/onnx/c.fp16.onnx"]
    (command,) = [each for each in trace.of("task") if each.name == "models/c.onnx"]
    assert command.args == {"inputs": [], "outcome": "done"}
    assert re.search(
        r"^profile: longest chain [\d.]+ s: .* → \S+c__\S+\.engine [\d.]+", profiled[1].out, re.M
    )


def _paths(tree: Tree) -> list[Path]:
    return [path.relative_to(tree.root) for path in tree.engines().values()]


def test_a_null_build_shows_each_check_and_imports_the_profile_only_when_asked(built: Tree) -> None:
    prints = 'print("HAS", sorted(m for m in sys.modules if ".profile" in m))'
    built.write(f"import atexit, sys\natexit.register(lambda: {prints})", "loaded.py", header="")
    built.path("SConstruct").write_text("import loaded\n" + built.path("SConstruct").read_text())
    assert built.scons("-Q", "engines").lines("HAS") == ["HAS []"]
    run = built.scons("-Q", "engines", TRT_PROFILE="profile.json")
    assert run.reused == ["a", "b"]
    assert "profile: profile.json (open it in ui.perfetto.dev)" in run.out
    assert "chain" not in run.out
    trace = read_trace(built.path("profile.json"))
    assert [each.args["model"] for each in trace.of("check") if "code" in each.args] == ["a", "b"]
    assert trace.of("task") == []


MISSING = "models/missing.onnx: No such file or directory; check the path"
TAMPERED = "the engine was modified after it was built"
STOPPED = {"a": "not started: b failed"}
MODES = {
    "silent": (("-s",), 2, STOPPED),
    "keep going": (("-k", "-j4"), 2, {"a": TAMPERED, "b": MISSING}),
    "stops": ((), 2, STOPPED),
    "dry run": (("-n",), 2, {"b": MISSING}),
    "clean": (("-c",), 0, {}),
    "question": (("-q",), 1, {}),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_profile_is_written_in_each_mode_and_of_a_build_that_fails(built: Tree, mode: str) -> None:
    flags, status, outcomes = MODES[mode]
    built.write(FAILS)
    flip_last_bit(built.engine("a"))
    run = built.scons(*flags, "engines", "PROFILE=profile.json")
    assert run.status == status, run.out
    assert ("profile: profile.json" in run.out) == (mode not in ("silent", "clean", "question"))
    trace = read_trace(built.path("profile.json"))
    assert [each.name for each in trace.of("phase")] == ["start", "reading", "build", "end"]
    assert trace.facts["exit_status"] == status
    tasks = [each for each in trace.of("task") if "outcome" in each.args]
    assert {_model(each.name): each.args["reason_text"].split(": sha")[0] for each in tasks} == outcomes


def _model(engine: str) -> str:
    return Path(engine).name.split("__")[0]


@pytest.mark.slow
@pytest.mark.parametrize("text", ['env.Engine("b", "models/b.onnx", precision="fp15")', "1 / 0"])
def test_a_profile_is_written_when_reading_fails(built: Tree, text: str) -> None:
    built.write(text)
    process = built.start("engines", "PROFILE=profile.json")
    process.communicate(timeout=60)
    assert process.returncode == 2
    trace = read_trace(built.path("profile.json"))
    assert [each.name for each in trace.of("phase")] == ["start", "reading", "end"]
    assert trace.facts["exit_status"] is None


@pytest.mark.slow
def test_a_profile_of_a_build_that_ends_at_a_cycle_has_its_status(built: Tree) -> None:
    built.write('env.Alias("engines", [env.Command("x", "y", "true"), env.Command("y", "x", "true")])')
    process = built.start("engines", "PROFILE=profile.json")
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert read_trace(built.path("profile.json")).facts["exit_status"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_has_the_compile_that_was_ended(tree: Tree, number: int) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx")')
    act = "open(@, 'w').close()\nwhile os.getppid() != 1: time.sleep(0.005)"
    act = act.replace("@", repr(str(tree.path("began"))))
    tree.environment["TRT_PYTHON"] = str(fake_compiler(tree.path("fake"), act, "tensorrt_rtx", "1.7.1.116"))
    process = tree.start("-j2", "engines", "PROFILE=profile.json")
    _wait_for(tree.path("began").exists)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 2
    trace = read_trace(tree.path("profile.json"))
    task = trace.engine("a")
    assert task.args["outcome"] == "failed"
    assert task.args["error_class"] == "Interrupted"
    assert trace.named("reading the network").end <= task.end


def _wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


WRONG = {
    "folder": ("models", "is a folder; name another file"),
    "pipe": ("pipe", "is not a regular file; name another file"),
    "open file": ("stdout", "is not a regular file; name another file"),
    "model": ("models/a.onnx", "is not a profile, and is not replaced; name another file"),
    "below a file": ("SConstruct/p.json", "SConstruct is not a folder; remove it, or move it away"),
    "no file system": ("/proc/p.json", "cannot be written: No such file or directory; name another file"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_path_that_cannot_be_written_is_one_line_before_anything_is_built(built: Tree, what: str) -> None:
    path, why = WRONG[what]
    os.mkfifo(built.path("pipe"))
    built.path("stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout
    before = built.snapshot("models", "engines")
    run = built.scons("-Q", "engines", f"PROFILE={path}")
    assert run.status == 2
    (line,) = run.out.splitlines()
    assert re.fullmatch(
        rf"scons: \*\*\* SConstruct:\d+: PROFILE={re.escape(path)} .*{re.escape(why)}.*", line
    ), line
    assert built.snapshot("models", "engines") == before


@pytest.mark.slow
def test_a_folder_that_is_lost_meanwhile_is_a_line_and_fails_nothing(built: Tree) -> None:
    built.write(
        """
        import os
        env.Engine("a", "models/a.onnx")
        os.rmdir("out")
        open("out", "w").close()
        """
    )
    run = built.scons("-Q", "engines", "PROFILE=out/profile.json")
    assert run.status == 0
    assert run.summary.startswith("PROFILE=out/profile.json cannot be written: ")
    assert run.summary.endswith("out is not a folder; remove it, or move it away")


@pytest.mark.slow
def test_the_command_line_writes_it_to_the_state_folder(tmp_path: Path, built: Tree) -> None:
    other = Tree.at(tmp_path / "plain", {})
    make_model(other.path("face.onnx"))
    refused = other.cli("build", "--profile", "face.onnx")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "--profile face.onnx: write --profile=FILE.json" in refused.err
    done = built.cli("build", "--profile", "-n")
    assert done.status == 0, done.out + done.err
    assert "profile: .trt/profile.json (open it in ui.perfetto.dev)" in done.out
    read_trace(built.path(".trt/profile.json"))
