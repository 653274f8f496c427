"""The messages of a run: the text of each line (BUILT, REUSED, FAILED, …) and its event."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build.engine_spec import EngineSpec
from ..build.up_to_date import UpToDateResult
from ..errors import EngineError, Interrupted
from ..hardware.choose_hardware import Hardware
from ..recipe.options_by_product import without_effect
from .closing_line import Summary
from .console import Console
from .engine_target import EngineTarget
from .stop_signal import fail_run
from .target import ReceiptTarget, Target

if TYPE_CHECKING:
    from ..artifact.state_folder import StateFolder
    from ..build.build_engine import BuildOutcome
    from ..build.run_onnx_step import OnnxOutcome
    from .failure_text import Failures
    from .onnx_target import OnnxTarget

_LEFT = "not downloaded, "
_MISMATCH = ("sidecar_", "engine_tampered", "engine_truncated", "engine_other")


class RunMessages:
    """dry: under `-n`, when lines say what would be done; verbose: print a line for each reused engine.
    Methods are called from several threads."""

    def __init__(self, console: Console, dry: bool) -> None:
        self.console = console
        self.verbose = False
        self._dry = dry
        self._lock = threading.RLock()
        self._idle: set[str] = set()
        self._known_failures: Failures | None = None
        self.summary = Summary(console, dry)

    def hardware(self, hardware: Hardware) -> None:
        """The first line: the hardware, its runtime, and why it was chosen."""
        why = f": {hardware.why}" if hardware.why else ""
        name, about = hardware.name or hardware.title, hardware.signature.brief(hardware.name)
        self.console.line(f"engines: for {name} ({about}){why}")
        if hardware.note:
            self.console.line(f"engines: {hardware.note}")

    def before_first_line(self, state: StateFolder, top: Path, engines: Sequence[EngineTarget]) -> None:
        """Warn of folders that every user may write to, and of HARDWARE in the environment."""
        places = state.writable_by_all(*sorted({engine.path.parent for engine in engines}))
        if places:
            names = ", ".join(f"{state.relative(place)}/" for place in places)
            self.console.line(
                f"engines: every user of this machine may write to {names} and replace engines; run chmod o-w"
            )
        if os.environ.get("HARDWARE"):
            from .after_reading import warn_about_environment

            warn_about_environment(top, engines)

    def without_effect(self, engine: EngineTarget) -> None:
        """Print, once a run, which options have no effect on this product, and why."""
        if engine.hardware is None:
            return
        for option, why in without_effect(engine.recipe, engine.hardware.signature.product).items():
            with self._lock:
                first = option not in self._idle
                self._idle.add(option)
            if first:
                self.console.line(f"engines: {option} of {engine.name} has no effect: {why}")

    def finished(self, engine: EngineTarget, outcome: BuildOutcome, seconds: float) -> None:
        """The action of an engine succeeded."""
        engine.made = outcome.sha256
        how, code, why = outcome.how, outcome.up_to_date.code, outcome.up_to_date.reason
        if how == "reused":
            self.reused([engine], seconds, why, outcome.origin)
            return
        self._count(engine, how)
        size = "" if how == "built" else f"{_bytes(outcome.size or 0)}, {_LEFT * (how == 'found')}"
        self.console.line(f"{how.upper()} {engine.label} ({size}{seconds:.2f} s) because {why}")
        if how == "built":
            self._miss(engine, outcome.up_to_date, how, outcome.seconds)
        else:
            took = outcome.seconds and round(outcome.seconds, 3)
            more = {"reason_text": why, "size": outcome.size, "seconds": took, "sha256": outcome.sha256}
            self._event(f"engine.cache.{how}", engine, how, code, **more)

    def reused(
        self,
        engines: list[EngineTarget],
        seconds: float | None = None,
        reason: str = "",
        origin: str = "",
    ) -> None:
        """Count engines as reused. Their lines, in one write, are printed only if `verbose`, or if there
        is a reason, such as a publication that was interrupted. seconds: instead of those of the check;
        origin: of an engine that was not in place, see BuildOutcome."""
        words = "WOULD REUSE" if self._dry else "REUSED"
        because = f" because {reason}" if reason else ""
        place = f" ({origin})" if origin else ""
        code, more = origin.partition(" ")[0] or "current", {}
        if origin:
            more["reason_text"] = f"{origin}; {reason}"
        lines = []
        for engine in engines:
            self._count(engine, "reused")
            self._event("engine.cache.hit", engine, "reused", code, **more)
            took = engine.judged_s if seconds is None else seconds
            lines.append(f"{words} {engine.label}{place} ({took:.2f} s){because}")
        if self.verbose or reason:
            self.console.lines(lines)

    def would_build(self, engine: EngineTarget, reason: str, earlier_s: float | None) -> None:
        """earlier_s: duration of the last build, None if no receipt has it."""
        self._count(engine, "would build")
        self.summary.would_take(earlier_s)
        self.console.line(f"WOULD BUILD {engine.label} because {reason}")
        code = engine.checked.code if engine.checked else "input_stale"
        fields = self._fields(engine, "would build", code, reason_text=reason)
        self.console.would("engine.cache.miss", **fields)

    def _miss(
        self, engine: EngineTarget, up_to_date: UpToDateResult, outcome: str, compile_s: float | None
    ) -> None:
        code, more = up_to_date.code, {"reason_text": up_to_date.reason}
        if code.startswith(_MISMATCH):
            self._event("engine.sidecar.mismatch", engine, outcome, code, **more)
        if engine.made:
            more["sha256"] = engine.made
        took = compile_s and round(compile_s, 3)
        self._event("engine.cache.miss", engine, outcome, code, compile_duration_s=took, **more)

    def would_convert(self, derived: OnnxTarget, reason: str, earlier_s: float | None) -> None:
        self.summary.would_take(earlier_s)
        self.console.line(f"WOULD {derived.verbs[0]} {derived.label} because {reason}")

    def converted(self, derived: OnnxTarget, step: OnnxOutcome, seconds: float) -> None:
        """An ONNX was prepared, converted, compared or downloaded."""
        from .step_figures import figures_of_step  # not needed by a null build

        facts, why = step.receipt.details.get("facts"), step.up_to_date.reason
        words, size = derived.verbs[1], ""
        if step.how in ("fetched", "found"):
            words, left = step.how.upper(), _LEFT * (step.how == "found")
            size = f"{_bytes(step.receipt.size)}, {left}"
        found = figures_of_step(derived.kind, facts) if isinstance(facts, dict) else ""
        figures = f": {found}" if found else ""
        self.console.line(f"{words} {derived.label} ({size}{seconds:.2f} s) because {why}{figures}")
        self._event("engine.convert.done", derived, step.how, step.up_to_date.code, reason_text=why)

    def compared_on_gpu(self, spec: EngineSpec, found: Mapping[str, Any] | str, seconds: float) -> None:
        """An engine was compared with its original on the GPU, or could not be."""
        label = spec.filename
        if isinstance(found, str):
            self.console.line(f"engines: {label} was not run against its original: {found}")
        else:
            from .step_figures import worst

            self.console.line(f"CHECKED {label} on {found['gpu']} ({seconds:.2f} s): {worst(found)}")

    def failed(self, engine: ReceiptTarget, error: EngineError) -> None:
        """An engine or a step failed, which is reported once."""
        if engine.reported:
            return
        stopped = isinstance(error, Interrupted)
        if isinstance(engine, EngineTarget):
            self._count(engine, "interrupted" if stopped else "failed")
        engine.reported = True
        with self._lock:  # the line with the error in full comes first
            if stopped:
                reason = f": {error}" if self._failures.is_new(error, engine) else ""
                self.console.line(f"INTERRUPTED {engine.label}{reason}", failure=True)
            elif self._dry:
                self.would_fail(engine, error)
            else:
                self.console.line(f"FAILED {self._failures.text(engine, error)}", failure=True)
        checked = engine.checked
        if isinstance(engine, EngineTarget) and checked and not checked.reusable:
            self._miss(engine, checked, "failed", None)
        more = {"error_class": type(error).__name__, "reason_text": str(error)}
        place = engine.place_of(error)
        if place:
            more["place"] = place
        self._event("engine.compile.error", engine, "failed", "error", **more)

    def would_fail(self, target: Target, error: Exception) -> None:
        """Under -n; also sets the exit status."""
        self.console.line(f"WOULD FAIL {self._failures.text(target, error)}", failure=True)
        fail_run()

    def handoff_failed(self, target: Target, error: EngineError) -> None:
        """A manifest, an installation or a recording of kernels failed."""
        if isinstance(error, Interrupted):
            self.console.line(f"INTERRUPTED {target.label}", failure=True)
            return
        self.console.line(f"FAILED {self._failures.text(target, error)}", failure=True)

    def has_said(self, text: str) -> bool:
        """Whether an error with this text in it was printed."""
        return self._known_failures is not None and self._known_failures.has(text)

    @property
    def _failures(self) -> Failures:
        if self._known_failures is None:
            from .failure_text import Failures  # not needed by most runs

            self._known_failures = Failures()
        return self._known_failures

    def _event(self, event: str, engine: ReceiptTarget, outcome: str, code: str, **more: Any) -> None:
        self.console.event(event, **self._fields(engine, outcome, code, **more))

    def _fields(self, engine: ReceiptTarget, outcome: str, code: str, **more: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model_name": engine.name,
            "engine": engine.label,
            "outcome": outcome,
            "reason": code,
            "compile_duration_s": None,
            "error_class": None,
        }
        if engine.began is not None:
            fields["started"] = self.console.stamp(engine.began)
            fields["duration_s"] = round(time.time() - engine.began, 3)
        return {**fields, **more}

    def _count(self, engine: EngineTarget, word: str) -> None:
        engine.reported = True
        with self._lock:
            self.summary.add(engine.board, word)


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
