"""The sidecar: 64 lowercase hex characters, and whether an engine's bytes are those."""

import hashlib
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scons_tensorrt.artifact.sidecar import read_sidecar, sidecar_of
from scons_tensorrt.artifact.verify_pair import fault_of
from scons_tensorrt.errors import SidecarError

BYTES = b"\x00engine\xff" * 1000
SHA = hashlib.sha256(BYTES).hexdigest()
NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(BYTES)
    sidecar_of(path).write_text(SHA)
    return path


def test_the_sidecar_lies_beside_the_engine(tmp_path):
    assert sidecar_of(tmp_path / NAME) == tmp_path / f"{NAME}.sha256"


def test_an_engine_with_its_sidecar_is_whole(engine):
    assert fault_of(engine) is None


def test_a_path_may_be_text(engine):
    assert fault_of(str(engine)) is None


@pytest.mark.parametrize("at", [0, 1, len(BYTES) // 2, len(BYTES) - 1])
def test_one_flipped_bit_is_tampering(engine, at):
    data = bytearray(BYTES)
    data[at] ^= 1
    engine.write_bytes(data)
    assert fault_of(engine) is not None


@pytest.mark.parametrize(
    "data",
    [b"", BYTES[:-1], BYTES + b"\0", BYTES[1:], SHA.encode()],
    ids=["empty", "cut", "longer", "shifted", "its own sum"],
)
def test_other_bytes_are_tampering(engine, data):
    engine.write_bytes(data)
    assert fault_of(engine) is not None


contents = st.binary(max_size=300).filter(lambda data: not data.startswith(b"vtrt"))


@given(contents, contents)
def test_a_sidecar_vouches_for_one_content_only(made, found):
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder, NAME)
        sidecar_of(engine).write_text(hashlib.sha256(made).hexdigest())
        engine.write_bytes(found)
        assert (fault_of(engine) is None) is (made == found and made != b"")


def test_a_missing_engine_is_not_whole(engine):
    engine.unlink()
    assert fault_of(engine) is not None


def test_a_missing_engine_without_a_sidecar_is_not_whole_either(tmp_path):
    assert fault_of(tmp_path / NAME) is not None


def test_a_folder_is_no_engine(engine):
    engine.unlink()
    engine.mkdir()
    assert fault_of(engine) is not None


def test_a_missing_sidecar_is_an_error(engine):
    sidecar_of(engine).unlink()
    with pytest.raises(SidecarError, match="sidecar missing"):
        fault_of(engine)


def test_a_sidecar_that_cannot_be_read_is_an_error(engine):
    sidecar_of(engine).unlink()
    sidecar_of(engine).mkdir()
    with pytest.raises(SidecarError, match="not readable"):
        fault_of(engine)


ALSO_READ = [
    SHA + "\n",  # as an editor or `echo` leaves it
    f"{SHA}  {NAME}\n",  # sha256sum, text mode
    f"{SHA} *{NAME}\n",  # sha256sum -b
    f"{SHA}  {NAME}",  # its last newline lost
]


@pytest.mark.parametrize("text", ALSO_READ)
def test_the_forms_that_are_read_beside_the_plain_one(engine, text):
    sidecar_of(engine).write_text(text)
    assert read_sidecar(engine) == SHA


def test_what_sha256sum_writes_is_read(engine):
    line = subprocess.run(["sha256sum", NAME], cwd=engine.parent, check=True, capture_output=True).stdout
    sidecar_of(engine).write_bytes(line)
    assert fault_of(engine) is None


MALFORMED = [
    (b"", "empty"),  # no sum
    (b"\n", "malformed"),  # a line of nothing
    (SHA[:-1].encode(), "malformed"),  # 63 characters
    (SHA.encode() + b"0", "malformed"),  # 65
    (SHA.upper().encode(), "malformed"),  # upper case
    (SHA.replace(SHA[0], "g").encode(), "malformed"),  # not hex
    (b" " + SHA.encode(), "malformed"),  # a space before
    (SHA.encode() + b" ", "malformed"),  # a space after
    (SHA.encode() + b"\n\n", "malformed"),  # two newlines
    (SHA.encode() + b"\r\n", "malformed"),  # a carriage return
    (b"\xef\xbb\xbf" + SHA.encode(), "malformed"),  # a byte order mark
    (SHA.encode() + b"\n" + SHA.encode() + b"\n", "malformed"),  # two sums
    (SHA.encode() + b"\0", "malformed"),  # a NUL
    (SHA.encode("utf-16"), "malformed"),  # another encoding
    (f"{SHA} {NAME}".encode(), "malformed"),  # one space before the name
    (f"SHA256 ({NAME}) = {SHA}".encode(), "malformed"),  # the BSD form
    (f"sha256:{SHA}".encode(), "malformed"),  # an OCI digest
    (f"{SHA}  other.engine\n".encode(), "other.engine"),  # sha256sum of another file
    (f"{SHA}  ./{NAME}\n".encode(), "names another file"),  # a path is not the name
    (f"{SHA}  {NAME}\n{SHA}  {NAME}\n".encode(), "malformed"),  # a list
    (SHA.encode() * 100, "malformed"),  # far too long
    (f"{SHA}  ".encode() + b"a" * 100_000, "sidecar"),  # far too long, well begun
]


@pytest.mark.parametrize(("data", "reason"), MALFORMED, ids=[repr(d)[:40] for d, _ in MALFORMED])
def test_a_malformed_sidecar_is_an_error_with_its_reason(engine, data, reason):
    sidecar_of(engine).write_bytes(data)
    with pytest.raises(SidecarError, match=reason):
        read_sidecar(engine)


@pytest.mark.parametrize("data", [b"", b"\xff" * 64], ids=["empty", "garbage"])
def test_the_error_names_the_sidecar(engine, data):
    sidecar_of(engine).write_bytes(data)
    with pytest.raises(SidecarError) as caught:
        read_sidecar(engine)
    assert str(sidecar_of(engine)) in str(caught.value)


def test_a_malformed_sidecar_is_not_excused_by_a_whole_engine(engine):
    sidecar_of(engine).write_text(SHA.upper())
    with pytest.raises(SidecarError):
        fault_of(engine)


near = st.lists(
    st.sampled_from([SHA.encode(), SHA[:63].encode(), b" ", b"  ", b" *", NAME.encode(), b"\n", b"\r"])
    | st.binary(max_size=3),
    max_size=6,
).map(b"".join)


@given(near | st.binary(max_size=200))
def test_the_reader_answers_with_a_sum_or_a_sidecar_error(data):
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder, NAME)
        sidecar_of(engine).write_bytes(data)
        try:
            stated = read_sidecar(engine)
        except SidecarError:
            return
        assert data[:64].decode() == stated
        assert set(stated) <= set("0123456789abcdef")
