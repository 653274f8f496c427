"""Arrays in a file, for processes that have no numpy in common.

A record is a line of JSON, [[name, numpy dtype, shape], …], and then the little-endian bytes of these
arrays in that order; a file is one record after another.
"""

import json

# The network's type for a numpy dtype, and the bytes of an element.
TYPES = {
    "float32": ("FLOAT", 4),
    "float16": ("HALF", 2),
    "bfloat16": ("BF16", 2),
    "int64": ("INT64", 8),
    "int32": ("INT32", 4),
    "int8": ("INT8", 1),
    "uint8": ("UINT8", 1),
    "bool": ("BOOL", 1),
    "float64": ("", 8),  # of an original: no network of TensorRT has it
}


def size(dtype, shape):
    """Bytes of an array."""
    count = TYPES[dtype][1]
    for dimension in shape:
        count *= dimension
    return count


def write(out, arrays):
    """Append a record. arrays: (name, dtype, shape, bytes) each, the bytes of the size of its shape."""
    arrays = list(arrays)
    head = [[name, dtype, list(shape)] for name, dtype, shape, _ in arrays]
    out.write(json.dumps(head).encode("ascii") + b"\n")
    for _, dtype, shape, data in arrays:
        if len(data) != size(dtype, shape):
            raise ValueError("%d bytes of %s %s" % (len(data), dtype, list(shape)))
        out.write(data)


def read(source):
    """Each record of a file: {name: (dtype, shape, bytearray)}. Raises ValueError."""
    for line in iter(source.readline, b""):
        record = {}
        for name, dtype, shape in json.loads(line):
            data = bytearray(size(dtype, shape))
            if source.readinto(data) != len(data):
                raise ValueError("the file ends too soon")
            record[name] = (dtype, tuple(shape), data)
        yield record
