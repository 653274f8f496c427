"""Samples in an .npz archive, or in a folder of .npy files. Neither is ever whole in memory."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from scons_tensorrt.worker.common.errors import one_line, recipe_error
from scons_tensorrt.worker.onnx.sample_set import ModelInput, SampleSet, shape_text, with_batch

LFS = b"version https://git-lfs.github.com/spec/"


class ArchiveSamples(SampleSet):
    """An .npz: one array for each input, axis 0 over the samples or the batch axis."""

    def __init__(self, spec: Mapping[str, Any], inputs: Sequence[ModelInput]) -> None:
        super().__init__(spec, inputs)
        self._shapes = {}  # of one sample in the file
        counts = {}
        with self._open() as archive:
            self._check_names(self.path, {n[:-4] for n in archive.namelist() if n.endswith(".npy")})
            for name, _, shape in inputs:
                with archive.open(name + ".npy") as stream:
                    stored, _, _ = _read_header(stream, self._where(name))
                counts[name], self._shapes[name] = self._split(name, shape, stored)
        if len(set(counts.values())) > 1:
            given = ", ".join("`%s` has %d" % pair for pair in counts.items())
            raise recipe_error(
                "%s: the inputs have different numbers of samples (%s); give each as many"
                % (self.path, given)
            )
        self._count = min(counts.values(), default=0)
        self._check_count(self._count)

    def _where(self, name: str) -> str:
        return "%s, array `%s`" % (self.path, name)

    @contextlib.contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        """The archive. Raises WorkerError for whatever is wrong with the file."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except OSError as error:
            raise recipe_error("%s cannot be read: %s" % (self.path, error.strerror or error)) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise recipe_error(
                _lfs_pointer(self.path)
                or "%s is not a readable .npz: %s; write it with numpy.savez" % (self.path, one_line(error))
            ) from None

    def _split(
        self, name: str, wanted: Sequence[int] | None, stored: tuple[int, ...]
    ) -> tuple[int, tuple[int, ...]]:
        """(the number of samples, the shape of one) in an array of the shape `stored`."""
        rank = len(stored) - 1 if wanted is None else len(wanted)
        if stored and len(stored) == rank + 1:
            return stored[0], stored[1:]
        if stored and wanted and len(stored) == rank:
            batch = max(wanted[0], 1)
            if stored[0] % batch:
                raise recipe_error(
                    "%s: %d rows are not a multiple of the model's batch size %d"
                    % (self._where(name), stored[0], batch)
                )
            return stored[0] // batch, (batch, *stored[1:])
        raise recipe_error(
            "%s has shape %s; the input is %s: add an axis in front, over the samples"
            % (self._where(name), shape_text(stored), shape_text(wanted))
        )

    def _read(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        with self._open() as archive, contextlib.ExitStack() as streams:
            rows = {
                name: self._rows(streams.enter_context(archive.open(name + ".npy")), name)
                for name in self.names
            }
            for index in range(self._count):
                yield "%s, sample %d" % (self.path, index), {name: next(rows[name]) for name in self.names}

    def _rows(self, stream: IO[bytes], name: str) -> Iterator[np.ndarray]:
        """The samples of one array, each read when it is needed."""
        _, dtype, fortran = _read_header(stream, self._where(name))
        shape = self._shapes[name]
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if fortran:  # the values of a sample are scattered over the whole array
            data = np.frombuffer(stream.read(), dtype)
            yield from np.ascontiguousarray(data.reshape((self._count, *shape), order="F"))
            return
        for _ in range(self._count):
            data = stream.read(size)
            if len(data) != size:
                raise recipe_error(
                    "%s is shorter than its header says; write the file again" % self._where(name)
                )
            yield np.frombuffer(data, dtype).reshape(shape)


class FolderSamples(SampleSet):
    """A folder of .npy files, one sample each; with several inputs, a folder for each of them."""

    def __init__(self, spec: Mapping[str, Any], inputs: Sequence[ModelInput]) -> None:
        super().__init__(spec, inputs)
        alone = len(inputs) == 1
        self._folders = {name: self.path if alone else self._folder_of(name) for name in self.names}
        self._files = {name: _npy_files(folder) for name, folder in self._folders.items()}
        for name in self.names[1:]:
            self._check_same_files(self.names[0], name)
        self._check_count(min(map(len, self._files.values()), default=0))

    def _folder_of(self, name: str) -> str:
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise recipe_error(
                "%s: input `%s` cannot be the name of a folder; give the samples as one .npz"
                % (self.path, name)
            )
        folder = os.path.join(self.path, name)
        if os.path.isdir(self.path) and not os.path.isdir(folder):
            wanted = ", ".join("`%s`" % each for each in self.names)
            raise recipe_error(
                "%s has no folder `%s`; give a folder for each of the model's inputs %s"
                % (self.path, name, wanted)
            )
        return folder

    def _check_same_files(self, first: str, second: str) -> None:
        unpaired = sorted(set(self._files[first]) ^ set(self._files[second]))
        if unpaired:
            has, lacks = (first, second) if unpaired[0] in self._files[first] else (second, first)
            raise recipe_error(
                "%s has %s and %s does not; a sample's files must have the same name in every folder"
                % (self._folders[has], unpaired[0], self._folders[lacks])
            )

    def _read(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for file in self._files[self.names[0]]:
            paths = {name: os.path.join(self._folders[name], file) for name in self.names}
            arrays = {name: with_batch(_mapped(paths[name]), shape) for name, _, shape in self.inputs}
            yield paths[self.names[0]], arrays


def _npy_files(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise recipe_error("%s cannot be read: %s" % (folder, error.strerror)) from None
    return sorted(name for name in names if name.endswith(".npy") and not name.startswith("."))


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype, bool]:
    """(shape, dtype, is it in Fortran order) of an array; leaves the stream at the data. Refuses Python
    objects: to unpickle them would run code."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise recipe_error("%s: .npy version %d.%d is not for plain numbers" % (where, *version))
    if dtype.hasobject:
        raise recipe_error("%s holds Python objects; save an array of numbers" % where)
    return shape, dtype, fortran


def _mapped(path: str) -> np.ndarray:
    """The array of an .npy, mapped and not read."""
    try:
        with open(path, "rb") as stream:
            _read_header(stream, path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise recipe_error("%s cannot be read: %s" % (path, error.strerror or error)) from None
    except (ValueError, EOFError) as error:
        raise recipe_error(
            _lfs_pointer(path) or "%s is not a readable .npy: %s" % (path, one_line(error))
        ) from None


def _lfs_pointer(path: str) -> str:
    """The message for a file that Git LFS left in place of the samples; else ''."""
    try:
        with open(path, "rb") as file:
            is_pointer = file.read(len(LFS)) == LFS
    except OSError:
        is_pointer = False
    return "%s is a Git LFS pointer, not the samples; run `git lfs pull`" % path if is_pointer else ""
