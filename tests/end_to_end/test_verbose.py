"""What a run says about reused engines: their number, and with VERBOSE=1 a line for each."""

from __future__ import annotations

import pytest

from conftest import Tree, flip_last_bit
from scons_tensorrt.artifact.publish import Publication
from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.artifact.state_folder import StateFolder

SET = """
env["TRT_VERBOSE"] = True
for n in "ab": env.Engine(n, f"models/{n}.onnx")
"""


@pytest.fixture
def plain(built: Tree) -> Tree:
    """The two engines, built, without the TRT_VERBOSE of all other tests."""
    built.environment["TRT_VERBOSE"] = ""
    return built


def test_reused_engines_are_counted(plain: Tree) -> None:
    flip_last_bit(plain.engine("b"))
    run = plain.scons("-Q", "engines")
    assert [line.split()[0] for line in run.out.splitlines()] == ["engines:", "BUILT", "engines:"]
    assert run.summary.startswith("engines: 1 reused, 1 built, 0 failed in ")
    last = [e for e in plain.events() if e["run"] == plain.events()[-1]["run"]]
    (hit,) = [e for e in last if e["event"] == "engine.cache.hit"]
    assert (hit["model_name"], hit["outcome"]) == ("a", "reused")


def test_a_dry_run_counts_them_too(plain: Tree) -> None:
    run = plain.scons("-Q", "-n", "engines")
    assert run.lines("WOULD") == []
    assert run.summary.startswith("engines: 2 reused, ")
    assert plain.scons("-n", "engines", "VERBOSE=1").names("WOULD REUSE") == ["a", "b"]


@pytest.mark.parametrize("how", ["argument", "environment", "construction variable"])
def test_a_line_for_each_where_it_is_asked_for(plain: Tree, how: str) -> None:
    if how == "construction variable":
        plain.write(SET)
    arguments = ("engines", "VERBOSE=1") if how == "argument" else ()
    run = plain.scons(*arguments, TRT_VERBOSE="1" if how == "environment" else "")
    assert run.reused == ["a", "b"]


@pytest.mark.parametrize("text", ["0", "no", "False", "off"])
def test_no_means_no(plain: Tree, text: str) -> None:
    assert plain.scons("engines", f"VERBOSE={text}", TRT_VERBOSE="1").reused == []


def test_the_lines_come_where_it_happens(plain: Tree) -> None:
    lines = plain.scons("engines", "VERBOSE=1").out.splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith("REUSED ")]
    assert lines.index("scons: Building targets ...") < at[0] < at[1]
    assert at[1] < lines.index("scons: done building targets.")


def test_an_engine_that_scons_visits_itself(plain: Tree) -> None:
    target = str(plain.engine("a").relative_to(plain.root))
    lines = plain.scons(target, "VERBOSE=1").out.splitlines()
    assert lines[-2].startswith(f"REUSED {target} (")
    assert lines[-1].startswith("engines: 1 reused, 0 built, 0 failed in ")


def test_an_unusual_reuse_is_always_a_line(plain: Tree) -> None:
    engine, data = plain.engine("a"), plain.engine("a").read_bytes()
    state = StateFolder(plain.path(".trt"), plain.root)
    (receipt,) = state.receipts.of_file(engine.name)
    assert isinstance(receipt, Receipt)
    publication = Publication(state, engine, receipt.key)
    publication.open().write_bytes(data)
    publication.commit(receipt, state.receipts)  # and killed before it was published
    engine.unlink()
    dry, run = plain.scons("-n", "engines"), plain.scons()
    assert [line.split(" because ")[1] for line in dry.lines("WOULD REUSE")] == ["publishing was interrupted"]
    assert [line.split(" because ")[1] for line in run.lines("REUSED")] == ["publishing was interrupted"]
    assert run.summary.startswith("engines: 2 reused, 0 built, ")
