"""A host for the commands of the pages: like Debian it has `python3` and no `python`, `pip` or `scons`.

Its virtual environments see the packages of this test run, as they would those of a system. Nothing is
fetched from a package index, but setuptools once, to build this project with.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from doc_blocks import REPO

CLONE = (
    *("LICENSE", "README.md", "SConstruct", "pyproject.toml"),
    *("benchmarks", "docs", "models", "site_scons", "tests"),
)
HIDDEN = re.compile(r"(python|pip|scons|pytest)[^/]*")
NOT_LINKED = re.compile(r"scons_tensorrt|__editable__|setuptools|_distutils_hack|pkg_resources|.*\.pth$")
# venv spends six seconds on pip, which the system has already.
PYTHON = """\
#!/bin/sh
if [ "$1 $2 $3" = "-m venv --system-site-packages" ]; then
    {python} "$1" "$2" "$3" --without-pip "$4" || exit
    for site in "$4"/lib/python3*/site-packages; do echo {packages} > "$site/system.pth"; done
    exit
fi
exec {python} "$@"
"""


@dataclass(frozen=True)
class Host:
    """bin: its commands. venv: an environment that has the package. wheel: of this project."""

    bin: Path
    venv: Path
    wheel: Path

    def environment(self, home: Path, *folders: Path) -> dict[str, str]:
        """What a shell has to begin with; folders come first in its PATH."""
        home.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.pathsep.join(str(folder) for folder in (*folders, self.bin)),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the option's value: no isolation
            "PIP_NO_COMPILE": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def new_venv(self, folder: Path) -> Path:
        subprocess.run([self.bin / "python3", "-m", "venv", "--system-site-packages", folder], check=True)
        return folder


@pytest.fixture(scope="session")
def host(once) -> Host:
    top = once("host", _make_host)
    (wheel,) = top.glob("*.whl")
    return Host(top / "bin", top / "venv", wheel)


def _make_host(top: Path) -> None:
    _link_packages(top / "packages")
    _make_commands(top / "bin", top / "packages")
    made = Host(top / "bin", top / "venv", top)
    env = made.environment(top / "home")
    pip = [str(made.new_venv(made.venv) / "bin" / "python3"), "-m", "pip"]
    source = copy_clone(top / "clone")
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(top), str(source)], env=env, check=True)
    (wheel,) = top.glob("*.whl")
    subprocess.run([*pip, "install", "-q", f"{wheel}[rtx,convert]"], env=env, check=True)
    # SCons itself is a package of the system here, so that pip made no command of it
    scons = made.venv / "bin" / "scons"
    scons.write_text(f'#!/bin/sh\nexec {made.venv}/bin/python3 -m SCons "$@"\n')
    scons.chmod(0o755)


def _link_packages(folder: Path) -> None:
    """Link the packages of this test run but this project; install a setuptools that makes wheels."""
    folder.mkdir()
    for site in (Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")):
        for package in site.iterdir():
            if not NOT_LINKED.match(package.name) and not (folder / package.name).is_symlink():
                (folder / package.name).symlink_to(package)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", folder, "setuptools>=70.1"], check=True)


def _make_commands(folder: Path, packages: Path) -> None:
    folder.mkdir()
    for commands in map(Path, ("/usr/local/bin", "/usr/bin", "/bin")):
        for command in commands.iterdir() if commands.is_dir() else ():
            if not HIDDEN.fullmatch(command.name) and not (folder / command.name).is_symlink():
                (folder / command.name).symlink_to(command)
    base = Path(sys._base_executable)  # type: ignore[attr-defined]
    python = base.with_name("python3") if base.with_name("python3").exists() else base
    (folder / "python3").write_text(PYTHON.format(python=python, packages=packages))
    (folder / "python3").chmod(0o755)


def copy_clone(folder: Path) -> Path:
    """The files of this repo."""
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", ".hypothesis")
    folder.mkdir(parents=True)
    for name in CLONE:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, folder / name, ignore=left_out)
        else:
            shutil.copy(REPO / name, folder)
    return folder
