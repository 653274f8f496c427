"""Which hardware a run compiles for: the named, else the host's, else RTX's portable default."""

import json
import platform

import pytest
from boards import JETSON

from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.errors import HardwareError
from scons_tensorrt.hardware.choose_hardware import BUILT_IN, load, resolve
from scons_tensorrt.hardware.probe_host import Host
from scons_tensorrt.hardware.runtime import Runtime

ORIN = {
    **JETSON,
    "sm_count": 8,
    "memory_gib": 16,
    "jetpack": "6.2",
}
RTX = {
    "schema": 1,
    "product": "tensorrt_rtx",
    "os": "linux",
    "machine": "x86_64",
    "compute_capability": "8.9",
}


def installed(product):
    return Runtime(product, "1.7.1.116", "13.0", "/site", "python")


def not_asked(product):
    raise AssertionError(f"{product} was asked for")


@pytest.fixture
def top(tmp_path):
    """A tree with hardware/orin_nx.json, on a host that has nothing of NVIDIA."""
    write(tmp_path / "hardware" / "orin_nx.json", ORIN)
    (tmp_path / "host").mkdir()
    return tmp_path


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def ask(top, named=None, runtime=installed, **more):
    return resolve(named, top, runtime, host=Host(top / "host"), **more)


def test_without_an_nvidia_gpu_it_is_rtx_portable(top):
    hardware = ask(top)
    assert hardware.name is None
    assert hardware.signature.rtx_default
    assert (
        EngineFilename.of(hardware.signature, "a", "fp32").build() == "a__sm80plus_cu13.0_rtx1.7_fp32.engine"
    )
    assert "no NVIDIA GPU found" in hardware.why


@pytest.mark.parametrize(
    "sign",
    [
        "etc/nv_tegra_release",
        "proc/driver/nvidia",
        "usr/lib/libcuda.so.1",
        "usr/lib64/libcuda.so",
        f"usr/lib/{platform.machine()}-linux-gnu/libcuda.so.1",
    ],
)
def test_a_sign_of_nvidia_hardware_is_never_silently_another_product(top, sign):
    write(top / "host" / sign, "")
    with pytest.raises(HardwareError, match=f"/{sign}.*HARDWARE="):
        ask(top)


def test_a_named_hardware_is_taken_on_a_host_with_nvidia_hardware(top):
    write(top / "host" / "etc/nv_tegra_release", "")
    assert ask(top, "orin_nx", not_asked).name == "orin_nx"


def test_a_host_without_a_sign_has_none(top):
    assert Host(top / "host").nvidia_evidence() is None


def test_a_name_is_a_file_under_hardware(top):
    hardware = ask(top, "orin_nx", not_asked)
    assert (hardware.name, hardware.signature.sm) == ("orin_nx", 87)
    assert hardware.why == "HARDWARE=orin_nx"


def test_a_path_is_a_file_from_the_top(top):
    write(top / "boards" / "agx.json", ORIN)
    assert ask(top, "boards/agx.json", not_asked).name == "agx"


def test_the_same_name_comes_from_name_and_path(top):
    assert ask(top, "orin_nx").name == ask(top, "hardware/orin_nx.json").name


def test_a_file_under_hardware_goes_before_a_built_in(top):
    write(top / "hardware" / "rtx_sm89.json", {**ORIN, "product": "tensorrt"})
    assert ask(top, "rtx_sm89").signature.product == "tensorrt"


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_built_in_has_an_engine_name_of_its_own_folder(top, name):
    hardware = ask(top, name)
    assert hardware.name == name
    sm = "80plus" if name == "rtx_portable" else name.removeprefix("rtx_sm")
    assert (
        EngineFilename.of(hardware.signature, "a", "fp32").build() == f"a__sm{sm}_cu13.0_rtx1.7_fp32.engine"
    )


def test_a_built_in_for_one_architecture_asks_for_that_one(top):
    assert ask(top, "rtx_sm121").signature.architectures == (121,)


UNKNOWN = [
    ("xavier", "no hardware/xavier.json and no built-in"),  # nowhere
    ("boards/xavier.json", "no file"),  # a path to nothing
    ("orin_nx,agx_orin", "this command takes one hardware"),  # two
    ("rtx_sm90", "no built-in"),  # not an architecture of RTX
    ("hardware", "no hardware/hardware.json"),  # a folder
]


@pytest.mark.parametrize(("named", "reason"), UNKNOWN)
def test_an_unknown_name_is_an_error_with_its_reason(top, named, reason):
    with pytest.raises(HardwareError, match=f"HARDWARE={named}: .*{reason}"):
        ask(top, named)


def test_an_unknown_name_is_answered_with_the_known_ones(top):
    with pytest.raises(HardwareError, match="known: orin_nx, rtx_portable, rtx_sm"):
        ask(top, "orin_xn")


BAD_FILES = [
    "",  # empty
    "{",  # cut off
    "[]",  # not an object
    '"tensorrt"',  # text
    "null",
    json.dumps({**ORIN, "product": ["tensorrt"]}),  # a product that is a list
    json.dumps({**ORIN, "product": {}}),  # a product that is an object
    json.dumps({**ORIN, "schema": 9}),  # of a later version
    "[" * 100_000,  # nested past what Python's parser takes
]


@pytest.mark.parametrize("text", BAD_FILES, ids=[text[:30] for text in BAD_FILES])
def test_a_bad_hardware_file_is_an_error_that_names_it(top, text):
    write(top / "hardware" / "bad.json", text)
    with pytest.raises(HardwareError, match=r"bad\.json"):
        ask(top, "bad")


def test_a_hardware_file_that_is_no_text_is_an_error_that_names_it(top):
    (top / "hardware" / "bad.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(HardwareError, match=r"bad\.json"):
        ask(top, "bad")


@pytest.mark.parametrize("stem", [".hidden", "-c", "with space", "größe"])
def test_a_file_whose_name_cannot_be_a_folder_is_refused(top, stem):
    write(top / "boards" / f"{stem}.json", ORIN)
    with pytest.raises(HardwareError, match="hardware name"):
        ask(top, f"boards/{stem}.json")


def test_a_file_without_versions_has_the_installed_ones(top):
    signature = load(write(top / "rtx.json", RTX), installed)
    assert (signature.runtime_version, signature.cuda) == ("1.7.1.116", "13.0")


def test_a_file_with_its_versions_needs_nothing_installed(top):
    path = write(top / "rtx.json", {**RTX, "runtime_version": "1.6.0.1", "cuda": "12.9"})
    assert load(path, not_asked).runtime == "rtx1.6"


def test_a_files_own_version_goes_before_the_installed_one(top):
    path = write(top / "rtx.json", {**RTX, "runtime_version": "1.6.0.1"})
    assert load(path, installed).runtime_version == "1.6.0.1"


def test_a_jetson_file_without_a_runtime_gets_no_cuda(top):
    data = {k: v for k, v in ORIN.items() if k != "runtime_version"}
    signature = load(write(top / "jetson.json", data), installed)
    assert (signature.runtime_version, signature.cuda) == ("1.7.1.116", None)


def test_an_rtx_file_without_architectures_is_for_its_own(top):
    assert load(write(top / "rtx.json", RTX), installed).architectures == (89,)


def test_a_tensorrt_file_has_no_architectures(top):
    assert ask(top, "orin_nx").signature.architectures is None


def test_a_runtime_that_is_not_installed_is_the_error_of_the_name(top):
    def missing(product):
        raise HardwareError(f"{product} is not installed")

    with pytest.raises(HardwareError, match="tensorrt_rtx is not installed"):
        ask(top, "rtx_portable", missing)


def test_an_unknown_backend_is_an_error_with_the_known_ones(top):
    with pytest.raises(HardwareError, match=r"BACKEND=cudnn: unknown; .*tensorrt, tensorrt_rtx"):
        ask(top, "orin_nx", backend="cudnn")


def test_a_backend_that_is_not_the_hardwares_is_an_error(top):
    with pytest.raises(HardwareError, match="BACKEND=tensorrt_rtx: orin_nx is for tensorrt"):
        ask(top, "orin_nx", backend="tensorrt_rtx")


def test_the_hardwares_own_backend_may_be_named(top):
    assert ask(top, "orin_nx", backend="tensorrt").signature.product == "tensorrt"


def test_jetpack_on_the_command_line_goes_before_the_files(top):
    assert ask(top, "orin_nx", jetpack="6.1").signature.platform == "jp6.1"


def test_jetpack_for_hardware_that_is_no_jetson_is_an_error(top):
    with pytest.raises(HardwareError, match=r"JETPACK=6\.1: rtx_portable is not a Jetson"):
        ask(top, "rtx_portable", jetpack="6.1")


def test_a_jetpack_that_is_no_version_is_an_error(top):
    with pytest.raises(HardwareError, match="JETPACK="):
        ask(top, "orin_nx", jetpack="latest")
