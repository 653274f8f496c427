"""`completion`: what it prints completes commands in a real bash and a real zsh."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest

pytest.importorskip("shtab")

ENGINES = (
    "engines/face__sm87_jp6.2_trt10.3_fp16.engine",
    "engines/orin_nx/hand__sm87_jp6.2_trt10.3_fp16.engine",
)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The scripts, in a folder where zsh finds its own, above a tree with engines."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh"):
        command = [sys.executable, "-m", "scons_tensorrt", "completion", shell]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        (folder / ("_scons-tensorrt" if shell == "zsh" else "bash")).write_text(done.stdout)
    for name in ENGINES:
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).touch()
    (folder / "tree/net.onnx").touch()
    return folder


LINES = [
    ("st", {"status", "store"}),
    ("build --prec", {"--precision"}),
    ("build --precision fp1", {"fp16"}),
    ("build n", {"net.onnx"}),
    ("name b", {"build"}),
    ("store gc --ol", {"--older"}),
    ("query d", {"dependents", "diff"}),
    ("query diff fa", {"face"}),
    ("completion ", {"bash", "zsh"}),
    ("status fa", {"face"}),
    ("explain h", {"hand"}),
    ("verify eng", {"engines"}),
]


def test_bash_completes_commands_options_and_names(scripts):
    program = f"source {scripts}/bash\n"
    program += "function=$(complete -p scons-tensorrt | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
    for line, _ in LINES:
        words = " ".join(f"'{word}'" for word in ["scons-tensorrt", *line.split(" ")])
        program += f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()\n"
        program += '$function; echo "${COMPREPLY[@]}"\n'
    done = subprocess.run(
        ["bash", "--norc", "-c", program], cwd=scripts / "tree", capture_output=True, text=True, check=True
    )
    assert [set(line.split()) for line in done.stdout.splitlines()] == [expected for _, expected in LINES]


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_completes_commands_options_and_names(scripts):
    process, terminal = pty.fork()
    if not process:
        os.chdir(scripts / "tree")
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "PS1": ""})
    seen = ""

    def send(text, until, seconds=20.0):
        nonlocal seen
        seen = ""
        os.write(terminal, text.encode())
        end = time.monotonic() + seconds
        while until not in seen and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096).decode(errors="replace")
        return until in seen

    try:
        send(f"fpath=({scripts} $fpath); autoload -U compinit; compinit -u -D; echo re''ady\n", "ready")
        for line, expected in (("stat", "status"), ("build --prec", "--precision"), ("status fa", "face")):
            assert send(f"scons-tensorrt {line}\t", expected), (line, seen)
            send("\x15echo ne''xt\n", "next")  # clears the line
    finally:
        os.write(terminal, b"\x15exit\n")
        os.close(terminal)
        os.waitpid(process, 0)


def test_without_shtab_it_says_what_to_install(monkeypatch, capsys):
    from scons_tensorrt.cli import main

    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    text = "EngineError: shtab is not installed: run `python3 -m pip install shtab`\n"
    assert capsys.readouterr().err == text
