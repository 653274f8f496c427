"""What a device may load: the bytes that were hashed, and no others."""

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import scons_tensorrt
from scons_tensorrt import load_verified
from scons_tensorrt.artifact import verify
from scons_tensorrt.artifact.sidecar import sidecar_of
from scons_tensorrt.artifact.verify import fault_of
from scons_tensorrt.errors import SidecarError
from scons_tensorrt.files.reading import read_small

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
PORTABLE = "a__sm80plus_cu13.0_rtx1.7_fp32.engine"
BYTES = b"\x00engine\xff" * 1000


def put(folder, data=BYTES, name=NAME):
    path = folder / name
    path.write_bytes(data)
    sidecar_of(path).write_text(hashlib.sha256(data).hexdigest())
    return path


@pytest.fixture
def engine(tmp_path):
    return put(tmp_path)


def refused(engine, reason, **more):
    """It is refused in one line that names the engine."""
    with pytest.raises(SidecarError, match=reason) as caught:
        load_verified(engine, **more)
    assert str(engine) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_bytes_of_a_whole_engine_are_handed_on(engine):
    data = load_verified(engine)
    assert data == BYTES
    assert type(data) is bytes
    assert load_verified(str(engine)) == BYTES


@pytest.mark.parametrize("at", [0, len(BYTES) // 2, len(BYTES) - 1])
def test_one_flipped_bit_is_refused(engine, at):
    data = bytearray(BYTES)
    data[at] ^= 1
    engine.write_bytes(data)
    refused(engine, "its sha256 does not match its sidecar")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda e: e.unlink(), "the engine is missing"),
        (lambda e: sidecar_of(e).unlink(), "sidecar missing"),
        (lambda e: sidecar_of(e).write_bytes(b""), "sidecar empty"),
        (lambda e: e.write_bytes(b""), "it is empty"),
        (lambda e: (e.unlink(), e.mkdir()), "Is a directory"),
        (lambda e: (e.unlink(), os.mkfifo(e)), "not a regular file"),
        (lambda e: (sidecar_of(e).unlink(), os.mkfifo(sidecar_of(e))), "not a regular file"),
    ],
)
def test_a_damaged_pair_is_refused(engine, damage, reason):
    damage(engine)
    refused(engine, reason)


def test_an_empty_engine_is_none_whatever_its_sidecar_says(tmp_path):
    refused(put(tmp_path, b""), "it is empty")


@pytest.mark.parametrize("which", [lambda e: e, sidecar_of], ids=["engine", "sidecar"])
def test_a_link_is_refused_although_it_leads_to_the_very_bytes(engine, which):
    path = Path(which(engine))
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    refused(engine, "a symbolic link, which is never followed")
    if which is sidecar_of:
        with pytest.raises(SidecarError, match="symbolic link"):
            fault_of(engine)
    else:
        assert "symbolic link" in fault_of(engine)


def test_a_folder_may_be_a_link(engine, tmp_path_factory):
    there = tmp_path_factory.mktemp("there") / "engines"
    there.symlink_to(engine.parent)
    assert load_verified(there / NAME) == BYTES
    assert fault_of(there / NAME) is None


def test_an_engine_that_is_larger_than_memory_is_not_read(engine):
    with open(engine, "wb") as out:
        out.truncate(1 << 43)
    refused(engine, "more than")


def test_the_bound_can_be_told(engine):
    assert load_verified(engine, most=len(BYTES)) == BYTES
    refused(engine, f"{len(BYTES)} bytes, more than {len(BYTES) - 1}", most=len(BYTES) - 1)


@pytest.mark.parametrize("whole", [True, False])
def test_an_engine_that_is_exchanged_while_it_is_read_is_the_one_that_was_opened(engine, monkeypatch, whole):
    other = engine.with_name("other")
    other.write_bytes(b"other")

    def opened_and_exchanged(path, follow):
        source = verified_open(path, follow)
        if whole:
            os.replace(other, engine)
        else:
            shutil.copyfile(other, engine)  # the very file is written to
        return source

    verified_open = verify.open_file
    monkeypatch.setattr(verify, "open_file", opened_and_exchanged)
    if whole:
        assert load_verified(engine) == BYTES
    else:
        refused(engine, "its sha256 does not match its sidecar")


# The header against the name.


def rtx(mask, size=200):
    header = bytearray(200)
    header[:4] = b"vtrt"
    header[16:24] = struct.pack("<Q", size)
    header[24:28] = bytes((1, 7, 1, 116))
    header[32:36] = struct.pack("<I", mask)
    return bytes(header)


TENSORRT = b"ftrt" + b"\0" * 196
CONTRADICTIONS = [
    ("a__sm80plus_cu13.0_rtx1.7_fp32.engine", rtx(0x3E), None),
    ("a__sm80plus_cu13.0_rtx1.7_fp32.engine", rtx(0x0C), None),  # later ones alone
    ("a__sm80plus_cu13.0_rtx1.7_fp32.engine", rtx(0x3F), "SM 75, 80, .*sm80plus"),
    ("a__sm86_cu13.0_rtx1.7_fp32.engine", rtx(0x04), None),
    ("a__sm86_cu13.0_rtx1.7_fp32.engine", rtx(0x08), "SM 89, and its name says sm86"),
    ("a__sm86_cu13.0_rtx1.7_fp32.engine", rtx(0x0C), "SM 86, 89, and its name says sm86"),
    ("a__sm86_cu13.0_rtx1.7_fp32.engine", rtx(0x40), None),  # an architecture of a later version
    (
        "a__sm86_cu13.0_rtx1.7_fp32.engine",
        rtx(0x04, size=199),
        "200 bytes where its header promises 199",
    ),
    ("a__sm86_cu13.0_rtx1.7_fp32.engine", TENSORRT, "a plan of tensorrt, and its name says rtx1.7"),
    ("a__sm87_jp6.2_trt10.3_fp16.engine", TENSORRT, None),
    (
        "a__sm87_jp6.2_trt10.3_fp16.engine",
        rtx(0x02),
        "a plan of tensorrt_rtx, and its name says trt10.3",
    ),
    ("whatever.bin", rtx(0x04), None),  # a name that says nothing
    ("a__sm87_jp6.2_trt10.3_fp16.engine", b"not a plan that we know", None),
]


@pytest.mark.parametrize(("name", "data", "reason"), CONTRADICTIONS)
def test_a_header_that_contradicts_the_name_is_told(tmp_path, name, data, reason):
    engine = put(tmp_path, data, name)
    if reason is None:
        assert load_verified(engine) == data
        assert fault_of(engine) is None
    else:
        refused(engine, reason)
        assert re.search(reason, str(fault_of(engine)))


# From the package itself, as late as it is asked for.


def test_the_package_alone_imports_nothing():
    program = "import sys, scons_tensorrt; print([m for m in sys.modules if 'scons_tensorrt.' in m])"
    site = str(Path(scons_tensorrt.__file__).parents[1])
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, env={"PYTHONPATH": site}, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_name_that_the_package_has_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="load_everything"):
        _ = scons_tensorrt.load_everything


def test_a_file_that_grows_while_it_is_read_is_not_read_beyond_its_size(tmp_path, monkeypatch):
    engine = tmp_path / "a__sm87_jp6.2_trt10.3_fp16.engine"
    engine.write_bytes(b"ftrt" + b"\0" * 60 + b"x")
    (tmp_path / f"{engine.name}.sha256").write_text("0" * 64)
    real, calls = os.fstat, []

    def growing(descriptor):
        found = real(descriptor)
        calls.append(found.st_size == 65)
        if sum(calls) == 2:  # the first is asked when it is opened
            with open(engine, "ab") as more:
                more.truncate(8 << 40)
        return found

    monkeypatch.setattr("scons_tensorrt.artifact.verify.os.fstat", growing)
    with pytest.raises(SidecarError, match="it changed while it was read"):
        load_verified(engine, most=1 << 20)


def test_a_file_that_grows_while_it_is_hashed_is_not_hashed_beyond_its_size(tmp_path, monkeypatch):
    engine = tmp_path / "a__sm87_jp6.2_trt10.3_fp16.engine"
    engine.write_bytes(b"ftrt" + b"\0" * 60 + b"x")
    (tmp_path / f"{engine.name}.sha256").write_text("0" * 64)

    def grows(size):
        with open(engine, "ab") as more:
            more.truncate(8 << 40)

    monkeypatch.setattr("scons_tensorrt.artifact.verify.too_large", grows)
    assert fault_of(engine) == "the engine is not readable (it changed while it was read)"


def test_a_hole_that_no_header_promises_takes_no_memory(tmp_path):
    engine = tmp_path / "a__sm80_cu13.0_rtx1.7_fp16.engine"
    engine.write_bytes(b"vtrt" + b"\0" * 12 + (65).to_bytes(8, "little") + b"\0" * 41)
    os.truncate(engine, 8 << 40)
    (tmp_path / f"{engine.name}.sha256").write_text("0" * 64)
    with pytest.raises(SidecarError, match="where its header promises 65"):
        load_verified(engine, most=1 << 60)


def test_a_small_file_that_grows_is_not_read_beyond_what_may_be(tmp_path, monkeypatch):
    path = tmp_path / "receipt.json"
    path.write_bytes(b"{}")
    real = os.fstat

    def grows(descriptor):
        found = real(descriptor)
        os.truncate(path, 8 << 40)
        return found

    monkeypatch.setattr("scons_tensorrt.files.reading.os.fstat", grows)
    with pytest.raises(OSError, match="more than 100 bytes"):
        read_small(path, 100)
