"""Lines about what runs, where no bar can be: what a log and CI get."""

import re
import threading
import time

import pytest

from scons_tensorrt.build.progress import UNWATCHED
from scons_tensorrt.scons_tool.console import Console
from scons_tensorrt.scons_tool.progress import Progress
from scons_tensorrt.scons_tool.progress_row import ProgressRow, clock


def shown(**changes):
    row = ProgressRow("COMPILING", "engines/a", "a", "", "Timing", 3, 40, 12.0, 0.1)
    return row._replace(**changes)


DOINGS = [
    ({}, "Timing 3/40"),
    ({"done": None, "total": None}, "Timing"),
    ({"quiet_s": 75.0}, "Timing 3/40 (silent 1:15)"),
    ({"words": "", "done": None, "total": None, "quiet_s": 9.0}, ""),  # it never says anything
    ({"unit": "B", "done": 1_500_000, "total": 20_000_000}, "Timing 1.5 of 20.0 MB"),
    ({"words": "\x1b[2J"}, "\\x1b[2J 3/40"),  # names of strangers do not steer the terminal
]


@pytest.mark.parametrize(("changes", "words"), DOINGS, ids=str)
def test_what_is_done_in_words(changes, words):
    assert shown(**changes).doing == words


def test_a_silent_phase_pulses():
    assert [shown(quiet_s=s).pulses for s in (0.1, 3.0)] == [False, True]
    assert shown(done=None, total=None).pulses


@pytest.mark.parametrize(("seconds", "text"), [(12.9, "12 s"), (245, "4:05"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_log_gets_a_line_every_so_often_and_none_after_the_end(capsys):
    progress = Progress(Console(False, False), line_every_s=0.5)
    running = progress.begin("FETCHING", "engines/x", "x", "B")
    running.update(1_000_000, 4_000_000, "from the store")
    time.sleep(1.3)
    running.end()
    running.end()
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 2
    assert all(re.fullmatch(r"FETCHING engines/x \(\d s\): from .* 1\.0 of 4\.0 MB", li) for li in lines)
    time.sleep(0.8)
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
