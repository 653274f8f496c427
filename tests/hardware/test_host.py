"""Probing a host: its files below a root, and its driver, played by a small C library."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.errors import HardwareError
from scons_tensorrt.files.json_cache import JsonCache
from scons_tensorrt.hardware import cuda
from scons_tensorrt.hardware.choose_hardware import probe, runtime_fields
from scons_tensorrt.hardware.probe_host import Host
from scons_tensorrt.hardware.runtime import Runtime
from scons_tensorrt.hardware.signature import DEVICE_CLASS

SUPPORT = Path(__file__).parents[1] / "support"
STATUS = """Package: libc6
Status: install ok installed
Version: 2.35-0ubuntu3

Package: libnvinfer10
Status: install ok installed
Architecture: arm64
Version: 10.3.0.30-1+cuda12.5

Package: nvidia-l4t-core
Version: 36.4.3-20250107174145
"""
RELEASE = "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64\n"


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def runtime(product):
    return Runtime(product, "10.3.0" if product == "tensorrt" else "1.7.1.116", "13.0", "/x", "/y")


# Files.


def test_a_jetson_says_its_release_and_jetpack(tmp_path):
    write(tmp_path, "etc/nv_tegra_release", RELEASE)
    host = Host(tmp_path)
    assert (host.l4t(), host.jetpack(None)) == ("36.4.4", "6.2")


def test_an_image_with_dpkg_says_it_too(tmp_path):
    write(tmp_path, "var/lib/dpkg/status", STATUS)
    host = Host(tmp_path)
    assert (host.l4t(), host.jetpack(None)) == ("36.4.3", "6.2")
    assert host.tensorrt() == ("10.3.0.30", "12.5")


IMAGES = [  # JetPack, L4T, the version of libnvinfer, that of the Python package, TensorRT
    ("5.1", "35.4.1", ("libnvinfer8", "8.5.2-1+cuda11.4"), ("3.8", "8.5.2.2"), ("8.5.2.2", "11.4")),
    ("5.1", "35.6.4", ("libnvinfer8", "8.5.2-1+cuda11.4"), ("3.8", "8.4.1.5"), ("8.5.2", "11.4")),
    ("6.0", "36.3.0", ("libnvinfer8", "8.6.2.3-1+cuda12.2"), ("3.10", "8.6.2"), ("8.6.2.3", "12.2")),
    ("6.2", "36.4.3", ("libnvinfer10", "10.3.0.30-1+cuda12.5"), ("3.10", "10.3.0"), ("10.3.0.30", "12.5")),
]


@pytest.mark.parametrize(
    ("jetpack", "l4t", "library", "package", "expected"), IMAGES, ids=[i[1] for i in IMAGES]
)
def test_a_jetpack_image_has_all_parts_of_its_versions(tmp_path, jetpack, l4t, library, package, expected):
    major, rest = l4t.split(".", 1)
    write(
        tmp_path, "etc/nv_tegra_release", f"# R{major} (release), REVISION: {rest}, GCID: 1, BOARD: generic\n"
    )
    status = f"Package: {library[0]}\nStatus: install ok installed\nVersion: {library[1]}\n"
    write(tmp_path, "var/lib/dpkg/status", status)
    python, version = package
    (tmp_path / f"usr/lib/python{python}/dist-packages/tensorrt-{version}.dist-info").mkdir(parents=True)
    host = Host(tmp_path)
    assert (host.jetpack(None), host.l4t(), host.tensorrt()) == (jetpack, l4t, expected)


@pytest.mark.parametrize(
    ("packaged", "installed", "found"),
    [
        ("8.5.2-1+cuda11.4", "8.5.2.2", ("8.5.2.2", "11.4")),  # JetPack 5.1
        ("8.6.2.3-1+cuda12.2", "8.6.2", ("8.6.2.3", "12.2")),  # JetPack 6.0
        ("8.5.2-1+cuda11.4", "8.6.0", ("8.6.0", "13.0")),  # a wheel of another version
        ("8.5.2-1+cuda11.4", "8.5.20.1", ("8.5.20.1", "13.0")),
    ],
)
def test_the_version_with_more_parts_counts(tmp_path, packaged, installed, found):
    write(tmp_path, "var/lib/dpkg/status", f"Package: libnvinfer8\nVersion: {packaged}\n")
    fields = runtime_fields(Host(tmp_path), Runtime("tensorrt", installed, "13.0", "/x", "/y"))
    assert (fields["runtime_version"], fields["cuda"]) == found


def test_an_ambiguous_release_asks_for_jetpack_and_takes_it(tmp_path):
    write(tmp_path, "etc/nv_tegra_release", RELEASE.replace("4.4", "4.2"))
    with pytest.raises(HardwareError, match="JETPACK="):
        Host(tmp_path).jetpack(None)
    assert Host(tmp_path).jetpack("6.1") == "6.1"


def test_another_host_is_no_jetson(tmp_path):
    assert (Host(tmp_path).l4t(), Host(tmp_path).jetpack("6.2")) == (None, None)


def test_the_power_mode_has_its_number_and_name(tmp_path):
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0002\n")
    assert Host(tmp_path).power_mode() == "2"
    modes = "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n"
    write(tmp_path, "etc/nvpmodel.conf", modes)
    assert Host(tmp_path).power_mode() == "2 15W"


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build",
    ],
)
def test_the_drivers_version(tmp_path, line):
    write(tmp_path, "proc/driver/nvidia/version", line + "\nGCC version: 12\n")
    assert Host(tmp_path).driver_version() == "550.54.14"


def test_a_library_of_ld_so_cache_is_a_sign(tmp_path):
    write(tmp_path, "etc/ld.so.cache", "glibc-ld.so.cache1.1\0libcuda.so.1\0/opt/x/libcuda.so.1\0")
    assert Host(tmp_path).nvidia_evidence() == "libcuda.so.1 in /etc/ld.so.cache"


# The driver.


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """Folders with libcuda.so.1: a current one and an old one."""
    found = {}
    for name, flags in (("now", []), ("old", ["-DOLD"])):
        folder = tmp_path_factory.mktemp(name)
        command = ["cc", "-shared", "-fPIC", *flags, "-o", folder / "libcuda.so.1", SUPPORT / "libcuda.c"]
        subprocess.run(command, check=True)
        found[name] = folder
    return found


@pytest.fixture
def play(libraries, monkeypatch):
    """Let a driver play: its child processes find it by LD_LIBRARY_PATH."""

    def start(name="now", **variables):
        monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries[name]))
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return start


def ask():
    return Host().devices(JsonCache(None))


def test_one_gpu_is_told_whole(play):
    play()
    assert ask() == [
        {
            "gpu_name": "Orin",
            "sm_count": 8,
            "memory_bytes": 15655 << 20,
            "memory_bus_bits": 128,
            "l2_bytes": 2 << 20,
            "integrated": True,
            "ecc": False,
            "shared_memory_per_block": 163 << 10,
            "texture_alignment": 512,
            "compute_capability": "8.7",
            "uuid": "a0" * 16,
            "driver_cuda": "12.6",
        }
    ]


def test_several_gpus_come_in_their_order(play):
    play(PLAY_GPUS="2")
    assert [d["gpu_name"] for d in ask()] == ["Orin", "NVIDIA GeForce RTX 5090"]


def test_cuda_visible_devices_chooses(play):
    play(PLAY_GPUS="2", CUDA_VISIBLE_DEVICES="1")
    assert [d["gpu_name"] for d in ask()] == ["NVIDIA GeForce RTX 5090"]


UNUSABLE = {
    "no gpu": ({"PLAY_INIT": "100"}, "cuInit: no CUDA-capable device is detected (CUDA error 100)"),
    "none visible": ({"CUDA_VISIBLE_DEVICES": ""}, "no CUDA-capable device is detected"),
    "none counted": ({"PLAY_GPUS": "0"}, "the driver sees no GPU"),
    "another error": ({"PLAY_INIT": "804"}, "cuInit: unknown error (CUDA error 804)"),
    "a crash": ({"PLAY_INIT": "crash"}, "it crashed with signal 6"),
    "an old driver": ({"name": "old"}, "the driver has no cuDeviceTotalMem_v2: it is too old"),
}


@pytest.mark.parametrize(("how", "cause"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_driver_is_one_line_with_the_next_step(play, how, cause):
    play(**how)
    with pytest.raises(HardwareError) as caught:
        ask()
    assert cause in str(caught.value)
    assert "set HARDWARE=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_driver_that_hangs_is_given_up(play, monkeypatch):
    monkeypatch.setattr("scons_tensorrt.hardware.probe_host.PROBE_SECONDS", 0.2)
    play(PLAY_INIT="hang")
    with pytest.raises(HardwareError, match="did not answer within"):
        ask()


def test_a_warm_run_does_not_ask_again(play, tmp_path):
    play(PLAY_LOG=str(tmp_path / "log"))
    first = JsonCache(tmp_path / "host.json")
    devices = Host().devices(first)
    first.save()
    assert Host().devices(JsonCache(tmp_path / "host.json")) == devices
    assert (tmp_path / "log").read_text() == "init\n"


def test_other_visible_devices_are_asked_for(play, tmp_path):
    play(PLAY_GPUS="2", PLAY_LOG=str(tmp_path / "log"))
    memo = JsonCache(tmp_path / "host.json")
    Host().devices(memo)
    memo.save()
    play(CUDA_VISIBLE_DEVICES="1")
    assert Host().devices(JsonCache(tmp_path / "host.json"))[0]["sm_count"] == 170


# From both: hardware.


def probed(root, devices, backend=None, jetpack=None):
    class Played(Host):
        def devices(self, memo):
            return devices

    return probe(Played(root), "/etc/x", runtime, backend, jetpack, JsonCache(None))


def test_an_orin_nx_by_its_files_and_driver(play, tmp_path):
    play()
    write(tmp_path, "etc/nv_tegra_release", RELEASE)
    write(tmp_path, "var/lib/dpkg/status", STATUS)
    signature = probed(tmp_path, ask()).signature
    assert EngineFilename.of(signature, "a", "fp16").build() == "a__sm87_jp6.2_trt10.3_fp16.engine"
    assert signature.key_fields() == {
        "product": "tensorrt",
        "runtime_version": "10.3.0.30",
        "os": "linux",
        "machine": platform.machine(),
        "compute_capability": "8.7",
        "gpu_name": "Orin",
        "sm_count": "8",
        "memory_gib": "16",
        "memory_bus_bits": "128",
        "l2_bytes": str(2 << 20),
        "integrated": "true",
    }
    assert signature.recorded["l4t"] == "36.4.4"
    assert signature.recorded["gpu_uuid"] == "a0" * 16


def test_more_of_a_gpu_is_in_a_hardware_file_and_in_no_key_of_a_probed_host(play, tmp_path):
    play(PLAY_GPUS="2")
    more = {"ecc": True, "shared_memory_per_block": 99 << 10, "texture_alignment": 512}

    class Played(Host):
        def devices(self, memo):
            return ask()[1:]

    def found(whole, backend=None):
        return probe(Played(tmp_path), "/etc/x", runtime, backend, None, JsonCache(None), whole).signature

    assert not set(more) & set(found(False).to_json())
    written = found(True).to_json()
    assert {name: written[name] for name in more} == more
    assert found(True).key_fields().keys() - found(False).key_fields().keys() == set(more)
    assert found(True, "tensorrt_rtx") == found(False, "tensorrt_rtx")
    play(PLAY_GPUS="2", PLAY_OLD_ATTRIBUTES="1")
    assert "ecc" not in found(True).to_json()


def test_a_discrete_gpu_goes_by_cuda_of_the_runtime(play, tmp_path):
    play(PLAY_GPUS="2")
    hardware = probed(tmp_path, ask()[1:])
    assert EngineFilename.of(hardware.signature, "a", "fp32").build() == "a__sm120_cu13.0_trt10.3_fp32.engine"
    assert hardware.signature.memory_gib == 32


def test_several_gpus_are_told_of(play, tmp_path):
    play(PLAY_GPUS="2")
    assert "the first of 2 GPUs; CUDA_VISIBLE_DEVICES chooses another" in probed(tmp_path, ask()).note


def test_rtx_is_made_where_it_is_asked_for_and_only_the_architecture_counts(play, tmp_path):
    play()
    signature = probed(tmp_path, ask(), "tensorrt_rtx").signature
    assert (signature.product, signature.architectures) == ("tensorrt_rtx", (87,))
    assert signature.gpu_name is None


def test_a_host_with_a_gpu_and_no_tensorrt_is_never_silently_rtx(play, tmp_path):
    def none(product):
        raise HardwareError(f"{product} is not installed")

    play()
    with pytest.raises(HardwareError, match=r"tensorrt is not installed.*BACKEND=tensorrt_rtx asks"):
        probe(Host(), "/etc/x", none, None, None, JsonCache(None))


def test_jetpack_named_on_a_host_that_is_no_jetson(tmp_path):
    device = {"compute_capability": "8.9", "gpu_name": "x", "sm_count": 1, "integrated": False}
    device.update(memory_bytes=1 << 30, memory_bus_bits=1, l2_bytes=1)
    with pytest.raises(HardwareError, match="not a Jetson"):
        probed(tmp_path, [device], jetpack="6.2")


# The worker's own look, in a process that is told where the driver is.

CHECK = """
import json, sys
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt import check_hardware as host
try:
    host.check_gpu(json.loads(sys.argv[1]), None)
    print("fine")
except WorkerError as refused:
    print(refused.error_class, refused)
"""


def check(**wanted):
    done = subprocess.run(
        [sys.executable, "-c", CHECK, json.dumps(wanted)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT.parents[1] / "site_scons")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


RIGHT = {"compute_capability": "8.7", "gpu_name": "Orin", "sm_count": 8, "memory_gib": 16}


def test_the_wanted_gpu_is_let_through(play):
    play()
    assert check(**RIGHT, memory_bus_bits=128, l2_bytes=2 << 20, integrated=True) == "fine"


def test_a_field_that_is_not_known_is_not_compared(play):
    play()
    assert check(compute_capability="8.7") == "fine"


def test_another_board_of_the_same_name_is_refused_with_field_wanted_and_found(play):
    play()
    said = check(**{**RIGHT, "sm_count": 16, "memory_gib": 64})
    assert said == "HardwareMismatchError sm_count: wanted 16, found 8; memory_gib: wanted 64, found 16"


@pytest.mark.parametrize("field", ["compute_capability", *DEVICE_CLASS])
def test_every_field_that_decides_how_an_engine_runs_is_compared(play, field):
    play()
    assert check(**{field: "another"}).startswith(f"HardwareMismatchError {field}: wanted another, found ")


def test_no_driver_is_refused():
    assert check(**RIGHT).startswith("HardwareMismatchError the GPU cannot be queried: libcuda")


@pytest.mark.parametrize(
    ("gib", "integrated", "expected"),
    [(14.9, True, 16), (15.3, True, 16), (61.4, True, 64), (7.4, True, 8), (31.8, False, 32)],
)
def test_memory_goes_by_classes(gib, integrated, expected):
    assert cuda.memory_class(int(gib * 2**30), integrated) == expected
