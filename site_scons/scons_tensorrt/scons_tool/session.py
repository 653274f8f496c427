"""The session: what one SCons run declares, and the state that its targets share.

It is an attribute of SCons's file system object, which lives exactly as long as the run.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Errors
import SCons.Node
import SCons.Script
import SCons.Script.Main

from ..files.writing import remove_stale
from ..hardware.choose_hardware import Hardware
from . import remote_settings, run_end, settings, store_settings, write_declared
from .call_errors import call_errors, report
from .console import Console, say
from .engine_target import EngineTarget
from .hardware_cache import HardwareCache
from .nodes import ALIAS, REPORT, call_after_reading, everything_asked
from .run_files import RunFiles
from .run_messages import RunMessages
from .stop_signal import StopSignal, fail_run
from .target import ReceiptTarget

if TYPE_CHECKING:
    from ..artifact.state_folder import StateFolder
    from ..files.digest_cache import DigestCache
    from ..recipe.options import Recipe
    from .build_services import BuildServices
    from .onnx_target import OnnxTarget
    from .profile import Profile

_ATTRIBUTE = "scons_tensorrt_session"
_BOUND = (*settings.VARIABLES, *store_settings.VARIABLES, *store_settings.KEYS, *remote_settings.VARIABLES)


def session_of(env: Any) -> Session:
    """The session of this run, created on first use."""
    found: Session | None = getattr(env.fs, _ATTRIBUTE, None)
    if found is None:
        found = Session(env)
        setattr(env.fs, _ATTRIBUTE, found)
        call_after_reading(env.fs, found.check)
        atexit.register(found.end)
    return found


class Session:
    """engines: as declared, in order; places: the same by folder and filename; derived: the steps by path;
    checked: the values of ENGINE_DIR; recipes: by the text of their options; alias: that of `engines`;
    values: see env_engine.py."""

    def __init__(self, env: Any) -> None:
        self.top = Path(env.fs.Top.get_abspath())
        self._call_errors = call_errors(env)
        self.engines: list[EngineTarget] = []
        self.places: dict[tuple[str, str], EngineTarget] = {}
        self.derived: dict[Path, OnnxTarget] = {}
        self.checked: set[str] = set()
        self.alias: Any = None
        self.declare_timings: Any = None  # with TIMING=record, that of timing_target.py
        self.helped = False
        self.adds = False  # engines of a command line: what earlier runs declared stays declared
        self._read: dict[str, str] | None = None  # None while the SConstruct is read
        self.graph_read = self._stopped = False  # stopped: before anything was built
        self._arguments_read = settings.arguments_in(env)
        self._values: dict[str, Any] = {}
        self.values: dict[int, Any] = {}
        self.recipes: dict[str, Recipe] = {}
        self._bound: Any = None
        self._written: tuple[Any, ...] | None = None  # the variables that were bound last
        self._used: tuple[str, bool] | None = None
        self._use(settings.state_dir(env, self.top), settings.verify_full(env))
        self._report_dir = settings.report_dir(env, self.top, self.state.root)
        self._stop = StopSignal()
        silent = any(settings.option(name) for name in ("question", "help", "clean"))
        console = Console(bool(settings.option("silent")), silent)
        self.messages = RunMessages(console, bool(settings.option("no_exec")))
        self._making: BuildServices | None = None
        self.invalid: dict[EngineTarget, OnnxTarget | None] | None = None  # see before_building.py
        self._asked: list[EngineTarget] | None = None
        self.lock = threading.RLock()
        self._told: set[Hardware] = set()
        self.profile: Profile | None = None
        self._start_profile(env)

    def _start_profile(self, env: Any) -> None:
        path = settings.profile(env, self.top)
        if path and self.profile is None:
            from .profile import Profile

            self.profile = Profile(path)
            self.messages.console.on_event = self.profile.on_event
        self.files.on_check = self.profile.on_check if self.profile else None

    def bind_settings(self, env: Any) -> None:
        """Set the state folder, VERIFY, lock timeout and shared cache from the environment of the first
        engine; those of later engines must be the same. Raises UserError."""
        written = settings.as_written(env, _BOUND)
        if written and written == self._written:
            return
        self.messages.verbose = self.messages.verbose or settings.verbose(env)
        limits = settings.lock_timeout_s(env), settings.cache_size(env), store_settings.read(env, self.top)
        asked = settings.state_dir(env, self.top), settings.verify_full(env), *limits
        bound = asked, remote_settings.read(env, self.top, asked[-1].url)
        if self._bound is None:
            self._bound = bound
            self._use(*asked[:2])
            if settings.writes():
                self.state.register()
            self._report_dir = settings.report_dir(env, self.top, self.state.root)
            self._start_profile(env)
        if bound != self._bound:
            raise SCons.Errors.UserError(
                "two environments of one run differ in TRT_STATE_DIR, TRT_VERIFY, TRT_LOCK_TIMEOUT, "
                f"TRT_CACHE_SIZE, TRT_STORE or TRT_DISPATCH: {self._bound[0][:4]} and {asked[:4]}; use the "
                "same values"
            )
        self._written = written

    def _use(self, state_dir: str, full: bool) -> None:
        if self._used != (state_dir, full):  # reading the digest cache is a large part of a null build
            self._used = state_dir, full
            self.files = RunFiles(self.top, state_dir, full)
            self.hardware = HardwareCache(self.files)

    @property
    def state(self) -> StateFolder:
        return self.files.state

    @property
    def digest_cache(self) -> DigestCache:
        return self.files.digest_cache

    # While the SConstruct is read.

    def value(self, env: Any, text: str, decider: Any = None) -> Any:
        """The Value node of a text, which thousands of engines may share. It is marked up to date, so
        that SCons needs no task for it."""
        if text not in self._values:
            self._values[text] = node = env.Value(text)
            node.set_state(SCons.Node.up_to_date)
            if decider:
                node.Decider(decider)
        return self._values[text]

    def check(self) -> None:
        """Called when every SConscript has been read: stop the run at wrong calls, arguments and targets."""
        self._stop_if(self._call_errors.lines())
        if settings.writes():
            self._read = write_declared.files_read(self.files, self.engines)
        self.graph_read = True
        if not self.state.inside and not self.state.declared.exists():
            self._declare_before_building()  # a first run that only reuses must be known, too
        plain = {ALIAS, REPORT}.issuperset(SCons.Script.COMMAND_LINE_TARGETS)
        if not plain or settings.option("interactive"):
            from . import model_aliases

            model_aliases.declare(self.engines, str(self.top))
        known = SCons.Script.ARGUMENTS.keys() <= set(settings.ARGUMENTS) - {"TIMING"}
        if not (plain and known) or settings.option("clean"):
            from . import after_reading

            self._stop_if(after_reading.check(self.files, self.engines, self.checked, self._arguments_read))
        if self.declare_timings:
            self.declare_timings(self)
        if self.adds or REPORT in SCons.Script.COMMAND_LINE_TARGETS:
            # Libraries that are imported at the end of the run need it, and Python refuses it then.
            import concurrent.futures.thread  # noqa: F401
        if self.profile:
            self.profile.begin("build")

    def _stop_if(self, problems: list[str]) -> None:
        """Stop the run, before anything is built, at what is wrong."""
        self._stopped = report(problems)
        if self._stopped:
            raise SystemExit(2)

    # While targets are checked and built.

    def asked_of(self, engines: list[EngineTarget]) -> list[EngineTarget]:
        """Those of `engines` that this run requests by path, folder or alias."""
        if everything_asked():
            return engines
        from .requested_targets import target_places

        places = target_places(str(self.top))
        return [e for e in engines if not places.isdisjoint((*e.paths(), *map(str, e.path.parents)))]

    def mark_requested(self, target: ReceiptTarget) -> None:
        """The run requests this target: print the line that names its engines' hardware, once, before any
        other line about them."""
        if isinstance(target, EngineTarget):
            target.requested = True
        owners = target.owners if len(target.owners) < 2 else self.asked_of(target.owners)
        for owner in owners or target.owners:
            if owner.hardware is not None and owner.hardware not in self._told:
                if not self._told:
                    gc.freeze()  # the graph lives until the run ends
                    self.messages.before_first_line(self.state, self.top, self.engines)
                self._told.add(owner.hardware)
                self.messages.hardware(owner.hardware)

    def again(self) -> None:
        """Another build of an interactive session begins."""
        self._stop.reset()
        self.invalid = self._asked = None

    @property
    def making(self) -> BuildServices:
        """The services for builds, created on first use: a null build does not need them."""
        with self.lock:
            if self._making is None:
                from .build_services import BuildServices

                (_, _, *limits, store), scheduler = self._bound  # declaring an engine has bound it
                self._declare_before_building()
                self._making = BuildServices(
                    *(self.files, self.hardware, self.messages.console, self._stop),
                    *(*limits, store, scheduler, self._counts),
                    recorder=self.profile.recorder if self.profile else None,
                )
            return self._making

    def _counts(self) -> tuple[int, int]:
        """How many engines are done, and how many this run requests."""
        if self._asked is None:
            self._asked = self.asked_of(self.engines)
        done = sum(each.reported or each.state() == SCons.Node.up_to_date for each in self._asked)
        return done, len(self._asked)

    def on_skip(self, target: ReceiptTarget) -> None:
        """Called for a target before SCons skips it as up to date."""
        self.mark_requested(target)
        self.tidy(target)

    def tidy(self, target: ReceiptTarget) -> None:
        """Remove leftovers of a killed compile or conversion."""
        if self.files.has_leftovers(target.path, self.places) and settings.writes():
            target.tidy()

    # At the end of the run.

    def end(self) -> None:
        """Close the session; a failure that only appears now sets the status."""
        before = SCons.Script.Main.exit_status
        if self.profile:
            self.profile.begin("end")
        try:
            self.close()
        except Exception as error:  # SCons has ended: Python would print a stack, and succeed
            from .failure_text import in_one_line

            say(f"engines: {in_one_line(error)}; the next run is slower for it")
            fail_run()
        if self.profile:
            self.profile.write(self.messages.console)
        say()
        gc.freeze()  # the process ends: its last collection would find nothing to free
        if SCons.Script.Main.exit_status and not before:
            sys.stderr.flush()
            os._exit(2)

    def close(self) -> None:
        """Print the summary and save the state, unless reading the SConstruct failed."""
        if self._stopped:
            return
        if not self.graph_read:  # -h, or the SConstruct failed
            if report(self._call_errors.lines()):
                fail_run()
            return
        if self._making:
            self._making.progress.close()
        if settings.option("clean"):
            run_end.print_kept(self.engines)
            return
        if settings.option("help") or settings.option("question"):
            return
        asked, tried = self.asked_of(self.engines), not (self.invalid or self._stop())
        run_end.report_unbuilt(self.messages, self.engines, asked, self.derived.values(), tried)
        if everything_asked() or any(engine.requested for engine in self.engines):
            if self._making:
                self.messages.summary.moved = self._making.elsewhere.close(self._stop)
            self.messages.summary.print(sum(not e.reported for e in asked) if self._stop() else 0)
        self.messages.console.copy(os.environ.get("TRT_RUN_EVENTS"))
        if settings.writes():
            with run_end.reporting_unsaved(self.messages, self.state):
                self.messages.console.flush(self.state.events)
                self.digest_cache.save()
                self.hardware.save()
                self._save_declaration()
                remove_stale(self.state.root)
            if REPORT in map(str, SCons.Script.BUILD_TARGETS):
                run_end.write_report(self.messages.console, self.files, self._report_dir)

    def _declare_before_building(self) -> None:
        """Save the declaration early, so that `engines-prune` of another tree sees it."""
        with contextlib.suppress(OSError):  # reported at the end of the run
            if settings.writes():
                self._save_declaration()

    def _save_declaration(self) -> None:
        steps = list(self.derived.values())
        write_declared.save(self.files, self.engines, steps, self.checked, self._read, self.adds)
