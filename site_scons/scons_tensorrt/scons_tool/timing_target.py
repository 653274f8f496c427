"""TIMING=record: the file of `timing_cache=` as a target, which is recorded before the engines that use it.

In any other run the file is a source. It is made of what its engines are compiled from: each engine that is
not up to date is compiled once to record its kernels, beginning with those in the file, so that only layers
without an entry are timed. The engine itself is then compiled from the finished file, as in every later run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..build.compile_to_partial import compile_engine
from ..build.kernel_pinning import Recording, record_kernels
from ..errors import EngineError, PublishError, RecipeError, plural
from ..files.writing import write_atomic
from ..recipe.timing_cache_file import VERSION, TimingFile, compare, read_timing_file
from .before_building import check_can_build, stop_for_invalid_engines
from .builders import make_handoff_builder, out_of_date
from .engine_target import EngineTarget
from .nodes import real_path
from .session import Session
from .target import HandoffTarget

GUARD = "whether the engines of a timing cache are up to date"
NEVER_BUILT = ("new", "changed", "receipt_missing")  # codes of a key without a receipt
TEXT = "scons-tensorrt timing cache"


class TimingTarget(HandoffTarget):
    """One file. path: not a link, which would be replaced; engines: that use it and that this run requests,
    in the order of their declaration."""

    def __init__(self, session: Session, path: Path, engines: list[EngineTarget]) -> None:
        super().__init__(session.files, path)
        self.label = session.files.label(engines[0].timings)
        self.engines = engines
        self._session = session

    def place_of(self, error: Exception) -> str:
        place = self.engines[0].place
        return place.at("timing_cache") if place and place.line else ""

    def reset(self) -> None:
        super().reset()
        for engine in self.engines:
            engine.forget()

    def is_right(self, node: Any) -> bool:
        try:
            return not self._stale()
        except (EngineError, OSError):
            return False

    def _stale(self) -> list[EngineTarget]:
        """The engines that were not built with the file as it is now. Raises EngineError."""
        if not os.path.lexists(self.path):
            return self.engines
        return [engine for engine in self.engines if engine.up_to_date().code in NEVER_BUILT]

    def fails(self) -> bool:
        try:
            for engine in self.engines:
                self._check_inputs(engine)
        except (EngineError, OSError):
            return True
        return False

    @staticmethod
    def _check_inputs(engine: EngineTarget) -> None:
        """Raise EngineError for a faulty input, unless one has yet to be made."""
        if not any(node.has_builder() for node in engine.needs() if node is not engine.timings):
            engine.unpinned_spec()

    @property
    def unchanged(self) -> bool:
        """Whether nothing needs to be recorded."""
        return self.is_right(None)

    def preview(self) -> str | None:
        try:
            return self._preview()
        except EngineError:
            self.reported = True  # so that its engines refer to it
            raise

    def _preview(self) -> str | None:
        self._check_paths()
        stale = self._stale_or_all()
        if not stale:
            return None
        for engine in stale:
            self._session.mark_requested(engine)
            self._check_writable()
            self._check_inputs(engine)
            check_can_build(engine, self._session)
        known, why = self._known(stale[0])
        unless = f" because {why}" if known is None else ", unless it has every layer"
        return f"WOULD RECORD {self.label} for {', '.join(engine.name for engine in stale)}{unless}"

    def _stale_or_all(self) -> list[EngineTarget]:
        """The engines to compile. An input of another engine may not have been made yet."""
        try:
            return self._stale()
        except EngineError:
            return self.engines

    def write(self) -> Iterator[str]:
        self._check_paths()
        stale = self._stale()
        if not stale:
            return
        for engine in self.engines:
            self._session.mark_requested(engine)
        self._check_writable()
        stop_for_invalid_engines(self.nodes, self.engines, self._session)
        known, why = self._known(stale[0])
        for engine in stale:
            why = why if known is None else f"it lacked layers of {engine.name}"
            began, before = time.monotonic(), known
            known = self._record(engine, known)
            changes = compare(before.kernels if before else {}, known.kernels)
            seconds = time.monotonic() - began
            if before is not None and not changes:
                yield f"engines: {self.label} has every layer of {engine.name} already ({seconds:.2f} s)"
                continue
            write_atomic(self.path, known.dump())
            told = f"{plural(len(known.kernels), 'layer')}, {len(changes.added)} new"
            yield f"RECORDED {self.label} for {engine.name} ({told}, {seconds:.2f} s) because {why}"
        for engine in self.engines:
            engine.forget()

    def _check_paths(self) -> None:
        """Raise RecipeError if the engines name the file by different paths: only one of them is a target."""
        for engine in self.engines:
            if engine.timings is not self.engines[0].timings:
                raise RecipeError(
                    f"timing_cache {self.label}: {engine.name} names the same file by another path, "
                    f"{self._files.label(engine.timings)}; write one path in both"
                )

    def _check_writable(self) -> None:
        """Raise RecipeError for a file in a VariantDir or a Repository, and PublishError where none can be
        written."""
        node = self.engines[0].timings
        if node.rfile() is not node:
            raise RecipeError(
                f"timing_cache {self.label}: in a Repository, where nothing is recorded; copy it from "
                f"{node.rfile().get_abspath()} into this tree"
            )
        if node.dir.srcdir_list():
            source = self._files.state.relative(node.srcnode().get_abspath())
            raise RecipeError(
                f"timing_cache {self.label}: in a VariantDir, but a commit needs the source: write #{source}"
            )
        fault = self._files.unwritable(self.path, "file in timing_cache=")
        if fault:
            raise PublishError(fault)

    def _known(self, engine: EngineTarget) -> tuple[TimingFile | None, str]:
        """The file as it is, if its entries are valid for this hardware and TensorRT; else None, and why not.
        Raises RecipeError for a file that must not be replaced."""
        assert engine.hardware is not None
        signature = engine.hardware.signature
        if any(other.hardware and other.hardware.signature != signature for other in self.engines):
            names = ", ".join(sorted({f"{other.name} for {other.board}" for other in self.engines}))
            raise RecipeError(
                f"timing_cache {self.label}: for different hardware ({names}); each needs a file of its own"
            )
        if not os.path.lexists(self.path):
            return None, "there was none"
        known, _ = read_timing_file(self.path, self.label)
        differing = known.differing_hardware(signature)
        if differing == [VERSION]:
            return None, f"{VERSION} changed: {known.hardware[VERSION]} → {signature.runtime_version}"
        if differing:
            known.check_hardware(signature, self.label)
        return known, ""

    def _record(self, engine: EngineTarget, known: TimingFile | None) -> TimingFile:
        context = self._session.making.build_context(engine.python)
        recording = Recording(self.label, known)
        return record_kernels(engine.unpinned_spec(), recording, context, compile_engine)


def declare(session: Session) -> None:
    """Make the file of each requested engine with `timing_cache=` a target."""
    groups: dict[Path, list[EngineTarget]] = {}
    for engine in session.asked_of(session.engines):
        if engine.timings is not None and engine.hardware is not None:
            groups.setdefault(Path(os.path.realpath(real_path(engine.timings))), []).append(engine)
    for path, engines in groups.items():
        _declare(session, TimingTarget(session, path, engines))


def _declare(session: Session, target: TimingTarget) -> None:
    first = target.engines[0]
    env, node = first.nodes[0].get_build_env(), first.timings
    sources = list(dict.fromkeys(engine.declared_source for engine in target.engines))
    more = [
        each
        for engine in target.engines
        for each in (*engine.made_beside(), *engine.compared_by, *engine.plugins)
    ]
    if node.has_builder() or node in (*sources, *more):
        return  # the user makes it otherwise, or it is no such file, which is reported
    nodes = make_handoff_builder(TEXT, scans=True)(env, [node], sources)
    guard = session.value(env, GUARD, out_of_date)
    target.connect(nodes, [*dict.fromkeys(more), guard])
