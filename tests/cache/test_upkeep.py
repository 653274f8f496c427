"""`python -m scons_tensorrt store`: gc, verify, stats, over a folder and over S3."""

from __future__ import annotations

import os
import time

import pytest
from parts import generate, key, s3, signer
from test_shared import Team, entry_of, team

from scons_tensorrt.cache import maintenance
from scons_tensorrt.cache.entry import REFUSAL, CacheEntry, blob_path, sign_entry
from scons_tensorrt.cache.maintenance import entries_of, gc
from scons_tensorrt.cache.object_store import ObjectStore
from scons_tensorrt.cli import main
from scons_tensorrt.files.signing_keys import TrustedKeys

DAY = 86400.0


def trust_of(team: Team) -> TrustedKeys:
    return {team.signer.trusted.name: team.signer.trusted}


@pytest.fixture
def store(team, key, monkeypatch, capsys):
    """The command; returns its exit status and lines."""
    monkeypatch.setenv("TRT_STORE", team.url)
    monkeypatch.setenv("TRT_STORE_TRUSTED_KEYS", str(key.parent / "keys"))

    def run(*arguments: str) -> tuple[int, list[str]]:
        try:
            status = main(["store", *arguments])
        except SystemExit as end:
            status = end.code
        told = capsys.readouterr()
        return status, (told.out + told.err).splitlines()

    return run


def paths(team: Team) -> set[str]:
    return {item.path for folder in ("ac", "no", "cas") for item in team.remote().all_of(folder)}


def test_a_sound_store_is_ok_and_counted(team, store) -> None:
    for number in range(3):
        team.publish(os.urandom(1000), number)
    assert store("verify") == (0, ["OK"])
    status, lines = store("stats")
    assert status == 0
    assert lines[0].startswith("3 engines, 0.0 MB, from 20")
    assert lines[3:] == ["0 unreferenced files, 0.0 MB", "0 untrusted entries"]


def test_entries_are_read_once_and_not_all_at_once(team, monkeypatch) -> None:
    for number in range(8):
        team.publish(b"%d" % number, number)
    monkeypatch.setattr(maintenance, "AHEAD", 2)
    remote, read, of_store = team.remote(), [], ObjectStore.read
    monkeypatch.setattr(ObjectStore, "read", lambda *given: [read.append(given[1]), of_store(*given)][1])
    entries = entries_of(remote, trust_of(team))
    first = next(entries)
    assert len(read) <= 3  # one that is used, and two ahead
    held = [first, *entries]
    assert sorted(read) == sorted(each.item.path for each in held)
    assert len(held) == 8
    assert not any(each.entry.ingredients for each in held)


def test_every_entry_goes_before_any_data(team, monkeypatch) -> None:
    for number in range(5):
        team.publish(b"%d" % number, number)
    removed, of_store = [], ObjectStore.remove
    monkeypatch.setattr(ObjectStore, "remove", lambda *given: [removed.append(given[1]), of_store(*given)][1])
    gc(team.remote(), trust_of(team), older_s=-1.0)
    assert [path.partition("/")[0] for path in removed] == ["ac"] * 5 + ["cas"] * 5


def test_verify_finds_each_fault_and_removes_it_when_asked(team, store) -> None:
    entries = [team.publish(os.urandom(1000), number)[0] for number in range(5)]
    remote = team.remote()
    remote.replace(blob_path(entries[0].sha256), os.urandom(1000))
    remote.replace(blob_path(entries[1].sha256), b"cut")
    remote.remove(blob_path(entries[2].sha256))
    remote.replace(entries[3].path, sign_entry(entries[4], team.signer))
    status, lines = store("verify", "--quick")
    assert status == 1
    assert len(lines) == 1 + 2 + 2 + 1  # same size: only the bytes would tell
    status, lines = store("verify")
    assert status == 1
    assert [line.split(":")[0] for line in lines if "cas/" in line.split(":")[0]]
    assert len(lines) == 1 + 3 + 3 + 1
    assert store("verify", "--remove")[0] == 1
    assert store("verify") == (0, ["OK"])
    assert team.fetched(entries[4]) is not None


@pytest.mark.parametrize("more", [(), ("--quick",)])
@pytest.mark.parametrize("size", [5, 4000])
def test_an_entry_that_states_a_wrong_size_goes_and_the_bytes_stay(team, store, size, more) -> None:
    data = os.urandom(1000)
    sound = team.publish(data)[0]
    wrong = entry_of(data, 1)._replace(size=size)
    team.remote().replace(wrong.path, sign_entry(wrong, team.signer))
    status, lines = store("verify", "--remove", *more)
    assert (status, len(lines)) == (1, 2)
    assert f"REMOVED {wrong.path}: entry of {wrong.name}: states {size} bytes, but its data" in lines[0]
    assert store("verify") == (0, ["OK"])
    assert team.fetched(sound) == data


@pytest.mark.parametrize("more", [(), ("--quick",)])
def test_data_of_a_size_that_no_trusted_entry_states_goes_unread(team, store, more, monkeypatch) -> None:
    entry = team.publish(os.urandom(1000))[0]
    team.remote().replace(blob_path(entry.sha256), b"longer" * 1000)

    def refuse(*arguments: object) -> bool:
        raise AssertionError("it was read")

    monkeypatch.setattr(ObjectStore, "download", refuse)
    status, lines = store("verify", "--remove", *more)
    assert status == 1
    assert f"REMOVED {blob_path(entry.sha256)}: 6000 bytes, but 1000 were signed" in lines
    assert paths(team) == set()


def test_verify_keeps_the_entries_of_another_team(team, store, tmp_path) -> None:
    entries = [team.publish(os.urandom(1000), number)[0] for number in range(2)]
    generate(tmp_path / "stranger")
    before = paths(team)
    status, lines = store("verify", "--remove", "--trusted-key", str(tmp_path / "stranger.pub"))
    assert status == 1
    told = {line.split(":")[0] for line in lines if line.startswith(("FAILED", "REMOVED"))}
    assert told == {f"FAILED {entry.path}" for entry in entries}
    assert lines[-1] == "2 faults"
    assert paths(team) == before


def test_verify_keeps_the_entries_of_another_version(team, store, monkeypatch) -> None:
    entry = team.publish(os.urandom(1000))[0]
    with monkeypatch.context() as later:
        later.setattr("scons_tensorrt.cache.entry.SCHEMA", 99)
        team.remote().replace(entry.path, sign_entry(entry, team.signer))
    before = paths(team)
    assert store("verify", "--remove") == (1, [f"FAILED {entry.path}: unsupported schema", "1 fault"])
    assert paths(team) == before


def test_gc_by_age_and_size_takes_the_oldest_and_what_no_entry_names(team) -> None:
    entries = [team.publish(os.urandom(1000), number)[0] for number in range(4)]
    remote, trust = team.remote(), trust_of(team)
    remote.replace("cas/" + "0" * 64, b"a push that was cut off")
    everything = paths(team)
    assert gc(remote, trust, DAY, 10**6) == ([], [], 0)
    later = time.time() + 2 * DAY
    would = gc(remote, trust, most=2500, dry=True, now=lambda: later)
    assert (len(would.entries), len(would.blobs)) == (2, 3)
    assert paths(team) == everything
    gone = gc(remote, trust, most=2500)
    assert len(gone.entries) == len(gone.blobs) == 2  # the orphan is too young
    assert sum(team.fetched(entry) is not None for entry in entries) == 2
    assert gc(remote, trust, most=2500, now=lambda: later).blobs == ["cas/" + "0" * 64]
    gone = gc(remote, trust, DAY, now=lambda: later)
    assert len(gone.entries) == len(gone.blobs) == 2
    assert paths(team) == set()


def test_gc_leaves_bytes_that_two_entries_name_until_the_last_goes(team) -> None:
    data = os.urandom(1000)
    first, second = (team.publish(data, number)[0] for number in range(2))
    team.remote().remove(first.path)
    later = time.time() + 2 * DAY
    assert gc(team.remote(), trust_of(team), now=lambda: later) == ([], [], 0)
    assert team.fetched(second) == data


def test_gc_with_another_teams_trust_takes_nothing_of_ours(team, tmp_path) -> None:
    entry, _ = team.publish(b"ours")
    stranger = generate(tmp_path / "stranger")
    trust, later = {stranger.trusted.name: stranger.trusted}, time.time() + 2 * DAY
    assert gc(team.remote(), trust, now=lambda: later) == ([], [], 0)
    assert team.fetched(entry) == b"ours"


def test_a_refusal_goes_when_it_has_expired(team) -> None:
    like, now = entry_of(b""), int(time.time())
    entry = CacheEntry(REFUSAL, like.key, like.name, like.ingredients, made=now, expires=now + 60, error="x")
    team.remote().replace(entry.path, sign_entry(entry, team.signer))
    assert gc(team.remote(), trust_of(team)).entries == []
    assert gc(team.remote(), trust_of(team), now=lambda: now + 61.0).entries == [entry.path]


@pytest.mark.parametrize(
    ("arguments", "missing", "ends_with", "words"),
    [
        (("stats",), "TRT_STORE", 2, "no shared engine cache given"),
        (("verify",), "TRT_STORE_TRUSTED_KEYS", 2, "no trusted keys given"),
        (("gc", "--store", "file:///nowhere/at/all"), "", 1, "no such folder: /nowhere/at/all"),
    ],
)
def test_a_wrong_call_is_one_line(team, store, monkeypatch, arguments, missing, ends_with, words) -> None:
    if missing:
        monkeypatch.delenv(missing)
    status, lines = store(*arguments)
    assert status == ends_with
    assert len(lines) == 1
    assert words in lines[0]


def test_a_size_is_written_with_its_unit(team, store) -> None:
    team.publish(b"an engine")
    assert store("gc", "--most", "much")[0] == 2
    assert store("gc", "--most", "1.5G", "--older", "30")[0] == 0


@pytest.mark.parametrize("wrong", ["--older=-1", "--older=nan", "--older=inf", f"--most=1{'0' * 400}T"])
def test_gc_takes_no_age_or_size_that_is_none(team, store, wrong: str) -> None:
    team.publish(os.urandom(1000), 1)
    assert store("gc", wrong)[0] == 2
    assert len(list(team.remote().all_of("ac"))) == 1
