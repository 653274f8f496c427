"""The session: the state that all engines of one SCons run share, and the work at its end.

It is an attribute of SCons's file system object, which lives exactly as long as the run.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Errors
import SCons.Node
import SCons.Node.FS
import SCons.Script
import SCons.Script.Main

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX, EngineFilename
from ..artifact.state import StateFolder
from ..build.inputs import Inputs
from ..errors import EngineBuildError, EngineError, HardwareError, plural
from ..files.digest_cache import DigestCache
from ..files.json_cache import JsonCache
from ..files.reading import read_small
from ..files.writing import cause, remove_stale, write_atomic
from ..hardware.host import CachedHost
from ..hardware.resolve import Hardware, resolve
from ..hardware.runtime import Interpreter, Runtime
from ..hardware.signature import PRODUCTS
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.options import Recipe, check_name, parse
from . import remote_settings, settings, store_settings
from .console import Console, say
from .engine_target import EngineTarget
from .nodes import ALIAS, REPORT, call_after_reading, files_read, real_path, target_places
from .run_log import RunLog
from .stop_signal import StopSignal

if TYPE_CHECKING:
    from .build_services import BuildServices
    from .onnx_target import OnnxTarget

_ATTRIBUTE = "scons_tensorrt_session"


def everything_asked() -> bool:
    """Whether this run requests every engine."""
    return not {ALIAS, REPORT}.isdisjoint(map(str, SCons.Script.BUILD_TARGETS))


def session_of(env: Any) -> Session:
    """The session of this run, created on first use."""
    found = getattr(env.fs, _ATTRIBUTE, None)
    if not isinstance(found, Session):
        found = Session(env)
        setattr(env.fs, _ATTRIBUTE, found)
        call_after_reading(env.fs, found.check)
        atexit.register(found.end)
    return found


class Session:
    """engines: as declared, in order."""

    def __init__(self, env: Any) -> None:
        self.top = Path(env.fs.Top.get_abspath())
        self.engines: list[EngineTarget] = []
        self.places: dict[tuple[str, str], EngineTarget] = {}
        self.derived: dict[Path, OnnxTarget] = {}
        self.checked: set[str] = set()
        self.helped = False
        self._read: dict[str, str] | None = None  # None while the SConstruct is read
        self.graph_read = False
        self.stopped = False  # before anything was built
        self.arguments_read = settings.arguments_in(env)
        self._values: dict[str, Any] = {}
        self._recipes: dict[str, Recipe] = {}
        self.alias: Any = None
        self._at: dict[Any, str] = {}
        self.labels: dict[Any, str] = {}
        self._folders: dict[str, frozenset[str]] = {}
        self._leftovers: list[str] | None = None
        self._host = CachedHost()
        self._bound: tuple[str, bool, float | None, store_settings.StoreSettings] | None = None
        self._used: tuple[str, bool] | None = None
        self._use(settings.state_dir(env, self.top), settings.verify_full(env))
        self._place = settings.report_dir(env, self.top, self.state.root)
        self._stop = StopSignal()
        silent = any(settings.option(name) for name in ("question", "help", "clean"))
        console = Console(bool(settings.option("silent")), silent)
        self.report = RunLog(console, bool(settings.option("no_exec")))
        self._making: BuildServices | None = None
        self._asked_to_make = threading.Lock()
        self._interpreters: dict[str, Interpreter] = {}
        self._hardware: dict[settings.Settings, Hardware | EngineError] = {}
        self._told: set[Hardware | None] = set()

    def bind_settings(self, env: Any) -> None:
        """Set the state folder, VERIFY, lock timeout and shared cache from the environment of the first
        engine; those of later engines must be the same. Raises UserError."""
        self.report.verbose = self.report.verbose or settings.verbose(env)
        asked = (
            settings.state_dir(env, self.top),
            settings.verify_full(env),
            settings.lock_timeout_s(env),
            store_settings.read(env, self.top),
        )
        scheduler = remote_settings.read(env, self.top, asked[3].url)
        if self._bound is None:
            self._bound, self._scheduler = asked, scheduler
            self._use(*asked[:2])
            if settings.writes():
                self.state.register()
            self._place = settings.report_dir(env, self.top, self.state.root)
        if asked != self._bound or scheduler != self._scheduler:
            raise SCons.Errors.UserError(
                "two environments of one run differ in TRT_STATE_DIR, TRT_VERIFY, TRT_LOCK_TIMEOUT, "
                f"TRT_STORE or TRT_DISPATCH: {self._bound[:3]} and {asked[:3]}; use the same values"
            )

    def _use(self, state_dir: str, full: bool) -> None:
        if self._used == (state_dir, full):
            return  # reading the digest cache is a large part of a null build
        self._used = state_dir, full
        self.state = StateFolder(Path(state_dir), self.top)
        # A state folder outside the tree is shared by several trees, so its paths are absolute.
        near = self.top if self.state.inside else Path("/")
        self.digest_cache = DigestCache(self.state.digests, near, full)
        self.inputs = Inputs(self.digest_cache)
        self._devices = JsonCache(self.state.root / "host.json")

    # What targets use.

    def value(self, env: Any, text: str, decider: Any = None) -> Any:
        """The Value node of a text, which thousands of engines may share. It is marked up to date, so
        that SCons needs no task for it."""
        if text not in self._values:
            self._values[text] = node = env.Value(text)
            node.set_state(SCons.Node.up_to_date)
            if decider:
                node.Decider(decider)
        return self._values[text]

    def hardware(self, chosen: settings.Settings) -> Hardware:
        """The hardware of these settings, cached. Raises HardwareError."""
        if chosen not in self._hardware:
            try:
                found = self._resolve(chosen)
                EngineFilename.of(found.signature, "x", "fp32")  # raises if a field is missing
                self._hardware[chosen] = found
            except EngineError as error:
                self._hardware[chosen] = error
        known = self._hardware[chosen]
        if isinstance(known, EngineError):
            raise known
        return known

    def _resolve(self, chosen: settings.Settings) -> Hardware:
        """The hardware. Without an installed runtime, use the one that the receipts of restored engines
        name. Raises HardwareError."""
        missing: list[str] = []

        def installed(product: str) -> Runtime:
            try:
                return self.interpreter(chosen.python).runtime(product)
            except HardwareError:
                missing.append(product)
                raise

        def under(runtime: Callable[[str], Runtime]) -> Hardware:
            named, backend, jetpack = chosen.hardware, chosen.backend, chosen.jetpack
            more = backend or None, jetpack or None, self._host, self._devices
            return resolve(named or None, self.top, runtime, *more)

        try:
            return under(installed)
        except HardwareError:
            if not missing:
                raise
            from .restored import Restored, restored_hardware

            named = chosen.hardware or chosen.jetpack or self.nvidia
            hosts = () if named else (chosen.backend,) if chosen.backend else tuple(PRODUCTS)
            restored = Restored(self.state, self.digest_cache, chosen.engine_dir, hosts)
            found = restored_hardware(restored, missing[0], under)
            if found is None:
                raise
            return found

    def folders_in(self, folder: str) -> frozenset[str]:
        """The subfolders of a folder, cached: an engine cannot replace one."""
        if folder not in self._folders:
            try:
                found = frozenset(entry.name for entry in os.scandir(folder) if entry.is_dir())
            except OSError:
                found = frozenset()
            self._folders[folder] = found
        return self._folders[folder]

    def recipe(self, name: Any, options: dict[str, Any], plugins: list[Any]) -> Recipe:
        """Parse the options of an engine, cached for engines with equal options. Raises RecipeError."""
        plain = not plugins and "calibration" not in options and "accuracy" not in options
        key = repr(options) if plain else ""
        known = self._recipes.get(key) if plain else None
        if known is None:
            known = parse(name, options, [Path(node.name) for node in plugins])
            if plain:
                self._recipes[key] = known
        elif not isinstance(name, str) or known.model != name:
            check_name(name)
            known = known._replace(model=name)
        return known

    def from_top(self, path: str) -> str:
        """A path relative to the top, also if it is outside of it."""
        near = self.state.relative(path)
        return os.path.relpath(path, self.top) if os.path.isabs(near) else near

    def place(self, node: Any) -> str:
        """The path of a node's bytes, relative to the top; cached, so call it once that is final."""
        if node not in self._at:
            self._at[node] = self.from_top(str(real_path(node)))
        return self._at[node]

    def interpreter(self, python: str) -> Interpreter:
        """The interpreter of TRT_PYTHON. Raises HardwareError."""
        if python not in self._interpreters:
            digest_cache = self.state.interpreter(python)
            self._interpreters[python] = Interpreter(python or None, digest_cache)
        return self._interpreters[python]

    @property
    def making(self) -> BuildServices:
        """The services for builds, created on first use: a null build does not need them."""
        with self._asked_to_make:
            if self._making is None:
                from .build_services import BuildServices

                assert self._bound is not None  # declaring an engine has bound it
                lock_timeout_s, store = self._bound[2:]
                more = self._stop, lock_timeout_s, store, self._scheduler
                self._declare_before_building()
                self._making = BuildServices(self, self.report.console, self._host, self._devices, *more)
            return self._making

    def _declare_before_building(self) -> None:
        """Save the declaration early, so that `engines-prune` of another tree sees it."""
        if settings.writes() and self._worth_saving():
            with contextlib.suppress(OSError):  # reported at the end of the run
                self._save_declared()

    @property
    def nvidia(self) -> str | None:
        """Evidence of an NVIDIA GPU on this host, from files alone."""
        return self._host.nvidia_evidence()

    def again(self) -> None:
        """Another build of an interactive session begins."""
        self._stop.reset()
        if self._making:
            self._making.again()

    def summary_if_there(self, node: Any) -> OnnxSummary | None:
        """The summary of an ONNX while the graph is read; None if it has yet to be built or cannot be
        read, which the build reports."""
        if node.has_builder():
            return None
        try:
            return self.inputs.summary(str(real_path(node)))
        except (EngineError, OSError):
            return None

    def asked_of(self, engines: list[EngineTarget]) -> list[EngineTarget]:
        """Those of `engines` that this run requests by path, folder or alias."""
        if everything_asked():
            return engines
        places = target_places(str(self.top))
        return [e for e in engines if not places.isdisjoint((*e.paths(), *map(str, e.path.parents)))]

    def check(self) -> None:
        """Called when every SConscript has been read: stop the run at arguments and targets that SCons
        would silently ignore."""
        if settings.writes():
            self._read = self._files_read()
        self.graph_read = True
        if not self.state.inside and not self.state.declared.exists():
            self._declare_before_building()  # a first run that only reuses must be known, too
        plain = {ALIAS, REPORT}.issuperset(SCons.Script.COMMAND_LINE_TARGETS)
        known = SCons.Script.ARGUMENTS.keys() <= set(settings.ARGUMENTS)
        if not (plain and known) or settings.option("clean"):
            from .after_reading import check

            check(self)

    # Progress of the run.

    def requested(self, engine: EngineTarget) -> None:
        """Print the line that names an engine's hardware, once, before any other line about it."""
        hardware = engine.hardware
        if hardware in self._told or hardware is None:
            return
        if not self._told:
            gc.freeze()  # the graph lives until the run ends
            self._warn()
            if os.environ.get("HARDWARE"):
                from .after_reading import tell_environment

                tell_environment(self)
        self._told.add(hardware)
        self.report.hardware(hardware)

    def _warn(self) -> None:
        """Warn about folders that every user may write to."""
        places = self.state.writable_by_all(*sorted({e.path.parent for e in self.engines}))
        if places:
            names = ", ".join(f"{self.state.relative(place)}/" for place in places)
            self.report.console.line(
                f"engines: every user of this machine may write to {names} and replace engines; run chmod o-w"
            )

    def earlier_s(self, path: Path) -> float | None:
        """The duration of the last build of a file of this name, from its receipt."""
        with contextlib.suppress(EngineError):
            return self.state.receipts.last_duration_s(path.name)
        return None

    def tidy(self, engine: EngineTarget | OnnxTarget) -> None:
        """Remove leftovers of a killed compile or conversion."""
        if self._leftovers is None:
            names: list[str] = []
            for place in {folder for folder, _ in self.places} | {str(self.state.root / "partial")}:
                with contextlib.suppress(OSError):
                    names += os.listdir(place)
            self._leftovers = [n for n in names if not n.endswith((SUFFIX, SIDECAR_SUFFIX))]
        if not self._leftovers or not settings.writes():
            return
        if not any(self.state.path_id(engine.path) in n for n in self._leftovers):
            return
        if isinstance(engine, EngineTarget):
            from ..build.engine import tidy

            tidy(engine.spec(), self.state, self.digest_cache)
        else:
            from ..build.onnx_step import tidy_step

            tidy_step(engine.path, self.state)

    def make_folder(self, path: Path) -> str | None:
        """Create a target's folder before SCons does, for a better error message. Returns the error, or
        None."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return None
        except OSError as error:
            inside = path.is_relative_to(self.state.root)
            step = "name another TRT_STATE_DIR" if inside else "name another ENGINE_DIR="
            return f"{self.state.relative(path.parent)}/ cannot be made: {cause(error, step)}"

    # End of the run.

    def end(self) -> None:
        """Close the session; a failure that only appears now sets the exit status."""
        before = SCons.Script.Main.exit_status
        self.close()
        say()
        if SCons.Script.Main.exit_status and not before:
            sys.stderr.flush()
            os._exit(2)

    def close(self) -> None:
        """Print the summary and save the state, unless reading the SConstruct failed."""
        if self.stopped or not self.graph_read:
            return
        if self._making:
            self._making.close()
        if settings.option("clean"):
            self._say_kept()
            return
        if settings.option("help") or settings.option("question"):
            return
        self._say_blocked()
        requested = [e for e in self.engines if e.requested]
        rest = [(e, e.state()) for e in requested if not e.reported]
        # SCons visited these itself, and calls nothing of ours once it has found them up to date.
        self.report.reused([e for e, state in rest if state == SCons.Node.up_to_date])
        for engine, state in rest:
            if state == SCons.Node.failed and engine.problem:
                self.report.failed(engine, engine.problem)
        if requested or everything_asked():
            if self._making:
                self._making.elsewhere.close(self._stop)
            self.report.summary(self._not_reached())
        self._save()
        if REPORT in map(str, SCons.Script.BUILD_TARGETS) and settings.writes():
            self._write_report()

    def _not_reached(self) -> int:
        """The number of requested engines that an interrupted run did not reach."""
        return sum(not e.reported for e in self.asked_of(self.engines)) if self._stop() else 0

    def _write_report(self) -> None:
        from ..report import write_report

        console = self.report.console
        where = self.state.relative(self._place)
        try:
            written = write_report(self.state, self.digest_cache, self._place, console.run)
            count = plural(len(written.data["engines"]), "engine")
            console.line(f"engines: report of {count} in {where}/{written.file}")
            if written.note:
                console.line(f"engines: {written.note}")
        except OSError as error:
            why = cause(error, "name another REPORT=")
            console.line(f"engines: report {where}/ cannot be written: {why}", failure=True)
        except EngineError as error:
            console.line(f"engines: no report: {error}", failure=True)

    def _say_blocked(self) -> None:
        """Report engines that SCons did not build because the builder of an input failed."""
        for derived in self.derived.values():
            if derived.problem and not derived.reported and derived.target.get_state() == SCons.Node.failed:
                self.report.failed(derived, derived.problem)
        for engine in self.asked_of(self.engines):
            unmade = engine.state() in (SCons.Node.failed, SCons.Node.no_state, SCons.Node.pending)
            blocked = engine.blocked_by() if unmade and not engine.reported else None
            if blocked and not self._stop():
                engine.requested = True
                self.report.failed(engine, EngineBuildError(f"{blocked} could not be built, see error above"))

    def _say_kept(self) -> None:
        unknown = [e for e in self.engines if e.hardware is None and not e.kept]
        if unknown and not settings.option("silent"):
            say(f"engines: files of {unknown[0].name} are unknown: {unknown[0].problem}")
        kept = [e for e in self.engines if e.kept]
        if kept and not settings.option("silent"):
            say(
                f"engines: {len(kept)} kept; `scons -c {ALIAS}` removes them, but only their "
                "hardware can rebuild them"
            )

    def _save(self) -> None:
        if not settings.writes():
            return
        try:
            self.report.console.flush(self.state.events)
            self.digest_cache.save()
            for interpreter in self._interpreters.values():
                interpreter.save()
            self._devices.save()
            if self._worth_saving():
                self._save_declared()
            remove_stale(self.state.root)
        except OSError as error:
            where = error.filename2 or error.filename or self.state.root
            why = cause(error, "make it writable")
            say(f"engines: {where}: {why}; the next run is slower for it")

    def _files_read(self) -> dict[str, str]:
        """The sha256 of each SConscript, module and hardware file of the tree that was read."""
        found = {}
        named = {e.asked_for for e in self.engines if e.asked_for}
        boards = [n if "/" in n or n.endswith(".json") else f"hardware/{n}.json" for n in named]
        for path in (*files_read(str(self.top)), *(str(self.top / board) for board in boards)):
            name = self.state.relative(path)
            with contextlib.suppress(OSError):
                if not os.path.isabs(name):
                    found[name] = self.digest_cache.sha256(path)
        return found

    def _worth_saving(self) -> bool:
        """Whether the declaration of this run may replace the last one: everything was read, and at
        least one engine has known hardware (its name may be misspelled)."""
        if self._read is None or not self.engines:
            return False
        return any(e.hardware for e in self.engines) or not self.state.declared.exists()

    def _save_declared(self) -> None:
        # Relative for a state folder inside the tree, which may be moved with it.
        top = os.path.relpath(self.top, self.state.root) if self.state.inside else str(self.top)
        signatures: list[Any] = []
        data = {
            "schema": 1,
            "top": top,
            "folders": sorted(map(self.from_top, self.checked)),
            "engines": [engine.to_json(signatures) for engine in self.engines],
            "steps": [derived.to_json() for derived in self.derived.values()],
            "signatures": [signature.to_json() for signature in signatures],
            "read": self._read,
        }
        text = json.dumps(data)[:-1].encode("utf-8") + b', "declared_at": "'
        try:
            if read_small(self.state.declared, len(text) + 100).startswith(text):
                return  # unchanged, so keep its time
        except OSError:
            pass
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_atomic(self.state.declared, text + f'{now}"}}\n'.encode(), durable=False)
