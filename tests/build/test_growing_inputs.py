"""An input that grows for as long as it is copied or hashed ends the step, in finite time."""

import contextlib
import io

import pytest

from scons_tensorrt.build import inputs_held_open
from scons_tensorrt.errors import EngineBuildError
from scons_tensorrt.files.digest_cache import DigestCache


@pytest.fixture
def growing(tmp_path, monkeypatch):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"model")

    class Growing(io.FileIO):
        reads = 0

        def read(self, size=-1):
            Growing.reads += 1
            assert Growing.reads < 10, "read for ever"
            with open(path, "ab") as more:
                more.write(b"x" * (1 << 20))
            return super().read(size)

        def readinto(self, buffer):
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    monkeypatch.setattr(inputs_held_open, "open_file", Growing)
    return path


def test_a_private_copy(growing, tmp_path):
    with pytest.raises(EngineBuildError, match=r"a\.onnx changed while it was compiled"):
        inputs_held_open.copy_verified(growing, tmp_path / "copy", "0" * 64, "compiled")


@pytest.mark.parametrize("with_memo", [False, True])
def test_a_descriptor_that_is_held(growing, tmp_path, with_memo):
    digest_cache = DigestCache(tmp_path / "digests.json", tmp_path) if with_memo else None
    held = inputs_held_open.Pinned(digest_cache, "compiled")
    with contextlib.ExitStack() as stack, pytest.raises(EngineBuildError, match="changed while it was"):
        held.hold(stack, "input onnx", growing, "0" * 64)
