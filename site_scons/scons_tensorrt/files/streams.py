"""Standard streams that the caller closed (`>&-`)."""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Give /dev/null to each closed standard stream, so that no file of ours takes its number and what
    is printed, here or by a child process, does not end up in that file."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, f"__{name}__") is None:  # SCons wraps sys.stdout, closed or not
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if descriptor <= 2:
                os.set_inheritable(descriptor, True)
            stream = os.fdopen(descriptor, "w" if number else "r")
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
