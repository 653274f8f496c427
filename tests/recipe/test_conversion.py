"""What must be made of an ONNX before its compile, and what cannot be."""

import pytest

from scons_tensorrt.errors import RecipeError
from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.recipe.conversion import (
    BFLOAT16,
    FLOAT,
    FLOAT16,
    Calibration,
    Conversion,
    Step,
    already,
    faults,
    next_step,
    parse_calibration,
    strongly_typed,
)
from scons_tensorrt.recipe.gate_options import Gate, parse_gate
from scons_tensorrt.recipe.gate_plan import recorded_samples_of
from scons_tensorrt.recipe.onnx.summary import OnnxInput, OnnxSummary
from scons_tensorrt.recipe.options import parse
from scons_tensorrt.recipe.sample_options import Samples

X = OnnxInput("x", (1, 3), FLOAT)
FP32 = OnnxSummary((X,), {}, {FLOAT: 100})
FP16 = OnnxSummary((X,), {}, {FLOAT16: 100, FLOAT: 3})
BF16 = OnnxSummary((X,), {}, {BFLOAT16: 100})
QDQ = OnnxSummary((X,), {}, {3: 100, FLOAT: 10}, True)
PLAIN = Conversion()
CALIBRATED = Conversion(calibration=Calibration(Samples("c.npz", at_least=8)))
NATIVE = Conversion(calibration=Calibration(Samples("c.npz", at_least=8), by="calibrator"))


def signature(product, version):
    return HardwareSignature.from_json(
        {
            "schema": 1,
            "product": product,
            "runtime_version": version,
            "os": "linux",
            "machine": "x86_64",
            "compute_capability": "8.9",
            "cuda": "13.0",
        },
        "test",
    )


@pytest.mark.parametrize(
    ("product", "version", "strong"),
    [
        ("tensorrt", "10.3.0.30", False),
        ("tensorrt", "10.13.3.9", False),
        ("tensorrt", "11.4.0.106", True),
        ("tensorrt_rtx", "1.7.1.116", True),
    ],
)
def test_rtx_and_tensorrt_from_11_on_compile_the_onnxs_own_types(product, version, strong):
    assert strongly_typed(signature(product, version)) is strong


@pytest.mark.parametrize(
    ("summary", "precision", "found"),
    [
        (FP32, "fp16", False),
        (FP16, "fp16", True),  # a few tensors are kept in float32, as converters do
        (FP16, "bf16", False),
        (BF16, "bf16", True),
        (QDQ, "int8", True),
        (FP32, "int8", False),
        (FP32, "fp32", True),  # nothing is to be made of it
        (OnnxSummary((X._replace(dtype=FLOAT16),), {}), "fp16", True),  # no weights
        (OnnxSummary((X,), {}), "fp16", False),
        (OnnxSummary((X,), {}, {7: 5}), "fp16", False),  # whole numbers alone say nothing
    ],
)
def test_a_model_may_be_of_its_precision_already(summary, precision, found):
    assert already(summary, precision) is found


def test_another_precision_is_a_step_on_a_strongly_typed_runtime_alone():
    spec = Conversion(("Softmax",), ("head",), False)
    step = next_step("fp16", spec, True, FP32)
    options = {"to": "fp16", "keep_ops": ["Softmax"], "keep_nodes": ["head"], "keep_io": False}
    assert step == Step("precision", options)
    assert next_step("fp16", PLAIN, False, FP32) is None


def test_nodes_that_are_searched_for_stand_in_the_step_as_auto():
    found = parse("a", {"precision": "fp16", "keep_nodes": "auto", "accuracy": "i.npz"}).conversion
    assert (found.auto, found.keep_nodes) == (True, ())
    step = next_step("fp16", found, True, FP32)
    assert step.options == {"to": "fp16", "keep_ops": [], "keep_nodes": "auto", "keep_io": True}
    named = parse("a", {"precision": "fp16", "keep_nodes": ["auto"]}).conversion  # a node of that name
    assert (named.auto, named.keep_nodes) == (False, ("auto",))


@pytest.mark.parametrize("precision", ["fp32", "tf32", "mixed"])
def test_what_is_compiled_as_it_is_needs_no_step(precision):
    assert next_step(precision, PLAIN, True, FP32) is None


@pytest.mark.parametrize("strong", [True, False])
def test_a_calibration_makes_qdq_nodes_on_every_runtime(strong):
    step = next_step("int8", CALIBRATED, strong, FP32)
    assert (step.kind, step.options["to"], step.options["method"]) == ("quantize", "int8", "percentile")


def test_a_model_that_has_it_already_is_taken_as_it_is():
    assert next_step("fp16", PLAIN, True, FP16) is None
    assert next_step("int8", CALIBRATED, True, QDQ) is None


def test_a_model_that_is_not_there_yet_gets_its_step():
    assert next_step("fp16", PLAIN, True, None) is not None


FAULTS = [
    ("int8", PLAIN, True, FP32, "it has no Q/DQ nodes: give calibration="),
    ("int8", CALIBRATED, True, QDQ, "it has Q/DQ nodes already; leave out calibration"),
    ("fp16", CALIBRATED, True, FP32, "calibration has no effect with precision='fp16'"),
    ("fp32", Conversion(keep_ops=("Add",)), True, FP32, "keep_ops has no effect with precision='fp32'"),
    ("fp16", Conversion(keep_nodes=("n",)), False, FP32, "write strongly_typed=True too (from TensorRT 10)"),
    ("fp32", Conversion(keep_io=False), True, FP32, "keep_io=False has no effect"),
    ("fp32", Conversion(auto=True), True, FP32, "keep_nodes='auto' has no effect with precision='fp32'"),
    ("int8", CALIBRATED._replace(auto=True), True, FP32, "keep_nodes='auto' is for fp16 and bf16"),
    ("int8", NATIVE, True, FP32, "not supported by a strongly typed runtime; write by='qdq'"),
]


@pytest.mark.parametrize(("precision", "spec", "strong", "summary", "message"), FAULTS)
def test_what_cannot_be_is_named_with_what_to_write(precision, spec, strong, summary, message):
    assert message in "; ".join(faults(precision, spec, strong, summary))


FINE = [
    ("fp32", PLAIN, True, FP32),
    ("fp16", Conversion(("Add",), ("n",), False), True, FP32),
    ("int8", CALIBRATED, True, FP32),
    ("int8", PLAIN, True, QDQ),
    ("int8", PLAIN, True, None),  # it is still to be made: the compile will tell
]


@pytest.mark.parametrize(("precision", "spec", "strong", "summary"), FINE)
def test_what_can_be_has_no_fault(precision, spec, strong, summary):
    assert faults(precision, spec, strong, summary) == []


def test_a_set_of_samples_has_short_forms():
    assert parse_calibration("c.npz") == Calibration(Samples("c.npz", at_least=8))
    assert parse_calibration({"data": "c.npz"}) == parse_calibration("c.npz")
    reader = parse_calibration("tools/c.py:batches").samples
    assert (reader.where, reader.function) == ("tools/c.py", "batches")


def test_a_gate_has_its_bounds():
    gate = parse_gate({"inputs": "i.npz", "rtol": 0.1, "atol": 0, "metric": "cosine"})
    assert gate == Gate(Samples("i.npz"), 0.1, 0.0, "cosine")


BAD = [
    ({"calibration": {}}, "calibration: no data="),
    ({"calibration": {"data": "c.npz", "methd": "entropy"}}, "calibration: unknown methd='entropy'"),
    ({"calibration": {"data": "c.npz", "method": "mean"}}, "write one of entropy, minmax, percentile"),
    ({"calibration": {"data": "c.npz", "by": "magic"}}, "write one of qdq, calibrator"),
    ({"calibration": {"data": "c.npz", "percentile": 101}}, "percentile=101"),
    ({"calibration": {"data": "c.npz", "percentile": True}}, "percentile=True"),
    ({"calibration": {"data": "c.npz", "per_channel": 1}}, "per_channel=1: write True or False"),
    ({"calibration": {"data": "c.npz", "ops": "Conv"}}, "calibration ops='Conv': write a list"),
    ({"calibration": {"data": "c.npz", "at_least": 0}}, "at_least=0"),
    ({"calibration": {"data": "c.npz", "most": 4}}, "most=4: fewer than at_least=8"),
    ({"calibration": {"data": "c.npz", "files": ["a"]}}, "files=: only for a reader"),
    (
        {"calibration": {"data": "c.npz", "by": "calibrator", "method": "percentile"}},
        "calibration method='percentile': write one of entropy, minmax",
    ),
    (
        {"calibration": {"data": "c.npz", "by": "calibrator", "percentile": 99.9}},
        "calibration percentile=: only with by='qdq'; leave it out",
    ),
    ({"calibration": {"data": "c.npz", "by": "calibrator", "ops": ["Conv"]}}, "calibration ops=: "),
    ({"accuracy": ""}, "accuracy: no inputs="),
    ({"accuracy": {"inputs": ""}}, "accuracy: no inputs="),
    ({"accuracy": {"corners": "yes"}}, "accuracy corners='yes': write True or False"),
    (
        {"accuracy": {"corners": False}},
        "accuracy: corners=False without inputs= leaves nothing to run; add inputs=",
    ),
    ({"accuracy": {"most": 3}}, "accuracy most=3: only with inputs="),
    ({"accuracy": {"inputs": "i.npz", "rtol": -1}}, "rtol=-1"),
    ({"accuracy": {"inputs": "i.npz", "atol": float("nan")}}, "atol=nan"),
    ({"accuracy": {"inputs": "i.npz", "metric": "best"}}, "metric='best'"),
    ({"keep_ops": "Conv"}, "keep_ops='Conv': write a list"),
    ({"keep_nodes": [1]}, "keep_nodes=[1]"),
    ({"keep_nodes": "auto"}, "keep_nodes='auto' needs accuracy=, whose bound decides"),
    ({"keep_nodes": "all", "accuracy": "i.npz"}, "keep_nodes='all': write a list"),
    ({"keep_io": "yes"}, "keep_io='yes': write True or False"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_be_read_is_named(options, message):
    with pytest.raises(RecipeError) as caught:
        parse("a", options)
    assert message in str(caught.value)


def test_the_recorded_samples_are_the_first_of_the_gate():
    accuracy = {"inputs": "i.npz", "record": 4}
    assert recorded_samples_of(parse("a", {"accuracy": accuracy})) == Samples("i.npz", None, 4, 1)
    few = parse("a", {"accuracy": {**accuracy, "most": 2}})
    assert recorded_samples_of(few) == Samples("i.npz", None, 2, 1)
    assert recorded_samples_of(parse("a", {"accuracy": {"inputs": "i.npz"}})) is None
    assert parse_gate(accuracy).key_fields() == parse_gate("i.npz").key_fields()  # the gate's key stays
    with pytest.raises(RecipeError, match="accuracy record=2: there are no samples to record; add inputs="):
        recorded_samples_of(parse("a", {"accuracy": {"record": 2}}))


@pytest.mark.parametrize("record", [-1, "2", True])
def test_a_count_of_samples_to_record_that_is_none_is_refused(record):
    with pytest.raises(RecipeError, match=f"accuracy record={record!r}: write a whole number from 0 up"):
        parse_gate({"inputs": "i.npz", "record": record})
