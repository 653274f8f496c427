"""Compiles in containers whose seccomp profile forbids what makes engines repeat byte by byte."""

import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conftest import Tree, make_model, sound

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="system calls by x86-64 numbers"
)
PERSONALITY, SETRLIMIT, PRLIMIT64 = 135, 160, 302
KILL, EPERM = 0x80000000, 0x00050001  # SECCOMP_RET_KILL_PROCESS; SECCOMP_RET_ERRNO with EPERM
WRAPPER = '''
    #!{python}
    """Run Python where a filter answers some system calls, {calls}, by {answer:#x}.

    prlimit64 is answered so only where it sets a limit, not where it asks for one.
    """
    import ctypes, os, resource, struct, sys

    CALLS, ANSWER, PRLIMIT64 = {calls}, {answer}, {prlimit64}
    LOAD, EQUAL, RETURN, ALLOW = 0x20, 0x15, 0x06, 0x7FFF0000
    program = []
    for number in CALLS:
        program.append((LOAD, 0, 0, 0))  # the system call's number
        if number == PRLIMIT64:
            program += [(EQUAL, 0, 3, number), (LOAD, 0, 0, 32)]  # the pointer to the new limit
            program += [(EQUAL, 1, 0, 0), (RETURN, 0, 0, ANSWER)]
        else:
            program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ANSWER)]
    program.append((RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    filters = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    resource.setrlimit(resource.RLIMIT_STACK, ({stack}, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in [(38, 1, 0, 0, 0), (22, 2, filters, 0, 0)]:  # no new privileges; the filter
        if libc.prctl(*arguments):
            sys.exit(os.strerror(ctypes.get_errno()))
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
'''


def wrapper(path: Path, calls: list[int], answer: int, stack: int = 8 << 20) -> str:
    """An interpreter for TRT_PYTHON that runs under such a filter."""
    text = textwrap.dedent(WRAPPER).lstrip()
    values = {"calls": calls, "answer": answer, "stack": stack, "prlimit64": PRLIMIT64}
    path.write_text(text.format(python=sys.executable, **values))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def one(tree: Tree) -> Tree:
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx")')
    return tree


@pytest.mark.parametrize(
    ("calls", "answer", "stack", "why"),
    [
        ([PERSONALITY], KILL, 8 << 20, "a seccomp filter forbids personality or setrlimit (SIGSYS)"),
        ([SETRLIMIT, PRLIMIT64], KILL, 4 << 20, "a seccomp filter forbids personality or setrlimit"),
        ([SETRLIMIT, PRLIMIT64], EPERM, 4 << 20, "the stack limit could not be set (setrlimit: "),
        ([PERSONALITY], EPERM, 8 << 20, "(personality: Operation not permitted)"),
    ],
    ids=["personality kills", "setrlimit kills", "setrlimit fails", "personality fails"],
)
def test_the_engine_is_built_and_its_receipt_says_why_bytes_may_not_repeat(
    one: Tree, calls: list[int], answer: int, stack: int, why: str
) -> None:
    python = wrapper(one.path("python"), calls, answer, stack)
    run = one.scons(TRT_PYTHON=python)
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert sound(one.engine("a"))
    receipt = one.receipt("a")
    assert receipt["reproducible"] is False
    assert why in receipt["not_reproducible_because"]
    assert one.scons(TRT_PYTHON=python).reused == ["a"]


def test_a_stack_limit_that_is_right_need_not_be_set(one: Tree) -> None:
    python = wrapper(one.path("python"), [SETRLIMIT, PRLIMIT64], KILL)
    run = one.scons(TRT_PYTHON=python)
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert one.receipt("a")["reproducible"] is True


def test_scons_is_not_killed_by_a_filter_that_the_compile_survives(one: Tree) -> None:
    python = wrapper(one.path("python"), [PERSONALITY], KILL)
    subprocess.run([python, *one.command("engines")[1:]], cwd=one.root, env=one.env(), check=True)
    assert "a seccomp filter forbids personality" in one.receipt("a")["not_reproducible_because"]


def test_a_filter_that_forbids_more_is_told(one: Tree) -> None:
    eventfd2 = 290
    poll = 7
    run = one.scons(TRT_PYTHON=wrapper(one.path("python"), [eventfd2, poll], KILL))
    assert (run.status, run.failed) == (2, ["a"])
    assert "the compiler was killed by a seccomp filter (SIGSYS): allow the system call" in run.out
