"""First text of a compile's child process, passed with `python -c`.

Started twice. Stage 1 puts the process into the canonical form in which TensorRT's
builder repeats its bytes (address-space randomisation off, one stack limit) and
executes the same command again as stage 2, which reads the job and the modules of the
worker from standard input and runs them. Nothing is read from this package's folder, so
neither its path nor its .pyc files reach the heap whose layout shows in an engine.

Both start without `site` and without .pyc files: every module that is imported is compiled
from its source, so the worker imports few, and late what it seldom needs.

The job arrives as 16 decimal digits (the length of what follows), then JSON padded with
spaces to a multiple of 256 KiB, so that the lengths of paths do not move the heap.
"""

import os
import sys

STACK_BYTES = 8 << 20
ADDR_NO_RANDOMIZE = 0x0040000


def canonical():
    """Return '' when this process could be made canonical, else the reason it could not."""
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
        if soft != STACK_BYTES:  # where it is right, a seccomp filter that forbids the call does not matter
            resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, hard))
    except (OSError, ValueError) as error:
        why = why or "the stack limit could not be set (setrlimit: %s)" % error
    return why


def run():
    """Read job and modules from standard input; hand over to the worker's main."""
    import json
    import types

    source = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115

    def read(count):
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
    argv = [*sys.orig_argv[:-2], "2", reason]
    os.execv(sys.executable, argv)
run()
