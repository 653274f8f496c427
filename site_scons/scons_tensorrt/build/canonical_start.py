"""Starts a compile at stage 2 of worker/common/boot.py where it is canonical from its start: stage 1 costs
another start of an interpreter, 0.03 s.

A thread's personality is that of the processes it starts, so it is set for the moment of the start. Anything
that may not pass it on, or needs more than that, is left to stage 1: another interpreter, which may be a
wrapper; a seccomp filter, which may kill whoever calls personality; another stack limit.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

# As boot.py has them, which cannot be imported: it is a program.
STACK_BYTES = 8 << 20
ADDR_NO_RANDOMIZE = 0x0040000
PRESENT = 0xFFFFFFFF  # personality(2) changes nothing, and returns the present one
UNFILTERED = b"\nSeccomp:\t0\n"


@contextlib.contextmanager
def first_stage(stage: str, python: str) -> Iterator[str]:
    """The stage of boot.py at which a process begins that this thread starts meanwhile, of the interpreter
    `python`: `stage`, but "2" instead of "1" if the process is canonical from its start."""
    if stage != "1" or not _can_be_canonical(python):
        yield stage
        return
    import ctypes  # only a compile needs it

    personality = ctypes.CDLL(None).personality
    before = personality(ctypes.c_ulong(PRESENT))
    if before < 0 or personality(ctypes.c_ulong(before | ADDR_NO_RANDOMIZE)) < 0:
        yield stage
        return
    try:
        yield "2"
    finally:
        personality(ctypes.c_ulong(before))


def _can_be_canonical(python: str) -> bool:
    """Whether `python` is the program of this process, by its full path as stage 1 would execute it, and only
    address-space randomisation has to be switched off."""
    try:
        with open("/proc/thread-self/status", "rb") as file:
            unfiltered = UNFILTERED in file.read()
        ours = os.path.isabs(python) and os.path.samefile(python, "/proc/self/exe")
        return ours and unfiltered and resource.getrlimit(resource.RLIMIT_STACK)[0] == STACK_BYTES
    except (OSError, ValueError):
        return False
