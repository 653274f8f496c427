"""The ratios that were last accepted (benchmarks/accepted.json), and how a new one compares with its own.

Ratios alone, because machines differ. Each is kept with its noise. A figure is slower (or faster) when its
change is beyond the noise of both, and 5 % is within the noise of the change: what costs 5 % is seen where
the noise is small, and where it is large, nothing smaller than the noise is called a change.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common import Figure, host

FILE = Path(__file__).with_name("accepted.json")
SCHEMA = 1
CHANGE = 0.05
# Below these a spread is chance: of few runs, or of another folder, environment or order of files.
LEAST_NOISE = {"instructions": 0.005, "peak": 0.02, "wall": 0.02, "cpu": 0.02}


@dataclass(frozen=True)
class Accepted:
    """case: what measured it. noise: relative, half of the spread. python, scons: the releases that ran."""

    case: str
    ratio: float
    noise: float
    python: str
    scons: str


@dataclass(frozen=True)
class Comparison:
    """A figure beside the accepted one, None if there is none. change, noise: relative."""

    figure: Figure
    accepted: Accepted | None
    change: float = 0.0
    noise: float = 0.0

    @property
    def verdict(self) -> str:
        """new, other releases (not comparable), slower, faster, missed (a bound that was held) or same."""
        if self.accepted is None:
            return "new"
        if (self.accepted.python, self.accepted.scons) != releases():
            return "other releases"
        if abs(self.change) > self.noise and abs(self.change) + self.noise >= CHANGE:
            return "slower" if self.change > 0 else "faster"
        bound = self.figure.bound
        if bound is not None and self.accepted.ratio <= bound < self.figure.ratio / (1 + self.noise):
            return "missed"
        return "same"

    def sentence(self) -> str:
        if self.accepted is None:
            return f"{self.figure.name}: {self.figure.ratio:.3f}, nothing accepted before"
        return (
            f"{self.figure.name}: {self.figure.ratio:.3f}, accepted {self.accepted.ratio:.3f}: "
            f"{self.change:+.1%}, noise {self.noise:.1%}"
        )


def releases() -> tuple[str, str]:
    """Of Python (3.11) and SCons: another of either changes what both sides of a ratio cost."""
    machine = host()
    return ".".join(str(machine["python"]).split(".")[:2]), str(machine["scons"])


def noise_of(figure: Figure) -> float:
    """Relative: half of the interval, at least that of its measure."""
    return max(LEAST_NOISE[figure.measure], (figure.high - figure.low) / 2 / figure.ratio)


def compare(figure: Figure, known: dict[str, Accepted]) -> Comparison:
    accepted = known.get(figure.name)
    if accepted is None:
        return Comparison(figure=figure, accepted=None)
    noise = math.hypot(noise_of(figure), accepted.noise)
    return Comparison(figure, accepted, change=figure.ratio / accepted.ratio - 1, noise=noise)


def accept(case: str, runs: Sequence[Figure]) -> Accepted:
    """One figure of several runs of a case: their median, and the largest noise, within a run or between."""
    ratios = [figure.ratio for figure in runs]
    ratio = statistics.median(ratios)
    between = (max(ratios) - min(ratios)) / 2 / ratio
    noise = max(between, *(noise_of(figure) for figure in runs))
    python, scons = releases()
    return Accepted(case, round(ratio, 4), round(noise, 4), python, scons)


def load(path: Path = FILE) -> dict[str, Accepted]:
    """By the figure's name; ValueError if another schema wrote the file."""
    if not path.exists():
        return {}
    told = json.loads(path.read_text())
    if told["schema"] != SCHEMA:
        raise ValueError(f"{path}: schema {told['schema']}; this is a reader of {SCHEMA}")
    return {name: Accepted(**fields) for name, fields in told["figures"].items()}


def save(known: dict[str, Accepted], path: Path = FILE) -> None:
    """One line for each figure, sorted, so that a diff shows which were accepted."""
    lines = (f"  {json.dumps(name)}: {json.dumps(asdict(known[name]))}" for name in sorted(known))
    text = ",\n".join(lines)
    path.write_text(f'{{"schema": {SCHEMA}, "figures": {{\n{text}\n}}}}\n')
