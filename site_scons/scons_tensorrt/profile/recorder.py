"""Records what the threads of a run do, for its profile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from ..build.progress import BeginProgress, ProgressHandle
from .trace import MAIN, STAGE, TASK, WORK, Slice


class _Track:
    """open: the slices that have begun and not ended, each in the one before."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open: list[Slice] = []


class Recorder:
    """slices: all that have begun. Each thread has a track; a thread that works for another (`in_thread` of
    cache/store_threads.py) has the other's, which waits for it. Methods are called from any thread."""

    def __init__(self) -> None:
        self.slices: list[Slice] = []
        self._lock = threading.RLock()
        self._mine: ContextVar[_Track | None] = ContextVar("profile track", default=None)
        self._tracks: list[_Track] = []
        self._count: Counter[str] = Counter()

    def begin(self, name: str, kind: str = WORK, needs: tuple[Slice, ...] = (), **args: Any) -> Slice:
        """Begin a slice inside those that are open on this thread's track."""
        with self._lock:
            return self._begin(self._track(), name, kind, needs, args)

    def end(self, ending: Slice, **args: Any) -> None:
        """End a slice, and those inside it. One that has ended stays as it is."""
        with self._lock:
            track = self._track_of(ending)
            if track is None:
                return
            ending.args.update(args)
            now = time.monotonic()
            while track.open:
                last = track.open.pop()
                last.ended = now
                if last is ending:
                    return

    @contextlib.contextmanager
    def slice(self, name: str, kind: str = WORK, **args: Any) -> Iterator[Slice]:
        """A slice around a block; an error is its outcome."""
        begun = self.begin(name, kind, **args)
        try:
            yield begun
        except BaseException as error:
            begun.args.setdefault("outcome", type(error).__name__)
            raise
        finally:
            self.end(begun)

    def stage(self, name: str, inside: Slice | None = None) -> None:
        """What comes next in the innermost slice of this thread, or in the slice `inside`: ends the stage
        before."""
        with self._lock:
            track = self._track() if inside is None else self._track_of(inside)
            if track is None or not track.open:
                return
            last = track.open[-1]
            if last.kind == STAGE and last is not inside:
                if last.name == name:
                    return
                self.end(last)
            self._begin(track, name, STAGE, (), {})

    def add(self, name: str, kind: str, began: float, **args: Any) -> None:
        """A slice that ends now. began: of the monotonic clock."""
        with self._lock:
            track = self._track()
            self.slices.append(Slice(track.name, name, kind, began, time.monotonic(), args))

    def annotate(self, name: str, args: Mapping[str, Any]) -> None:
        """Add facts to the open task of this name of this thread, if there is one."""
        with self._lock:
            for each in reversed(self._track().open):
                if each.kind == TASK and each.name == name:
                    each.args.update(args)
                    return

    def watched(self, begin: BeginProgress) -> BeginProgress:
        """A BeginProgress that also records."""

        def both(verb: str, label: str, short: str = "", unit: str = "") -> ProgressHandle:
            slice = self.begin(verb.lower(), file=label)
            return _Watched(begin(verb, label, short, unit), self, slice, unit)

        return both

    def close(self) -> None:
        """End everything that is open, as after an interrupt."""
        with self._lock:
            for track in self._tracks:
                while track.open:
                    self.end(track.open[-1], unfinished=True)

    def _begin(
        self, track: _Track, name: str, kind: str, needs: tuple[Slice, ...], args: dict[str, Any]
    ) -> Slice:
        begun = Slice(track.name, name, kind, time.monotonic(), 0.0, args, needs)
        track.open.append(begun)
        self.slices.append(begun)
        return begun

    def _track(self) -> _Track:
        """That of this thread."""
        track = self._mine.get()
        if track is None:
            track = _Track(self._name())
            self._mine.set(track)
            self._tracks.append(track)
        return track

    def _name(self) -> str:
        thread = threading.current_thread()
        if thread is threading.main_thread():
            return MAIN
        kind = {"store push": "upload", "store download": "download"}.get(thread.name, "job")
        self._count[kind] += 1
        return f"{kind} {self._count[kind]}"

    def _track_of(self, begun: Slice) -> _Track | None:
        """The track on which a slice is open; None if it has ended."""
        return next((each for each in self._tracks if begun in each.open), None)


class _Watched:
    """A ProgressHandle whose words are the stages of its slice."""

    def __init__(self, shown: ProgressHandle, recorder: Recorder, slice: Slice, unit: str) -> None:
        self._shown, self._recorder, self._slice, self._unit = shown, recorder, slice, unit

    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        self._shown.update(done, total, words)
        if words:
            self._recorder.stage(words.partition(",")[0], self._slice)
        if done and self._unit == "B":
            self._slice.args["bytes"] = done

    def end(self) -> None:
        self._recorder.end(self._slice)
        self._shown.end()
