"""A manifest says the same of the same engines, and nothing that is not one is taken for one."""

from __future__ import annotations

import json
import subprocess

import pytest
from handing import A, B, Handoff, entry, plan

from scons_tensorrt.errors import HandoffError
from scons_tensorrt.release.manifest import Manifest

pytest_plugins = ["handing"]


def two() -> Manifest:
    return Manifest("orin_nx", {A: entry(A, plan(b"a")), B: entry(B, plan(b"b"))})


def test_what_is_written_is_read_back() -> None:
    assert Manifest.load(two().dump()) == two()


def test_the_order_in_which_engines_came_changes_nothing() -> None:
    turned = Manifest("orin_nx", dict(reversed(two().engines.items())))
    assert turned.dump() == two().dump()
    assert turned.sums() == two().sums()


def test_keys_are_sorted_and_nothing_is_of_this_machine_or_time() -> None:
    data = json.loads(two().dump(), object_pairs_hook=lambda pairs: [*pairs])
    assert [name for name, _ in data] == ["engines", "hardware", "schema"]
    engine = [name for name, _ in data[0][1][0]]
    assert engine == sorted(engine)
    assert set(engine) == {
        "model", "name", "precision", "recipe", "recipe_digest", "sha256", "signature", "size"
    }  # fmt: skip


def test_unknown_fields_are_passed_over() -> None:
    data = json.loads(two().dump())
    data["later"] = data["engines"][0]["later"] = {"x": 1}
    assert Manifest.load(json.dumps(data).encode()) == two()


def test_sha256sum_accepts_the_sums(handoff: Handoff) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"],
        cwd=handoff.folder,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout.decode().split()) == (0, [f"{A}:", "OK", f"{B}:", "OK"])


def change(path: tuple, value: object) -> bytes:
    data = json.loads(two().dump())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(data).encode()


NOT_MANIFESTS = {
    "nothing": b"",
    "not JSON": b"\xff\xfe",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "another schema": change(("schema",), 2),
    "true for a schema": change(("schema",), True),
    "a hardware name that is a number": change(("hardware",), 5),
    "engines that are a map": change(("engines",), {"a": 1}),
    "an engine above": change(("engines", 0, "name"), "../" + A),
    "an engine in a folder": change(("engines", 0, "name"), "x/" + A),
    "a name that is no engine's": change(("engines", 0, "name"), "passwd"),
    "a digest in upper case": change(("engines", 0, "sha256"), "A" * 64),
    "a digest of another length": change(("engines", 0, "sha256"), "a" * 63),
    "a size below nothing": change(("engines", 0, "size"), -1),
    "a size that is true": change(("engines", 0, "size"), True),
    "a recipe of another digest": change(("engines", 0, "recipe", "option precision"), "fp32"),
    "a recipe of numbers": change(("engines", 0, "recipe", "option precision"), 16),
    "a signature that is text": change(("engines", 0, "signature"), "orin"),
    "one engine twice": change(("engines", 1), json.loads(two().dump())["engines"][0]),
    "one field twice": two().dump().replace(b'"size"', b'"size": 5, "size"', 1),
}


@pytest.mark.parametrize("data", NOT_MANIFESTS.values(), ids=NOT_MANIFESTS)
def test_what_is_no_manifest_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(HandoffError):
        Manifest.load(data)
