"""The shared cache in the profile of a run: lookups on the track of the job that waits for them, downloads
there or on tracks of their own, as uploads are; each with its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from traces import Trace, read_trace

from conftest import Tree

pytest.importorskip("obstore")
pytest.importorskip("cryptography")
pytestmark = pytest.mark.slow  # two compiles more


@pytest.fixture(scope="module")
def profiles(compiled_once: Tree, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, Trace, int]:
    """Of a run that builds an engine and uploads it, and of one in another clone that downloads it; the
    bytes of the engine."""
    folder = tmp_path_factory.mktemp("profiles")
    tree = compiled_once.twin(folder / "one")
    tree.engine("a").unlink()
    key = folder / "team.key"
    assert tree.cli("keygen", key).status == 0
    more = {"TRT_STORE": (folder / "store").as_uri(), "TRT_PROFILE": "profile.json"}
    writes = {"TRT_STORE_MODE": "write", "TRT_STORE_SIGNING_KEY": str(key), "TRT_CACHE_SIZE": "0"}
    run = tree.scons("engines", "-j2", **more, **writes)
    assert run.built == ["a"], run.out
    other = tree.copy(folder / "other", "SConstruct", "models")
    run = other.scons("engines", "-j2", **more, TRT_STORE_TRUSTED_KEYS=f"{key}.pub")
    assert (run.names("FETCHED"), run.built) == (["a"], ["b"]), run.out
    size = other.engine("a").stat().st_size
    return read_trace(tree.path("profile.json")), read_trace(other.path("profile.json")), size


def test_an_upload_is_on_its_own_track(profiles: tuple[Trace, Trace, int]) -> None:
    trace, _, size = profiles
    uploads = [each for name, track in trace.tracks.items() if name.startswith("upload") for each in track]
    (upload,) = [each for each in uploads if each.name.startswith("upload a__")]
    assert (upload.args["outcome"], upload.args["bytes"]) == ("uploaded", size)
    assert upload.ts >= trace.engine("a").end - 1_000_000


def test_a_download_is_in_the_profile_once(profiles: tuple[Trace, Trace, int]) -> None:
    _, trace, size = profiles
    task = trace.engine("a")
    assert task.args["outcome"] == "fetched"
    (asking,) = [each for each in task.inner if each.name == "asking the shared cache and other machines"]
    lookup, fetching = asking.inner
    assert (Path(lookup.name.split()[-1]).suffix, lookup.args["outcome"]) == (".engine", "found")
    assert fetching.args["bytes"] == size
    (download,) = [each for each in trace.all() if each.name.startswith("download a__")]
    assert (download.args["outcome"], download.args["bytes"]) == ("downloaded", size)
    ahead = [each for name, track in trace.tracks.items() if name.startswith("download ") for each in track]
    assert download in (ahead or fetching.inner)  # a job that comes first downloads it itself


def test_a_missing_entry_is_a_lookup_before_the_compile(profiles: tuple[Trace, Trace, int]) -> None:
    _, trace, _ = profiles
    names = [each.name for each in trace.engine("b").walk()]
    lookup = next(each for each in trace.engine("b").walk() if each.name.startswith("look up b__"))
    assert lookup.args["outcome"] == "missing"
    assert names.index(lookup.name) < names.index("compiling")
