"""The hardware signature: what of a machine decides about an engine, and what does not."""

import json

import pytest
from boards import JETSON
from hypothesis import given
from hypothesis import strategies as st

from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.errors import HardwareError
from scons_tensorrt.hardware.cuda import memory_class
from scons_tensorrt.hardware.signature import DEVICE_CLASS, HARD, HardwareSignature

ORIN = {
    **JETSON,
    "gpu_name": "Orin",
    "sm_count": 8,
    "memory_gib": 16,
    "memory_bus_bits": 128,
    "l2_bytes": 4194304,
    "integrated": True,
    "jetpack": "6.2.1",
    "recorded": {"driver": "540.4.0", "l4t": "36.4.4"},
}
GIB = 2**30

text = st.text(min_size=1, max_size=12)
count = st.integers(1, 1 << 40)
version = st.lists(st.integers(0, 999), min_size=2, max_size=4).map(lambda v: ".".join(map(str, v)))


def maybe(strategy):
    return st.none() | strategy


def sound(signature):
    """Several architectures go by the lowest with a plus."""
    several = len(signature.architectures or ()) > 1
    return signature.plus or not several


def consistent(signature):
    """TensorRT for RTX: the compute capability is that of the lowest architecture."""
    if signature.product == "tensorrt" or signature.architectures is None:
        return signature
    lowest = signature.architectures[0]
    capability = f"{lowest // 10}.{lowest % 10}{'+' * signature.plus}"
    return signature._replace(compute_capability=capability)


def as_read(signature):
    """TensorRT for RTX: any system and machine; without a list of architectures, its own or the default."""
    if signature.product == "tensorrt":
        return signature
    if signature.architectures is None and signature.plus:
        return signature._replace(os=None, machine=None, compute_capability="8.0+")
    return signature._replace(os=None, machine=None, architectures=signature.architectures or (signature.sm,))


signatures = (
    st.builds(
        HardwareSignature,
        product=st.sampled_from(["tensorrt", "tensorrt_rtx"]),
        runtime_version=version,
        os=text,
        machine=text,
        compute_capability=st.from_regex(r"[1-9][0-9]?\.[0-9]\+?", fullmatch=True),
        architectures=maybe(
            st.sets(st.integers(50, 200), min_size=1, max_size=5).map(lambda sms: tuple(sorted(sms)))
        ),
        gpu_name=maybe(text),
        sm_count=maybe(count),
        memory_gib=maybe(count),
        memory_bus_bits=maybe(count),
        l2_bytes=maybe(count),
        integrated=maybe(st.booleans()),
        ecc=maybe(st.booleans()),
        shared_memory_per_block=maybe(count),
        texture_alignment=maybe(count),
        jetpack=maybe(version),
        cuda=maybe(version),
        recorded=st.dictionaries(text, text, max_size=3),
    )
    .map(consistent)
    .filter(sound)
    .map(as_read)
)


def orin(**changes):
    return HardwareSignature.from_json({**ORIN, **changes}, "orin.json")


def several(*architectures):
    return orin(architectures=list(architectures), compute_capability="8.0+")


@given(signatures)
def test_from_json_gives_back_the_signature_that_to_json_wrote(signature):
    written = json.loads(json.dumps(signature.to_json()))
    assert HardwareSignature.from_json(written, "file") == signature


@given(signatures)
def test_the_canonical_form_is_ascii_json_of_the_signature(signature):
    form = signature.canonical()
    assert form.isascii()
    assert HardwareSignature.from_json(json.loads(form), "file") == signature


@given(signatures)
def test_the_canonical_form_does_not_depend_on_the_order_of_what_was_recorded(signature):
    turned = signature._replace(recorded=dict(reversed(signature.recorded.items())))
    assert turned.canonical() == signature.canonical()


@given(signatures)
def test_the_canonical_form_is_written_with_sorted_keys_and_no_spaces(signature):
    fields = json.loads(signature.canonical())
    assert list(fields) == sorted(fields)
    assert signature.canonical().startswith('{"')
    assert json.dumps(fields, separators=(",", ":")) == signature.canonical()


def test_the_canonical_form_of_a_known_board_stays_what_it_is():
    assert orin().canonical() == (
        '{"compute_capability":"8.7","gpu_name":"Orin","integrated":true,"jetpack":"6.2.1",'
        '"l2_bytes":4194304,"machine":"aarch64","memory_bus_bits":128,"memory_gib":16,'
        '"os":"linux","product":"tensorrt","recorded":{"driver":"540.4.0","l4t":"36.4.4"},'
        '"runtime_version":"10.3.0.30","schema":1,"sm_count":8}'
    )


OTHER = {
    "product": "tensorrt_rtx",
    "runtime_version": "10.3.0.31",
    "os": "qnx",
    "machine": "x86_64",
    "compute_capability": "8.9",
    "architectures": [87],
    "gpu_name": "Thor",
    "sm_count": 16,
    "memory_gib": 64,
    "memory_bus_bits": 256,
    "l2_bytes": 1,
    "integrated": False,
    "ecc": True,
    "shared_memory_per_block": 1 << 10,
    "texture_alignment": 256,
}


@pytest.mark.parametrize("field", HARD + DEVICE_CLASS)
def test_each_hard_and_device_class_field_is_in_the_key(field):
    before, after = orin().key_fields(), orin(**{field: OTHER[field]}).key_fields()
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert changed == ({field} if field != "product" else {field, "os", "machine", "architectures"})


def rtx(**fields):
    given = {
        "schema": 1,
        "product": "tensorrt_rtx",
        "runtime_version": "1.7.1.116",
        "compute_capability": "8.0+",
    }
    return HardwareSignature.from_json({**given, **fields}, "rtx.json")


def test_system_and_machine_are_not_in_the_key_of_rtx():
    assert rtx(os="linux", machine="x86_64") == rtx(os="windows", machine="aarch64") == rtx()
    assert "os" not in rtx().key_fields()


def test_the_default_target_of_rtx_lists_no_architectures():
    assert rtx().rtx_default
    assert rtx(architectures=[121, 120, 89, 86, 80]) == rtx()
    assert "architectures" not in rtx().key_fields()
    assert not rtx(architectures=[80, 86]).rtx_default
    assert rtx(compute_capability="8.9").architectures == (89,)
    assert not orin().rtx_default


def test_a_plus_of_rtx_without_a_list_is_the_default_target_alone():
    with pytest.raises(
        HardwareError, match=r'8\.6\+ needs a list of `architectures`; the default is "8\.0\+"'
    ):
        rtx(compute_capability="8.6+")


@pytest.mark.parametrize("name", ["driver", "cuda", "l4t", "power_mode", "host"])
def test_what_is_recorded_is_not_in_the_key(name):
    assert orin(recorded={name: "other"}).key_fields() == orin().key_fields()


def test_the_patch_level_of_jetpack_and_cuda_is_in_neither_key_nor_filename():
    one, other = orin(jetpack="6.2", cuda="12.6.1"), orin(jetpack="6.2.2", cuda="12.6.9")
    assert one.key_fields() == other.key_fields()
    assert EngineFilename.of(one, "a", "fp16") == EngineFilename.of(other, "a", "fp16")


def test_key_fields_are_sorted_by_name():
    names = list(orin().key_fields())
    assert names == sorted(names)


def test_key_fields_are_written_the_json_way():
    fields = several(89, 86).key_fields()
    assert (fields["integrated"], fields["architectures"]) == ("true", "86,89")


def test_a_field_that_is_not_known_is_not_in_the_key():
    data = {k: v for k, v in ORIN.items() if k != "l2_bytes"}
    assert "l2_bytes" not in HardwareSignature.from_json(data, "f").key_fields()


def test_the_order_of_architectures_does_not_matter():
    assert several(89, 80, 86) == several(80, 86, 89)


def test_a_signature_cannot_be_changed():
    with pytest.raises(AttributeError):
        orin().machine = "x86_64"


def test_equal_signatures_have_equal_hashes():
    assert hash(orin()) == hash(orin())


def test_the_filename_of_a_jetson_has_jetpack():
    assert EngineFilename.of(orin(), "dino", "fp16").build() == "dino__sm87_jp6.2_trt10.3_fp16.engine"


def test_the_filename_of_a_desktop_has_cuda():
    data = {k: v for k, v in ORIN.items() if k != "jetpack"}
    desktop = HardwareSignature.from_json({**data, "cuda": "12.9.1"}, "f")
    assert desktop.platform == "cu12.9"


def test_hardware_of_neither_jetpack_nor_cuda_has_no_filename():
    data = {k: v for k, v in ORIN.items() if k != "jetpack"}
    with pytest.raises(HardwareError, match="neither JetPack nor CUDA"):
        EngineFilename.of(HardwareSignature.from_json(data, "f"), "a", "fp16")


@pytest.mark.parametrize(
    ("capability", "sm", "plus"),
    [("8.7", 87, False), ("8.0+", 80, True), ("12.0", 120, False), ("12.1+", 121, True)],
)
def test_the_sm_is_the_capability_without_its_dot(capability, sm, plus):
    signature = orin(compute_capability=capability)
    assert (signature.sm, signature.plus) == (sm, plus)


def test_people_are_told_gpu_memory_runtime_and_jetpack():
    assert orin().describe() == "Orin, sm87, 16 GiB, aarch64, TensorRT 10.3.0.30, JetPack 6.2.1"


BAD = [
    ({"schema": 2}, "schema 2"),  # of a later version
    ({"product": "onnxruntime"}, "product"),  # not a product
    ({"product": ["tensorrt"]}, "product"),  # not text
    ({"product": None}, "product"),  # null is not "unknown"
    ({"runtime_version": "10"}, "runtime_version"),  # no minor
    ({"runtime_version": "10.x"}, "runtime_version"),  # not a number
    ({"runtime_version": 10.3}, "runtime_version"),  # a number loses 10.30
    ({"runtime_version": ""}, "runtime_version"),  # empty
    ({"os": ""}, "os"),  # empty
    ({"machine": 64}, "machine"),  # not text
    ({"compute_capability": "87"}, "compute_capability"),  # no dot
    ({"compute_capability": "8.75"}, "compute_capability"),  # the SM would be ambiguous
    ({"compute_capability": "8."}, "compute_capability"),  # no minor
    ({"compute_capability": 8.7}, "compute_capability"),  # a number
    ({"compute_capability": "8.7++"}, "compute_capability"),  # one plus at most
    ({"compute_capability": "٨.٧"}, "compute_capability"),  # digits that are not ASCII
    ({"compute_capability": "0.0"}, "compute_capability"),  # no such capability, no filename
    ({"compute_capability": "08.7"}, "compute_capability"),  # 8.7 under another key
    ({"architectures": []}, "architectures"),  # for nothing
    ({"architectures": ["sm86"]}, "architectures"),  # numbers
    ({"architectures": [True]}, "architectures"),  # a bool
    ({"architectures": 86}, "architectures"),  # not a list
    ({"architectures": [86, 86]}, "architectures"),  # twice: the same hardware, another key
    ({"architectures": [-1]}, "architectures"),  # not an SM
    ({"architectures": [86, 87]}, "several architectures"),  # without a plus
    ({"gpu_name": ""}, "gpu_name"),  # empty
    ({"sm_count": 0}, "sm_count"),  # none
    ({"sm_count": True}, "sm_count"),  # a bool is an int to Python
    ({"memory_gib": 15.6}, "memory_gib"),  # a class, not a measure
    ({"memory_bus_bits": "128"}, "memory_bus_bits"),  # text
    ({"l2_bytes": -4}, "l2_bytes"),  # negative
    ({"integrated": 1}, "integrated"),  # a number
    ({"jetpack": "6"}, "jetpack"),  # no minor
    ({"jetpack": "6.2-b1"}, "jetpack"),  # not a version
    ({"cuda": "13"}, "cuda"),  # no minor
    ({"cuda": "١٣.0"}, "cuda"),  # digits that are not ASCII
    ({"recorded": ["driver"]}, "recorded"),  # not an object
    ({"sm_cuont": 8}, "sm_cuont"),  # a typo must not be a field that plays no part
]


@pytest.mark.parametrize(("wrong", "field"), BAD, ids=[str(wrong) for wrong, _ in BAD])
def test_a_wrong_field_is_refused_with_file_and_field(wrong, field):
    with pytest.raises(HardwareError, match=rf"orin\.json: .*{field}"):
        orin(**wrong)


@pytest.mark.parametrize("field", ["schema", *HARD[:5]])
def test_a_missing_field_that_must_be_there_is_named(field):
    data = {k: v for k, v in ORIN.items() if k != field}
    with pytest.raises(HardwareError, match=field):
        HardwareSignature.from_json(data, "orin.json")


@pytest.mark.parametrize("data", [None, [], "orin", 1])
def test_json_that_is_not_an_object_is_refused(data):
    with pytest.raises(HardwareError, match="not a JSON object"):
        HardwareSignature.from_json(data, "orin.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*sorted(ORIN), "architectures", "cuda", "source"]), json_values)
def test_whatever_json_stands_in_a_field_it_is_taken_or_refused(field, value):
    try:
        taken = orin(**{field: value})
    except HardwareError:
        return
    assert HardwareSignature.from_json(json.loads(taken.canonical()), "f") == taken


@pytest.mark.parametrize(
    ("total", "integrated", "gib"),
    [
        (int(7.4 * GIB), True, 8),  # Orin Nano 8 GB, less its carve-outs
        (int(6.3 * GIB), True, 8),  # the same with more carved out
        (int(15.3 * GIB), True, 16),  # Orin NX 16 GB
        (int(29.8 * GIB), True, 32),  # AGX Orin 32 GB
        (int(61.4 * GIB), True, 64),  # AGX Orin 64 GB
        (4 * GIB, True, 4),  # a whole step is that step
        (4 * GIB + 1, True, 8),  # and one byte over is the next
        (122 * GIB, True, 128),  # Thor
        (500 * GIB, True, 128),  # past the last step
        (int(23.6 * GIB), False, 24),  # RTX 4090
        (int(11.6 * GIB), False, 12),  # RTX 3060
    ],
)
def test_memory_is_told_in_steps_that_carve_outs_cannot_straddle(total, integrated, gib):
    assert memory_class(total, integrated) == gib


@given(st.integers(1, 2**38), st.integers(1, 2**38), st.booleans())
def test_more_memory_is_never_a_smaller_class(one, other, integrated):
    low, high = sorted((one, other))
    assert memory_class(low, integrated) <= memory_class(high, integrated)


@pytest.mark.parametrize(
    ("capability", "listed", "instead"),
    [("8.9", [86], "8.6"), ("8.6+", [80, 86], r"8\.0\+"), ("8.0+", [120, 121], r"12\.0\+")],
)
def test_an_rtx_target_is_named_by_its_lowest_architecture(capability, listed, instead):
    fields = {"schema": 1, "product": "tensorrt_rtx", "runtime_version": "1.7.1.116", "architectures": listed}
    with pytest.raises(HardwareError, match=rf'^x\.json: compute_capability is .*; write "{instead}"$'):
        HardwareSignature.from_json({**fields, "compute_capability": capability}, "x.json")
