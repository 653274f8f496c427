"""An ONNX may be anybody's: it is read or refused, soon, in little memory, and what the compiler
would find in it is found here, too."""

import json
import os
import resource
import subprocess
import sys
import time

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.onnx import protobuf_fields as wire_format
from scons_tensorrt.recipe.onnx import read_onnx as module
from scons_tensorrt.recipe.onnx.read_onnx import read_onnx
from scons_tensorrt.recipe.onnx.summary import OnnxInput, OnnxSummary


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def part(field, body):
    """A field that holds bytes: a message, a text, packed numbers."""
    return varint(field << 3 | 2) + varint(len(body)) + body


def number(field, value):
    return varint(field << 3) + varint(value)


def model(*parts):
    return number(1, 9) + part(7, b"".join(parts))


def entry(key, value):
    return part(13, part(1, key.encode()) + part(2, value.encode()))


def outside(location="w.bin", *more):
    """A tensor whose bytes lie in another file."""
    return number(2, 1) + number(14, 1) + entry("location", location) + b"".join(more)


def constant(*tensors):
    """A node whose attribute holds a tensor, in as many pieces as are given."""
    return part(1, part(5, b"".join(part(5, tensor) for tensor in tensors)))


@pytest.fixture
def read(tmp_path):
    def read(data):
        (tmp_path / "m.onnx").write_bytes(data)
        return read_onnx(tmp_path / "m.onnx")

    return read


@pytest.fixture
def refused(read):
    def refused(data, reason):
        with pytest.raises(RecipeError, match=reason) as caught:
            read(data)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500

    return refused


# What protobuf joins or cuts, and a simpler reader would not: external data that is not seen here
# would be compiled in all the same, unhashed, from wherever it lies.


def test_the_pieces_here_are_what_protobuf_makes_of_them(read):
    data = model(part(5, outside("w.bin")), constant(outside("v.bin")))
    assert read(data).external == {"w.bin": 4, "v.bin": 4}
    assert found_by_protobuf(data) == {"w.bin", "v.bin"}


def test_external_data_hidden_in_two_pieces_of_one_tensor_is_refused(refused):
    halves = number(2, 1) + number(14, 1), entry("location", "/etc/passwd")
    assert found_by_protobuf(model(constant(*halves))) == {"/etc/passwd"}
    refused(model(constant(*halves)), "a second part of one tensor")


@pytest.mark.parametrize("field", [1, 2])
def test_external_data_hidden_in_two_pieces_of_a_sparse_tensor_is_refused(refused, field):
    halves = part(field, number(14, 1)) + part(field, entry("location", "/etc/passwd"))
    refused(model(part(15, halves)), "a second part of one tensor")


def test_two_sparse_tensors_of_one_attribute_are_refused(refused):
    attribute = part(22, part(1, number(14, 1))) + part(22, part(1, entry("location", "/etc/passwd")))
    refused(model(part(1, part(5, attribute))), "a second part of one tensor")


def test_a_tensor_with_two_locations_is_refused(refused):
    refused(model(part(5, outside("w.bin", entry("location", "../x")))), "a second 'location'")


@pytest.mark.parametrize("more", [1 << 32, 1 << 64, 1 << 69])
def test_external_said_with_more_bits_than_the_field_has_is_external(read, more):
    long = varint(14 << 3) + varint(1 + more)[:10]
    assert read(model(part(5, long + entry("location", "w.bin")))).external == {"w.bin": 0}


def test_a_field_number_of_more_bits_than_protobuf_reads_is_refused(refused):
    tensor = outside("/etc/passwd")
    hidden = varint((5 << 3 | 2) + (1 << 32)) + varint(len(tensor)) + tensor
    refused(model(hidden), "field number")


def test_of_a_size_and_a_name_the_last_counts(read):
    def shape(dim):
        return part(11, part(1, b"x") + part(2, part(1, number(1, 1) + part(2, part(1, dim)))))

    assert read(model(shape(number(1, 5)))).inputs == (OnnxInput("x", (5,), 1),)
    assert read(model(shape(number(1, 5) + part(2, b"n")))).inputs == (OnnxInput("x", (-1,), 1),)
    assert read(model(shape(part(2, b"n") + number(1, 5)))).inputs == (OnnxInput("x", (5,), 1),)


def found_by_protobuf(data):
    """The locations of external data that the onnx package finds; None where it reads no model."""
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception:
        return None
    found = set()

    def look(message):
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            repeated = not hasattr(value, "DESCRIPTOR")
            for each in value if repeated else [value]:
                if isinstance(each, TensorProto) and each.data_location == TensorProto.EXTERNAL:
                    found.update(e.value for e in each.external_data if e.key == "location")
                look(each)

    look(proto)
    return found


pieces = st.sampled_from(
    [
        number(14, 1),
        number(14, 0),
        number(14, 1 + (1 << 32)),
        number(2, 1),
        entry("location", "w.bin"),
        entry("location", "/etc/passwd"),
        entry("offset", "9" * 30),
        part(13, part(1, b"location")),
        part(1, b"\x02\x03"),
        part(8, b"w"),
        varint(14 << 3 | 2) + b"\x01\x01",
        varint((14 << 3) + (1 << 32)) + b"\x01",
    ]
)
tensors = st.lists(pieces, max_size=4).map(b"".join)


def nested(inner):
    fields = st.sampled_from([1, 2, 5, 6, 7, 10, 11, 15, 20, 22, 23, 25])
    return st.lists(st.tuples(fields, inner), max_size=3).map(
        lambda parts: b"".join(part(field, body) for field, body in parts)
    )


@settings(max_examples=4 * settings.default.max_examples, deadline=None)
@given(st.recursive(tensors, nested, max_leaves=8), st.data())
def test_external_data_that_protobuf_finds_is_found_here_or_the_model_is_refused(body, data):
    """Against another reader, on models of the right fields in wrong places and pieces."""
    wire = number(1, 9) + part(data.draw(st.sampled_from([7, 20, 25])), body) + part(7, b"")
    there = found_by_protobuf(wire)
    if there is None:
        return
    walk = module.OnnxWalk(wire)
    try:
        walk.run()
    except (wire_format.MalformedError, IndexError):
        return
    assert there <= set(walk.external.ends) | {""}


# Files that would take for ever, or all memory.


def test_a_product_of_sizes_stays_a_number_that_json_takes(read):
    """Thousands of digits would end the run when the memo is written."""
    sizes = number(2, 1) + part(1, varint((1 << 63) - 1) * 1000)
    unpacked = number(2, 7) + number(1, (1 << 63) - 1) * 1000
    found = read(model(part(5, sizes), part(5, unpacked), part(5, unpacked)))
    assert OnnxSummary.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert found.elements == {1: 1 << 62, 7: 1 << 62}


def test_a_model_of_nothing_but_fields_is_given_up(refused, monkeypatch):
    monkeypatch.setattr(wire_format, "_MAX_NUMBERS", 1000)
    refused(model(b"\x0a\x00" * 2000), "more than 1000 fields")
    refused(model(part(5, part(1, b"\x01" * 5000))), "more than 1000 fields")


def test_a_model_of_millions_of_parts_is_read_in_little_memory(tmp_path):
    """Once a list of all that was still to be read: a hundred bytes for two."""
    (tmp_path / "m.onnx").write_bytes(model(b"\x0a\x00" * 500_000))
    program = (
        "import resource, sys\n"
        "from scons_tensorrt.recipe.onnx.read_onnx import read_onnx\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"read_onnx({str(tmp_path / 'm.onnx')!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 20_000  # KiB


def test_a_name_of_gigabytes_is_refused_and_not_read(tmp_path):
    size = 3 << 30
    tensor = varint(5 << 3 | 2) + varint(size + 6) + varint(8 << 3 | 2) + varint(size)
    head = number(1, 9) + varint(7 << 3 | 2) + varint(size + len(tensor)) + tensor
    with open(tmp_path / "m.onnx", "wb") as out:
        out.write(head)
        out.truncate(len(head) + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecipeError, match="a name of 3221225472 bytes"):
        read_onnx(tmp_path / "m.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("length", [1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_length_past_everything_is_refused(refused, length):
    refused(number(1, 9) + varint(7 << 3 | 2) + varint(length) + b"x", "runs past the end")


def test_more_files_than_any_model_has_are_refused(refused, monkeypatch):
    monkeypatch.setattr(module, "_MAX_FILES", 3)
    files = [part(5, outside(f"w{n}.bin")) for n in range(4)]
    refused(model(*files), "more than 3 files")


@pytest.mark.parametrize("location", ["w" * 256, "a/" * 600 + "w", "ü" * 200, "/" + "x" * 100_000])
def test_a_location_that_no_file_can_have_is_refused_in_a_short_line(refused, location):
    refused(model(part(5, outside(location))), "its external data")


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    began = time.monotonic()
    with pytest.raises(RecipeError, match="not a regular file"):
        read_onnx(tmp_path / "m.onnx")
    assert time.monotonic() - began < 5


def test_a_large_model_that_is_cut_while_it_is_read_is_refused(tmp_path):
    """Of a mapped file the kernel would kill the process."""
    path = tmp_path / "m.onnx"
    size = wire_format._MAX_READ_AT_ONCE + (1 << 20)
    begun = varint(9 << 3 | 2) + varint(size)
    weights = varint(5 << 3 | 2) + varint(len(begun) + size) + begun
    rest = part(1, b"") * 1000
    head = number(1, 9) + varint(7 << 3 | 2) + varint(len(weights) + size + len(rest)) + weights
    with open(path, "wb") as out:
        out.write(head)
        out.seek(size, 1)
        out.write(rest)
    assert read_onnx(path).external == {}
    program = f"""
import os
from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.onnx import read_onnx as onnx_file
real = onnx_file.OnnxWalk.run
def cut_first(walk):
    os.truncate({str(path)!r}, 100)
    real(walk)
onnx_file.OnnxWalk.run = cut_first
try:
    onnx_file.read_onnx({str(path)!r})
except RecipeError as error:
    print(error)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "it ends in the middle of a field" in done.stdout


def test_a_large_model_is_read_as_a_small_one(tmp_path, monkeypatch):
    data = model(*(part(5, outside(f"{n}.bin")) for n in range(3000)))
    (tmp_path / "m.onnx").write_bytes(data)
    small = read_onnx(tmp_path / "m.onnx")
    monkeypatch.setattr(wire_format, "_MAX_READ_AT_ONCE", 0)
    monkeypatch.setattr(wire_format, "_BLOCK", 7)
    assert read_onnx(tmp_path / "m.onnx") == small
    assert len(small.external) == 3000


# A summary that the memo remembers.

GOOD = [
    [["x", [1, -1], 1, True]],
    {"w.bin": 8},
    [[1, 20]],
    False,
    ["w.bin"],
    False,
    {"n": [["x", 1], ["x", 0]]},
    ["2 If"],
]
BAD = [
    None,
    [],
    GOOD[:3],
    [5, *GOOD[1:]],
    [[["x", "abc", 1, True]], *GOOD[1:]],  # a text is a sequence, too
    [[["x", [1.5], 1, True]], *GOOD[1:]],
    [[[5, None, 1, True]], *GOOD[1:]],
    [[["x", None, float("inf"), True]], *GOOD[1:]],
    [[["x", None, 1, 1]], *GOOD[1:]],
    [[["x", None, 1]], *GOOD[1:]],
    [GOOD[0], {"w.bin": "8"}, *GOOD[2:]],
    [GOOD[0], {"/etc/passwd": 0}, *GOOD[2:]],
    [GOOD[0], {"../w.bin": 0}, *GOOD[2:]],
    [GOOD[0], [["w.bin", 8]], *GOOD[2:]],
    [GOOD[0], GOOD[1], [[1, float("nan")]], *GOOD[3:]],
    [*GOOD[:3], "no", *GOOD[4:]],
    [*GOOD[:4], [5], *GOOD[5:]],
    [*GOOD[:5], "no", *GOOD[6:]],
    GOOD[:6],
    [*GOOD[:6], {"n": [["x", "1"]]}, []],
    [*GOOD[:6], [], []],
    [*GOOD[:7], [5]],
]


def test_a_sound_summary_is_taken():
    assert json.loads(json.dumps(OnnxSummary.from_json(GOOD).to_json())) == GOOD


@pytest.mark.parametrize("data", BAD, ids=repr)
def test_a_summary_that_is_none_is_a_value_error(data):
    with pytest.raises(ValueError, match="not a summary"):
        OnnxSummary.from_json(data)
