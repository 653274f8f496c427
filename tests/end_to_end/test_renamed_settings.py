"""The names that settings of the shared cache had in the last release: they work, with a line."""

from __future__ import annotations

import pytest

from conftest import Tree

LINE = "engines: {} is now {}; the old name works until the next release"
STORE = "STORE=file:///nowhere"


@pytest.mark.parametrize(
    ("old", "new"), [("STORE_KEY", "STORE_SIGNING_KEY"), ("STORE_TRUST", "STORE_TRUSTED_KEYS")]
)
@pytest.mark.slow
def test_an_old_name_is_one_line_of_a_run(built: Tree, old: str, new: str) -> None:
    run = built.scons("engines", STORE, f"{old}=ci")
    assert (run.status, run.reused) == (0, ["a", "b"]), run.out
    assert run.out.splitlines().count(LINE.format(f"{old}=", f"{new}=")) == 1
    run = built.scons("engines", STORE, **{f"TRT_{old}": "ci"})
    assert run.out.splitlines().count(LINE.format(f"TRT_{old}", f"TRT_{new}")) == 1
    for more in (("-s",), ("-q",), ("-c",)):
        assert "is now" not in built.scons(*more, "engines", STORE, f"{old}=ci").out
    assert "is now" not in built.scons("engines", STORE, f"{new}=ci").out


def test_an_old_construction_variable_works(built: Tree) -> None:
    built.write('env["TRT_STORE_TRUST"] = "keys"\nenv.Engine("a", "models/a.onnx")\n')
    run = built.scons("engines", STORE)
    assert run.out.count(LINE.format("TRT_STORE_TRUST", "TRT_STORE_TRUSTED_KEYS")) == 1
    assert run.status == 0


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (
            ("STORE_KEY=secret1", "STORE_SIGNING_KEY=secret2"),
            {},
            "STORE_KEY= and STORE_SIGNING_KEY= differ; set STORE_SIGNING_KEY= alone",
        ),
        (
            (),
            {"TRT_STORE_TRUST": "secret1", "TRT_STORE_TRUSTED_KEYS": "secret2"},
            "TRT_STORE_TRUST and TRT_STORE_TRUSTED_KEYS differ; set TRT_STORE_TRUSTED_KEYS alone",
        ),
    ],
)
def test_an_old_and_a_new_name_that_differ_are_an_error(built: Tree, arguments, environment, line) -> None:
    run = built.scons("engines", STORE, *arguments, **environment)
    assert (run.status, run.out.count(line)) == (2, 1), run.out
    assert "secret" not in run.out


def test_both_names_with_one_value_are_an_old_name(built: Tree) -> None:
    run = built.scons("engines", STORE, "STORE_TRUST=keys", "STORE_TRUSTED_KEYS=keys")
    assert (run.status, run.out.count("is now")) == (0, 1), run.out


def test_the_command_line_wins_over_an_old_name_in_the_environment(built: Tree) -> None:
    run = built.scons("engines", STORE, "STORE_TRUSTED_KEYS=keys", TRT_STORE_TRUST="others")
    assert (run.status, "is now" in run.out) == (0, False), run.out


def test_the_sconstruct_wins_over_an_old_name_in_the_environment(built: Tree) -> None:
    built.write('env["TRT_STORE_TRUSTED_KEYS"] = "keys"\nenv.Engine("a", "models/a.onnx")\n')
    run = built.scons("engines", STORE, TRT_STORE_TRUST="others")
    assert (run.status, "is now" in run.out) == (0, False), run.out


def test_help_lists_the_new_names_alone(built: Tree) -> None:
    out = built.scons("-h").out
    assert "STORE_TRUSTED_KEYS=" in out
    assert "STORE_SIGNING_KEY=" in out
    assert "STORE_TRUST=" not in out
    assert "STORE_KEY" not in out
