"""The compile's child process: what it is sent, and what is made of what it says and how it ends.

The child here is a shell script, or the real worker with a job that ends before TensorRT.
"""

import json
import os
import platform
import resource
import sys
import venv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import compile_job

import scons_tensorrt
from scons_tensorrt import errors
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.build import child_process
from scons_tensorrt.build.child_process import ENDING, SENT, run_worker
from scons_tensorrt.build.child_programs import (
    CALIBRATING,
    COMPILER,
    CONVERTER,
    JOB_STEP,
    RUNNER,
    compiler_of,
)
from scons_tensorrt.build.onnx_context import OnnxContext
from scons_tensorrt.build.run_onnx_step import PRIVATE, run_converter
from scons_tensorrt.errors import (
    EngineBuildError,
    EngineError,
    HardwareMismatchError,
    Interrupted,
    RecipeError,
    by_name,
)
from scons_tensorrt.worker.trt.job import PinnedKernels

DONE = {
    "event": "done",
    "sha256": "0" * 64,
    "size": 7,
    "version": "1.7.1.116",
    "python": "3.11.7",
    "peak_memory_bytes": 5,
    "not_reproducible_because": None,
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


# What it is sent.


@given(st.dictionaries(st.text(max_size=8).filter(lambda k: k != "modules"), json_values, max_size=4))
def test_a_job_arrives_as_it_was_sent(job):
    frame = COMPILER.frame(job)
    sent = json.loads(frame[16:])
    del sent["modules"]
    assert int(frame[:16]) == len(frame) - 16
    assert sent == job


def test_the_length_of_a_path_does_not_change_the_length_of_the_frame():
    lengths = {len(COMPILER.frame({"output": "x" * length})) for length in range(0, 3000, 100)}
    assert len(lengths) == 1


def test_a_frame_is_a_whole_number_of_steps():
    assert (len(COMPILER.frame({"output": "x" * 300_000})) - 16) % JOB_STEP == 0


PINNED = compiler_of(compile_job(Path("/"), pinned=PinnedKernels("a.cache", None, {}, None)))


@pytest.mark.parametrize(
    ("program", "main", "others"),
    [
        (CALIBRATING, "main", {"run_engine", "pinned_kernels"}),
        (PINNED, "main", {"run_engine", "calibrate", "gpu_memory"}),
        (CONVERTER, "main", set()),
        (RUNNER, "run_engine", {"calibrate", "pinned_kernels"}),
    ],
    ids=["compile", "pinned", "convert", "run"],
)
def test_every_module_of_a_worker_is_sent_after_its_packages_and_main_last(program, main, others):
    job = json.loads(program.frame({})[16:])
    sent = [name for name, _ in job["modules"]]
    room = program.modules[-1].rpartition(".")[0]
    folder = Path(scons_tensorrt.__file__).parents[1].joinpath(*room.split("."))
    package = {f"{room}.{p.stem}" for p in folder.glob("*.py") if p.stem not in ("__init__", "boot")}
    assert package - {*sent, *job.get("later", ())} == {f"{room}.{n}" for n in others}
    assert sent[-1] == f"{room}.{main}"
    assert all(name.rpartition(".")[0] in ("", *sent[:at]) for at, name in enumerate(sent))


def test_a_worker_that_does_not_calibrate_is_not_sent_how():
    more = set(CALIBRATING.modules) - set(COMPILER.modules)
    assert sorted(name.rpartition(".")[2] for name in more) == ["array_file", "calibrate", "gpu_memory"]


# What it says.

NOT_EVENTS = [
    b"",  # an empty line
    b"Segmentation fault",  # what someone printed
    b"{",  # cut off
    b"[1]",  # JSON, but no event
    b"5",  # a number
    b"null",
    b"\xff\xfe",  # not text
    b"[" * 100_000,  # nested past what Python's parser takes
]


@pytest.mark.parametrize("line", NOT_EVENTS, ids=[repr(line)[:20] for line in NOT_EVENTS])
def test_a_line_that_is_no_event_is_nothing(line):
    assert child_process._event(line) == {}


@given(st.binary(max_size=60))
def test_any_line_is_an_event_or_nothing(line):
    assert isinstance(child_process._event(line), dict)


@pytest.fixture
def say(tmp_path):
    """Run a shell script as the worker."""

    def say(*lines, stopping=lambda: False, progress=lambda event: None, timeout_s=None):
        program = tmp_path / "python"
        program.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
        program.chmod(0o755)
        asked = compile_job(tmp_path, python=str(program))
        return run_worker(asked, tmp_path / "log", stopping, progress, timeout_s)

    say.log = tmp_path / "log"
    return say


def echo(event):
    return f"echo '{json.dumps(event)}'"


def test_a_worker_that_is_done_gives_what_it_compiled(say):
    made = say(echo(DONE))
    assert (made.sha256, made.size, made.version) == ("0" * 64, 7, "1.7.1.116")
    assert made.not_reproducible_because is None
    assert made.duration_s > 0


def test_a_process_with_more_than_1024_open_files_still_listens(say):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 1200:
        pytest.skip("the hard limit of open files is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = []
    try:
        held.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(1050))
        assert say(echo(DONE)).size == 7
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_events_on_the_way_are_passed_on_in_order(say):
    seen = []
    say(
        echo({"event": "phase", "n": 1}),
        echo({"event": "step", "n": 2}),
        echo(DONE),
        progress=seen.append,
    )
    assert seen[-1] == ENDING
    told = [event for event in seen if event not in (SENT, ENDING)]
    assert told == [{"event": "phase", "n": 1}, {"event": "step", "n": 2}]


INCOMPLETE = [
    {"event": "done"},  # nothing that was made
    {**DONE, "size": "7"},  # not a number
    {**DONE, "sha256": None},  # no sum
    {"event": "error", "message": "x"},  # of no class
    {"event": "error", "error_class": ["RecipeError"], "message": "x"},  # a class that is a list
    {"event": "again"},  # with what
]


@pytest.mark.parametrize("event", INCOMPLETE, ids=str)
def test_a_last_word_that_is_incomplete_is_no_result(say, event):
    with pytest.raises(EngineBuildError):
        say(echo(event))


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_worker_that_was_asked_to_stop_is_no_crash(say, name):
    # Not `kill $$`: a shell cannot take back that its parent (nohup, a CI) ignores a signal.
    act = f"import os, signal as s; s.signal(s.SIG{name}, s.SIG_DFL); os.kill(os.getpid(), s.SIG{name})"
    with pytest.raises(Interrupted):
        say(f"exec {sys.executable} -c '{act}'")


def test_what_is_no_event_is_passed_over(say):
    seen = []
    say("echo hello", "echo", "printf '\\377\\n'", echo(DONE), progress=seen.append)
    assert [event for event in seen if event not in (SENT, ENDING)] == []


def test_an_error_event_is_raised_as_its_class(say):
    with pytest.raises(RecipeError, match=r"^flag X: none$"):
        say(echo({"event": "error", "error_class": "RecipeError", "message": "flag X: none"}), "exit 1")


def test_an_error_of_a_class_this_version_does_not_know_is_a_build_error(say):
    with pytest.raises(EngineBuildError, match=r"^no$"):
        say(echo({"event": "error", "error_class": "CalibrationError", "message": "no"}), "exit 1")


def test_what_it_prints_as_error_goes_to_the_log(say):
    say("echo native words >&2", echo(DONE))
    assert say.log.read_text() == "native words\n"


def test_a_worker_may_ask_once_for_the_library_path(say):
    made = say(
        'test -n "$LD_LIBRARY_PATH" && VERSION=$LD_LIBRARY_PATH',
        f'test -n "$VERSION" && {echo(DONE)} || ' + echo({"event": "again", "library_path": "/opt"}),
    )
    assert made.size == 7


def test_a_worker_that_asks_again_and_again_is_an_error(say):
    with pytest.raises(EngineBuildError):
        say(echo({"event": "again", "library_path": "/opt"}), "exit 4")


def test_the_workers_environment_is_not_the_users(say, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    say("env >&2", echo(DONE))
    names = {line.partition("=")[0] for line in say.log.read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "LC_ALL"}


def test_a_conversion_gets_the_users_environment_without_signing_keys(tmp_path, monkeypatch):
    """It runs functions of the user, also for the comparison of an engine with its original."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nenv >&2\n" + echo({"event": "done", "facts": {"n": 1}}) + "\n")
    program.chmod(0o755)
    for name in ("MINE", *PRIVATE):
        monkeypatch.setenv(name, "x")
    context = OnnxContext(
        state=StateFolder(tmp_path / ".trt", tmp_path),
        digest_cache=None,
        python=str(program),
        lock_timeout_s=None,
        stopping=lambda: False,
        say=print,
    )
    facts, _ = run_converter({}, tmp_path / "log", context)
    names = {line.partition("=")[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert facts == {"n": 1}
    assert "MINE" in names
    assert names.isdisjoint(PRIVATE)


# How it ends.

ENDS = [
    ("exit 0", "ended with status 0 and no result"),
    ("exit 3", "ended with status 3 and no result"),
    ("kill -SEGV $$", "crashed (SIGSEGV)"),
    ("kill -ABRT $$", "crashed (SIGABRT)"),
    ("kill -KILL $$", "killed (SIGKILL): most often the kernel, out of memory"),
    ("kill -40 $$", "crashed"),  # a real-time signal, which Python has no name for
    (echo({"event": "phase"}) + "; kill -SEGV $$", "crashed (SIGSEGV)"),  # in the middle
    ("printf '" + json.dumps(DONE)[:30] + "'; exit 1", "ended with status 1"),  # in the middle of a word
]


@pytest.mark.parametrize(("line", "words"), ENDS, ids=[line for line, _ in ENDS])
def test_a_worker_that_ends_without_a_last_word_is_an_error_that_says_how(say, line, words):
    with pytest.raises(EngineBuildError) as caught:
        say(line)
    assert words in str(caught.value)


def test_a_program_that_cannot_be_started_is_an_error(tmp_path):
    with pytest.raises(EngineBuildError, match="cannot be started: No such file"):
        run_worker(compile_job(tmp_path, python=str(tmp_path / "python")), tmp_path / "log", lambda: False)


def test_a_worker_that_takes_too_long_is_ended(say):
    with pytest.raises(EngineBuildError, match="longer than timeout_s"):
        say("exec sleep 60", timeout_s=0.05)


def test_a_worker_that_closes_its_output_and_runs_on_is_ended_too(say):
    with pytest.raises(EngineBuildError, match="longer than timeout_s"):
        say("exec sleep 3 >&-", timeout_s=0.05)


def test_a_build_that_is_stopped_ends_its_worker(say):
    with pytest.raises(Interrupted):
        say("exec sleep 60", stopping=lambda: True)


def test_a_worker_that_babbles_without_end_is_not_blamed_on_memory(say):
    with pytest.raises(EngineBuildError) as caught:
        say("exec tr '\\0' x < /dev/zero")
    assert "out of memory" not in str(caught.value)


# The names of errors.


@pytest.mark.parametrize(
    "name", [n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, EngineError)]
)
def test_every_error_is_found_by_its_name(name):
    assert by_name(name).__name__ == name


def test_a_renamed_error_is_found_by_its_old_name():
    assert by_name("SignatureError") is HardwareMismatchError
    with pytest.warns(DeprecationWarning, match="SignatureError is now HardwareMismatchError"):
        from scons_tensorrt.errors import SignatureError
    assert SignatureError is HardwareMismatchError
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = errors.Nothing


@pytest.mark.parametrize("name", ["", "ValueError", "Exception", "by_name", "__name__", "Foo"])
def test_any_other_name_is_a_build_error(name):
    assert by_name(name) is EngineBuildError


# The real worker, as far as it goes without TensorRT.


MACHINE = {"os": platform.system().lower(), "machine": platform.machine()}


@pytest.mark.parametrize(("field", "spec"), [("machine", "riscv64"), ("os", "qnx")])
def test_the_worker_refuses_another_machine_with_wanted_and_found(tmp_path, field, spec):
    asked = compile_job(tmp_path, hardware={**MACHINE, field: spec})
    with pytest.raises(HardwareMismatchError, match=f"{field}: wanted {spec}, found "):
        run_worker(asked, tmp_path / "log", lambda: False)


def test_a_bug_in_the_worker_is_an_error_with_its_traceback_in_the_log(tmp_path):
    with pytest.raises(EngineBuildError, match="AttributeError"):
        run_worker(compile_job(tmp_path, hardware=None), tmp_path / "log", lambda: False)
    assert "Traceback" in (tmp_path / "log").read_text()


# What of an installation reaches it.


@pytest.fixture
def installation(tmp_path):
    """A virtual environment whose .pth file names a folder and leaves a mark when it is run; and
    a TensorRT beside it, the given text."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    (site / "a.pth").write_text(
        f"{tmp_path}/further\nimport pathlib; pathlib.Path({str(tmp_path / 'mark')!r}).touch()\n"
    )
    for folder, name in (("beside", "tensorrt_rtx"), ("beside", "near"), ("further", "far")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").touch()

    def run(text):
        (tmp_path / "beside" / "tensorrt_rtx.py").write_text(text + "\n__version__ = '9.9'\n")
        beside = str(tmp_path / "beside")
        asked = compile_job(tmp_path, python=str(python), package_folder=beside, hardware=MACHINE)
        with pytest.raises(EngineError) as caught:
            run_worker(asked, tmp_path / "log", lambda: False)
        return str(caught.value), (tmp_path / "mark").exists()

    return run


IMPORTED = "runtime_version: wanted 0.0, found 9.9"  # as far as it gets with TensorRT


def test_no_code_of_the_installation_runs_in_the_worker(installation):
    said, marked = installation("import near, ctypes, warnings")
    assert said.startswith(IMPORTED)
    assert not marked


@pytest.mark.parametrize("text", ["import far", "import near, far, near", "from far import __name__"])
def test_what_tensorrt_needs_from_another_folder_is_found_as_ever(installation, text):
    said, marked = installation(text)
    assert said.startswith(IMPORTED)
    assert marked


def test_what_is_nowhere_is_an_error_that_names_it(installation):
    said, _ = installation("import nowhere_at_all")
    assert "tensorrt_rtx cannot be imported" in said
    assert "No module named 'nowhere_at_all'" in said


@pytest.mark.parametrize("text", ["import winreg", "import tensorrt_rtx.inner"])
def test_a_part_that_is_missing_is_for_the_import_to_bear(installation, text):
    said, _ = installation(f"try:\n    {text}\nexcept ImportError:\n    pass")
    assert said.startswith(IMPORTED)


def test_the_parts_of_a_package_in_another_folder_are_found_too(installation, tmp_path):
    (tmp_path / "beside" / "shared").mkdir()  # a namespace package: one folder of several
    (tmp_path / "further" / "shared").mkdir()
    (tmp_path / "further" / "shared" / "part.py").touch()
    said, marked = installation("import shared.part")
    assert said.startswith(IMPORTED)
    assert marked


def test_the_worker_imports_little(installation):
    """Each module is compiled from its source, and some weigh more than all that is needed."""
    said, _ = installation("import sys\nraise ImportError(' '.join(sys.modules))")
    heavy = {
        "site",
        "typing",
        "traceback",
        "logging",
        "platform",
        "threading",
        "pathlib",
        "subprocess",
        "hashlib",
    }
    loaded = set(said.split())
    assert loaded > {"json", "ctypes"}
    assert not loaded & heavy
