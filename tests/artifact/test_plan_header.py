"""What the first bytes of a plan tell, and what they leave open."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scons_tensorrt.artifact.plan_header import HEADER_BYTES, PlanHeader, cut_short, parse_header, read_head


def rtx(size=1000, mask=0x3E, version=(1, 7, 1, 116)):
    header = bytearray(HEADER_BYTES)
    header[:4] = b"vtrt"
    header[16:24] = struct.pack("<Q", size)
    header[24:28] = bytes(version)
    header[32:36] = struct.pack("<I", mask)
    return bytes(header)


def tensorrt(version=(10, 3, 0, 30)):
    header = bytearray(HEADER_BYTES)
    header[:8] = struct.pack("<II", 0x74727466, 239)
    header[24:28] = bytes(version)
    return bytes(header)


def test_an_rtx_plan_tells_product_size_version_and_architectures():
    assert parse_header(rtx()) == PlanHeader("tensorrt_rtx", 1000, (1, 7, 1, 116), (80, 86, 89, 120, 121))


@pytest.mark.parametrize(
    ("mask", "sm"), [(0x01, 75), (0x02, 80), (0x04, 86), (0x08, 89), (0x10, 120), (0x20, 121)]
)
def test_each_bit_of_the_mask_is_one_architecture(mask, sm):
    assert parse_header(rtx(mask=mask)).architectures == (sm,)


@pytest.mark.parametrize("mask", [0x40, 0x80, 0x82, 0x80000000, 0x8000003E])
def test_a_bit_that_is_not_known_leaves_the_architectures_open(mask):
    assert parse_header(rtx(mask=mask)).architectures is None


def test_the_default_target_also_runs_on_later_architectures():
    assert parse_header(rtx(mask=0x7E)) == PlanHeader(
        "tensorrt_rtx", 1000, (1, 7, 1, 116), (80, 86, 89, 120, 121), later=True
    )


def test_an_empty_mask_leaves_the_architectures_open():
    assert parse_header(rtx(mask=0)).architectures is None


def test_a_size_over_four_gigabytes_is_read_whole():
    assert parse_header(rtx(size=5 << 32)).size == 5 << 32


def test_a_tensorrt_plan_tells_product_and_version_but_no_size():
    assert parse_header(tensorrt()) == PlanHeader("tensorrt", None, (10, 3, 0, 30), None)


CANNOT_TELL = [
    b"",  # nothing
    b"\0" * 64,  # zeros
    b"<!DOCTYPE html>" + b" " * 64,  # a page of a proxy
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64,  # an LFS pointer
    b"VTRT" + b"\0" * 64,  # upper case
    b"trtv" + b"\0" * 64,  # the other byte order
    b"\x7fELF" + b"\0" * 64,  # a library
]


@pytest.mark.parametrize("data", CANNOT_TELL, ids=[repr(d)[:20] for d in CANNOT_TELL])
def test_of_anything_else_nothing_is_told(data):
    assert parse_header(data) == PlanHeader(None)


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"vtrt" + tail))
def test_any_bytes_have_a_header_or_none(data):
    assert parse_header(data).product in (None, "tensorrt", "tensorrt_rtx")


@pytest.fixture
def plan(tmp_path):
    def write(data):
        path = tmp_path / "p.engine"
        path.write_bytes(data)
        return path

    return write


def why_not_whole(path):
    return cut_short(*read_head(path))


def test_a_plan_of_the_promised_size_may_be_whole(plan):
    assert why_not_whole(plan(rtx(size=1000).ljust(1000, b"w"))) is None


@pytest.mark.parametrize("size", [64, 999, 1001, 4096])
def test_a_plan_of_another_size_is_not_whole(plan, size):
    reason = why_not_whole(plan(rtx(size=1000).ljust(size, b"w")))
    assert reason == f"it has {size} bytes where its header promises 1000"


def test_an_empty_plan_is_not_whole(plan):
    assert why_not_whole(plan(b"")) == "it is empty"


@pytest.mark.parametrize("size", [24, 40, 63])
def test_a_plan_cut_inside_its_header_is_not_whole(plan, size):
    assert why_not_whole(plan(rtx(size=1000)[:size])) is not None


def test_a_tensorrt_plan_may_be_whole_at_any_size(plan):
    assert why_not_whole(plan(tensorrt() + b"w" * 123)) is None


def test_a_file_that_is_no_known_plan_is_not_judged(plan):
    assert why_not_whole(plan(b"something a later product writes")) is None


def test_a_missing_plan_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        why_not_whole(tmp_path / "p.engine")
