"""Digests and ONNX summaries of input files, from the digest cache where possible.

label: the name of a file in messages.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EngineBuildError, PublishError, RecipeError
from ..files.digest_cache import DigestCache
from ..recipe.onnx.summary import OnnxSummary

if TYPE_CHECKING:
    from .not_downloaded import AbsentFile

LARGEST_ONNX = (1 << 31) - 1  # bytes: the limit of protobuf
ONNX_FACT = "onnx 7"  # increase when the summary changes


def _walk(onnx: str | io.FileIO) -> OnnxSummary:
    from ..recipe.onnx.read_onnx import read_onnx  # not needed for a known model

    return read_onnx(onnx)


class Inputs:
    """The input files of a run. leaves: whether some were found in the shared cache and not downloaded."""

    def __init__(self, digest_cache: DigestCache) -> None:
        self._digest_cache = digest_cache
        self._summaries: dict[str, tuple[object, OnnxSummary]] = {}
        self._absent: dict[str, AbsentFile] = {}
        self.leaves = False

    def leave(self, path: Path, file: AbsentFile) -> None:
        """Use what is known of a file while there is none at `path`."""
        self._absent[str(path)] = file
        self.leaves = True

    def absent(self, path: str | Path) -> AbsentFile | None:
        """What is known of a file that is not there."""
        found = self._absent.get(str(path))
        return None if found is None or os.path.lexists(path) else found

    def gone(self, paths: Iterable[Path]) -> list[Path]:
        """Those of several files that are not there, and were not downloaded."""
        return [path for path in paths if self.absent(path)]

    def bringing(self, paths: Iterable[Path]) -> Callable[[], None]:
        """What downloads or makes those of several files that are not there. Raises EngineError."""

        def bring() -> None:
            for path in paths:
                file = self.absent(path)
                if file:
                    file.bring()

        return bring

    def summary(self, onnx: str) -> OnnxSummary:
        """The ONNX's inputs and external data. Raises RecipeError or OSError."""
        absent = self.absent(onnx) if self._absent else None
        if absent and absent.summary:
            return absent.summary
        try:
            data = self._digest_cache.fact(
                onnx, ONNX_FACT, lambda source: _walk(source).to_json(), LARGEST_ONNX
            )
        except OSError as error:
            if error.errno == errno.EFBIG:  # not hashed
                raise RecipeError(
                    "the file is larger than the 2 GiB that an ONNX can have; keep its tensors in "
                    "external data"
                ) from None
            raise
        try:
            return self._read(onnx, data)
        except ValueError:  # the cache is damaged
            self._summaries[onnx] = data, _walk(onnx)
            return self._summaries[onnx][1]

    def _read(self, onnx: str, data: object) -> OnnxSummary:
        """The summary that the cache has as `data`, which is parsed once. Raises ValueError."""
        known = self._summaries.get(onnx)
        if known is None or known[0] is not data:
            self._summaries[onnx] = known = data, OnnxSummary.from_json(data)
        return known[1]

    def summary_of(self, path: Path, label: str) -> OnnxSummary:
        """The summary of an ONNX. Raises RecipeError or EngineBuildError with its label."""
        try:
            return self.summary(str(path))
        except RecipeError as error:
            raise RecipeError(f"{label}: {error}") from None
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _changed(label) from None
            raise RecipeError(f"{label}: {error.strerror}; check the path") from None

    def known_summary(self, onnx: str) -> OnnxSummary | None:
        """The summary of a model that need not be read for it. Raises OSError."""
        absent = self.absent(onnx) if self._absent else None
        if absent and absent.summary:
            return absent.summary
        data = self._digest_cache.known_fact(onnx, ONNX_FACT)
        try:
            return self._read(onnx, data) if data else None
        except ValueError:
            return None

    def known_data(self, onnx: str) -> list[str]:
        """Locations of the external data that the cache last had for a model."""
        absent = self.absent(onnx) if self._absent else None
        if absent and absent.summary:
            return list(absent.summary.external)
        try:
            return list(self._read(onnx, self._digest_cache.last_fact(onnx, ONNX_FACT)).external)
        except ValueError:
            return []

    def digest(self, path: Path, label: str) -> str:
        """The sha256 of an input. Raises RecipeError, PublishError or EngineBuildError with its label."""
        absent = self.absent(path) if self._absent else None
        if absent:
            return absent.sha256
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
