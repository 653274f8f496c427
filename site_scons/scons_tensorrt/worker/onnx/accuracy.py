"""How far a converted ONNX is from its original, both run in ONNX Runtime on the CPU; and how outputs
are judged, an engine's, too.

The judgement of one output of one sample is one number, its error, against one bound; the worst of all
samples decides: the one that uses the largest share of its bound. Elements that are NaN or infinite in
both alike are equal; in one alone, infinitely far.
"""

import json
import math

from scons_tensorrt.worker.common.errors import WorkerError

EXAMPLES = 3  # how many outputs a message tells of


def compare(reference, converted, target, spec, options):
    """Write the figures of every output to `target`, a JSON file, and return them.

    spec: the set of samples, see samples.py; options: rtol, atol, metric, see recipe/conversion.py.
    Raises WorkerError (AccuracyError) where an output is beyond its bound.
    """
    from scons_tensorrt.worker.onnx import samples

    first, second = _session(reference, "the original"), _session(converted, "the converted model")
    names = outputs_of(first)
    gone = sorted(set(names) - {output.name for output in second.get_outputs()})
    if gone:
        raise WorkerError("AccuracyError", "the converted model has no output `%s`" % gone[0])
    figures = Figures(names, options)
    for number, sample in enumerate(samples.read(spec, _inputs(first))):
        expected = _run(first, names, sample, number)
        given = _run(second, names, sample, number)
        figures.add(number, dict(zip(names, zip(expected, given))))
    return figures.judged(target)


class Figures:
    """The worst of each output so far. options: rtol, atol, metric."""

    def __init__(self, names, options):
        self._options = options
        self._found = {name: {} for name in names}
        self._ranks = {}
        self._count = 0

    def add(self, number, outputs):
        """One sample more. outputs: {name: (the original's, the other's)}."""
        self._count += 1
        for name, (wanted, got) in outputs.items():
            figures = measure(name, wanted, got, self._options)
            figures["sample"] = number
            # An output that is empty in one sample says nothing of those in which it is not.
            rank = wanted.size > 0, _share(figures)
            if name not in self._ranks or rank > self._ranks[name]:
                self._found[name], self._ranks[name] = figures, rank

    def judged(self, target):
        """All figures, which `target` then holds, a JSON file. Raises WorkerError (AccuracyError) where an
        output is beyond its bound, or nothing was compared."""
        if self._ranks and not any(compared for compared, _ in self._ranks.values()):
            raise WorkerError(
                "AccuracyError",
                "every output is empty in every sample, so nothing was compared; add samples whose "
                "outputs are not empty",
            )
        figures = {"samples": self._count, "outputs": self._found, **self._options}
        with open(target, "w", encoding="utf-8") as out:
            json.dump(figures, out, sort_keys=True, indent=1)
            out.write("\n")
        _judge(self._found, self._options)
        return figures


def _judge(found, options):
    # Not `error > bound`, which is false for an error that is not a number.
    beyond = [name for name in found if not found[name]["error"] <= found[name]["bound"]]
    beyond.sort(key=lambda name: _share(found[name]), reverse=True)
    if not beyond:
        return
    name = beyond[0]
    f = found[name]
    more = ", and of %d more" % (len(beyond) - 1) if len(beyond) > 1 else ""
    raise WorkerError(
        "AccuracyError",
        "output `%s`%s: %s error %.4g, beyond %.4g (%s; sample %d, worst at %s: %.6g, and %.6g in the "
        "original); widen rtol= or atol=, or keep more in float32"
        % (
            *(name, more, options["metric"], f["error"], f["bound"], _bound_text(options)),
            *(f["sample"], f["at"], f["converted"], f["original"]),
        ),
    )


def _bound_text(options):
    if options["metric"] == "cosine":
        return "1 - cosine <= atol %g" % options["atol"]
    return "atol %g + rtol %g x |original|" % (options["atol"], options["rtol"])


def _share(figures):
    """The share of its bound that an error uses; see `share_of_bound` in recipe/conversion.py."""
    error, bound = figures["error"], figures["bound"]
    if not error:
        return 0.0
    share = error / bound if bound else math.inf
    return math.inf if math.isnan(share) else share


def _shares(error, bounds):
    """The same for each element."""
    import numpy as np

    share = np.where(error == 0, 0.0, error / bounds)
    return np.where(np.isnan(share), np.inf, share)


def measure(name, original, converted, options):
    """The figures of one output of one sample: its error and bound by the metric, and where the
    largest error is; the largest and the mean absolute error, and the cosine, for information."""
    import numpy as np

    if original.shape != converted.shape:
        raise WorkerError(
            "AccuracyError",
            "output `%s` has shape %s, and %s in the original"
            % (name, list(converted.shape), list(original.shape)),
        )
    if original.size == 0:
        return {"error": 0.0, "bound": 0.0, "at": [], "original": 0.0, "converted": 0.0}
    a, b = original.astype(np.float64), converted.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(b - a)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.where(same, 0.0, np.where(np.isfinite(a) & np.isfinite(b), error, np.inf))
        size = np.where(np.isfinite(a), np.abs(a), 0.0)
        bounds = options["atol"] + options["rtol"] * size
        figures = _by_metric(options, a, b, error, size, bounds)
        if options["metric"] == "elemwise":
            at = np.unravel_index(int(np.argmax(_shares(error, bounds))), a.shape)
            figures = {"error": float(error[at]), "bound": float(bounds[at])}
        else:
            at = np.unravel_index(int(np.argmax(error)), a.shape)
        figures.update(
            at=[int(i) for i in at],
            original=float(a[at]),
            converted=float(b[at]),
            max_abs=float(error.max()),
            mean_abs=float(error.mean()),
            cosine=_cosine(a, b),
        )
    return figures


def _by_metric(options, a, b, error, size, bounds):
    import numpy as np

    metric = options["metric"]
    if metric == "cosine":
        return {"error": 1.0 - _cosine(a, b), "bound": options["atol"]}
    take = {"max": np.max, "mean": np.mean, "median": np.median}.get(metric)
    if take is None:
        return {}
    return {"error": float(take(error)), "bound": float(options["atol"] + options["rtol"] * take(size))}


def _cosine(a, b):
    """The cosine of two tensors as vectors; 1 for two of zeros, 0 where one is not finite."""
    import numpy as np

    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 1.0 if np.array_equal(a, b, equal_nan=True) else 0.0
    x, y = a.ravel(), b.ravel()
    scale = max(float(np.abs(x).max()), float(np.abs(y).max()))
    if scale == 0.0:
        return 1.0
    x, y = x / scale, y / scale
    lengths = float(np.sqrt(x @ x) * np.sqrt(y @ y))
    return float(x @ y) / lengths if lengths else 0.0


def _session(path, what):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # What is compared is the model, not what a runtime's optimizer makes of it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise WorkerError(
            "AccuracyError",
            "ONNX Runtime cannot load %s: %s" % (what, " ".join(str(error).split())[:300]),
        ) from None


def outputs_of(session):
    """The names of the outputs. Raises WorkerError where one holds no numbers that can be compared."""
    for output in session.get_outputs():
        if not output.type.startswith("tensor(") or output.type == "tensor(string)":
            raise WorkerError(
                "RecipeError",
                "output `%s` is %s, which accuracy= cannot compare: make it a tensor of numbers in the "
                "ONNX, or leave out accuracy=" % (output.name, output.type),
            )
    return [output.name for output in session.get_outputs()]


def _inputs(session):
    """The inputs as `samples.read` wants them: name, numpy type, shape with -1 for dynamic."""
    return [
        (i.name, _numpy(i), tuple(d if isinstance(d, int) and d >= 0 else -1 for d in i.shape))
        for i in session.get_inputs()
    ]


def _numpy(given):
    import numpy as np

    names = {"float": "float32", "double": "float64", "string": "object"}
    inside = given.type[len("tensor(") : -1]
    try:
        return np.dtype(names.get(inside, inside))
    except TypeError:
        said = "input `%s` is %s, which no sample can give" % (given.name, given.type)
        raise WorkerError("AccuracyError", said) from None


def _run(session, names, sample, number):
    types = {i.name: _numpy(i) for i in session.get_inputs()}
    given = {name: array.astype(types[name], copy=False) for name, array in sample.items()}
    try:
        return session.run(names, given)
    except Exception as error:
        raise WorkerError(
            "AccuracyError",
            "ONNX Runtime cannot run sample %d: %s" % (number, " ".join(str(error).split())[:300]),
        ) from None
