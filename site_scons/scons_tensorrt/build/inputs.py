"""What is known of the files that engines are made from, asked of the digest memo first.

Whoever asks says what people call the file, and what is wrong with it is said by that name.
"""

from __future__ import annotations

import errno
import io
from pathlib import Path

from ..errors import EngineBuildError, PublishError, RecipeError
from ..files.digest_cache import DigestCache
from ..recipe.onnx.summary import OnnxSummary

LARGEST_ONNX = (1 << 31) - 1  # bytes: a message of protobuf has no more
_ONNX_FACT = "onnx 4"  # another number when read_onnx learns more


def _walk(onnx: str | io.FileIO) -> OnnxSummary:
    from ..recipe.onnx.walk import read_onnx  # only for a model that is new

    return read_onnx(onnx)


class Inputs:
    """The input files of a run."""

    def __init__(self, digest_cache: DigestCache) -> None:
        self._digest_cache = digest_cache
        self._summaries: dict[str, tuple[object, OnnxSummary]] = {}

    def summary(self, onnx: str) -> OnnxSummary:
        """The ONNX's inputs and external data. Raises RecipeError or OSError."""
        try:
            data = self._digest_cache.fact(
                onnx, _ONNX_FACT, lambda source: _walk(source).to_json(), LARGEST_ONNX
            )
        except OSError as error:
            if error.errno == errno.EFBIG:  # it is not even hashed
                raise RecipeError(
                    "the file is larger than the 2 GiB that an ONNX can have; keep its tensors in "
                    "external data"
                ) from None
            raise
        try:
            return self._read(onnx, data)
        except ValueError:  # a damaged memo
            self._summaries[onnx] = data, _walk(onnx)
            return self._summaries[onnx][1]

    def _read(self, onnx: str, data: object) -> OnnxSummary:
        """The summary that the memo holds as `data`, which is read once. Raises ValueError."""
        known = self._summaries.get(onnx)
        if known is None or known[0] is not data:
            self._summaries[onnx] = known = data, OnnxSummary.from_json(data)
        return known[1]

    def summary_of(self, path: Path, label: str) -> OnnxSummary:
        """The summary of an ONNX that people call `label`. Raises RecipeError or EngineBuildError."""
        try:
            return self.summary(str(path))
        except RecipeError as error:
            raise RecipeError(f"{label}: {error}") from None
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _changed(label) from None
            raise RecipeError(f"{label}: {error.strerror}; check the path") from None

    def known_data(self, onnx: str) -> list[str]:
        """The external data that a model was last known to have; asks the memo alone."""
        try:
            return list(self._read(onnx, self._digest_cache.last_fact(onnx, _ONNX_FACT)).external)
        except ValueError:
            return []

    def digest(self, path: Path, label: str) -> str:
        """The sha256 of an input. Raises RecipeError, PublishError or EngineBuildError with its
        label."""
        try:
            return self._digest_cache.sha256(path)
        except IsADirectoryError:
            raise RecipeError(f"{label} is a folder; name the file") from None
        except FileNotFoundError:
            raise RecipeError(f"{label} is missing: {path}; put it there") from None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise RecipeError(f"{label} is not a regular file: {path}; put the file there") from None
            if error.errno == errno.EBUSY:
                raise _changed(label) from None
            raise PublishError(f"{label}: {error.strerror}: {path}") from None


def _changed(label: str) -> EngineBuildError:
    return EngineBuildError(f"{label} changed while it was read; run again")
