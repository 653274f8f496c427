"""Arrays in a file, for exchange between processes of which one has no numpy.

The file is a sequence of records. A record is a line of JSON, [[name, numpy dtype, shape], …], followed by
the little-endian bytes of these arrays in that order.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False  # as `typing` has it, whose import takes time
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import BufferedIOBase

# By numpy dtype: TensorRT's name of the data type, and the bytes of an element.
TYPES = {
    "float32": ("FLOAT", 4),
    "float16": ("HALF", 2),
    "bfloat16": ("BF16", 2),
    "int64": ("INT64", 8),
    "int32": ("INT32", 4),
    "int8": ("INT8", 1),
    "uint8": ("UINT8", 1),
    "bool": ("BOOL", 1),
    "float64": ("", 8),  # outputs of an original only: TensorRT has no such type
}


def size(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of an array."""
    count = TYPES[dtype][1]
    for dimension in shape:
        count *= dimension
    return count


def narrowed(data: bytearray) -> bytearray:
    """int64 as int32, which TensorRT 8 has in its place. Raises OverflowError for a number beyond int32."""
    from array import array  # rarely needed

    return bytearray(array("i", array("q", bytes(data))).tobytes())


def write(out: BufferedIOBase, arrays: Iterable[tuple[str, str, Sequence[int], bytes]]) -> None:
    """Append a record of (name, dtype, shape, bytes). Raises ValueError if the bytes do not fit the shape."""
    arrays = list(arrays)
    head = [[name, dtype, list(shape)] for name, dtype, shape, _ in arrays]
    out.write(json.dumps(head).encode("ascii") + b"\n")
    for _, dtype, shape, data in arrays:
        if len(data) != size(dtype, shape):
            raise ValueError("%d bytes of %s %s" % (len(data), dtype, list(shape)))
        out.write(data)


def read(source: BufferedIOBase) -> Iterator[dict[str, tuple[str, tuple[int, ...], bytearray]]]:
    """Yield each record as {name: (dtype, shape, bytes)}. Raises ValueError if the file is truncated."""
    for line in iter(source.readline, b""):
        record = {}
        for name, dtype, shape in json.loads(line):
            data = bytearray(size(dtype, shape))
            if source.readinto(data) != len(data):
                raise ValueError("the file ends too soon")
            record[name] = (dtype, tuple(shape), data)
        yield record
