"""Reading a set of samples: a `.npz`, a folder of `.npy`, or what a Python function yields.

One sample at a time: a set larger than memory is no trouble. Every sample is checked against
the model's inputs, which are given as (name, numpy type, shape with -1 for dynamic).
"""

import contextlib
import importlib.util
import os
import sys
import traceback
import zipfile

from scons_tensorrt.compile.worker.failure import Refused


def read(spec, inputs):
    """Yield {input: array} for each sample, checked.

    spec: kind ("npz", "npy", "reader"), path, function (of a reader), most (how many to take at
    most, None for all), at_least. Refused with RecipeError, naming the file, sample and input at
    fault, or when there are fewer than at_least.
    """
    import numpy as np

    label = os.path.basename(spec["path"].rstrip("/"))
    count = 0
    with np.errstate(all="ignore"), contextlib.closing(_raw(spec, inputs, label)) as raw:
        for sample in raw:
            where = "%s, sample %d" % (label, count)
            _check_names(where, sample, inputs)
            yield {name: _checked(where, sample, name, *rest) for name, *rest in inputs}
            count += 1
            if count == spec["most"]:
                break
    if count < spec["at_least"]:
        raise Refused(
            "RecipeError",
            "%s has %d samples, and at least %d are wanted; add samples, or lower at_least="
            % (label, count, spec["at_least"]),
        )


def inputs_of(model):
    """The inputs of a loaded ONNX: (name, numpy type, shape with -1 for dynamic, None for an unknown
    rank). Refused for an input that is no tensor."""
    from onnx import helper

    weights = {tensor.name for tensor in model.graph.initializer}
    found = []
    for each in model.graph.input:
        if each.name in weights:
            continue
        if each.type.WhichOneof("value") != "tensor_type":
            raise Refused(
                "RecipeError", "input `%s` is no tensor, which samples cannot give" % each.name
            )
        kind = each.type.tensor_type
        shape = None
        if kind.HasField("shape"):
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        found.append((each.name, helper.tensor_dtype_to_np_dtype(kind.elem_type), shape))
    return found


def _check_names(where, sample, inputs):
    names = [name for name, _, _ in inputs]
    for name in sample:
        if name not in names:
            known = ", ".join("`%s`" % each for each in names)
            raise Refused(
                "RecipeError", "%s: `%s` is no input of the model; inputs: %s" % (where, name, known)
            )
    for name in names:
        if name not in sample:
            raise Refused("RecipeError", "%s: it has no `%s`, an input of the model" % (where, name))


def _checked(where, sample, name, dtype, shape):
    """One input of a sample as the model takes it."""
    import numpy as np

    array = np.asarray(sample[name])
    if array.dtype == object:
        raise Refused("RecipeError", "%s: `%s` holds Python objects; save numbers" % (where, name))
    if array.dtype != dtype:
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise Refused(
                "RecipeError",
                "%s: `%s` is %s, and the model takes %s" % (where, name, array.dtype, dtype),
            )
        array = array.astype(dtype)
    if shape is not None and (
        array.ndim != len(shape) or any(w not in (-1, g) for w, g in zip(shape, array.shape))
    ):
        wanted = "x".join("?" if size < 0 else str(size) for size in shape) or "a single number"
        given = "x".join(map(str, array.shape)) or "a single number"
        raise Refused(
            "RecipeError", "%s: `%s` has shape %s, and the model takes %s" % (where, name, given, wanted)
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        what = "NaN" if np.isnan(array[tuple(at)]) else "infinite"
        raise Refused("RecipeError", "%s: `%s` is %s at %s" % (where, name, what, at))
    return np.ascontiguousarray(array)


def _raw(spec, inputs, label):
    kind = {"npz": _npz, "npy": _npy, "reader": _reader}[spec["kind"]]
    return kind(spec, inputs, label)


# One archive.


def _npz(spec, inputs, label):
    """Axis 0 of each array runs over samples where it has one axis more than the input, else it is
    the batch axis, of which each sample gets what the model fixes, or 1."""
    try:
        archive = zipfile.ZipFile(spec["path"])
    except (OSError, zipfile.BadZipFile) as error:
        raise Refused("RecipeError", "%s cannot be read: %s" % (label, error)) from None
    shapes = {name: shape for name, _, shape in inputs}
    with contextlib.ExitStack() as stack:
        stack.enter_context(archive)
        arrays, counts = {}, {}
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            stream = stack.enter_context(archive.open(member))
            shape, one = _stream(stream, "%s: `%s`" % (label, name))
            arrays[name], counts[name] = _pieces(label, name, shape, one, shapes.get(name))
        if len(set(counts.values())) > 1:
            told = ", ".join("`%s` %d" % item for item in sorted(counts.items()))
            raise Refused(
                "RecipeError", "%s: as many samples of each input are wanted: %s" % (label, told)
            )
        for _ in range(next(iter(counts.values()), 0)):
            yield {name: take() for name, take in arrays.items()}


def _pieces(label, name, shape, one, wanted):
    """How to take one sample of an array of `shape`, and how many there are."""
    rank = len(shape) if wanted is None else len(wanted)
    if not shape or len(shape) not in (rank, rank + 1):
        what = "its first axis shall run over samples, the others be the model's"
        raise Refused("RecipeError", "%s: `%s` has %d axes; %s" % (label, name, len(shape), what))
    if len(shape) == rank + 1:
        return (lambda: one(1)[0]), shape[0]
    batch = wanted[0] if wanted and wanted[0] > 0 else 1
    if shape[0] % batch:
        raise Refused(
            "RecipeError",
            "%s: `%s` has %d rows, no multiple of the batch %d" % (label, name, shape[0], batch),
        )
    return (lambda: one(batch)), shape[0] // batch


def _stream(stream, what):
    """The shape of an array in the `.npy` format, and a function that reads its next rows."""
    import numpy as np

    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
        shape, fortran, dtype = (header or np.lib.format.read_array_header_2_0)(stream)
    except (ValueError, EOFError) as error:
        raise Refused(
            "RecipeError", "%s is no array: %s" % (what, " ".join(str(error).split()))
        ) from None
    if dtype.hasobject:
        raise Refused("RecipeError", "%s holds Python objects; save numbers" % what)
    if fortran and len(shape) > 1:
        raise Refused("RecipeError", "%s is in Fortran order; save numpy.ascontiguousarray of it" % what)
    rest = tuple(shape[1:])

    def one(rows):
        size = int(dtype.itemsize * np.prod(rest, dtype=np.int64)) * rows
        data = stream.read(size)
        if len(data) != size:
            raise Refused("RecipeError", "%s is truncated" % what)
        return np.frombuffer(data, dtype).reshape((rows, *rest))

    return shape, one


# A folder.


def _npy(spec, inputs, label):
    """One file a sample; of several inputs, a folder for each with as many files."""
    folder = spec["path"]
    if len(inputs) == 1:
        places = {inputs[0][0]: folder}
    else:
        for name, _, _ in inputs:
            if not os.path.isdir(os.path.join(folder, name)):
                raise Refused(
                    "RecipeError",
                    "%s: no folder `%s` in it, for the input of that name; where a name cannot be a "
                    "folder's, give a .npz" % (label, name),
                )
        places = {name: os.path.join(folder, name) for name, _, _ in inputs}
    shapes = {name: shape for name, _, shape in inputs}
    files = {name: _files(place) for name, place in places.items()}
    if len({len(each) for each in files.values()}) > 1:
        told = ", ".join("`%s` %d" % (name, len(each)) for name, each in sorted(files.items()))
        raise Refused("RecipeError", "%s: as many samples of each input are wanted: %s" % (label, told))
    for together in zip(*files.values()):
        yield {name: _load(path, shapes[name]) for name, path in zip(files, together)}


def _files(folder):
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".npy"))


def _load(path, shape):
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        name = os.path.basename(path)
        raise Refused("RecipeError", "%s: %s" % (name, " ".join(str(error).split())[:200])) from None
    # A picture without its batch axis.
    if shape is not None and array.ndim == len(shape) - 1 and shape[:1] in ((1,), (-1,)):
        return array[None]
    return array


# A function.


def _reader(spec, inputs, label):
    path, function = spec["path"], spec["function"]
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_spec = importlib.util.spec_from_file_location("_samples_" + label.removesuffix(".py"), path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if not hasattr(module, function):
            raise Refused("RecipeError", "%s has no function `%s`" % (label, function))
        for sample in getattr(module, function)():
            if not isinstance(sample, dict):
                raise Refused("RecipeError", "%s: `%s` shall yield {input: array}" % (label, function))
            yield sample
    except (Refused, GeneratorExit):
        raise
    except BaseException as error:
        traceback.print_exc()
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        where = ", line %d" % lines[-1] if lines else ""
        text = "%s%s: %s: %s" % (label, where, type(error).__name__, " ".join(str(error).split())[:300])
        raise Refused("RecipeError", text) from None
