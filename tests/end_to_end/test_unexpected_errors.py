"""An exception that no message was written for is one line, which says how to see its stack."""

from __future__ import annotations

import subprocess

import pytest

from conftest import Run, Tree
from scons_tensorrt import cli

PATCH = """
from scons_tensorrt.scons_tool.{module} import {name}
def at_fault(self, *args, **kwargs):
    return {{}}["a fault of our own"]
{name}.{method} = at_fault
env.Engine("a", "models/a.onnx")
"""
LINE = "KeyError: 'a fault of our own'; check the {}; --debug=stacktrace shows the stack"
OF_BOTH = {"module": "engine_target", "name": "EngineTarget", "method": "spec"}
OF_ACTION = {"module": "build_services", "name": "BuildServices", "method": "build_context"}


def scons(tree: Tree, *arguments: str) -> Run:
    """As `Tree.scons`, of which a stack is no failure."""
    done = subprocess.run(
        tree.command("engines", *arguments),
        cwd=tree.root,
        env=tree.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    return Run(done.stdout, done.returncode)


@pytest.mark.parametrize("where", [OF_BOTH, OF_ACTION], ids=["both", "action"])
def test_scons_names_the_option_that_shows_the_stack(two: Tree, where: dict[str, str]) -> None:
    two.write(PATCH.format(**where))

    run = two.scons()

    assert run.reason("a").endswith(LINE.format("paths of its inputs"))
    assert run.status == 2
    stack = scons(two, "--debug=stacktrace").out
    assert 'return {}["a fault of our own"]\n' in stack
    assert LINE.format("paths of its inputs") in stack


@pytest.mark.parametrize("method", ["is_right", "write"])
def test_a_manifest_names_the_option_that_shows_the_stack(two: Tree, method: str) -> None:
    patch = PATCH.format(module="manifest_target", name="ManifestTarget", method=method)
    two.write(patch + 'env.EngineManifest("dist/m.json", env.Engine("b", "models/b.onnx"))\n')

    run = scons(two, "dist/m.json")

    told = f"EngineBuildError: dist/m.json: {LINE.format('paths of its inputs')}\n"
    assert f"FAILED dist/m.json: SConstruct:10: {told}" in run.out
    assert "Traceback" not in run.out
    assert run.status == 2
    dry = scons(two, "dist/m.json", "-n")
    assert "Traceback" not in dry.out
    assert 'return {}["a fault of our own"]\n' in scons(two, "dist/m.json", "--debug=stacktrace").out


def test_scons_names_the_option_where_a_call_fails(two: Tree) -> None:
    two.write(PATCH.format(module="engine_target", name="EngineTarget", method="__init__"))

    run = two.scons()

    assert LINE.format("arguments of the call") in run.out
    assert run.status == 2
    assert 'return {}["a fault of our own"]\n' in scons(two, "--debug=stacktrace").out


def test_a_command_names_the_variable_that_shows_the_stack(monkeypatch, capsys) -> None:
    def at_fault(arguments: object) -> int:
        raise KeyError("a fault of our own")

    monkeypatch.setattr(cli.name, "_name_parse", at_fault)
    monkeypatch.delenv("TRT_STACKTRACE", raising=False)

    assert cli.main(["name", "parse", "x.engine"]) == 1
    line = "KeyError: 'a fault of our own'; set TRT_STACKTRACE=1 to see the traceback\n"
    assert capsys.readouterr().err == line

    monkeypatch.setenv("TRT_STACKTRACE", "1")
    assert cli.main(["name", "parse", "x.engine"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(line + "Traceback (most recent call last):\n")
    assert "in at_fault\n" in told
