"""An engine's filename is a schema: build and parse are inverse, and nothing else parses."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scons_tensorrt.artifact.filename import PRECISIONS, EngineFilename, check_model_name
from scons_tensorrt.errors import EngineError, EngineFilenameError
from scons_tensorrt.hardware.signature import HardwareSignature

GOOD = "dinov2_vpr__sm87_jp6.2_trt10.3_fp16.engine"

words = st.text("abcxyz0189", min_size=1, max_size=8)
models = st.lists(words, min_size=1, max_size=7).map("_".join)
versions = st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda v: f"{v[0]}.{v[1]}")
names = st.builds(
    EngineFilename,
    model=models,
    sm=st.integers(1, 999),
    plus=st.booleans(),
    platform=st.tuples(st.sampled_from(["jp", "cu"]), versions).map("".join),
    runtime=st.tuples(st.sampled_from(["trt", "rtx"]), versions).map("".join),
    precision=st.sampled_from(PRECISIONS),
)


def test_the_fields_of_a_name():
    assert EngineFilename.parse(GOOD) == EngineFilename("dinov2_vpr", 87, False, "jp6.2", "trt10.3", "fp16")


def test_plus_is_told_from_the_sm():
    name = EngineFilename.parse("a__sm80plus_cu13.0_rtx1.7_fp32.engine")
    assert (name.sm, name.plus) == (80, True)


@given(names)
def test_parse_gives_back_what_build_was_given(name):
    assert EngineFilename.parse(name.build()) == name


# A grammar close to the schema, so that some texts parse and most do not.
PARTS = "a b_c __ _ sm 87 0 plus jp cu 6.2 . trt rtx 1.7 fp16 mixed .engine A / .. ٣".split()
near_names = st.lists(st.sampled_from([*PARTS, " ", "\n"]), min_size=1, max_size=14).map("".join)


@given(near_names | st.text(max_size=80) | names.map(EngineFilename.build))
def test_build_gives_back_whatever_parse_accepts(text):
    try:
        name = EngineFilename.parse(text)
    except EngineFilenameError:
        return
    assert name.build() == text


@given(names, st.data())
def test_one_changed_character_parses_to_another_name_or_not_at_all(name, data):
    text = name.build()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != text[at]))
    changed = text[:at] + other + text[at + 1 :]
    try:
        found = EngineFilename.parse(changed)
    except EngineFilenameError:
        return
    assert found != name


def test_the_error_repeats_the_name():
    with pytest.raises(EngineFilenameError, match=re.escape(repr("a\nb.engine"))):
        EngineFilename.parse("a\nb.engine")


BAD = [
    ("dinov2_vpr__sm87_jp6.2_trt10.3_fp16", "does not end in .engine"),  # no suffix
    ("dinov2_vpr__sm87_jp6.2_trt10.3_fp16.engine.sha256", "does not end in"),  # that is its sidecar
    ("dinov2_vpr__sm87_jp6.2_trt10.3_fp16.ENGINE", "does not end in"),  # the suffix is lower case
    (GOOD + "\n", "does not end in"),  # a newline is no part of a name
    (".engine", "no `__`"),  # nothing but a suffix
    ("dinov2_vpr_sm87_jp6.2_trt10.3_fp16.engine", "no `__`"),  # one underscore ends no model
    ("__sm87_jp6.2_trt10.3_fp16.engine", "model"),  # no model
    ("_a__sm87_jp6.2_trt10.3_fp16.engine", "model"),  # leading underscore
    ("a___sm87_jp6.2_trt10.3_fp16.engine", "fields after `__`"),  # trailing underscore of the model
    ("a__b__sm87_jp6.2_trt10.3_fp16.engine", "fields after `__`"),  # the first `__` ends the model
    ("Dino__sm87_jp6.2_trt10.3_fp16.engine", "model"),  # upper case
    ("dino-v2__sm87_jp6.2_trt10.3_fp16.engine", "model"),  # a dash
    ("dinö__sm87_jp6.2_trt10.3_fp16.engine", "model"),  # not ASCII
    ("../a__sm87_jp6.2_trt10.3_fp16.engine", "model"),  # a model cannot leave its folder
    ("a/b__sm87_jp6.2_trt10.3_fp16.engine", "model"),  # parse takes a bare filename
    (" a__sm87_jp6.2_trt10.3_fp16.engine", "model"),  # a space
    ("a" * 65 + "__sm87_jp6.2_trt10.3_fp16.engine", "65 characters"),  # over 64
    ("a__sm87_jp6.2_trt10.3.engine", "3 fields"),  # no precision
    ("a__sm87_jp6.2_trt10.3_fp16_b1.engine", "5 fields"),  # one field too many
    ("a__87_jp6.2_trt10.3_fp16.engine", "SM"),  # no `sm`
    ("a__sm_jp6.2_trt10.3_fp16.engine", "SM"),  # no digits
    ("a__sm087_jp6.2_trt10.3_fp16.engine", "SM"),  # a leading zero would parse to another name
    ("a__sm0_jp6.2_trt10.3_fp16.engine", "SM"),  # no such architecture
    ("a__sm8.7_jp6.2_trt10.3_fp16.engine", "SM"),  # a dot
    ("a__sm87plusplus_jp6.2_trt10.3_fp16.engine", "SM"),  # plus twice
    ("a__SM87_jp6.2_trt10.3_fp16.engine", "SM"),  # upper case
    ("a__sm٨٧_jp6.2_trt10.3_fp16.engine", "SM"),  # digits that are not ASCII
    ("a__sm87_jp6_trt10.3_fp16.engine", "platform"),  # no minor
    ("a__sm87_jp6.2.1_trt10.3_fp16.engine", "platform"),  # a patch level
    ("a__sm87_l4t36.4_trt10.3_fp16.engine", "platform"),  # neither jp nor cu
    ("a__sm87_jp06.2_trt10.3_fp16.engine", "platform"),  # a leading zero
    ("a__sm87_jp6.2_10.3_fp16.engine", "runtime"),  # no product
    ("a__sm87_jp6.2_trt10.3.0.30_fp16.engine", "runtime"),  # all four parts stand in the key
    ("a__sm87_jp6.2_ort1.7_fp16.engine", "runtime"),  # another runtime
    ("a__sm87_trt10.3_jp6.2_fp16.engine", "platform"),  # fields in another order
    ("a__sm87_jp6.2_trt10.3_fp64.engine", "precision"),  # not a precision
    ("a__sm87_jp6.2_trt10.3_.engine", "precision"),  # an empty one
    ("a__sm" + "9" * 5000 + "_jp6.2_trt10.3_fp16.engine", "SM"),  # more digits than int() takes
]


@pytest.mark.parametrize(("text", "part"), BAD, ids=[repr(text)[:50] for text, _ in BAD])
def test_a_name_outside_the_schema_is_refused_with_the_wrong_part(text, part):
    with pytest.raises(EngineFilenameError, match=re.escape(part)):
        EngineFilename.parse(text)


def test_the_longest_model_name_parses():
    assert EngineFilename.parse("a" * 64 + "__sm87_jp6.2_trt10.3_fp16.engine").model == "a" * 64


def test_the_error_is_an_engine_error_and_a_value_error():
    with pytest.raises(EngineFilenameError) as caught:
        EngineFilename.parse("x")
    assert isinstance(caught.value, EngineError)
    assert isinstance(caught.value, ValueError)


BAD_FIELDS = [
    ({"model": "../../etc/passwd"}, "model"),  # a model cannot leave the engine directory
    ({"model": ""}, "model"),  # no model
    ({"model": None}, "model"),  # not text
    ({"model": "a\n"}, "model"),  # `$` would let this through
    ({"sm": 0}, "SM"),  # not a capability
    ({"sm": -87}, "SM"),  # negative
    ({"sm": "87"}, "SM"),  # text
    ({"sm": True}, "SM"),  # a bool is an int to Python, and would build `smTrue`
    ({"platform": "jp6.2\n"}, "platform"),  # `$` would let this through
    ({"runtime": "trt10"}, "runtime"),  # no minor
    ({"precision": "FP16"}, "precision"),  # upper case
]


@pytest.mark.parametrize(("wrong", "part"), BAD_FIELDS, ids=str)
def test_a_field_that_cannot_stand_in_a_name_is_refused(wrong, part):
    right = {"model": "a", "sm": 87, "plus": False, "platform": "jp6.2"}
    right |= {"runtime": "trt10.3", "precision": "fp16"}
    with pytest.raises(EngineFilenameError, match=part):
        EngineFilename(**{**right, **wrong})


@given(st.text(max_size=70))
def test_a_model_name_that_passes_is_one_plain_path_component(model):
    try:
        check_model_name(model)
    except EngineFilenameError:
        return
    assert re.fullmatch(r"[a-z0-9_]{1,64}", model)
    assert "__" not in model
    assert model == model.strip("_")


def host(product, capability, runtime="10.3.0.30", **more):
    where = {"jetpack": "6.2"} if product == "tensorrt" else {"cuda": "13.0"}
    data = {
        "schema": 1,
        "product": product,
        "runtime_version": runtime,
        "os": "linux",
        "machine": "aarch64",
        "compute_capability": capability,
        **where,
        **more,
    }
    return HardwareSignature.from_json(data, "test")


MATCHES = [
    ("a__sm87_jp6.2_trt10.3_fp16.engine", host("tensorrt", "8.7"), "yes"),
    ("a__sm87_jp6.2_trt10.3_int8.engine", host("tensorrt", "8.7"), "yes"),  # precision plays no part
    ("a__sm86_jp6.2_trt10.3_fp16.engine", host("tensorrt", "8.7"), "no"),  # another architecture
    ("a__sm87_jp6.1_trt10.3_fp16.engine", host("tensorrt", "8.7"), "no"),  # another JetPack
    ("a__sm87_jp6.2_trt10.7_fp16.engine", host("tensorrt", "8.7"), "no"),  # another runtime
    ("a__sm87_jp6.2_rtx10.3_fp16.engine", host("tensorrt", "8.7"), "no"),  # another product
    ("a__sm80plus_jp6.2_trt10.3_fp16.engine", host("tensorrt", "8.7"), "yes"),  # AMPERE_PLUS
    ("a__sm80plus_jp6.2_trt10.3_fp16.engine", host("tensorrt", "7.2"), "no"),  # earlier than Ampere
    ("a__sm89_cu13.0_rtx1.7_fp32.engine", host("tensorrt_rtx", "8.9", "1.7.1.116"), "yes"),
    # which later architectures an RTX engine serves stands in the plan's mask, not in its name
    ("a__sm80plus_cu13.0_rtx1.7_fp32.engine", host("tensorrt_rtx", "8.9", "1.7.1.116"), "maybe"),
    ("a__sm80plus_cu13.0_rtx1.7_fp32.engine", host("tensorrt_rtx", "7.5", "1.7.1.116"), "no"),
]


@pytest.mark.parametrize(("name", "on", "answer"), MATCHES)
def test_whether_an_engine_could_load_on_a_host(name, on, answer):
    assert EngineFilename.parse(name).matches_host(on) == answer


def test_an_engine_matches_the_hardware_it_is_named_for():
    hardware = host("tensorrt", "8.7")
    assert EngineFilename.of(hardware, "a", "fp16").matches_host(hardware) == "yes"
