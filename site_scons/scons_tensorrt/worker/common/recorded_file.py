"""The recorded file beside an engine: samples, the original's outputs for them, and the bound, by which
`scons-tensorrt check` compares the engine where it runs.

It is an .npz whose members are stored, not compressed, so that C++ reads it without a library; numpy.load
reads it too. Its bytes depend on its contents alone: sorted members, one fixed date. Members, as .npy:

    0000/inputs/NAME, 0000/outputs/NAME  the tensors of sample 0, and so on
    options/atol, options/rtol           float64 scalars, as in accuracy=
    options/metric                       uint8: its name in ASCII
    options/dla_core, options/host_code  int32 scalars that loading the engine needs; absent if it does not

bfloat16, which numpy has no name for, is written as uint16, which no engine has. The .npy format is that of
numpy.lib.format, version 1.0.
"""

from __future__ import annotations

import ast
import re
import struct
import zipfile

from scons_tensorrt.worker.common import array_file

TYPE_CHECKING = False  # as `typing` has it, whose import takes time
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    Array = tuple[str, Sequence[int], bytes]  # dtype as in array_file.TYPES, shape, bytes
    Sample = tuple[dict[str, Array], dict[str, Array]]  # inputs and outputs, by name

MAGIC = b"\x93NUMPY\x01\x00"
MOST = 9999  # samples
METRICS = ("elemwise", "max", "mean", "median", "cosine")  # as in recipe/gate_options.py
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can state
DESCRIPTIONS = {
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int64": "<i8",
    "int32": "<i4",
    "int8": "|i1",
    "uint8": "|u1",
    "bool": "|b1",
    "float64": "<f8",
}
_DTYPES = {text: dtype for dtype, text in DESCRIPTIONS.items()}
_MEMBER = re.compile(r"(?:(\d{4})/(inputs|outputs)|options)/(.+)\.npy", re.DOTALL)


def write(path: str, samples: Iterable[Sample], options: Mapping[str, Any]) -> int:
    """Write the file; returns the number of samples. options: atol, rtol, metric; if needed dla_core and
    host_code. Raises ValueError for more than MOST samples."""
    members: dict[str, Array] = {
        "options/metric": ("uint8", [len(options["metric"])], options["metric"].encode())
    }
    for name in ("atol", "rtol"):
        members["options/" + name] = "float64", [], struct.pack("<d", options[name])
    for name in ("dla_core", "host_code"):
        if name in options:
            members["options/" + name] = "int32", [], struct.pack("<i", options[name])
    number = -1
    for number, (inputs, outputs) in enumerate(samples):
        if number >= MOST:
            raise ValueError("more than %d samples" % MOST)
        for kind, arrays in (("inputs", inputs), ("outputs", outputs)):
            members.update({"%04d/%s/%s" % (number, kind, name): each for name, each in arrays.items()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for name in sorted(members):
            member = zipfile.ZipInfo(name + ".npy", DATE)
            member.create_system, member.external_attr = 3, 0o644 << 16  # on every operating system
            out.writestr(member, _npy(*members[name]))
    return number + 1


def _npy(dtype: str, shape: Sequence[int], data: bytes) -> bytes:
    sizes = "".join("%d, " % size for size in shape)
    head = "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }" % (DESCRIPTIONS[dtype], sizes.rstrip())
    padded = head.ljust(-(-(len(head) + 11) // 64) * 64 - 11) + "\n"
    return MAGIC + struct.pack("<H", len(padded)) + padded.encode("ascii") + data


def read(path: str) -> tuple[list[Sample], dict[str, Any]]:
    """The samples, in order, and the options. Raises ValueError for a file that is not of this format, and
    OSError."""
    samples: dict[int, Sample] = {}
    options: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("its member %r is compressed" % member.filename)
                found = _MEMBER.fullmatch(member.filename)
                if not found:
                    raise ValueError("its member %r is not of a recorded file" % member.filename)
                array = _array(member.filename, file.read(member))
                if found[1] is None:
                    options[found[3]] = _option(array)
                else:
                    sample = samples.setdefault(int(found[1]), ({}, {}))
                    sample[found[2] == "outputs"][found[3]] = array
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    if sorted(samples) != list(range(len(samples))) or not samples:
        raise ValueError("it holds no samples" if not samples else "a sample is missing")
    if not {"atol", "rtol", "metric"} <= options.keys():
        raise ValueError("it states no bound")
    if options["metric"] not in METRICS:
        raise ValueError("its metric %r is unknown" % options["metric"])
    return [samples[number] for number in sorted(samples)], options


def _array(name: str, data: bytes) -> Array:
    try:
        (length,) = struct.unpack("<H", data[8:10])
        head = ast.literal_eval(data[10 : 10 + length].decode("ascii"))
        dtype, shape = _DTYPES[head["descr"]], tuple(head["shape"])
        fits = all(type(size) is int and size >= 0 for size in shape) and not head["fortran_order"]
        if data[:8] == MAGIC and fits and len(data) - 10 - length == array_file.size(dtype, shape):
            return dtype, shape, data[10 + length :]
    except (ValueError, LookupError, TypeError, SyntaxError, RecursionError, MemoryError, struct.error):
        pass
    raise ValueError("its member %r is not an array of this format" % name)


def _option(array: Array) -> Any:
    dtype, _, data = array
    if dtype == "uint8":
        return data.decode("ascii")
    return struct.unpack({"float64": "<d"}.get(dtype, "<i"), data)[0]
