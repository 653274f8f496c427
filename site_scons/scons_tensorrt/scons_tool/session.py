"""One run of SCons: what its engines share, and what is left to do at its end.

It hangs on SCons's file system object, which lives exactly as long as the run.
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
from ..errors import EngineBuildError, EngineError, HardwareError
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
from . import remote_settings, settings
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
    """Whether this run shall have every engine."""
    return not {ALIAS, REPORT}.isdisjoint(map(str, SCons.Script.BUILD_TARGETS))


def session_of(env: Any) -> Session:
    """The session of this run, made on first use."""
    found = getattr(env.fs, _ATTRIBUTE, None)
    if not isinstance(found, Session):
        found = Session(env)
        setattr(env.fs, _ATTRIBUTE, found)
        call_after_reading(env.fs, found.check)
        atexit.register(found.end)
    return found


class Session:
    """engines: what was declared, in order."""

    def __init__(self, env: Any) -> None:
        self.top = Path(env.fs.Top.get_abspath())
        self.engines: list[EngineTarget] = []
        self.places: dict[tuple[str, str], EngineTarget] = {}
        self.derived: dict[Path, OnnxTarget] = {}
        self.checked: set[str] = set()
        self.helped = False
        self._read: dict[str, str] | None = None  # until all is read
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
        self._settled: tuple[str, bool, float | None, settings.StoreSettings] | None = None
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

    def settle(self, env: Any) -> None:
        """Take the state folder, VERIFY, lock timeout and store of the first engine's environment;
        one run has one of each. Raises UserError."""
        asked = (
            settings.state_dir(env, self.top),
            settings.verify_full(env),
            settings.lock_timeout_s(env),
            settings.store(env, self.top),
        )
        scheduler = remote_settings.read(env, self.top, asked[3].url)
        if self._settled is None:
            self._settled, self._scheduler = asked, scheduler
            self._use(*asked[:2])
            if settings.writes():
                self.state.register()
            self._place = settings.report_dir(env, self.top, self.state.root)
        if asked != self._settled or scheduler != self._scheduler:
            raise SCons.Errors.UserError(
                "two environments of one run have other TRT_STATE_DIR, TRT_VERIFY, TRT_LOCK_TIMEOUT, "
                f"TRT_STORE or TRT_DISPATCH: {self._settled[:3]} and {asked[:3]}; set them alike"
            )

    def _use(self, state_dir: str, full: bool) -> None:
        if self._used == (state_dir, full):
            return  # reading the memo is a good part of a null build
        self._used = state_dir, full
        self.state = StateFolder(Path(state_dir), self.top)
        near = self.top if self.state.inside else Path("/")  # several trees share it: by whole paths
        self.digest_cache = DigestCache(self.state.digests, near, full)
        self.inputs = Inputs(self.digest_cache)
        self._devices = JsonCache(self.state.root / "host.json")

    # What engines ask for.

    def value(self, env: Any, text: str, decider: Any = None) -> Any:
        """The Value node of a text, which thousands of engines may share.

        Nothing builds it: said so here, SCons needs no task each to find that out.
        """
        if text not in self._values:
            self._values[text] = node = env.Value(text)
            node.set_state(SCons.Node.up_to_date)
            if decider:
                node.Decider(decider)
        return self._values[text]

    def hardware(self, chosen: settings.Settings) -> Hardware:
        """The hardware of these settings, resolved once. Raises HardwareError."""
        if chosen not in self._hardware:
            try:
                found = self._resolve(chosen)
                EngineFilename.of(found.signature, "x", "fp32")  # every field of a filename is known
                self._hardware[chosen] = found
            except EngineError as error:
                self._hardware[chosen] = error
        known = self._hardware[chosen]
        if isinstance(known, EngineError):
            raise known
        return known

    def _resolve(self, chosen: settings.Settings) -> Hardware:
        """The hardware; where no runtime can be found here, under the one that the receipts of
        restored engines name. Raises HardwareError."""
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
        """The names of folders in a folder, looked up once: an engine cannot stand where one is."""
        if folder not in self._folders:
            try:
                found = frozenset(entry.name for entry in os.scandir(folder) if entry.is_dir())
            except OSError:
                found = frozenset()
            self._folders[folder] = found
        return self._folders[folder]

    def recipe(self, name: Any, options: dict[str, Any], plugins: list[Any]) -> Recipe:
        """The recipe of an engine's options, which thousands of engines may share. Raises
        RecipeError."""
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
        """A path relative to the top, wherever it lies."""
        near = self.state.relative(path)
        return os.path.relpath(path, self.top) if os.path.isabs(near) else near

    def place(self, node: Any) -> str:
        """Where a node's bytes are, relative to the top; asked when that changes no more."""
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
        """What makes things: a run that reuses everything has none of it."""
        with self._asked_to_make:
            if self._making is None:
                from .build_services import BuildServices

                assert self._settled is not None  # by whatever is to be made
                lock_timeout_s, store = self._settled[2:]
                more = self._stop, lock_timeout_s, store, self._scheduler
                self._declare_before_building()
                self._making = BuildServices(self, self.report.console, self._host, self._devices, *more)
            return self._making

    def _declare_before_building(self) -> None:
        """Let `engines-prune` of another tree know what this one is about to make, or reuse."""
        if settings.writes() and self._worth_saving():
            with contextlib.suppress(OSError):  # said at the end of the run
                self._save_declared()

    @property
    def nvidia(self) -> str | None:
        """Evidence of an NVIDIA GPU on this host, from files alone."""
        return self._host.nvidia_evidence()

    def again(self) -> None:
        """An interactive session builds once more."""
        self._stop.reset()
        if self._making:
            self._making.again()

    def summary_if_there(self, node: Any) -> OnnxSummary | None:
        """What is known of a source's ONNX while the graph is read; None where it is still to be
        made, or cannot be read: what builds it says why."""
        if node.has_builder():
            return None
        try:
            return self.inputs.summary(str(real_path(node)))
        except (EngineError, OSError):
            return None

    def asked_of(self, engines: list[EngineTarget]) -> list[EngineTarget]:
        """Those of several that this run is asked for: by themselves, their folder or the alias."""
        if everything_asked():
            return engines
        places = target_places(str(self.top))
        return [e for e in engines if not places.isdisjoint((*e.paths(), *map(str, e.path.parents)))]

    def check(self) -> None:
        """All is read. Stop the run, before anything is built or removed, at what SCons would ignore
        silently."""
        if settings.writes():
            self._read = self._files_read()
        self.graph_read = True
        if not self.state.inside and not self.state.declared.exists():
            self._declare_before_building()  # a first run may only reuse, and that is its too
        plain = {ALIAS, REPORT}.issuperset(SCons.Script.COMMAND_LINE_TARGETS)
        known = SCons.Script.ARGUMENTS.keys() <= set(settings.ARGUMENTS)
        if not (plain and known) or settings.option("clean"):
            from .after_reading import check

            check(self)

    # What becomes of engines.

    def requested(self, engine: EngineTarget) -> None:
        """Name the hardware, once, before anything else is said of its engines."""
        hardware = engine.hardware
        if hardware in self._told or hardware is None:
            return
        if not self._told:
            gc.freeze()  # the graph is read: it lives as long as the run, too
            self._warn()
            if os.environ.get("HARDWARE"):
                from .after_reading import tell_environment

                tell_environment(self)
        self._told.add(hardware)
        self.report.hardware(hardware)

    def _warn(self) -> None:
        """Once a run: whoever may write here decides what is reused."""
        places = self.state.writable_by_all(*sorted({e.path.parent for e in self.engines}))
        if places:
            names = ", ".join(f"{self.state.relative(place)}/" for place in places)
            self.report.console.line(
                f"engines: every user of this machine may write to {names} and so decide what is "
                "reused; run chmod o-w on that"
            )

    def earlier_s(self, path: Path) -> float | None:
        """How long it took to make a file of this name the last time, as its receipt says."""
        with contextlib.suppress(EngineError):
            return self.state.receipts.last_duration_s(path.name)
        return None

    def tidy(self, engine: EngineTarget | OnnxTarget) -> None:
        """Remove what a killed compile, or conversion, of what is current left behind."""
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
        """SCons makes a target's folder before its action is asked, and says no next step if it cannot:
        so it is made here. Why it could not be; None when it is there."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return None
        except OSError as error:
            inside = path.is_relative_to(self.state.root)
            step = "name another TRT_STATE_DIR" if inside else "name another ENGINE_DIR="
            return f"{self.state.relative(path.parent)}/ cannot be made: {cause(error, step)}"

    # The end.

    def end(self) -> None:
        """Close, and let a failure that is only seen now decide the exit status."""
        before = SCons.Script.Main.exit_status
        self.close()
        say()
        if SCons.Script.Main.exit_status and not before:
            sys.stderr.flush()
            os._exit(2)

    def close(self) -> None:
        """The last lines, and what the next run will want to know; nothing where the SConstruct could
        not be read."""
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
        self.report.all_reused([e for e, state in rest if state == SCons.Node.up_to_date])
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
        """How many engines an interrupted run was asked for and told nothing of."""
        return sum(not e.reported for e in self.asked_of(self.engines)) if self._stop() else 0

    def _write_report(self) -> None:
        from ..report import write_report

        console = self.report.console
        where = self.state.relative(self._place)
        try:
            written = write_report(self.state, self.digest_cache, self._place, console.run)
            count = len(written.data["engines"])
            console.line(f"engines: report of {count} engines in {where}/{written.file}")
            if written.note:
                console.line(f"engines: {written.note}")
        except OSError as error:
            why = cause(error, "name another REPORT=")
            console.line(f"engines: report {where}/ cannot be written: {why}", failure=True)
        except EngineError as error:
            console.line(f"engines: no report: {error}", failure=True)

    def _say_blocked(self) -> None:
        """Engines whose action was never asked, because an input's own builder failed."""
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
            say(f"engines: which files {unknown[0].name} has is not known: {unknown[0].problem}")
        kept = [e for e in self.engines if e.kept]
        if kept and not settings.option("silent"):
            say(
                f"engines: {len(kept)} kept; `scons -c {ALIAS}` removes them, and only their own "
                "hardware can make them again"
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
        """What was read of the tree to declare the engines, with its sha256."""
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
        """Whether what this run declared may replace what the last one did: all of it was read, and
        hardware that no engine has, such as a misspelled one, tells nothing."""
        if self._read is None or not self.engines:
            return False
        return any(e.hardware for e in self.engines) or not self.state.declared.exists()

    def _save_declared(self) -> None:
        # The tree as seen from the state folder: one that lies in its tree may move with it.
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
                return  # that is true since then
        except OSError:
            pass
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_atomic(self.state.declared, text + f'{now}"}}\n'.encode(), durable=False)
