"""What people see while something compiles: real scons on a real pseudo-terminal, whose screen pyte
keeps. The compiler is a fake one where its pace matters."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from conftest import Tree, fake_compiler, hardware, make_model

pyte = pytest.importorskip("pyte")

# It counts `steps`, then is silent; it ends when it is told to, and not within 0.6 s.
EVENTS = """
def event(**fields): print(json.dumps(fields), flush=True)
event(event="phase", name="Building engine", parent=None, steps=6)
event(event="phase", name="Timing tactics", parent="Building engine", steps=40)
began, i = time.time(), 0
while time.time() - began < (0.6 if os.path.exists(os.path.join(FOLDER, "go")) else 60):
    if i < {steps}:
        event(event="step", name="Timing tactics", step=i)
        i += 1
    time.sleep(0.05)
done(write())
"""


class Terminal:
    """A scons on a terminal; `feed` until it ends or something stands there."""

    def __init__(
        self, tree: Tree, *arguments: str, size: tuple[int, int] = (100, 24), **environment: str
    ) -> None:
        self.screen = pyte.HistoryScreen(*size, history=1000, ratio=0.001)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        self.resize(*size)
        self.process = subprocess.Popen(
            tree.command(*arguments),
            cwd=tree.root,
            env=tree.env(**{"TERM": "xterm-256color", **environment}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def until(self, seen=lambda screen: False, seconds: float = 60) -> None:
        """Show what comes until `seen(display)`, or the end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not seen("\n".join(self.screen.display)):
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the last writer is gone
                break
            self.raw += data
            self.stream.feed(data)
        else:
            assert time.monotonic() < end, "\n".join(self.screen.display)

    def end(self) -> list[str]:
        """Every line that stands there at last, from the first that scrolled away."""
        self.until()
        assert self.process.wait(60) is not None
        os.close(self._master)
        past = ["".join(c.data for _, c in sorted(line.items())) for line in self.screen.history.top]
        lines = [line.rstrip() for line in [*past, *self.screen.display]]
        return lines[: max((i for i, line in enumerate(lines) if line), default=0) + 1]

    def foot(self, count: int = 1) -> list[str]:
        return [line.rstrip() for line in self.screen.display[-count:]]


@pytest.fixture
def slow(tree: Tree, tmp_path: Path) -> Tree:
    """Three engines whose compiler goes on until `go`."""
    for seed, name in enumerate(["a", "b", "c"]):
        make_model(tree.path(f"models/{name}.onnx"), seed=seed)
    hardware(tree.path("hardware/orin.json"))
    tree.write('for n in ["a", "b", "c"]: env.Engine(n, f"models/{n}.onnx")')
    tree.environment = {"TRT_HARDWARE": "orin"}
    pace(tree, 20)
    return tree


def pace(tree: Tree, steps: int) -> None:
    folder = tree.root / "compiler"
    tree.environment["TRT_PYTHON"] = str(fake_compiler(folder, act=EVENTS.format(steps=steps)))


def go(tree: Tree) -> None:
    """Let the compiles end."""
    (tree.root / "compiler" / "go").touch()


def bars(display: str) -> int:
    return len(re.findall(r"^COMPILING ", display, re.MULTILINE))


def test_a_bar_for_each_running_compile(slow: Tree) -> None:
    terminal = Terminal(slow, "-j3", "engines")
    terminal.until(lambda display: bars(display) == 3)
    foot = terminal.foot(3)
    assert sorted(line[: len("COMPILING  a fp32 ")] for line in foot) == [
        "COMPILING  a fp32 ",
        "COMPILING  b fp32 ",
        "COMPILING  c fp32 ",
    ]
    terminal.until(lambda display: "Timing tactics" in display)
    assert re.search(r"Timing tactics \d+/40 .* 0:00:\d\d$", "\n".join(terminal.foot(3)), re.MULTILINE)
    go(slow)
    lines = terminal.end()
    assert bars("\n".join(lines)) == 0  # nothing of them is left
    assert sorted(line.split("__")[0] for line in lines if line.startswith("BUILT")) == [
        "BUILT engines/orin/a",
        "BUILT engines/orin/b",
        "BUILT engines/orin/c",
    ]
    assert lines[-1].startswith("engines: 0 reused, 3 built")


def test_lines_of_others_stay_whole(slow: Tree) -> None:
    """SCons's own, a child's that knows nothing of sys.stdout, and a prompt without a newline."""
    slow.write(
        """
        for n in ["a", "b"]: env.Engine(n, f"models/{n}.onnx")
        loud = "for i in `seq 40`; do echo line $$i of a compiler on this terminal; sleep 0.03; done"
        env.Command("x", [], [loud + "; printf 'no newline '; sleep 0.5; echo yet; touch $TARGET"])
        """
    )
    terminal = Terminal(slow, "-j3", "engines", "x", size=(100, 12))
    terminal.until(lambda display: bars(display) == 2 and "no newline yet" in display)
    go(slow)
    lines = terminal.end()
    said = [line for line in lines if line.startswith("line ") or "newline" in line]
    assert [line for line in said if line.startswith("line ")] == [
        f"line {i} of a compiler on this terminal" for i in range(1, 41)
    ]
    assert bars("\n".join(lines)) == 0


@pytest.mark.slow
def test_a_resize_leaves_no_rest_of_a_bar(slow: Tree) -> None:
    terminal = Terminal(slow, "-j2", "engines")
    terminal.until(lambda display: bars(display) == 2)
    for size in ((60, 10), (120, 30)):
        terminal.resize(*size)
        began = time.monotonic()
        terminal.until(lambda display, began=began: time.monotonic() > began + 0.5)
    assert bars("\n".join(terminal.screen.display)) <= 3
    assert terminal.foot()[0].startswith("COMPILING")
    go(slow)
    assert bars("\n".join(terminal.end())) == 0


def test_a_silent_compile_is_told_to_be_silent(slow: Tree) -> None:
    pace(slow, 2)
    terminal = Terminal(slow, str(slow.root / "engines/orin/a__sm87_jp6.2_trt10.3_fp32.engine"))
    terminal.until(lambda display: "(silent" in display)
    assert re.search(r"Timing tactics 2/40 \(silent \d+ s\)", terminal.foot()[0])
    go(slow)
    terminal.end()


def test_no_color(slow: Tree) -> None:
    terminal = Terminal(slow, "-j3", "engines", NO_COLOR="1")
    terminal.until(lambda display: bars(display) == 3)
    go(slow)
    terminal.end()
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9](;|m)", terminal.raw)


def test_the_first_word_has_a_colour(slow: Tree) -> None:
    go(slow)
    slow.path("models/b.onnx").write_text("<html>404</html>")
    terminal = Terminal(slow, "-k", "-j3", "engines")
    terminal.end()
    assert terminal.raw.count(b"\x1b[32mBUILT\x1b[0m engines/orin/") == 2
    assert terminal.raw.count(b"\x1b[31mFAILED\x1b[0m engines/orin/b__") == 1
    assert terminal.raw.splitlines()[-1].startswith(b"engines: 0 reused, 2 built, 1 failed in ")
    terminal = Terminal(slow, "-k", "-n", "engines")
    terminal.end()
    assert terminal.raw.count(b"\x1b[36mWOULD\x1b[0m REUSE") == 2
    assert b"\x1b[31mWOULD\x1b[0m FAIL engines/orin/b__" in terminal.raw
    run = slow.scons("-k", "engines")  # not in a pipe
    assert (run.reused, run.failed, "\x1b" in run.out) == (["a", "c"], ["b"], False)


def test_how_many_engines_are_done(slow: Tree) -> None:
    slow.write('for n in ["a", "b"]: env.Engine(n, f"models/{n}.onnx")')
    go(slow)
    assert slow.scons().status == 0
    (slow.root / "compiler/go").unlink()
    slow.write('for n in ["a", "b", "c"]: env.Engine(n, f"models/{n}.onnx")')
    terminal = Terminal(slow, "engines")
    terminal.until(lambda display: bars(display) == 1)
    assert re.match(r"engines    2/3 .* 0:00:\d\d$", terminal.foot(2)[0])
    go(slow)
    assert not any(line.startswith("engines  ") for line in terminal.end())


@pytest.mark.slow
def test_many_compiles_on_a_small_terminal(tree: Tree) -> None:
    for seed in range(8):
        make_model(tree.path(f"models/model{seed}.onnx"), seed=seed)
    hardware(tree.path("hardware/orin.json"))
    tree.write('for n in range(8): env.Engine(f"model{n}", f"models/model{n}.onnx")')
    tree.environment = {"TRT_HARDWARE": "orin"}
    pace(tree, 20)
    terminal = Terminal(tree, "-j8", "engines", size=(40, 10))
    terminal.until(lambda display: "+4 more" in display and bars(display) == 4)
    foot = terminal.foot(5)
    assert re.fullmatch(r"engines +0/8 +\+4 more +0:00:\d\d", foot[0]), foot
    for row in foot[1:]:
        assert re.fullmatch(r"COMPILING +model\d fp32 +\S.* 0:00:\d\d", row), foot
    go(tree)
    lines = terminal.end()
    assert bars("\n".join(lines)) == 0
    assert "engines: 0 reused, 8 built" in "".join(lines)


def test_a_compile_that_fails_leaves_the_terminal_as_it_was(slow: Tree) -> None:
    act = EVENTS.format(steps=20).replace("done(write())", "sys.exit(3)")
    slow.environment["TRT_PYTHON"] = str(fake_compiler(slow.root / "compiler", act=act))
    terminal = Terminal(slow, "-j3", "engines")
    terminal.until(lambda display: bars(display) == 3)
    go(slow)
    lines = terminal.end()
    assert bars("\n".join(lines)) == 0
    assert terminal.screen.margins is None or terminal.screen.margins.bottom == 23
    assert [line.split()[0] for line in lines if "FAILED" in line] == ["FAILED"] * 3
    assert lines[-1].startswith("engines: 0 reused, 0 built, 3 failed")


def test_a_terminal_that_is_closed_stops_the_run(slow: Tree) -> None:
    terminal = Terminal(slow, "-j3", "engines")
    terminal.until(lambda display: bars(display) == 3)
    os.close(terminal._master)
    assert terminal.process.wait(30) != 0
    assert slow.engines() == {}
    go(slow)
    assert slow.scons("-j3", "engines").built == ["a", "b", "c"]


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}], ids=str)
def test_no_bars_where_nobody_looks_or_none_can_be(slow: Tree, environment: dict[str, str]) -> None:
    go(slow)
    terminal = Terminal(slow, "-j3", "engines", **environment)
    terminal.end()
    assert b"\x1b" not in terminal.raw


def test_nothing_of_it_under_silent(slow: Tree) -> None:
    go(slow)
    terminal = Terminal(slow, "-s", "-j3", "engines")
    terminal.end()
    assert terminal.raw == b""


def test_ctrl_c_leaves_the_terminal_as_it_was(slow: Tree) -> None:
    terminal = Terminal(slow, "-j3", "engines")
    terminal.until(lambda display: bars(display) == 3)
    os.write(terminal._master, b"\x03")
    lines = terminal.end()
    assert bars("\n".join(lines)) == 0
    assert terminal.screen.margins is None or terminal.screen.margins.bottom == 23
    text = "\n".join(lines)
    assert (text.count("INTERRUPTED engines/"), text.count("stopped on request")) == (3, 1)


def test_a_null_build_imports_nothing_for_it(slow: Tree) -> None:
    go(slow)
    assert slow.scons("-j3").status == 0
    slow.write(
        """
        import atexit, sys
        drawing = "rich", "scons_tensorrt.scons_tool.progress", "scons_tensorrt.scons_tool.progress_bars"
        atexit.register(lambda: print("DRAWS", [m for m in drawing if m in sys.modules]))
        for n in ["a", "b", "c"]: env.Engine(n, f"models/{n}.onnx")
        """
    )
    run = slow.scons()
    assert run.reused == ["a", "b", "c"]
    assert run.lines("DRAWS") == ["DRAWS []"]


def test_where_rich_is_missing_lines_are_told(slow: Tree) -> None:
    (slow.root / "hidden" / "rich").mkdir(parents=True)
    (slow.root / "hidden" / "rich" / "__init__.py").write_text("raise ImportError('no rich here')")
    path = os.pathsep.join([str(slow.root / "hidden"), slow.env()["PYTHONPATH"]])
    go(slow)
    terminal = Terminal(slow, "-j3", "engines", PYTHONPATH=path, NO_COLOR="1")
    lines = terminal.end()
    assert b"\x1b" not in terminal.raw
    assert len([line for line in lines if line.startswith("BUILT")]) == 3
