"""Pairs of engine and sidecar that must not be loaded, and their look-alikes that may: for each loader."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from scons_tensorrt.artifact.sidecar import sidecar_of

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
BYTES = b"\x00engine\xff" * 1000


def put(folder: Path, data: bytes = BYTES, name: str = NAME) -> Path:
    """An engine and its sidecar."""
    path = folder / name
    path.write_bytes(data)
    sidecar_of(path).write_text(hashlib.sha256(data).hexdigest())
    return path


def rtx(mask: int, size: int = 200) -> bytes:
    """A plan of TensorRT for RTX, as far as its header: capability mask, and the size that it states."""
    header = bytearray(200)
    header[:4] = b"vtrt"
    header[16:24] = struct.pack("<Q", size)
    header[24:28] = bytes((1, 7, 1, 116))
    header[32:36] = struct.pack("<I", mask)
    return bytes(header)


TENSORRT = b"ftrt" + b"\0" * 196


class Case(NamedTuple):
    """reason: a regular expression for the message, None if the engine may be loaded; damage: what is done
    to the pair."""

    id: str
    reason: str | None
    name: str = NAME
    data: bytes = BYTES
    damage: Callable[[Path], object] = lambda engine: None

    def make(self, folder: Path) -> Path:
        engine = put(folder, self.data, self.name)
        self.damage(engine)
        return engine


def _flip(at: int) -> Callable[[Path], object]:
    data = bytearray(BYTES)
    data[at] ^= 1
    return lambda engine: engine.write_bytes(data)


def _state(text: str) -> Callable[[Path], object]:
    digest = hashlib.sha256(BYTES).hexdigest()
    return lambda engine: sidecar_of(engine).write_bytes(text.replace("DIGEST", digest).encode())


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _hole(size: int, promised: int = 65) -> Callable[[Path], object]:
    head = b"vtrt" + b"\0" * 12 + promised.to_bytes(8, "little") + b"\0" * 41

    def damage(engine: Path) -> None:
        engine.write_bytes(head)
        os.truncate(engine, size)

    return damage


SINGLE, PORTABLE = "a__sm86_cu13.0_rtx1.7_fp32.engine", "a__sm80plus_cu13.0_rtx1.7_fp32.engine"
MALFORMED = "sidecar malformed"
CASES = [
    Case("whole", None),
    *(
        Case(f"flip-{at}", "does not match its sidecar", damage=_flip(at))
        for at in (0, len(BYTES) // 2, len(BYTES) - 1)
    ),
    Case("cut", "does not match its sidecar", damage=lambda e: os.truncate(e, 100)),
    Case("longer", "does not match its sidecar", damage=lambda e: e.write_bytes(BYTES + b"\0")),
    Case("missing", "the engine is missing", damage=lambda e: e.unlink()),
    Case("empty", "it is empty", damage=lambda e: e.write_bytes(b"")),
    Case("empty-as-stated", "it is empty", data=b""),
    Case("folder", "Is a directory", damage=lambda e: (e.unlink(), e.mkdir())),
    Case("pipe", "not a regular file", damage=lambda e: (e.unlink(), os.mkfifo(e))),
    Case("link", "a symbolic link, which is never followed", damage=_link),
    Case("larger-than-memory", "bytes, more than", damage=lambda e: os.truncate(e, 1 << 43)),
    Case("hole", "where its header promises 65", SINGLE, damage=_hole(1 << 31)),
    # The sidecar.
    Case("sidecar-missing", "sidecar missing", damage=lambda e: sidecar_of(e).unlink()),
    Case("sidecar-empty", "sidecar empty", damage=_state("")),
    Case(
        "sidecar-pipe",
        "not a regular file",
        damage=lambda e: (sidecar_of(e).unlink(), os.mkfifo(sidecar_of(e))),
    ),
    Case(
        "sidecar-folder", "Is a directory", damage=lambda e: (sidecar_of(e).unlink(), sidecar_of(e).mkdir())
    ),
    Case("sidecar-link", "a symbolic link", damage=lambda e: _link(sidecar_of(e))),
    Case("newline", None, damage=_state("DIGEST\n")),
    Case("sha256sum", None, damage=_state(f"DIGEST  {NAME}\n")),
    Case("sha256sum-binary", None, damage=_state(f"DIGEST *{NAME}")),
    Case("other-name", "sidecar names another file, 'b.engine'", damage=_state("DIGEST  b.engine\n")),
    Case("other-path", "sidecar names another file", damage=_state(f"DIGEST  ./{NAME}\n")),
    Case("no-name", MALFORMED, damage=_state("DIGEST  ")),
    Case("one-space", MALFORMED, damage=_state(f"DIGEST {NAME}")),
    Case("two-newlines", MALFORMED, damage=_state("DIGEST\n\n")),
    Case("two-lines", MALFORMED, damage=_state(f"DIGEST  {NAME}\nDIGEST  {NAME}\n")),
    Case("upper-case", MALFORMED, damage=_state("A" * 64)),
    Case("short", MALFORMED, damage=_state("0" * 63)),
    Case("long", MALFORMED, damage=_state("0" * 65)),
    Case("huge-sidecar", "sidecar names another file", damage=_state("DIGEST  " + "a" * 5000)),
    Case("zero-byte", MALFORMED, damage=_state("DIGEST\0")),
    Case("other-digest", "does not match its sidecar", damage=_state("0" * 64)),
    # The header against the name.
    Case("portable", None, PORTABLE, rtx(0x7E)),
    Case("portable-without-later-ones", None, PORTABLE, rtx(0x3E)),
    Case("portable-of-two", None, PORTABLE, rtx(0x0C)),
    Case("portable-with-75", "SM 75, 80, .*sm80plus", PORTABLE, rtx(0x3F)),
    Case("single", None, SINGLE, rtx(0x04)),
    Case("single-other", "SM 89, and its name says sm86", SINGLE, rtx(0x08)),
    Case("single-two", "SM 86, 89, and its name says sm86", SINGLE, rtx(0x0C)),
    Case("architecture-of-a-later-version", None, SINGLE, rtx(0x40)),
    Case("no-architecture", None, SINGLE, rtx(0)),
    Case("promised-size", "200 bytes where its header promises 199", SINGLE, rtx(0x04, size=199)),
    Case("header-alone", "ends inside its header, after 63 bytes", SINGLE, rtx(4)[:63]),
    Case("magic-alone", "ends inside its header, after 4 bytes", SINGLE, b"vtrt"),
    Case("three-bytes", None, SINGLE, b"vtr"),
    Case("tensorrt-as-rtx", "a plan of tensorrt, and its name says rtx1.7", SINGLE, TENSORRT),
    Case("tensorrt", None, NAME, TENSORRT),
    Case("rtx-as-tensorrt", "a plan of tensorrt_rtx, and its name says trt10.3", NAME, rtx(0x02)),
    Case("other-name-of-file", None, "whatever.bin", rtx(0x04)),
    Case("unknown-plan", None, NAME, b"not a plan that we know"),
]
