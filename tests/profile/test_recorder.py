"""Slices of several threads: each on its track, one inside the other, whatever ends when."""

from __future__ import annotations

import threading
import time

import pytest
from traces import Slice as Read
from traces import nested

from scons_tensorrt.build.progress import no_progress
from scons_tensorrt.cache.store_threads import in_thread
from scons_tensorrt.profile.recorder import Recorder
from scons_tensorrt.profile.trace import TASK


def names(recorder: Recorder) -> list[tuple[str, str]]:
    return [(each.track, each.name) for each in recorder.slices]


def shape(recorder: Recorder) -> list[object]:
    """The names on the first track, nested."""

    def told(slices: list[Read]) -> list[object]:
        return [[each.name, told(each.inner)] if each.inner else each.name for each in slices]

    track = recorder.slices[0].track
    own = [each for each in recorder.slices if each.track == track]
    spans = [(int(each.began * 1e9), int(each.ended * 1e9)) for each in own]
    read = [Read(each.name, each.kind, at, end - at, {}) for each, (at, end) in zip(own, spans)]
    return told(nested(read))


def pause() -> None:
    time.sleep(0.001)


def test_a_stage_ends_the_one_before_and_ends_with_its_task() -> None:
    recorder = Recorder()
    with recorder.slice("task", TASK):
        recorder.stage("one")
        pause()
        with recorder.slice("inner"):
            recorder.stage("within")
            pause()
        recorder.stage("two")
        pause()
    assert shape(recorder) == [["task", [["one", [["inner", ["within"]]]], "two"]]]


def test_outside_a_slice_there_is_no_stage() -> None:
    recorder = Recorder()
    recorder.stage("alone")
    assert recorder.slices == []


def test_an_error_is_the_outcome_and_ends_what_is_inside() -> None:
    recorder = Recorder()

    def fail() -> None:
        with recorder.slice("task", TASK):
            recorder.begin("inner")
            pause()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert recorder.slices[0].args == {"outcome": "KeyError"}
    assert shape(recorder) == [["task", ["inner"]]]


def test_a_thread_that_works_for_another_has_its_track_and_may_end_late() -> None:
    recorder = Recorder()
    go = threading.Event()

    def fetch() -> None:
        with recorder.slice("download"):
            go.wait(5)

    with recorder.slice("task", TASK):
        future = in_thread(fetch)
        while len(recorder.slices) < 2:
            pause()
        pause()
    go.set()
    future.result(5)
    recorder.close()
    assert shape(recorder) == [["task", ["download"]]]


def test_other_threads_have_tracks_of_their_own() -> None:
    recorder = Recorder()

    def job() -> None:
        with recorder.slice("job", TASK):
            pause()

    threads = [threading.Thread(target=job, name=name) for name in ("Thread-1", "Thread-2", "store push")]
    with recorder.slice("build"):
        for thread in threads:
            thread.start()
            thread.join()
    assert names(recorder) == [("SCons", "build"), ("job 1", "job"), ("job 2", "job"), ("upload 1", "job")]


def test_the_words_of_a_task_are_its_stages_and_its_bytes_are_told() -> None:
    recorder = Recorder()
    with recorder.slice("task", TASK):
        recorder.stage("asking")
        running = recorder.watched(no_progress)("FETCHING", "engines/a.engine", "a", "B")
        running.update(1, 9, "connecting, 1 of 9")
        running.update(9, 9, "connecting, 9 of 9")
        pause()
        running.end()
    fetching = next(each for each in recorder.slices if each.name == "fetching")
    assert fetching.args == {"file": "engines/a.engine", "bytes": 9}
    assert shape(recorder) == [["task", [["asking", [["fetching", ["connecting"]]]]]]]


def test_what_is_open_at_the_end_is_unfinished() -> None:
    recorder = Recorder()
    task = recorder.begin("task", TASK)
    recorder.close()
    assert task.args == {"unfinished": True}
    assert task.ended >= task.began
    recorder.end(task, late=True)
    assert task.args == {"unfinished": True}


def test_facts_are_added_to_the_open_task_of_that_name_alone() -> None:
    recorder = Recorder()
    with recorder.slice("a", TASK) as task:
        recorder.stage("checking")
        recorder.annotate("b", {"outcome": "reused"})
        recorder.annotate("a", {"outcome": "built"})
    recorder.annotate("a", {"outcome": "failed"})
    assert task.args == {"outcome": "built"}
