"""`--signing-key`, `--trusted-key` and the names that they had in the last release."""

from __future__ import annotations

import pytest

from scons_tensorrt.cli import _parser, main
from scons_tensorrt.cli.key_options import signing_key, trusted_keys

WORKER = ("worker", "--scheduler", "tls://x:1", "--certificates", "c")
STATS = ("store", "stats")


@pytest.fixture(autouse=True)
def no_keys_in_the_environment(monkeypatch):
    for name in ("SIGNING_KEY", "KEY", "TRUSTED_KEYS", "TRUST"):
        monkeypatch.delenv(f"TRT_STORE_{name}", raising=False)


def parsed(*arguments: str):
    return _parser().parse_args(arguments)


@pytest.mark.parametrize("command", [WORKER, STATS])
def test_trusted_keys_may_be_repeated(command, capsys) -> None:
    asked = parsed(*command, "--trusted-key", "a.pub", "--trusted-key", "keys")
    assert trusted_keys(asked) == ["a.pub", "keys"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [WORKER, STATS])
def test_an_old_option_works_with_a_line(command, capsys) -> None:
    assert trusted_keys(parsed(*command, "--trust", "a.pub:keys")) == ["a.pub", "keys"]
    line = "--trust is now --trusted-key; the old name works until the next release\n"
    assert capsys.readouterr().err == line


def test_an_old_signing_key_works_with_a_line(capsys, monkeypatch) -> None:
    assert signing_key(parsed(*WORKER, "--key", "ci")) == "ci"
    assert capsys.readouterr().err.startswith("--key is now --signing-key; ")
    monkeypatch.setenv("TRT_STORE_KEY", "other")
    assert signing_key(parsed(*WORKER, "--signing-key", "ci")) == "ci"  # wins over the environment
    assert capsys.readouterr().err == ""
    assert signing_key(parsed(*WORKER)) == "other"
    assert capsys.readouterr().err.startswith("TRT_STORE_KEY is now TRT_STORE_SIGNING_KEY; ")


def test_the_environment_counts_where_no_option_does(monkeypatch, capsys) -> None:
    monkeypatch.setenv("TRT_STORE_TRUSTED_KEYS", "a.pub:keys")
    monkeypatch.setenv("TRT_STORE_SIGNING_KEY", "ci")
    assert (trusted_keys(parsed(*WORKER)), signing_key(parsed(*WORKER))) == (["a.pub", "keys"], "ci")
    assert trusted_keys(parsed(*STATS, "--trusted-key", "b.pub")) == ["b.pub"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("more", "environment", "words"),
    [
        (("--trust", "a", "--trusted-key", "b"), {}, "--trust and --trusted-key differ; give --trusted-key"),
        (
            (),
            {"TRT_STORE_TRUST": "a", "TRT_STORE_TRUSTED_KEYS": "b"},
            "TRT_STORE_TRUST and TRT_STORE_TRUSTED_KEYS differ; give TRT_STORE_TRUSTED_KEYS alone",
        ),
    ],
)
def test_an_old_and_a_new_name_that_differ_are_a_wrong_call(
    monkeypatch, capsys, more, environment, words
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        main([*STATS, "--store", "file:///nowhere", *more])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("command", [("worker",), STATS])
def test_help_lists_the_new_names_alone(command, capsys) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    out = capsys.readouterr().out
    assert "--trusted-key PATH" in out
    assert "--trust " not in out
    assert "--key " not in out
