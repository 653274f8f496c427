"""A set of samples, one at a time: what calibration and accuracy checks run the ONNX on.

A set is an .npz file, a folder of .npy files, or a function of the user's in a Python file.
Nothing holds the whole set: of an .npz, each array is read from the archive sample by sample.
"""

import contextlib
import os
import sys
import traceback
import types
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import sources

LFS = b"version https://git-lfs.github.com/spec/"


def inputs_of(model):
    """[(name, numpy dtype, shape)] of an onnx.ModelProto's inputs; -1 is a dynamic dimension, and
    the shape is None where the model does not tell the rank. Raises WorkerError (RecipeError) for an
    input that numpy arrays cannot feed."""
    import onnx

    constants = {tensor.name for tensor in model.graph.initializer}
    described = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
            raise _refused("input `%s` takes no numbers, so it can have no samples" % value.name)
        shape = None
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
        described.append((value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape))
    return described


def read(spec, inputs):
    """The samples of `spec`, an iterable of {input name: array} that may be run through again.

    spec: kind ("npz", "npy" or "reader"), path, function (of a reader), most (use the first ones
    only, or None) and at_least. inputs: see `inputs_of`. Each array has the input's dtype and full
    shape. `len` works for npz and npy; how many samples a reader has shows when it has ended.
    Raises WorkerError (RecipeError), naming the file, here or on the way through the samples.
    """
    kind = {"npz": _Archive, "npy": _Folder, "reader": _Reader}[spec["kind"]]
    if spec["most"] is not None and spec["most"] < spec["at_least"]:
        raise _refused(
            "%s: most=%d is below at_least=%d; raise one or lower the other"
            % (spec["path"], spec["most"], spec["at_least"])
        )
    return kind(spec, inputs)


class _Samples:
    """What the kinds have in common: the count, the limit, and the check of each sample."""

    def __init__(self, spec, inputs):
        self.path = spec["path"]
        self.most = spec["most"]
        self.at_least = spec["at_least"]
        self.inputs = inputs
        self.names = [name for name, _, _ in inputs]

    def __iter__(self):
        count = 0
        for where, arrays in self._raw():
            sample = {
                name: _fitted(where, name, arrays[name], dtype, shape) for name, dtype, shape in self.inputs
            }
            if sample and not any(array.size for array in sample.values()):
                said = ", ".join("`%s` %s" % (name, _shown(a.shape)) for name, a in sample.items())
                raise _refused("%s is empty in every input: %s; leave it out" % (where, said))
            yield sample
            count += 1
            if count == self.most:
                break
        self._check_count(count)

    def _check_count(self, count):
        if count == 0:
            raise _refused("%s has no samples; add some" % self.path)
        if count < self.at_least:
            raise _refused(
                "%s has %d sample%s, at least %d are needed; add samples or set at_least"
                % (self.path, count, "" if count == 1 else "s", self.at_least)
            )

    def _limited(self, count):
        self._check_count(count)
        return count if self.most is None else min(count, self.most)

    def _check_names(self, where, given):
        """Refuse samples whose names are not exactly the model's inputs."""
        unknown = sorted(set(given) - set(self.names))
        missing = [name for name in self.names if name not in given]
        if not unknown and not missing:
            return
        said = ["`%s` is no input of the model" % name for name in unknown[:3]]
        said += ["input `%s` is missing" % name for name in missing[:3]]
        wanted = ", ".join("`%s`" % name for name in self.names)
        raise _refused("%s: %s; the model's inputs are %s" % (where, ", ".join(said), wanted))


class _Archive(_Samples):
    """An .npz: one array for each input, axis 0 over the samples or the batch axis."""

    def __init__(self, spec, inputs):
        super().__init__(spec, inputs)
        with self._opened() as archive:
            members = self._members(archive)
            self._check_names(self.path, members)
            heads = {name: self._head(archive, members[name]) for name in self.names}
        self.taken = {name: self._slices(name, shape, *heads[name]) for name, _, shape in inputs}
        counts = {name: count for name, (count, _, _) in self.taken.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join("`%s` has %d" % pair for pair in counts.items())
            raise _refused(
                "%s: the inputs have unequal numbers of samples (%s); give each as many" % (self.path, said)
            )
        self.count = self._limited(min(counts.values(), default=0))

    def __len__(self):
        return self.count

    @contextlib.contextmanager
    def _opened(self):
        """The archive, open; whatever is wrong with the file is refused."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except OSError as error:
            raise _refused("%s cannot be read: %s" % (self.path, error.strerror or error)) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            said = "%s is no .npz, or is damaged: %s; write it with numpy.savez"
            raise _refused(_pointer(self.path) or said % (self.path, _line(error))) from None

    def _members(self, archive):
        return {entry[:-4]: entry for entry in archive.namelist() if entry.endswith(".npy")}

    def _head(self, archive, member):
        """(shape, dtype, in Fortran's order) of an array, without its data."""
        with archive.open(member) as stream:
            return _npy_head(stream, "%s, array `%s`" % (self.path, member[:-4]))

    def _slices(self, name, wanted, shape, dtype, fortran):
        """(number of samples, shape of one in the file, is the batch axis kept)."""
        rank = len(shape) - 1 if wanted is None else len(wanted)
        if shape and len(shape) == rank + 1:
            return shape[0], shape[1:], True
        if shape and len(shape) == rank:
            batch = wanted[0] if wanted[0] > 0 else 1
            if shape[0] % batch:
                raise _refused(
                    "%s, array `%s`: %d rows are no whole number of the model's batches of %d"
                    % (self.path, name, shape[0], batch)
                )
            return shape[0] // batch, (batch, *shape[1:]), True
        raise _refused(
            "%s, array `%s` has shape %s; the input is %s: give it an axis more in front, over the "
            "samples" % (self.path, name, _shown(shape), _shown(wanted))
        )

    def _raw(self):
        with self._opened() as archive, contextlib.ExitStack() as open_streams:
            members = self._members(archive)
            rows = {}
            for name in self.names:
                stream = open_streams.enter_context(archive.open(members[name]))
                where = "%s, array `%s`" % (self.path, name)
                rows[name] = self._rows(stream, where, *self.taken[name][:2])
            for index in range(self.count):
                sample = {name: next(rows[name]) for name in self.names}
                yield "%s, sample %d" % (self.path, index), sample

    def _rows(self, stream, where, count, shape):
        """The samples of one array, each read when it is asked for."""
        _, dtype, fortran = _npy_head(stream, where)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if fortran:  # samples lie scattered: there is no way but the whole array
            data = np.frombuffer(stream.read(), dtype)
            yield from np.ascontiguousarray(data.reshape((count, *shape), order="F"))
            return
        for _ in range(count):
            data = stream.read(size)
            if len(data) != size:
                raise _refused("%s is shorter than its header says; write the file again" % where)
            yield np.frombuffer(data, dtype).reshape(shape)


class _Folder(_Samples):
    """A folder of .npy files, one sample each; with several inputs, a folder for each of them."""

    def __init__(self, spec, inputs):
        super().__init__(spec, inputs)
        if len(inputs) == 1:
            folders = {self.names[0]: self.path}
        else:
            folders = {name: self._folder_of(name) for name in self.names}
        self.files = {name: self._listed(folder) for name, folder in folders.items()}
        self.folders = folders
        for name in self.names[1:]:
            self._compare(self.names[0], name)
        self.count = self._limited(min((len(files) for files in self.files.values()), default=0))

    def __len__(self):
        return self.count

    def _folder_of(self, name):
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise _refused(
                "%s: input `%s` cannot be the name of a folder; give the samples as one .npz"
                % (self.path, name)
            )
        folder = os.path.join(self.path, name)
        if os.path.isdir(self.path) and not os.path.isdir(folder):
            wanted = ", ".join("`%s`" % each for each in self.names)
            raise _refused(
                "%s has no folder `%s`; give a folder for each of the model's inputs %s"
                % (self.path, name, wanted)
            )
        return folder

    def _listed(self, folder):
        try:
            names = os.listdir(folder)
        except OSError as error:
            raise _refused("%s cannot be read: %s" % (folder, error.strerror)) from None
        return sorted(name for name in names if name.endswith(".npy") and not name.startswith("."))

    def _compare(self, first, second):
        lonely = sorted(set(self.files[first]) ^ set(self.files[second]))
        if lonely:
            has, has_not = (first, second) if lonely[0] in self.files[first] else (second, first)
            raise _refused(
                "%s has %s and %s has it not; a sample's files have one name in every folder"
                % (self.folders[has], lonely[0], self.folders[has_not])
            )

    def _raw(self):
        for index in range(self.count):
            arrays = {}
            for name, _, shape in self.inputs:
                path = os.path.join(self.folders[name], self.files[name][index])
                arrays[name] = _with_batch(_load(path), shape)
            first = self.names[0]
            where = os.path.join(self.folders[first], self.files[first][index])
            yield where, arrays


class _Reader(_Samples):
    """A function of the user's, called with no argument: it returns or yields {name: array}."""

    def __init__(self, spec, inputs):
        super().__init__(spec, inputs)
        self.function = spec["function"]
        self.code = sources.import_from_source(self.path, spec.get("code"))

    def _raw(self):
        folder = os.path.dirname(os.path.abspath(self.path))
        written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        sys.path.insert(0, folder)
        try:
            source = self._guarded(self._call)
            for index in range(sys.maxsize):
                sample = self._guarded(next, source, _END)
                if sample is _END:
                    return
                where = "%s, %s(), sample %d" % (self.path, self.function, index)
                yield where, self._arrays(where, sample)
        finally:
            sys.dont_write_bytecode = written
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)

    def _call(self):
        try:
            with open(self.path, "rb") as file:
                text = file.read()
        except OSError as error:
            raise _refused("%s cannot be read: %s" % (self.path, error.strerror)) from None
        module = types.ModuleType("_samples_reader")
        module.__file__ = os.path.abspath(self.path)
        sys.modules[module.__name__] = module  # dataclasses look their module up
        exec(compile(text, self.path, "exec"), module.__dict__)
        function = getattr(module, self.function, None)
        if not callable(function):
            raise _refused("%s has no function `%s`; write it or name another" % (self.path, self.function))
        given = function()
        if isinstance(given, Mapping) or not hasattr(given, "__iter__"):
            raise _refused(
                "%s: %s() gave a %s; it is to return or yield one {input name: array} for each sample"
                % (self.path, self.function, type(given).__name__)
            )
        return iter(given)

    def _guarded(self, call, *arguments):
        """The result of `call`, which runs the user's code: its errors are one line, and what it
        prints goes to standard error."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                given = call(*arguments)
            self.code.check()
            return given
        except WorkerError:
            raise
        except (Exception, SystemExit) as error:
            self.code.check(error)
            line = self._line_number(error)
            raise _refused(
                "%s, %s(), line %s: %s: %s"
                % (self.path, self.function, line, type(error).__name__, _line(error))
            ) from None

    def _line_number(self, error):
        """The line in the user's file that the error came through last, or `?`."""
        if isinstance(error, SyntaxError) and error.filename == self.path:
            return error.lineno
        frames = traceback.extract_tb(error.__traceback__)
        return next((f.lineno for f in reversed(frames) if f.filename == self.path), "?")

    def _arrays(self, where, sample):
        if not isinstance(sample, Mapping):
            raise _refused("%s is a %s; give {input name: array}" % (where, type(sample).__name__))
        self._check_names(where, sample)
        arrays = {}
        for name, _, shape in self.inputs:
            array = self._guarded(np.asarray, sample[name])
            # "V" is numpy's kind of bfloat16 and float8
            if array.dtype.hasobject or array.dtype.kind not in "biufcV":
                raise _refused("%s, input `%s`: %s is no array of numbers" % (where, name, array.dtype))
            arrays[name] = _with_batch(array, shape)
        return arrays


_END = object()


def _refused(text):
    return WorkerError("RecipeError", text)


def _line(error):
    return " ".join(str(error).split())[:300]


def _shown(shape):
    """A shape as the reader of a message knows it: `?` for what is dynamic."""
    if shape is None:
        return "of any rank"
    return "[%s]" % ", ".join("?" if dim < 0 else str(dim) for dim in shape)


def _npy_head(stream, where):
    """(shape, dtype, in Fortran's order), the stream left at the data. Objects are refused: they
    would be unpickled, which runs code."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise _refused("%s: .npy version %d.%d is not of plain numbers" % (where, *version))
    if dtype.hasobject:
        raise _refused("%s holds Python objects; save an array of numbers" % where)
    return shape, dtype, fortran


def _load(path):
    """The array of an .npy, mapped and not read."""
    try:
        with open(path, "rb") as stream:
            _npy_head(stream, path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise _refused("%s cannot be read: %s" % (path, error.strerror or error)) from None
    except (ValueError, EOFError) as error:
        said = "%s is no .npy, or is damaged: %s" % (path, _line(error))
        raise _refused(_pointer(path) or said) from None


def _pointer(path):
    """What to say of a file that git-lfs left in place of the samples; else ''."""
    try:
        with open(path, "rb") as file:
            is_pointer = file.read(len(LFS)) == LFS
    except OSError:
        is_pointer = False
    return "%s is a git-lfs pointer, not the samples; run `git lfs pull`" % path if is_pointer else ""


def _with_batch(array, shape):
    """`array` with the batch axis of the model, where it lacks no other and the batch is one."""
    if shape and array.ndim == len(shape) - 1 and shape[0] in (1, -1):
        return array[None]
    return array


def _fitted(where, name, array, dtype, shape):
    """`array` as the model takes it; raises WorkerError when its shape, dtype or values do not fit."""
    at = "%s, input `%s`" % (where, name)
    if shape is not None:
        fits = len(shape) == array.ndim
        fits = fits and all(dim in (-1, given) for dim, given in zip(shape, array.shape))
        if not fits:
            raise _refused("%s has shape %s; the model takes %s" % (at, _shown(array.shape), _shown(shape)))
    _check_finite(at, array)
    return _cast(at, array, dtype)


def _check_finite(at, array):
    if array.dtype.kind not in "fc":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))
        kind = "NaN" if np.isnan(array[index]) else "Inf"
        raise _refused("%s has %s at %s, %d bad values in all" % (at, kind, list(index), int(bad.sum())))


def _cast(at, array, dtype):
    """`array` in `dtype`. Rounding a wider float is all that a cast may change."""
    if array.dtype == dtype:
        return np.ascontiguousarray(array).reshape(array.shape)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise _refused("%s is %s; the model takes %s" % (at, array.dtype, dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(dtype)
        if array.dtype.kind == "f":
            kept = bool(np.isfinite(made).all())
        else:
            kept = np.array_equal(made.astype(array.dtype), array)
    if not kept:
        raise _refused(
            "%s is %s with values that %s does not hold; the model takes %s" % (at, array.dtype, dtype, dtype)
        )
    return made
