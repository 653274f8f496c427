"""One run of SCons: what its engines share, what became of each, and the last line.

It hangs on SCons's file system object, which lives exactly as long as the run.
"""

from __future__ import annotations

import atexit
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Errors
import SCons.Node
import SCons.Node.FS
import SCons.Script
import SCons.Util

from ..compile.make import Outcome, Workshop
from ..compile.wanted import Verdict
from ..errors import EngineError
from ..identity.hardware import Hardware, resolve
from ..identity.runtime import Interpreter
from ..integrity.atomic import write_atomic
from ..integrity.memo import DigestMemo
from ..integrity.state import StateFolder
from ..recipe.onnx_file import OnnxSummary, read_onnx
from . import settings
from .console import Console
from .stop import StopSignal

if TYPE_CHECKING:
    from .declared import Declared

ALIAS = "engines"
_ATTRIBUTE = "scons_tensorrt_session"
_MISMATCH = ("sidecar_", "engine_tampered", "engine_truncated", "engine_other")


def session_of(env: Any) -> Session:
    """The session of this run, made on first use."""
    found = getattr(env.fs, _ATTRIBUTE, None)
    if not isinstance(found, Session):
        found = Session(env)
        setattr(env.fs, _ATTRIBUTE, found)
        atexit.register(found.close)
    return found


class Session:
    """engines: what was declared, in order."""

    def __init__(self, env: Any) -> None:
        self.began = time.time()
        self.top = Path(env.fs.Top.get_abspath())
        self.state = StateFolder(self.top / env.subst("$TRT_STATE_DIR"), self.top)
        self.memo = DigestMemo(self.state.digests, self.top, settings.verify_full(env))
        self.engines: list[Declared] = []
        self.helped = False
        self._stop = StopSignal()
        self._dry = bool(settings.option("no_exec"))
        silent = any(settings.option(name) for name in ("question", "help", "clean"))
        events = self.state.events if settings.writes() else None
        self.console = Console(events, bool(settings.option("silent")), silent)
        self._interpreters: dict[str, Interpreter] = {}
        self._hardware: dict[settings.Settings, Hardware | EngineError] = {}
        self._told: set[Hardware | None] = set()
        self._counts = {"reused": 0, "built": 0, "failed": 0, "would build": 0}
        self._csig_fact = f"scons csig {len(SCons.Util.hash_signature(''))}"

    # What engines ask for.

    def hardware(self, chosen: settings.Settings) -> Hardware:
        """The hardware of these settings, resolved once. Raises HardwareError."""
        if chosen not in self._hardware:
            try:
                self._hardware[chosen] = resolve(
                    chosen.hardware or None,
                    self.top,
                    lambda product: self.interpreter(chosen.python).runtime(product),
                    chosen.backend or None,
                    chosen.jetpack or None,
                )
            except EngineError as error:
                self._hardware[chosen] = error
        found = self._hardware[chosen]
        if isinstance(found, EngineError):
            raise found
        return found

    def interpreter(self, python: str) -> Interpreter:
        """The interpreter of TRT_PYTHON. Raises HardwareError."""
        if python not in self._interpreters:
            memo = self.state.interpreter(python)
            self._interpreters[python] = Interpreter(python or None, memo)
        return self._interpreters[python]

    def workshop(self, python: str) -> Workshop:
        return Workshop(self.state, self.memo, self.interpreter(python), self._stop, self.console.line)

    def summary(self, onnx: str) -> OnnxSummary:
        """The ONNX's inputs and external data. Raises RecipeError or OSError."""
        data = self.memo.fact(onnx, "onnx", lambda: read_onnx(onnx).to_json())
        return OnnxSummary.from_json(data)

    def preset_csig(self, node: Any) -> None:
        """Give SCons the content signature it once computed for these very bytes.

        It would hash sources anew for two days, and engines whenever something depends on
        them.
        """
        try:
            known = self.memo.fact(node.rfile().get_abspath(), self._csig_fact)
        except OSError:
            return
        info = node.get_ninfo()
        if known and getattr(info, "csig", None) is None:
            info.csig = known

    # What becomes of engines.

    def considered(self, engine: Declared) -> None:
        """Name the hardware, once, before anything else is said of its engines."""
        hardware = engine.hardware
        if hardware in self._told or hardware is None:
            return
        self._told.add(hardware)
        self.console.line(
            f"engines: for {hardware.name or 'rtx_portable'} ({hardware.signature.describe()}), "
            f"backend {hardware.signature.product}: {hardware.why}"
        )

    def finished(self, engine: Declared, outcome: Outcome, seconds: float) -> None:
        if outcome.built:
            self._say_built(engine, outcome.verdict, seconds, outcome.compile_s)
        else:
            self.reused(engine, seconds)

    def reused(self, engine: Declared, seconds: float) -> None:
        engine.reported = True
        self._counts["reused"] += 1
        words = "WOULD REUSE" if self._dry else "REUSED"
        self.console.line(f"{words} {engine.label} ({seconds:.2f} s)")
        self._event("engine.cache.hit", engine, "reused", "current")

    def would_build(self, engine: Declared, reason: str) -> None:
        engine.reported = True
        self._counts["would build"] += 1
        self.console.line(f"WOULD BUILD {engine.label} because {reason}")

    def _say_built(
        self, engine: Declared, verdict: Verdict, seconds: float, compile_s: float | None
    ) -> None:
        engine.reported = True
        self._counts["built"] += 1
        self.console.line(f"BUILT {engine.label} ({seconds:.2f} s) because {verdict.reason}")
        text = verdict.reason
        if verdict.code.startswith(_MISMATCH):
            self._event("engine.sidecar.mismatch", engine, "built", verdict.code, reason_text=text)
        self._event("engine.cache.miss", engine, "built", verdict.code, compile_s, reason_text=text)

    def failed(self, engine: Declared, error: EngineError) -> None:
        if engine.reported:
            return
        engine.reported = True
        self._counts["failed"] += 1
        name = type(error).__name__
        words = "WOULD FAIL" if self._dry else "FAILED"
        self.console.line(f"{words} {engine.label}: {name}: {error}", failure=True)
        self._event(
            "engine.compile.error", engine, "failed", "error", error_class=name, reason_text=str(error)
        )

    def _event(
        self,
        event: str,
        engine: Declared,
        outcome: str,
        code: str,
        compile_s: float | None = None,
        **more: Any,
    ) -> None:
        fields = {
            "model_name": engine.name,
            "engine": engine.label,
            "outcome": outcome,
            "reason": code,
            "compile_duration_s": compile_s and round(compile_s, 3),
            "error_class": None,
        }
        self.console.event(event, **{**fields, **more})

    # The end.

    def close(self) -> None:
        """The last lines, and what the next run will want to know."""
        if settings.option("clean"):
            self._say_kept()
            return
        considered = [e for e in self.engines if e.considered]
        if settings.option("help") or settings.option("question"):
            return
        for engine in considered:
            state = engine.state()
            if engine.reported:
                continue
            if state == SCons.Node.up_to_date:
                self.reused(engine, engine.judged_s)
            elif engine.problem and state == SCons.Node.failed:
                self.failed(engine, engine.problem)
        if considered or ALIAS in map(str, SCons.Script.BUILD_TARGETS):
            self._say_summary()
        self._save()

    def _say_summary(self) -> None:
        counts, seconds = self._counts, time.time() - self.began
        text = ", ".join(f"{counts[word]} {word}" for word in ("reused", "built", "failed"))
        dry = f" (dry run: {counts['would build']} would be built)" if self._dry else ""
        self.console.line(f"engines: {text} in {seconds:.1f} s{dry}")
        numbers = {word: counts[word] for word in ("reused", "built", "failed")}
        self.console.event("engine.compile.summary", **numbers, seconds=round(seconds, 3))

    def _say_kept(self) -> None:
        kept = [e for e in self.engines if e.kept]
        if kept and not settings.option("silent"):
            print(
                f"engines: {len(kept)} kept; `scons -c {ALIAS}` removes them, and only their own "
                "hardware can make them again"
            )

    def _save(self) -> None:
        if not settings.writes():
            return
        self._harvest()
        try:
            self.console.flush()
            self.memo.save()
            for interpreter in self._interpreters.values():
                if interpreter.unsaved:
                    interpreter.unsaved()
            if self.engines:
                self._save_declared()
        except OSError as error:
            print(f"engines: {self.state.root}: {error.strerror}; the next run is slower for it")

    def _harvest(self) -> None:
        """Remember the signatures SCons computed, for files that were left alone all the while."""
        for engine in self.engines:
            for node in engine.files():
                try:
                    csig = getattr(node.get_ninfo(), "csig", None)
                    path = node.rfile().get_abspath()
                    if csig and Path(path).stat().st_mtime < self.began - 1:
                        self.memo.sha256(path)
                        self.memo.tell(path, self._csig_fact, csig)
                except (OSError, AttributeError):
                    continue

    def _save_declared(self) -> None:
        data = {"schema": 1, "engines": [engine.to_json() for engine in self.engines]}
        text = (json.dumps(data, indent=1, sort_keys=True) + "\n").encode("utf-8")
        try:
            if self.state.declared.read_bytes() == text:
                return
        except OSError:
            pass
        write_atomic(self.state.declared, text, durable=False)
