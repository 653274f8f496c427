"""What a device may load: the bytes that were hashed, and no others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from damaged import BYTES, CASES, NAME, put

import scons_tensorrt
from scons_tensorrt import load_verified
from scons_tensorrt.artifact import verify_pair
from scons_tensorrt.artifact.sidecar import sidecar_of
from scons_tensorrt.artifact.verify_pair import fault_of
from scons_tensorrt.errors import SidecarError
from scons_tensorrt.files.reading import read_small


@pytest.fixture
def engine(tmp_path):
    return put(tmp_path)


def refused(engine, reason, **more):
    """It is refused in one line that names the engine."""
    with pytest.raises(SidecarError, match=reason) as caught:
        load_verified(engine, **more)
    assert str(engine) in str(caught.value)
    assert "\n" not in str(caught.value)


def told(engine):
    """The fault that `verify` tells."""
    try:
        return fault_of(engine)
    except SidecarError as error:
        return str(error)


def test_the_bytes_of_a_whole_engine_are_handed_on(engine):
    data = load_verified(engine)
    assert data == BYTES
    assert type(data) is bytes
    assert load_verified(str(engine)) == BYTES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_pair_is_loaded_only_if_it_is_whole(tmp_path, case):
    engine = case.make(tmp_path)
    if case.reason is None:
        assert load_verified(engine) == case.data
        assert fault_of(engine) is None
    else:
        refused(engine, case.reason)
        assert told(engine)


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


def test_the_old_name_of_the_bound_works_and_warns(engine):
    with pytest.warns(DeprecationWarning, match="most= is now max_bytes="):
        assert load_verified(engine, most=len(BYTES)) == BYTES
    with pytest.warns(DeprecationWarning, match="most="), pytest.raises(SidecarError, match="more than 5"):
        load_verified(engine, most=5)


def test_the_bound_can_be_told(engine):
    assert load_verified(engine, max_bytes=len(BYTES)) == BYTES
    refused(engine, f"{len(BYTES)} bytes, more than {len(BYTES) - 1}", max_bytes=len(BYTES) - 1)


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

    verified_open = verify_pair.open_file
    monkeypatch.setattr(verify_pair, "open_file", opened_and_exchanged)
    if whole:
        assert load_verified(engine) == BYTES
    else:
        refused(engine, "does not match its sidecar")


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

    monkeypatch.setattr("scons_tensorrt.artifact.verify_pair.os.fstat", growing)
    with pytest.raises(SidecarError, match="it changed while it was read"):
        load_verified(engine, max_bytes=1 << 20)


def test_a_file_that_grows_while_it_is_hashed_is_not_hashed_beyond_its_size(tmp_path, monkeypatch):
    engine = tmp_path / "a__sm87_jp6.2_trt10.3_fp16.engine"
    engine.write_bytes(b"ftrt" + b"\0" * 60 + b"x")
    (tmp_path / f"{engine.name}.sha256").write_text("0" * 64)

    def grows(size):
        with open(engine, "ab") as more:
            more.truncate(8 << 40)

    monkeypatch.setattr("scons_tensorrt.artifact.verify_pair.too_large", grows)
    assert fault_of(engine) == "the engine is not readable (it changed while it was read)"


def test_a_hole_that_no_header_promises_takes_no_memory(tmp_path):
    engine = tmp_path / "a__sm80_cu13.0_rtx1.7_fp16.engine"
    engine.write_bytes(b"vtrt" + b"\0" * 12 + (65).to_bytes(8, "little") + b"\0" * 41)
    os.truncate(engine, 8 << 40)
    (tmp_path / f"{engine.name}.sha256").write_text("0" * 64)
    with pytest.raises(SidecarError, match="where its header promises 65"):
        load_verified(engine, max_bytes=1 << 60)


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
