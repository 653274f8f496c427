"""Runs the blocks of a page in order, as a reader in one shell would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import doc_setup
import pytest
from doc_blocks import SHOWN, Block
from doc_host import Host, copy_clone


@dataclass
class Reader:
    """root: everything of this page. cwd: where the reader's shell is, in the folder `repo` at first."""

    host: Host
    root: Path
    page_blocks: list[Block]
    output: str = ""
    ran: list[Block] = field(default_factory=list)
    runs: int = 0

    def __post_init__(self) -> None:
        for name in ("repo/models", "tmp"):
            (self.root / name).mkdir(parents=True)
        self.cwd = self.root / "repo"
        self.clone = self.root / "clone"
        # A page that makes a virtual environment begins without one.
        makes_venv = any("-m venv" in block.text for block in self.page_blocks if block.reason is None)
        folders = () if makes_venv else (self.host.venv / "bin",)
        self.fresh = self.host.environment(self.root / "home", *folders)
        self.fresh |= {"ROOT": str(self.root), **doc_setup.ENVIRONMENT}
        self.state: Path | None = None

    def read(self) -> None:
        for block in self.page_blocks:
            if block.reason is not None or block.language in SHOWN:
                continue
            {"python": self._python, "make": self._make}.get(block.language, self._shell)(block)
            self.ran.append(block)

    def _shell(self, block: Block) -> None:
        commands = self._fill_in(block.commands())
        before = [cmd for text, cmd in doc_setup.BEFORE.items() if text in block.text]
        for model in re.findall(r"scons-tensorrt build (models/\w+\.onnx)", commands):
            if not (self.cwd / model).exists():
                doc_setup.write_network(self.cwd / model)
        earlier = self.state
        if "-m venv" in commands:  # a new terminal
            self.state = None
        if doc_setup.IN_CLONE.search(commands):
            self._make_clone()
            self.run(commands, block, cwd=self.clone)
        else:
            self.cwd = self.run("\n".join([*before, commands]), block, cwd=self.cwd)
        if "-m venv" in commands and "activate" not in commands:  # and back to the one before
            self.state = earlier

    def _fill_in(self, commands: str) -> str:
        table = doc_setup.placeholders(self.root, self.host.wheel)
        pattern = rf"(?<![\w/.])({'|'.join(map(re.escape, table))})"
        return re.sub(pattern, lambda match: table[match[1]], commands)

    def _python(self, block: Block) -> None:
        if not re.search(r"\benv\b", block.text):
            (self.cwd / "script.py").write_text(block.text)
            self.run("python3 script.py", block, cwd=self.cwd)
            return
        header = "" if re.search(r"^env = ", block.text, re.M) else doc_setup.HEADER
        (self.cwd / "SConstruct").write_text(header + block.text)
        doc_setup.write_models(self.cwd, block.text)
        self.run("python3 -m SCons -Q", block, cwd=self.cwd)
        assert list(self.cwd.glob("engines/*.engine")), f"{block.place}: no engine"

    def _make(self, block: Block) -> None:
        """Run the variables `*_BUILD_CMDS` and `*_INSTALL_TARGET_CMDS` as Buildroot expands them."""
        run_buildroot(self, block.text, block)

    def _make_clone(self) -> None:
        if self.clone.exists():
            return
        copy_clone(self.clone)
        if os.environ.get("DOCS") == "all":
            return
        (self.clone / "models" / "SConscript").write_text(doc_setup.CLONE_SCONSCRIPT)
        doc_setup.write_network(self.clone / "models" / "face.onnx")

    def run(self, commands: str, block: Block | str, cwd: Path) -> Path:
        """Run bash commands; the folder they end in. What they export stays for the next ones."""
        self.runs += 1
        state, script = self.root / f"state{self.runs}", self.root / "script.sh"
        load = f". {self.state}\n" if self.state else ""
        script.write_text(f"{load}set -e\n{commands}\nset +e\nexport -p > {state}\npwd > {state}.pwd\n")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", str(script)],
            cwd=cwd,
            env=self.fresh,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.output += done.stdout
        place = block if isinstance(block, str) else block.place
        assert done.returncode == 0, f"{place}: status {done.returncode} of\n{commands}\n{done.stdout}"
        assert "Traceback" not in done.stdout, f"{place}:\n{done.stdout}"
        self.state = state
        return Path(Path(f"{state}.pwd").read_text().strip())


def run_buildroot(reader: Reader, text: str, place: Block | str) -> None:
    """The commands of a package of Buildroot, for hardware that can be compiled for here."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    names = re.findall(r"^define (\w+_(?:BUILD|INSTALL_TARGET)_CMDS)$", text, re.M)
    assert names, f"{place}: no commands"
    (reader.root / "package.mk").write_text(text.replace("HARDWARE=agx_orin", "HARDWARE=rtx_portable"))
    rules = [f"{reader.cwd}/.stamp_{name}:\n\t$({name})\n" for name in names]
    (reader.root / "Makefile").write_text(
        f"TARGET_DIR = {reader.root}/target\nSCONS = scons\n"
        'BR2_PACKAGE_DRONE_ENGINES_HARDWARE = "rtx_portable"\n'
        'qstrip = $(strip $(subst ",,$(1)))\n'
        f"include {reader.root}/package.mk\n" + "".join(rules)
    )
    stamps = " ".join(f"{reader.cwd}/.stamp_{name}" for name in names)
    reader.run(f"make -f {reader.root}/Makefile {stamps}", place, cwd=reader.root)
    assert list(reader.root.glob("target/usr/**/*.engine")), f"{place}: no engine was installed"
