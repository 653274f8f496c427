"""File nodes whose content signature is the sha256 in the digest cache.

SCons would hash a model again in each run for two days, and an engine after each build and whenever
something depends on it. A node becomes one of these by a change of its class, as SCons's own
Entries become Files. The class does not depend on the requested targets, so that a Command that
uses the same model sees the same signature in each run: from the second run on, the digest cache
knows an engine's external data when it is declared.
"""

from __future__ import annotations

import os
from typing import Any

import SCons.Node.FS

from ..build.inputs import LARGEST_ONNX
from .nodes import real_path


class DigestFile(SCons.Node.FS.File):  # type: ignore[misc]  # SCons has no types
    """A model, its external data, or a plugin."""

    __slots__ = ()

    def srcnode(self) -> Any:
        """Like SCons's own, but without the assertion that the source is of the same class."""
        folders = self.dir.srcdir_list()
        return folders[0].File(self.name) if folders else self

    def get_csig(self) -> str:
        info = self.get_ninfo()
        if getattr(info, "csig", None) is None:
            csig = self._sha256()
            if csig is None:
                return self._unknown()
            info.csig = csig
        return str(info.csig)

    def _unknown(self) -> str:
        """The signature of what cannot be hashed; SCons would read a pipe or a device forever."""
        path = str(real_path(self))
        if os.path.exists(path):
            if not os.path.isfile(path):
                return "not a regular file"
            if self._most(path) is not None and os.path.getsize(path) > LARGEST_ONNX:
                return "no ONNX is so large"
        return str(super().get_csig())

    def _most(self, path: str) -> int | None:
        return LARGEST_ONNX if path.endswith(".onnx") else None

    def _sha256(self) -> str | None:
        path = str(real_path(self))
        try:
            return str(self.fs.scons_tensorrt_session.digest_cache.sha256(path, most=self._most(path)))
        except OSError:
            return None


class EngineFile(DigestFile):
    """An engine, whose sha256 is known once it was checked or built."""

    __slots__ = ()

    def _sha256(self) -> str | None:
        known = self.attributes.trt_engine.sha256
        return known if known is not None else super()._sha256()


def sign(node: Any, kind: type[DigestFile] = DigestFile) -> None:
    """Make a plain file node one of `kind`."""
    if type(node) is SCons.Node.FS.File:
        node.__class__ = kind
