"""A figure beside the accepted one: which changes are named, and which are noise."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import accepted  # noqa: E402
import common  # noqa: E402
from common import Cost  # noqa: E402


def figures(capsys, ratios, field="wall", bound=None):
    """What a benchmark prints that measured these ratios, as its reader has it."""
    costs = [Cost(wall=ratio, cpu=ratio, peak=ratio, instructions=ratio) for ratio in ratios]
    common.report("null build / plain commands", costs, [Cost(1, 1, 1, 1)] * len(costs), field, bound)
    (figure,) = common.figures_of(capsys.readouterr().out)
    return figure


@pytest.mark.parametrize(
    ("field", "before", "now", "verdict"),
    [
        ("instructions", [1.0], [1.049], "slower"),
        ("instructions", [1.0], [1.04], "same"),
        ("instructions", [1.0], [0.94], "faster"),
        ("wall", [1.0] * 6, [1.06] * 6, "slower"),
        ("wall", [1.0] * 6, [0.9, 0.95, 1.06, 1.06, 1.1, 1.2], "same"),
        ("wall", [0.8, 1.0, 1.0, 1.0, 1.0, 1.2], [1.15] * 6, "same"),
        ("wall", [0.8, 1.0, 1.0, 1.0, 1.0, 1.2], [1.3] * 6, "slower"),
    ],
)
def test_a_change_is_named_when_it_is_beyond_the_noise_of_both_and_five_per_cent(
    capsys, field, before, now, verdict
):
    known = accepted.accept("case", [figures(capsys, before, field)])
    found = figures(capsys, now, field)
    assert accepted.compare(found, {found.name: known}).verdict == verdict


def test_runs_that_differ_make_the_accepted_noise_larger(capsys):
    runs = [figures(capsys, [ratio], "instructions") for ratio in (0.9, 1.0, 1.1)]
    known = accepted.accept("case", runs)
    assert (known.ratio, known.noise) == (1.0, 0.1)


def test_a_bound_that_was_held_and_is_not_any_more_is_named(capsys):
    known = accepted.accept("case", [figures(capsys, [0.59], "instructions", bound=0.6)])
    found = figures(capsys, [0.61], "instructions", bound=0.6)
    assert accepted.compare(found, {found.name: known}).verdict == "missed"
    assert accepted.compare(found, {found.name: replace(known, ratio=0.605)}).verdict == "same"


def test_figures_of_another_python_are_not_compared(capsys):
    found = figures(capsys, [2.0])
    known = replace(accepted.accept("case", [figures(capsys, [1.0])]), python="3.1")
    assert accepted.compare(found, {found.name: known}).verdict == "other releases"
    assert accepted.compare(found, {}).verdict == "new"


def test_accepted_figures_are_read_as_they_were_written(capsys, tmp_path):
    path = tmp_path / "accepted.json"
    known = {name: accepted.accept("case", [figures(capsys, [1.0])]) for name in ("b", "a")}
    accepted.save(known, path)
    assert accepted.load(path) == known
    path.write_text(json.dumps({"schema": 0}))
    with pytest.raises(ValueError, match="schema 0"):
        accepted.load(path)


def test_the_interval_of_a_median_covers_95_per_cent_from_six_values_on():
    assert common.interval([3.0, 1.0, 2.0]) == (1.0, 3.0, 0.75)
    low, high, confidence = common.interval([float(n) for n in range(12)])
    assert (low, high) == (2.0, 9.0)
    assert confidence > 0.95


def test_a_case_that_is_slower_twice_is_named_and_the_exit_status_is_1(tmp_path):
    """all.py itself, with a case that prints what the test says."""
    for name in ("all.py", "accepted.py", "common.py"):
        text = (REPO / "benchmarks" / name).read_text()
        (tmp_path / name).write_text(text.replace('Case("cache_hit.py", quick="', 'Case("fake.py", quick="'))
    (tmp_path / "fake.py").write_text(
        "from common import Cost, report\n"
        "ratio = float(open(__file__ + '.ratio').read())\n"
        "report('a / b', [Cost(ratio, 1, 1)] * 6, [Cost(1, 1, 1)] * 6, 'wall')\n"
    )

    def run(ratio, *arguments):
        (tmp_path / "fake.py.ratio").write_text(str(ratio))
        command = [sys.executable, str(tmp_path / "all.py"), "--quick", "--only", "fake", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run(1.0, "--accept", "--runs", "1").returncode == 0
    unchanged, slower = run(1.01), run(1.2)
    assert (unchanged.returncode, slower.returncode) == (0, 1)
    assert "SLOWER a / b: wall: 1.200, accepted 1.000: +20.0%" in slower.stderr
    assert slower.stderr.count("-- fake.py") == 2
    assert [json.loads(line)["ratio"] for line in unchanged.stdout.splitlines()] == [1.01]
