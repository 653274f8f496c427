"""`scons engines-report`: the engines, and a page of what was done, also when some failed."""

import json

from conftest import make_model, sha256

PAGE = ".trt/report/index.html"


def report(tree, folder=".trt/report"):
    return json.loads(tree.path(f"{folder}/report.json").read_text())


def of(tree, name):
    return next(each for each in report(tree)["engines"] if each["name"] == name)


def test_it_builds_the_engines_and_tells_of_each(two):
    run = two.scons("-j2", "engines-report")
    assert (run.status, run.built) == (0, ["a", "b"])
    assert run.summary == f"engines: report of 2 engines in {PAGE}"
    assert (report(two)["run"]["built"], report(two)["run"]["whole"]) == (2, True)
    a = of(two, "a")
    assert (a["outcome"], a["reason"], a["on_disk"]) == ("built", "not built before", "intact")
    assert (a["sha256"], a["size"]) == (sha256(two.engine("a")), two.engine("a").stat().st_size)
    assert (a["precision"], a["source"], len(a["builds"])) == ("fp32", "models/a.onnx", 1)
    assert a["hardware"]["fields"]["product"] == "tensorrt_rtx"
    network = report(two)["networks"][a["network"]]
    assert (network["nodes"], network["ops"]["Conv"]) == (sum(network["ops"].values()), 2)
    assert network["weights_bytes"] == 4 * network["weights"]["fp32"]
    assert a["sha256"] in two.path(PAGE).read_text()


def test_the_timeline_holds_each_compile_within_the_run(built):
    built.cli("report")
    run = report(built)["run"]
    spans = {span["of"]: span for span in run["spans"]}
    assert len(spans) == 2
    for span in spans.values():
        assert span["kind"] == "compile"
        assert 0 < span["compile_s"] <= span["duration_s"] + 0.01
        assert span["started_s"] + span["duration_s"] <= run["seconds"] + 0.01
    first, second = sorted(spans.values(), key=lambda span: span["started_s"])
    assert first["started_s"] + first["duration_s"] <= second["started_s"] + 0.01  # one job at a time


def test_a_failed_engine_is_on_the_page_and_scons_still_fails(two):
    two.path("models/b.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    run = two.scons("-k", "engines-report")
    assert (run.status, run.built, run.failed) == (2, ["a"], ["b"])
    assert (of(two, "a")["outcome"], of(two, "b")["outcome"]) == ("built", "failed")
    assert of(two, "b")["error_class"] == "RecipeError"
    assert "Git LFS" in of(two, "b")["reason"]
    assert "1 failed of 2 engines" in two.path(PAGE).read_text()


def test_without_keep_going_the_page_says_what_the_run_did_not_come_to(two):
    two.path("models/a.onnx").unlink()
    run = two.scons("engines-report")
    assert run.status == 2
    assert {of(two, name)["outcome"] for name in "ab"} == {"failed", "none"}


def test_an_altered_engine_that_was_made_again_is_told(built):
    built.engine("a").write_bytes(b"x" * built.engine("a").stat().st_size)
    assert built.scons("engines-report").built == ["a"]
    assert (of(built, "a")["integrity"], of(built, "b")["integrity"]) == (True, False)
    assert "altered and replaced" in built.path(PAGE).read_text()


def test_builds_before_this_one_are_told_with_what_changed(built):
    make_model(built.path("models/a.onnx"), seed=7, width=16)
    built.scons("engines-report")
    now, before = of(built, "a")["builds"]
    assert (now["current"], before["current"]) == (True, False)
    assert now["size"] != before["size"]
    assert now["changes"][0].startswith("models/a.onnx changed: ")
    assert [run["built"] for run in report(built)["runs"]] == [2, 1]


def test_a_dry_run_a_question_a_clean_and_engines_alone_write_no_page(built):
    before = built.snapshot(".trt")
    for option in ("-n", "-q", "-h"):
        assert built.scons(option, "engines-report").status == 0
    assert built.snapshot(".trt") == before
    assert built.scons("-c", "engines-report").status == 0
    assert sorted(built.engines()) == ["a", "b"]
    assert built.scons("engines").status == 0
    assert not built.path(".trt/report").exists()


def test_the_place_is_the_users(built):
    run = built.scons("engines-report", "REPORT=out/page")
    assert run.summary == "engines: report of 2 engines in out/page/index.html"
    built.scons("engines-report", TRT_REPORT="elsewhere")
    assert built.path("elsewhere/index.html").exists()
    assert built.path("out/page/report.json").exists()


def test_a_place_that_cannot_be_written_is_one_line(built):
    built.path("taken").write_text("a file")
    run = built.scons("engines-report", "REPORT=taken")
    assert run.summary == (
        f"engines: report taken/ cannot be written: {built.path('taken')} is not a folder; "
        "remove it, or move it away"
    )
    assert built.path("taken").read_text() == "a file"


def test_the_command_makes_the_same_page_without_scons(built, tmp_path):
    built.scons("engines-report")
    first = report(built)
    done = built.cli("report", "--out", str(tmp_path / "again"))
    assert (done.status, done.err) == (0, "")
    again = json.loads((tmp_path / "again/report.json").read_text())
    assert {**again, "generated": ""} == {**first, "generated": ""}


def test_the_command_finds_what_was_altered_since(built):
    built.engine("b").write_bytes(b"x" * built.engine("b").stat().st_size)
    done = built.cli("report")
    assert done.status == 1
    assert (of(built, "a")["on_disk"], of(built, "b")["on_disk"]) == ("intact", "damaged")
    page = built.path(PAGE).read_text()
    assert "1 missing or damaged of 2 engines" in page
    assert "its sha256 does not match its sidecar" in page


def test_the_command_where_nothing_was_built_says_what_to_do(tree):
    assert tree.cli("report").status == 1
    tree.path(".trt").mkdir()
    done = tree.cli("report")
    assert done.err == f"EngineError: {tree.path('.trt')}: nothing was built here yet; run scons engines\n"
