"""What a report tells of damaged, hostile and large state folders; JUnit and GitHub's annotations."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from states import Past

from scons_tensorrt.artifact.sidecar import sidecar_of
from scons_tensorrt.cli import main
from scons_tensorrt.errors import EngineError, RecipeError
from scons_tensorrt.recipe.onnx.network_statistics import TYPES, read_statistics
from scons_tensorrt.report import number_format, write_report
from scons_tensorrt.report.ci_formats import github, junit, step_summary, unfit
from scons_tensorrt.report.collect_data import collect
from scons_tensorrt.report.history import parse_time, read_runs
from scons_tensorrt.report.timeline import timeline


@pytest.fixture
def past(tmp_path):
    return Past(tmp_path / "tree")


def told(past):
    return collect(past.state, past.digest_cache(), None, past.top / "none")


FAILED = {"outcome": "failed", "reason": "error", "error_class": "EngineBuildError"}


def mixed(past, text="node `x`: no"):
    """One built, one failed, one altered since, one that was not asked for."""
    past.engine("built", b"built", 1, 2)
    past.engine("failed", None, said={**FAILED, "reason_text": text})
    past.engine("altered", b"altered").write_bytes(b"Altered")
    past.engine("idle", b"idle")
    past.events.pop()
    past.save()
    return told(past)


# What is there.


def test_the_events_of_other_whole_runs_are_not_kept(past):
    for number, ended in ((1, 10), (2, 30), (3, 20)):
        run = f"whole{number}"
        past.event("engine.cache.hit", ended - 1, run, engine="engines/a.engine", outcome="reused")
        past.event("engine.compile.summary", ended, run, reused=1, seconds=1)
    past.event("engine.cache.hit", 5, "killed", engine="engines/a.engine", outcome="reused")
    past.save(8)
    runs = {run.id: len(run.events) for run in read_runs(past.state.events, "whole1")}
    assert runs == {"killed": 1, "run1": 0, "whole1": 1, "whole3": 0, "whole2": 1}
    assert all(run.counts["reused"] == 1 for run in read_runs(past.state.events) if run.id != "run1")


def test_a_timeline_of_many_compiles_has_bars_that_a_screen_can_show():
    span = {"kind": "compile", "model": "m", "compile_s": 0.1, "outcome": "built", "duration_s": 0.09}
    spans = [{**span, "of": f"{n}.engine", "started_s": n * 0.1} for n in range(2000)]
    spans[1000]["outcome"] = "failed"
    (lane,) = timeline({"run": {"spans": spans, "seconds": 200.0}, "engines": []})["rows"]
    assert 500 <= len(lane["spans"]) <= 502
    assert [bar["title"] for bar in lane["spans"] if bar["kind"] == "failed"] == [
        "1000.engine: failed 0.09 s from 1 min 40 s"
    ]
    assert lane["spans"][0]["title"] == "0.engine and 3 more: compiling 0.39 s from 0.00 s"


def test_a_line_of_the_data_is_an_engine(past):
    mixed(past)
    write_report(past.state, past.digest_cache(), past.top / "report")
    lines = (past.top / "report/report.json").read_text().splitlines()
    assert len([line for line in lines if line.startswith(' {"accuracy": ')]) == 4


def test_each_engine_is_told_as_it_is_now(past):
    found = {each["name"]: (each["outcome"], each["on_disk"]) for each in mixed(past)["engines"]}
    assert found == {
        "built": ("built", "intact"),
        "failed": ("failed", "missing"),
        "altered": ("built", "damaged"),
        "idle": ("none", "intact"),
    }


@pytest.mark.parametrize(
    ("hurt", "fault"),
    [
        (lambda engine: sidecar_of(engine).unlink(), "sidecar missing"),
        (lambda engine: sidecar_of(engine).write_text("x"), "sidecar malformed"),
        (lambda engine: (engine.rename(f"{engine}.x"), engine.symlink_to(f"{engine}.x")), "link"),
        (lambda engine: (engine.unlink(), engine.mkdir()), "not readable"),
        (lambda engine: os.truncate(engine, 1 << 39), f"it has {1 << 39} bytes, not the 6"),
    ],
)
def test_whatever_is_wrong_with_a_pair_is_told(past, hurt, fault):
    hurt(past.engine("a", b"engine"))
    past.save()
    [engine] = told(past)["engines"]
    assert engine["on_disk"] == "damaged"
    assert fault in engine["fault"]
    assert len(unfit(told(past))) == 1


def test_the_last_run_is_shown_and_a_killed_one_is_told(past):
    past.engine("a", b"engine")
    past.save()
    past.event("engine.cache.miss", 70, run="run2", engine=past.declared[0]["engine"], outcome="built")
    past.state.events.write_text("".join(json.dumps(event) + "\n" for event in past.events))
    report = told(past)
    assert [(run["run"], run["whole"], run["built"]) for run in report["runs"]] == [
        ("run1", True, 1),
        ("run2", False, 1),
    ]
    assert report["run"]["run"] == "run2"


def test_nothing_built_is_an_error(past):
    with pytest.raises(EngineError, match="nothing was built here yet; run scons engines"):
        told(past)


# What may be anything.

JUNK = [None, True, -1, 1e999, 10**400, "x", "\0", "\ud800", "../../x", [], [[]], {}, {"a": {}}]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_no_field_of_an_event_or_declaration_breaks_it(past, junk):
    past.engine("a", b"engine")
    for name in list(past.declared[0]):
        past.declared.append({**past.declared[0], name: junk})
    past.declared += [junk, {}]
    for name in (*past.events[0], "error_class"):
        past.events.append({**past.events[0], name: junk})
    past.save()
    past.events[-1]["seconds"] = junk
    past.state.events.write_text("".join(json.dumps(event) + "\n" for event in past.events))
    report = write_report(past.state, past.digest_cache(), past.top / "out").data
    assert "engines" in json.loads((past.top / "out/report.json").read_text())
    junit(report)
    list(github(report))


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_no_detail_of_a_receipt_and_no_earlier_report_breaks_it(past, junk):
    names = "accuracy hardware inputs made_by worker recipe started duration_s peak_memory_bytes log".split()
    for n, name in enumerate(names):
        past.engine(f"a{n}", b"engine", lasted=1.0, **({name: junk} if name != "duration_s" else {}))
    corners = {"table": [junk, {"outputs": {"y": junk}, "runs": junk, "seconds": junk}], "seed": junk}
    deep = {"onnx": {"outputs": {"y": junk}, "corners": corners}, "engine": {"corners": {"table": junk}}}
    past.engine("deep", b"e", accuracy=deep, inputs=[{"role": junk}])
    past.save()
    out = past.top / "out"
    out.mkdir()
    network = {"census": 1, "ops": junk, "weights": {"x": junk}, "inputs": junk, "outputs": [junk]}
    (out / "report.json").write_text(json.dumps({"networks": {"0" * 64: network, "y": junk}}))
    write_report(past.state, past.digest_cache(), out)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<details") >= len(names)


def test_files_of_garbage_are_no_reason_to_fail(past):
    past.engine("a", b"engine")
    past.save()
    with open(past.state.events, "ab") as out:
        out.write(b'\xff\xfe\n{"event":\n[1]\n' + b"[" * 100_000 + b"\n")
    assert told(past)["run"]["built"] == 1
    past.state.declared.write_bytes(b"\xff")
    assert told(past)["engines"] == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number_format.size(20358780), "19.4 MiB"),
        (number_format.size(0), "0 B"),
        (number_format.size(None), "–"),
        (number_format.duration(2.933), "2.93 s"),
        (number_format.duration(59.97), "1 min 0 s"),
        (number_format.duration(3700), "1 h 1 min"),
        (number_format.count(784223), "784 k"),
        (number_format.count(9999), "9999"),
        (number_format.change(103.2, 100), "+3.2 %"),
        (number_format.change(1, 2), "−50.0 %"),
        (number_format.change(2, 2), "same"),
        (number_format.change(2, 0), "–"),
        (number_format.moment("2026-11-25T03:52:43Z"), "25 Nov 2026, 03:52 UTC"),
        (number_format.moment("2026-13-25T03:52:43Z"), "2026-13-25T03:52:43Z"),
        (number_format.profile([[1, 3], [1, 3], [1, 3]]), "1×3"),
        (number_format.shape([None, 3]), "?×3"),
    ],
)
def test_numbers_as_people_read_them(said, expected):
    assert said == expected


def test_a_time_of_an_event():
    assert parse_time("1970-01-01T00:01:00.250Z") == 60.25
    assert [parse_time(each) for each in ("1970-01-01", "1970-99-01T00:00:00Z", 3, None)] == [None] * 4


# For CI.


def test_junit_has_a_test_case_an_engine(past):
    root = ET.fromstring(junit(mixed(past, "one <two> & \x00\ud800\x1b[0m \ufffe")))
    [suite] = root
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["4", "2", "0", "1"]
    cases = {case.get("name").partition("__")[0]: [child.tag for child in case] for case in suite}
    assert cases == {
        "built": ["system-out"],
        "failed": ["failure"],
        "altered": ["failure"],
        "idle": ["skipped"],
    }
    failure = suite.find("testcase/failure")
    assert (failure.get("type"), failure.get("message")) == (
        "EngineBuildError",
        "EngineBuildError: one <two> & ??\x3f[0m ?",
    )
    assert {case.get("classname") for case in suite} == {"engines"}
    assert suite.find("testcase").get("time") == "2.000"


def test_annotations_are_one_line_each_and_escaped(past):
    lines = list(github(mixed(past, "100%\r\n::error::evil, a:b")))
    assert lines[0] == (
        "::error file=models/failed.onnx,title=Engine failed::"
        "engines/failed__sm87_jp6.2_trt10.3_fp16.engine: EngineBuildError: "
        "100%25%0D%0A::error::evil, a:b"
    )
    assert lines[1].startswith("::error file=models/altered.onnx,title=Engine altered::engines/altered__")
    assert lines[-1] == "::notice title=Engines::0 reused, 2 built, 1 failed in 1 min 0 s"
    assert all(line.startswith("::") and "\n" not in line for line in lines)


def test_an_annotation_of_a_name_with_commas_and_colons_names_that_file(past):
    past.engine("a", None, said=FAILED, declared={"original": "models/a,b:c.onnx"})
    past.engine("b", None, said=FAILED, declared={"original": "/elsewhere/b.onnx"})
    past.save()
    first, second, _ = github(told(past))
    assert first.startswith("::error file=models/a%2Cb%3Ac.onnx,title=")
    assert second.startswith("::error title=")  # no file of this repo


def test_an_altered_engine_that_was_replaced_is_a_warning(past):
    past.engine("a", b"engine", said={"reason": "sidecar_missing", "reason_text": "its sidecar is missing"})
    past.save()
    assert next(iter(github(told(past)))).startswith(
        "::warning file=models/a.onnx,title=Engine a was altered"
    )


def test_the_step_summary_is_a_table_of_text(past, tmp_path):
    report = mixed(past, "a | b <img src=x> [x](http://x) `c`")
    step_summary(report, str(tmp_path / "summary.md"))
    step_summary(report, None)
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert len(lines) == 4 + 4
    failed = next(line for line in lines if "failed\\_" in line)
    assert "a \\| b \\<img src=x\\> \\[x\\]\\(http\\://x\\) \\`c\\`" in failed


def test_the_command_writes_page_junit_and_annotations(past, tmp_path, capsys, monkeypatch):
    mixed(past)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    out = str(tmp_path / "out")
    xml = tmp_path / "x.xml"
    arguments = ["report", str(past.top), "--out", out, "--github", "--junit", str(xml), "--full"]
    assert main(arguments) == 1
    assert capsys.readouterr().out.startswith("::error ")
    assert ET.parse(xml).getroot().tag == "testsuites"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", "report.json"}
    assert "### Engines" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("option", ["--out", "--junit"])
def test_a_place_that_cannot_be_written_is_one_line(past, tmp_path, capsys, option):
    mixed(past)
    (tmp_path / "file").write_text("")
    place = tmp_path / "file/x"
    assert main(["report", str(past.top), option, str(place)]) == 1
    said = capsys.readouterr().err
    file = tmp_path / "file"
    assert said == f"EngineError: {place}: {file} is not a folder; remove it, or move it away\n"


def test_without_jinja2_the_data_is_written_and_a_line_says_what_the_page_needs(past, tmp_path):
    mixed(past)
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from scons_tensorrt.cli import main; "
    import scons_tensorrt

    site = scons_tensorrt.__file__.rpartition("/scons_tensorrt/")[0]
    command = [sys.executable, "-S", "-B", "-c", program + "sys.exit(main(sys.argv[1:]))", site]
    done = subprocess.run([*command, "report", str(past.top)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "engines: index.html was not written: it needs jinja2 (pip install jinja2)\n"
    assert done.stdout.endswith("report/report.json\n")


# The census.


def test_the_census_counts_what_the_onnx_package_counts(tmp_path):
    inner = helper.make_graph(
        [helper.make_node("Neg", ["y"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    weights = [
        onnx.numpy_helper.from_array(np.ones((3, 4), np.float16), "w"),
        onnx.numpy_helper.from_array(np.ones(5, np.int64), "i"),
    ]
    nodes = [
        helper.make_node("Add", ["x", "w"], ["y"]),
        helper.make_node("Add", ["y", "w"], ["v"]),
        helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 4]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, ["n", 4])],
        weights,
    )
    opsets = [helper.make_opsetid("other", 3), helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="pytorch")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    found = read_statistics(path).to_json()
    assert found["ops"] == {"Add": 2, "Neg": 2, "If": 1}
    assert (found["weights"], found["weights_bytes"]) == ({"fp16": 12, "int64": 5}, 12 * 2 + 5 * 8)
    assert found["inputs"] == [
        {"name": "x", "type": "fp16", "shape": [None, 4]},
        {"name": "c", "type": "bool", "shape": []},
    ]
    assert found["outputs"] == [{"name": "o", "type": "fp32", "shape": [None, 4]}]
    assert (found["nodes"], found["opset"], found["producer"]) == (5, 17, "pytorch")


def test_every_type_of_onnx_has_its_bits():
    for name, number in TensorProto.DataType.items():
        if name in ("UNDEFINED", "STRING") or number not in TYPES:
            continue
        bits = TYPES[number][1]
        assert helper.tensor_dtype_to_np_dtype(number).itemsize * 8 == max(bits, 8), name
    names = {name: TYPES[getattr(TensorProto, name)][0] for name in ("FLOAT", "BFLOAT16", "UINT4", "BOOL")}
    assert names == {"FLOAT": "fp32", "BFLOAT16": "bf16", "UINT4": "uint4", "BOOL": "bool"}


@pytest.mark.parametrize("data", [b"version https://git-lfs", b"\x3a\xff", b"\x08\x07\x3a\x02\x0a"])
def test_what_is_no_onnx_has_no_census(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(RecipeError):
        read_statistics(tmp_path / "m.onnx")


# What stands on top.


def banner(past, out):
    write_report(past.state, past.digest_cache(), out)
    page = (out / "index.html").read_text(encoding="utf-8")
    return page.partition('role="status">')[2].partition("</small>")[0]


def test_the_first_sentence_is_true(past, tmp_path):
    engine = past.engine("a", b"engine")
    past.save()
    assert "All 1 engine intact" in banner(past, tmp_path / "1")
    [receipt] = past.state.root.glob("receipts/*/*.json")
    receipt.unlink()
    assert "1 without a matching receipt" in banner(past, tmp_path / "2")
    engine.unlink()
    assert "1 missing or damaged of 1 engine" in banner(past, tmp_path / "3")
    past.declared.clear()
    past.save()
    assert "No engine is declared" in banner(past, tmp_path / "4")
