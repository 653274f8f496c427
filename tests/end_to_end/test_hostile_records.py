"""Records of a tree, with any JSON in the place of any value: each command that reads them answers, or
refuses in a line, and raises nothing."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Tree, fake_compiler, make_model
from scons_tensorrt.cli import main

odd = st.sampled_from(
    [
        10**4000,
        -1,
        0.5,
        "",
        "\udcff",
        "../../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "a\0b",
        "x" * 5000,
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("records") / "tree")
    make_model(tree.path("models/a.onnx"))
    tree.write('m = env.EngineManifest("m/manifest.json", env.Engine("a", "models/a.onnx"))')
    python = fake_compiler(tree.root.parent / "fake", "done(write())", "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(python)
    run = tree.scons("engines", "m")
    assert run.status == 0, run.out
    return tree


def places(data: object, at: tuple = ()) -> list[tuple]:
    """The way to every value in a JSON document, the document's own first."""
    found = [at]
    children = data.items() if isinstance(data, dict) else enumerate(data if isinstance(data, list) else ())
    for key, value in children:
        found += places(value, (*at, key))
    return found


def put(data: object, at: tuple, value: object) -> object:
    if not at:
        return value
    data = copy.deepcopy(data)
    inner = data
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return data


RECORDS = {
    "declared.json": ".trt/declared.json",
    "events": ".trt/events.jsonl",
    "receipt": ".trt/receipts/*/*.json",
    "memo": ".trt/digests.json",
    "manifest": "m/manifest.json",
}


@pytest.mark.parametrize("name", RECORDS)
@settings(
    max_examples=int(os.environ.get("HOSTILE_EXAMPLES", settings.default.max_examples // 5)),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_any_json_in_any_place_of_a_record(template: Tree, capsys, name: str, data) -> None:
    (record,) = template.root.glob(RECORDS[name])
    engine = str(template.engine("a"))
    true = record.read_bytes()
    lines = [json.loads(line) for line in true.splitlines()] if name == "events" else [json.loads(true)]
    number = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.sampled_from(places(lines[number])))
    try:
        lines[number] = put(lines[number], at, data.draw(values))
        record.write_text("\n".join(map(json.dumps, lines)) + "\n")
    except ValueError:  # more digits than json writes
        return
    manifest = str(template.path("m/manifest.json"))
    try:
        for arguments in (
            ["explain", engine],
            ["status", str(template.root)],
            ["report", str(template.root), "--out", str(template.root.parent / "page")],
            ["verify", str(template.path("engines")), "--manifest", manifest],
        ):
            try:
                status = main(arguments)
            except SystemExit as end:
                status = end.code
            assert status in range(20), (arguments, status)
            said = capsys.readouterr()
            assert all(len(line) < 20_000 for line in said.err.splitlines())
    finally:
        record.write_bytes(true)
        shutil.rmtree(template.root.parent / "page", ignore_errors=True)


@pytest.mark.parametrize("name", ["declared.json", "events", "receipt", "memo"])
def test_a_record_that_is_built_to_exhaust_is_given_up(template: Tree, capsys, name: str) -> None:
    """Deeper than a stack, or with more digits than a number has."""
    (record,) = template.root.glob(RECORDS[name])
    true = record.read_bytes()
    try:
        for data in (b"[" * 200_000, b"1" * 200_000, b'{"a":' * 100_000, b"\xff\xfe\0"):
            record.write_bytes(data)
            for command in ("status", "report"):
                more = ["--out", str(Path(template.root.parent, "page"))] if command == "report" else []
                assert main([command, str(template.root), *more]) in (0, 1)
            assert template.scons().status == 0
    finally:
        record.write_bytes(true)


@pytest.mark.parametrize("field", ["size", "peak_memory_bytes", "duration_s"])
@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf")])
def test_a_number_that_nothing_can_count_is_no_traceback(template: Tree, capsys, field, value) -> None:
    (record,) = template.root.glob(RECORDS["receipt"])
    true = record.read_bytes()
    try:
        record.write_text(json.dumps({**json.loads(true), field: value}))
        for command in (["explain", str(template.engine("a"))], ["status", str(template.root)]):
            assert main(command) in (0, 1)
    finally:
        record.write_bytes(true)


@pytest.mark.parametrize("event", ["done", "error", "again"])
def test_events_without_their_fields(two: Tree, event: str) -> None:
    act = f"print(json.dumps({{'event': {event!r}}}))"
    python = fake_compiler(two.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    run = two.scons(TRT_PYTHON=str(python))
    assert (run.status, run.failed) == (2, ["a"])
    assert "no result" in run.reason("a")


def test_a_memo_with_damaged_facts_is_read_around(built: Tree) -> None:
    text = built.path(".trt/digests.json").read_text()
    built.path(".trt/digests.json").write_text(text.replace('"onnx 1":[', '"onnx 1":5,"x":['))
    assert built.scons().reused == ["a", "b"]
