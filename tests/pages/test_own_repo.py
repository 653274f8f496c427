"""A repo elsewhere that uses the built wheel: docs/examples/own-repo, in a fresh venv without RTX."""

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from doc_host import Host, host

from conftest import CLEAN, REPO

EXAMPLE = REPO / "docs" / "examples" / "own-repo"


def run(command, cwd, **environment):
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**CLEAN, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}:\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture
def python(host: Host, tmp_path):
    """An interpreter that has the wheel and what the wheel asks for, and nothing else."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", packages]
    run([*pip, host.wheel], tmp_path)
    return tmp_path / "venv" / "bin" / "python"


@pytest.fixture
def repo(tmp_path):
    top = tmp_path / "own"
    shutil.copytree(EXAMPLE, top)
    (top / "models").mkdir()
    package = importlib.util.find_spec("swift_f0").submodule_search_locations[0]
    shutil.copy(os.path.join(package, "model.onnx"), top / "models" / "pitch.onnx")
    return top


def test_the_example_has_ten_lines_at_most():
    lines = (EXAMPLE / "SConstruct").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith('"""')]) <= 10


@pytest.mark.slow
def test_a_repo_elsewhere_builds_installs_and_verifies_with_the_wheel_alone(python, repo):
    scons = [python, "-m", "SCons", "-Q"]
    there = {"TRT_PYTHON": sys.executable, "TRT_ONNX_PYTHON": sys.executable}
    out = run([*scons, "engines"], repo, **there)
    assert "2 built, 0 failed" in out
    assert "2 reused, 0 built, 0 failed" in run([*scons, "engines"], repo, **there)
    image = repo / "image"
    run([*scons, "install", f"DESTDIR={image}", "PREFIX=/usr"], repo, **there)
    folder = image / "usr" / "share" / "engines"
    assert len(list(folder.glob("pitch__*.engine"))) == 2
    # The device: the wheel's files, no SCons, no filelock; `-S` sees no installed package.
    files = next(Path(python).parents[1].glob("lib/python3*/site-packages"))
    shutil.copytree(files / "scons_tensorrt", repo / "device" / "scons_tensorrt")
    verify = [sys.executable, "-S", "-E", "-m", "scons_tensorrt", "verify"]
    manifest = [*verify, "--manifest", folder / "manifest.json", "--hardware", repo / "desktop.json"]
    probe = [python, "-m", "scons_tensorrt", "probe", "--hardware", "rtx_portable", "--json"]
    (repo / "desktop.json").write_text(run(probe, repo, **there))
    out = run(manifest, repo / "device")
    assert out.count("OK ") == 3
