"""Lines about what runs, where no bar can be: what a log and CI get."""

import re
import threading
import time

import pytest

from scons_tensorrt.build.progress import UNWATCHED
from scons_tensorrt.scons_tool.console import Console
from scons_tensorrt.scons_tool.progress import Progress
from scons_tensorrt.scons_tool.progress_task import ProgressTask

# Unit, an update, seconds since then, and what is said of it.
DOINGS = [
    ("", (3, 40, "Timing"), 0.1, "Timing 3/40"),
    ("", (None, None, "Timing"), 0.1, "Timing"),
    ("", (3, 40, "Timing"), 75.4, "Timing 3/40 (silent 75 s)"),
    ("", (None, None, ""), 9.0, ""),  # it never says anything
    ("B", (1_500_000, 20_000_000, "Timing"), 0.1, "Timing 1.5 of 20.0 MB"),
    ("", (3, 40, "\x1b[2J"), 0.1, "\\x1b[2J 3/40"),  # a name from outside does not steer the terminal
]


@pytest.mark.parametrize(("unit", "update", "seconds", "words"), DOINGS, ids=str)
def test_what_is_done_in_words(unit, update, seconds, words):
    task = ProgressTask("COMPILING", "engines/a", "a", unit, lambda task: None)
    task.update(*update)
    done, total, doing = task.shown(time.monotonic() + seconds)
    assert doing == words
    assert (done, total) == (update[0] or 0, None if seconds > 2 else update[1])


def test_a_log_gets_a_line_every_so_often_and_none_after_the_end(capsys):
    began, out = time.monotonic(), ""
    progress = Progress(Console(False, False), line_every_s=0.2)
    running = progress.begin("FETCHING", "engines/x", "x", "B")
    running.update(1_000_000, 4_000_000, "from the store")
    while out.count("\n") < 2:
        assert time.monotonic() < began + 30
        time.sleep(0.02)
        out += capsys.readouterr().out
    running.end()
    running.end()
    lines = (out + capsys.readouterr().out).splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - began) / 0.2
    assert all(
        re.fullmatch(r"FETCHING engines/x \(\d s\): from .* 1\.0 of 4\.0 MB( \(silent \d s\))?", li)
        for li in lines
    )
    time.sleep(0.5)
    assert capsys.readouterr().out == ""


def test_no_thread_is_left_when_nothing_runs():
    progress = Progress(Console(False, False))
    running = [progress.begin("COMPILING", "a"), progress.begin("COMPILING", "b")]
    assert "progress" in [thread.name for thread in threading.enumerate()]
    for each in running:
        each.end()
    for thread in threading.enumerate():
        if thread.name == "progress":
            thread.join(5)
    assert "progress" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("console", [Console(True, False), Console(False, True)], ids=["-s", "-q"])
def test_a_console_that_is_silent_watches_nothing(console):
    assert Progress(console).begin("COMPILING", "a") is UNWATCHED
