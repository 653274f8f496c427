"""Who can compile for whom, and how a worker says what it is for."""

from __future__ import annotations

import json

import pytest

from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.remote.capability import (
    PREFIX,
    Worker,
    WorkerCapability,
    choose,
    connected,
    differences,
    machine_fields,
    workers,
)

ORIN = HardwareSignature(
    *("tensorrt", "10.3.0.30", "linux", "aarch64", "8.7"),
    gpu_name="Orin",
    sm_count=8,
    memory_gib=16,
    memory_bus_bits=128,
    l2_bytes=2 << 20,
    integrated=True,
    jetpack="6.2",
)
RTX = HardwareSignature(*("tensorrt_rtx", "1.7.1.116", None, None, "8.9"), architectures=(89,), cuda="13.0")


def changed(signature: HardwareSignature, **fields) -> HardwareSignature:
    data = {**signature.to_json(), **fields}
    return HardwareSignature.from_json({k: v for k, v in data.items() if v is not None}, "a test")


OTHERS = [
    (ORIN, {"sm_count": 4}, ["sm_count: wanted 8, found 4"]),
    (ORIN, {"memory_gib": 8}, ["memory_gib: wanted 16, found 8"]),
    (ORIN, {"l2_bytes": 1 << 20}, ["l2_bytes: wanted 2097152, found 1048576"]),
    (
        ORIN,
        {"memory_bus_bits": None},
        ["memory_bus_bits: wanted 128, found None"],
    ),  # a driver that hides it
    (ORIN, {"machine": "x86_64"}, ["machine: wanted aarch64, found x86_64"]),
    (ORIN, {"runtime_version": "10.3.0.31"}, ["runtime_version: wanted 10.3.0.30, found 10.3.0.31"]),
    (ORIN, {"runtime_version": "10.3.0"}, []),  # a distribution that leaves the fourth part out
    (ORIN, {"jetpack": "6.1"}, []),  # in the filename, no matter for a compile
    (ORIN, {"recorded": {"driver": "1"}}, []),
    (RTX, {"compute_capability": "12.0", "architectures": [120]}, []),  # compiles for every one
    (RTX, {"runtime_version": "1.7.1.117"}, ["runtime_version: wanted 1.7.1.116, found 1.7.1.117"]),
    (RTX, {"machine": "aarch64"}, []),
]


@pytest.mark.parametrize(("spec", "fields", "found"), OTHERS)
def test_a_machine_that_differs(spec, fields, found) -> None:
    assert differences(spec, machine_fields(changed(spec, **fields))) == found


def test_what_is_wanted_and_not_known_plays_no_part() -> None:
    vague = changed(ORIN, sm_count=None, memory_gib=None, l2_bytes=None)
    assert differences(vague, machine_fields(ORIN)) == []
    assert differences(ORIN, machine_fields(vague)) != []


def test_a_product_is_never_taken_for_the_other() -> None:
    assert differences(ORIN, machine_fields(RTX)) == ["product: wanted tensorrt, found tensorrt_rtx"]


def test_an_offer_is_read_from_the_name_of_its_resource() -> None:
    offer = WorkerCapability.of(ORIN, "2026.8.0")
    assert WorkerCapability.read(offer.resource) == offer
    assert WorkerCapability.of(ORIN, "2026.8.0").resource == offer.resource
    assert offer.describe() == "Orin, tensorrt, 10.3.0.30, aarch64"


@pytest.mark.parametrize(
    "name", ["GPU", "", PREFIX, PREFIX + "{}", PREFIX + "[1, 2, 3]", PREFIX + "[" * 9999]
)
def test_other_resources_are_no_offers(name) -> None:
    assert WorkerCapability.read(name) is None


def test_another_version_of_recipes_or_of_distributed_does_not_serve() -> None:
    offer = WorkerCapability.of(RTX, "2026.8.0")
    assert offer.faults(RTX, "2026.8.0") == []
    assert "it runs distributed 2026.8.0, this host 2025.3.0" in offer.faults(RTX, "2025.3.0")
    assert "uses recipe version 0" in offer._replace(recipe="0").faults(RTX, "2026.8.0")[0]


def test_of_several_offers_that_serve_the_one_of_most_workers_is_asked_for() -> None:
    vague = changed(ORIN, l2_bytes=None, gpu_name=None)
    one, other = WorkerCapability.of(ORIN, "1"), WorkerCapability.of(changed(ORIN, gpu_name="Orin B"), "1")
    rtx = WorkerCapability.of(RTX, "1")
    known = [Worker("a", (one,)), *(Worker(name, (rtx, other)) for name in "bc")]
    assert choose(known, vague, "1") == other.resource
    assert choose(known, ORIN, "1") == one.resource
    assert choose(known, changed(ORIN, sm_count=4), "1") == ""


def test_an_identity_of_a_scheduler_gives_the_workers_of_ours() -> None:
    offer = WorkerCapability.of(RTX, "1")
    told = {
        "tls://b": {"name": "desk", "resources": {offer.resource: 1, "GPU": 1}},
        "tls://a": {"name": "stranger", "resources": {}},
    }
    assert workers({"workers": told}) == [Worker("desk", (offer,))]
    assert connected([], RTX, "1") == "no build worker is connected"
    many = [Worker(f"w{i}", (offer,)) for i in range(10)]
    assert connected(many, ORIN, "1").endswith("w7 (product: wanted tensorrt, found tensorrt_rtx) and 2 more")


OFFER = json.dumps([{"product": "tensorrt_rtx"}, "1", "2"])
ODD_WORKERS = [
    {"resources": {5: 1, None: 1}},
    {"resources": -1},
    {"resources": [PREFIX + OFFER]},
    {"resources": PREFIX},
    {"resources": {PREFIX + OFFER.replace("tensorrt_rtx", "\\u001b[2J"): 1}},
    {"resources": {PREFIX + OFFER.replace("tensorrt_rtx", "x" * 60_000): 1}},
    {"resources": {PREFIX + OFFER.replace('"tensorrt_rtx"', "[[1]]"): 1}},
    "no map",
    None,
]


@pytest.mark.parametrize("odd", ODD_WORKERS, ids=range(len(ODD_WORKERS)))
def test_a_worker_that_says_other_shapes_is_passed_over(odd) -> None:
    offer = WorkerCapability.of(RTX, "1")
    told = {"tls://a": odd, "tls://b": {"name": "desk", "resources": {offer.resource: 1}}}
    assert workers({"workers": told}) == [Worker("desk", (offer,))]


@pytest.mark.parametrize("identity", [None, [], {}, {"workers": None}, {"workers": [1]}])
def test_a_scheduler_that_says_other_shapes_has_no_workers(identity) -> None:
    assert workers(identity) == []


def test_a_long_or_odd_name_of_a_worker_is_a_short_line() -> None:
    resources = {WorkerCapability.of(RTX, "1").resource: 1}
    found = workers({"workers": {"tls://a": {"name": "n\x1b[2J\n" * 9999, "resources": resources}}})
    assert len(found[0].name) <= 200
    assert found[0].name.isprintable()


def test_a_resource_names_no_host() -> None:
    named = changed(ORIN, recorded={"host_name": "bench-1"})
    assert "bench-1" not in WorkerCapability.of(named, "1").resource
    assert json.loads(WorkerCapability.of(named, "1").resource.removeprefix(PREFIX))[0]["gpu_name"] == "Orin"
