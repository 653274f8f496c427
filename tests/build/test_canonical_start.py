"""How a compile starts: canonical from its start, or by stage 1 of boot.py."""

import os
import resource
import subprocess
import sys

import pytest

from scons_tensorrt.build.canonical_start import ADDR_NO_RANDOMIZE, STACK_BYTES, UNFILTERED, first_stage

READ = "print(open('/proc/self/personality').read())"


@pytest.fixture
def stack():
    """Sets the soft stack limit of this process."""
    before = resource.getrlimit(resource.RLIMIT_STACK)
    yield lambda size: resource.setrlimit(resource.RLIMIT_STACK, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_STACK, before)


def of_this_thread() -> int:
    with open("/proc/thread-self/personality") as file:
        return int(file.read(), 16)


def test_this_interpreter_starts_without_randomisation_and_only_then(stack) -> None:
    stack(STACK_BYTES)
    with open("/proc/thread-self/status", "rb") as file:
        if UNFILTERED not in file.read():
            pytest.skip("a seccomp filter is in force")
    before = of_this_thread()
    with first_stage("1", sys.executable) as stage:
        child = subprocess.run([sys.executable, "-c", READ], capture_output=True, check=True)
    assert stage == "2"
    assert int(child.stdout, 16) == before | ADDR_NO_RANDOMIZE
    assert of_this_thread() == before


def test_an_error_of_the_start_leaves_the_thread_as_it_was(stack) -> None:
    stack(STACK_BYTES)
    before = of_this_thread()
    with pytest.raises(OSError, match="none"), first_stage("1", sys.executable):
        raise OSError("none")
    assert of_this_thread() == before


@pytest.mark.parametrize("case", ["wrapper", "relative", "missing", "stack"])
def test_anything_else_starts_at_stage_1(tmp_path, stack, case) -> None:
    stack(STACK_BYTES if case != "stack" else 2 * STACK_BYTES)
    python = tmp_path / "python"
    if case == "wrapper":
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    named = {"relative": os.path.relpath(sys.executable), "stack": sys.executable}.get(case, str(python))
    before = of_this_thread()
    with first_stage("1", named) as stage:
        assert of_this_thread() == before
    assert stage == "1"


def test_a_program_that_need_not_be_canonical_starts_as_it_did() -> None:
    before = of_this_thread()
    with first_stage("2", sys.executable) as stage:
        assert of_this_thread() == before
    assert stage == "2"
