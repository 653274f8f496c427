"""The profile of a run (PROFILE=): where it begins, what is recorded of SCons, and how it is written."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import SCons.Errors
import SCons.Node.Alias
import SCons.Script
import SCons.Script.Main
import SCons.Taskmaster

from .. import __version__
from ..files.writing import cause, is_device, replacing
from ..profile.recorder import Recorder
from ..profile.trace import CHECK, MAIN, PHASE, TASK, WORK, Slice, figures, is_profile, to_json
from .console import Console
from .nodes import target_of
from .settings import as_given, option
from .target import ReceiptTarget

_OTHERS = "name another file, such as profile.json"
_FIELDS = ("model_name", "outcome", "reason", "reason_text", "compile_duration_s", "error_class", "size")


class Profile:
    """recorder: of what its threads do. The phases of a run are slices of its first thread: `start`,
    `reading`, `build` and `end`."""

    def __init__(self, path: str) -> None:
        """path: the file, absolute. Raises UserError if it cannot be written, or is another's file."""
        self._path, self._given = Path(path), as_given("PROFILE")
        self._check()
        self.recorder = Recorder()
        now = time.monotonic()
        read = min(now, now - time.time() + SCons.Script.start_time)
        self.recorder.slices.append(Slice(MAIN, "start", PHASE, _process_began(read), read))
        self._phase = self.recorder.begin("reading", PHASE)
        self._phase.began = read
        self.recorder.add("before the tool is loaded", WORK, read)
        self._built, self._raised = False, False
        self._tasks: dict[Any, Slice] = {}
        self._record_tasks()

    def _check(self) -> None:
        """Raise UserError for a file that cannot be written, or that is no profile."""
        why = ""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.is_dir():
                why = f"is a folder; {_OTHERS}"
            elif is_device(self._path) or (self._path.exists() and not self._path.is_file()):
                why = f"is not a regular file; {_OTHERS}"
            elif self._path.exists() and not is_profile(_head(self._path)):
                why = f"is not a profile, and is not replaced; {_OTHERS}"
            else:
                tempfile.TemporaryFile(dir=self._path.parent).close()
        except OSError as error:
            why = f"cannot be written: {cause(error, _OTHERS)}"
        if why:
            raise SCons.Errors.UserError(f"{self._given}={_shown(self._path)} {why}")

    def begin(self, name: str) -> None:
        """The next phase of the run begins."""
        self.recorder.end(self._phase)
        self._phase = self.recorder.begin(name, PHASE)
        self._built = self._built or name == "build"

    def on_check(self, target: ReceiptTarget, began: float) -> None:
        """A target was checked."""
        checked = target.checked
        found = {"code": checked.code, "reason": checked.reason} if checked else {}
        self.recorder.add(target.label, CHECK, began, model=target.name, **found)

    def on_event(self, event: Mapping[str, Any]) -> None:
        """An event of a target: its outcome, for the slice of its task."""
        told = {name: event[name] for name in _FIELDS if event.get(name) is not None}
        self.recorder.annotate(str(event.get("engine")), told)

    def _record_tasks(self) -> None:
        """Let SCons use tasks and a taskmaster that record what they do."""
        recorder, run, raised = self.recorder, self._run, self._has_raised

        class Task(SCons.Script.Main.BuildTask):  # type: ignore[misc]  # SCons has no types
            def make_ready(self) -> None:
                with recorder.slice(f"check {_label(self.targets[0])}", CHECK):
                    super().make_ready()

            def execute(self) -> None:
                run(self.targets, super().execute)

            def executed(self) -> None:
                with recorder.slice(f"record {_label(self.targets[0])}"):
                    super().executed()

        class Taskmaster(SCons.Taskmaster.Taskmaster):  # type: ignore[misc]  # SCons has no types
            def next_task(self) -> Any:
                with recorder.slice("find the next task"):
                    return super().next_task()

            def cleanup(self) -> None:
                try:
                    super().cleanup()
                except BaseException:  # a cycle
                    raised()
                    raise

        SCons.Script.Main.BuildTask = Task
        SCons.Taskmaster.Taskmaster = Taskmaster

    def _has_raised(self) -> None:
        self._raised = True

    def _run(self, nodes: Any, execute: Any) -> None:
        """Run the action of a task."""
        inputs = dict.fromkeys(self._tasks.get(each) for each in nodes[0].children())
        needs = tuple(each for each in inputs if each is not None)
        kind = WORK if isinstance(nodes[0], SCons.Node.Alias.Alias) else TASK
        task = self.recorder.begin(_label(nodes[0]), kind, needs, inputs=[each.name for each in needs])
        self._tasks.update(dict.fromkeys(nodes, task))
        self.recorder.stage("preparing")
        try:
            execute()
            if not option("no_exec"):
                task.args.setdefault("outcome", "done")
        except BaseException as error:
            if "outcome" not in task.args:
                why = getattr(error, "errstr", type(error).__name__)  # of SCons's BuildError
                task.args.update(outcome="failed", reason_text=str(why))
            raise
        finally:
            self.recorder.end(task)

    def write(self, console: Console) -> None:
        """Write the file at the end of the run, and print where it is."""
        self.recorder.end(self._phase)
        self.recorder.close()
        used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu_s = sum(each.ru_utime + each.ru_stime for each in used)
        cores = len(os.sched_getaffinity(0))
        found = figures(self.recorder.slices, int(option("num_jobs") or 1), cpu_s, cores)
        about = {
            "version": __version__,
            "run": console.run,
            "command": sys.argv,
            "began": console.stamp(time.time() - found.wall_s),
            "exit_status": (SCons.Script.Main.exit_status or 2 * self._raised) if self._built else None,
        }
        where = _shown(self._path)
        try:
            with replacing(self._path, durable=False) as out:
                out.writelines(each.encode() for each in to_json(self.recorder.slices, found, about))
        except OSError as error:
            console.line(f"{self._given}={where} cannot be written: {cause(error, _OTHERS)}", failure=True)
            return
        console.lines([f"profile: {where} (open it in ui.perfetto.dev)", *found.lines()])


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(256)


def _label(node: Any) -> str:
    """The name of a task."""
    target = target_of(node)
    return str(node) if target is None or target.nodes[0] is not node else str(target.label)


def _shown(path: Path) -> str:
    """A path as printed: relative below the current folder."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def _process_began(loaded: float) -> float:
    """When this process was started, on the monotonic clock: to a hundredth of a second. loaded: when SCons
    was, for a system without /proc."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return loaded
    ticks = int(stat.rpartition(")")[2].split()[19])  # since boot
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return min(time.monotonic() - age, loaded)
