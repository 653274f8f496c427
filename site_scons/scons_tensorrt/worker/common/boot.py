"""The program of a child process, passed with `python -c`.

It runs in two stages. Stage 1 puts the process into the canonical form in which TensorRT's builder repeats
its bytes (no address-space randomisation, one stack limit), and executes the same command again as
stage 2. Stage 2 reads the job and the worker's modules from standard input and runs them. Nothing is
read from this package's folder, so neither its path nor its .pyc files change the heap, whose layout
shows in an engine's bytes.

Stage 1 is given the path of the interpreter's command, stage 2 the reason why it is not canonical, if any.

Both stages run without `site` and without .pyc files: every imported module is compiled from its source,
so the worker imports few modules, and rarely needed ones late.

The job is 16 decimal digits (the length of the rest), then JSON padded with spaces to a multiple of
256 KiB, so that the lengths of paths do not change the heap.
"""

import os
import sys

STACK_BYTES = 8 << 20
ADDR_NO_RANDOMIZE = 0x0040000


def canonical() -> str:
    """Make this process canonical; return '' or the reason why that failed."""
    import ctypes
    import resource

    why = ""
    libc = ctypes.CDLL(None, use_errno=True)
    now = libc.personality(ctypes.c_ulong(0xFFFFFFFF))
    if now < 0 or libc.personality(ctypes.c_ulong(now | ADDR_NO_RANDOMIZE)) < 0:
        error = os.strerror(ctypes.get_errno())
        why = "address-space randomisation could not be switched off (personality: %s)" % error
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
        if hard != resource.RLIM_INFINITY and hard < STACK_BYTES:
            return why or "the hard stack limit is %d bytes, below %d" % (hard, STACK_BYTES)
        if soft != STACK_BYTES:  # else no call, which a seccomp filter may forbid
            resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, hard))
    except (OSError, ValueError) as error:
        why = why or "the stack limit could not be set (setrlimit: %s)" % error
    return why


def command() -> "list[str]":
    """The command line of this process. Python 3.8 and 3.9 have no sys.orig_argv."""
    if hasattr(sys, "orig_argv"):
        return list(sys.orig_argv)
    with open("/proc/self/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]


def run() -> None:
    """Read the job and the modules from standard input, and call `main` of the last module."""
    import json
    import types

    source = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115

    def read(count: int) -> bytearray:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            n = source.readinto(view[got:])
            if not n:
                os._exit(3)  # the parent is gone
            got += n
        return data

    job = json.loads(read(int(read(16))).decode("utf-8"))
    for name, text in job.pop("modules"):
        module = types.ModuleType(name)
        module.__path__ = []
        sys.modules[name] = module
        exec(compile(text, "<%s>" % name, "exec"), module.__dict__)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    job["not_canonical_because"] = sys.argv[2]
    module.main(job)


if sys.argv[1] == "1":
    reason = canonical()
    argv = [*command()[:-2], "2", reason]
    try:
        os.execv(sys.executable, argv)
    except OSError:  # of another machine, under an emulator that only the command itself starts
        os.execv(sys.argv[2], [sys.argv[2], *argv[1:]])
run()
