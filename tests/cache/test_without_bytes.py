"""FETCH=none and FETCH=needed: a run takes what nothing opens from signed entries, without its bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from parts import READER, WRITER, Tree, key, make_model, s3, signer

from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.build.entry_description import DESCRIBED, describe, description_of
from scons_tensorrt.build.input_digests import ONNX_FACT
from scons_tensorrt.cache.entry import engine_entry
from scons_tensorrt.cache.object_store import ObjectStore
from scons_tensorrt.cache.shared_cache_client import CacheClient
from scons_tensorrt.files.signing_keys import SigningKey

# `b` is of an ONNX that a step makes; the export does not change a byte, so that no test compiles it.
SCONSTRUCT = """
exported = env.OnnxExport("b", "copy_onnx.py:export", files={"onnx": "models/b.onnx"})
made = [env.Engine("a", "models/a.onnx"), env.Engine("b", exported)]
manifest = env.EngineManifest("dist/manifest.json", made)
env.InstallEngines(GetLaunchDir() + "/installed", made, manifest=manifest)
a, b = made
env.Command("size.txt", a[0], "wc -c < $SOURCE > $TARGET")
env.Command("list.txt", Dir("engines"), "ls $SOURCE > $TARGET")
env.Depends(env.Command("after.txt", [], "ls engines > $TARGET"), Alias("engines"))
env.AlwaysBuild(env.Alias("deploy", b[0], "wc -c $SOURCE"))
Alias("plain", a)
Alias("ci", ["engines", manifest])
Alias("some", "engines")
env.Depends(env.Command("later.txt", [], "ls engines > $TARGET"), Alias("more", Alias("some")))
env.Command(Dir("package"), b, "mkdir -p $TARGET && cp $SOURCES $TARGET")
Alias("acts", a)
if ARGUMENTS.get("POST"):
    env.AddPostAction(a[0], "wc -c $TARGET")
if ARGUMENTS.get("AROUND"):
    env.AddPreAction(manifest, "wc -c engines/a__*.engine")
    env.AddPostAction(Alias("acts"), "wc -c engines/a__*.engine")
if ARGUMENTS.get("BEHIND"):
    Repository(ARGUMENTS["BEHIND"])
"""
EXPORT = """
import os
import shutil


def export(target, onnx):
    shutil.copy(onnx, target)
    with open(target, "ab") as out:
        out.write(bytes.fromhex(os.environ.get("TAIL", "")))
"""
STEP = ".trt/onnx/b.onnx"


class Team:
    """A store with everything that `full`, a built tree, has."""

    def __init__(self, full: Tree, store: Path, keys: Path) -> None:
        self.full, self.store, self.keys = full, store, keys

    def clone(self, root: Path) -> Tree:
        """A fresh clone, which trusts the store."""
        tree = self.full.copy(root, "models", "SConstruct", "copy_onnx.py")
        tree.environment = {"TRT_STORE": self.store.as_uri(), "TRT_STORE_TRUSTED_KEYS": str(self.keys)}
        return tree

    def blob(self, file: str | Path) -> Path:
        """The bytes of a file of the full tree in the store."""
        return self.store / "cas" / self.receipt(Path(file).name).sha256

    def entry(self, name: str) -> Path:
        return self.store / "ac" / self.receipt(name).key

    def receipt(self, name: str) -> Receipt:
        stem = name.removesuffix(".engine")
        (path,) = self.full.path(".trt/receipts").glob(f"{stem}*/*.json")
        return Receipt.load(path.read_bytes())


@pytest.fixture(scope="session")
def shared(once, compiled_once, tmp_path_factory) -> Path:
    """A built tree, `full`, its `store` and the `keys` to trust; nothing is compiled for it."""

    def fill(folder: Path) -> None:
        from scons_tensorrt.cli import main

        assert main(["keygen", str(folder / "key")]) == 0
        (folder / "keys").mkdir()
        shutil.copy(folder / "key.pub", folder / "keys")
        tree = compiled_once.twin(folder / "full")
        tree.write(SCONSTRUCT)
        tree.path("copy_onnx.py").write_text(EXPORT)
        store = (folder / "store").as_uri()
        run = tree.scons(
            *("engines", f"STORE={store}", "STORE_MODE=write"), f"STORE_SIGNING_KEY={folder / 'key'}"
        )
        assert run.status == 0, run.out
        assert "1 uploaded to " in run.out  # the ONNX of `b`: reused engines are not uploaded
        upload(tree, store, folder / "key")

    return once("without bytes", fill)


def upload(tree: Tree, store: str, key: Path) -> None:
    """Upload the engines of a tree as a run does that has compiled them."""
    from scons_tensorrt.files.signing_keys import load_signing_key

    signing: SigningKey = load_signing_key(str(key))
    client = CacheClient(ObjectStore(store, True), {signing.trusted.name: signing.trusted}, signing)
    for path in tree.engines().values():
        (receipt,) = map(
            Receipt.load, (p.read_bytes() for p in tree.path(f".trt/receipts/{path.stem}").iterdir())
        )
        assert client.publish(
            engine_entry(receipt, described=describe(path, receipt)), {receipt.sha256: path}
        )


@pytest.fixture
def team(shared, tmp_path) -> Team:
    """Each test has a store of its own."""
    store = tmp_path / "store"
    shutil.copytree(shared / "store", store)
    return Team(Tree.at(shared / "full", {}), store, shared / "keys")


def engines_in(tree: Tree) -> list[str]:
    return sorted(p.name for p in tree.path("engines").rglob("*")) if tree.path("engines").exists() else []


def test_ci_has_manifest_and_bills_without_a_byte_and_a_later_run_downloads(team, tmp_path):
    tree = team.clone(tmp_path / "clone")
    run = tree.scons("engines", "dist", "FETCH=none")
    assert run.status == 0, run.out
    assert run.names("FOUND") == ["a", "b"]
    assert len(run.lines("FOUND")) == 3  # and the ONNX of `b`
    assert all(", not downloaded, " in line for line in run.lines("FOUND"))
    assert f"engines: 0 downloaded from {team.store.as_uri()}, 3 not downloaded (0.5 MB)" in run.out
    assert run.summary.startswith("engines: 0 reused, 0 built, 2 found, 0 failed in ")
    assert engines_in(tree) == []
    assert not tree.path(STEP).exists()
    moved = tree.events()[-1]["bytes"]
    assert (moved["downloaded"], moved["uploaded"]) == (0, 0)
    assert moved["not_downloaded"] > 500_000
    written = tree.snapshot("dist")
    assert len(written) == 5
    status = tree.cli("status")
    assert status.out.count("not downloaded before") == 2
    verify = tree.cli("verify", "--manifest", "dist/manifest.json", "engines")
    assert verify.out.count("missing: not downloaded (FETCH=); run `scons engines`") == 2
    assert (status.status, verify.status) == (1, 18)
    run = tree.scons("engines", "dist")
    assert run.names("FETCHED") == ["a", "b"]
    assert len(run.lines("FETCHED")) == 3
    assert all(line.endswith("because not downloaded before") for line in run.lines("FETCHED"))
    assert engines_in(tree) == engines_in(team.full)
    assert tree.snapshot("dist") == written  # with the bytes, they are the same
    assert tree.scons("engines", "dist", "FETCH=none").reused == ["a", "b"]


OPENED = {
    "engines FETCH=none": "",
    "engines FETCH=needed -j4": "",
    ". FETCH=none -j4": "a b",  # size.txt, list.txt and others open them
    "ci FETCH=needed": "",
    "dist FETCH=needed": "",
    "install FETCH=none": "a b",
    "size.txt engines FETCH=none": "a",
    "engines size.txt FETCH=none -j4": "a",
    "list.txt FETCH=none": "a b",
    "after.txt FETCH=none -j4": "a b",
    "deploy FETCH=none": "b",
    "a FETCH=none": "",
    "a engines FETCH=needed": "a",
    "b FETCH=needed": "b",
    "plain FETCH=none": "",
    "plain FETCH=needed": "a",
    "engines POST=1 FETCH=none": "a",
    "later.txt FETCH=none": "a b",
    "package FETCH=none": "b",
    "dist AROUND=1 FETCH=none": "a b",
    "acts AROUND=1 FETCH=none -j4": "a",
    f"{STEP} FETCH=needed": STEP,
    f"engines {STEP} FETCH=none": "",
}


@pytest.mark.parametrize("targets", OPENED)
def test_what_a_target_opens_is_downloaded_and_nothing_else(targets, team, tmp_path):
    tree = team.clone(tmp_path / "clone")
    run = tree.scons(*targets.split())
    assert run.status == 0, run.out
    expected = OPENED[targets].split()
    assert [line.split()[1] for line in run.lines("FETCHED") if STEP in line] == [
        name for name in expected if name == STEP
    ]
    assert run.names("FETCHED") == sorted({*expected} - {STEP})
    assert [name.split("__")[0] for name in engines_in(tree)] == sorted([*({*expected} - {STEP})] * 2)
    assert not run.built
    assert "CONVERTED" not in run.out


READS = """
read = {"onnx": "models/a.onnx", "engine": a[0]}
env.Engine("c", env.OnnxExport("c", "read_engine.py:export", files=read))
"""


@pytest.mark.slow
def test_an_export_that_reads_an_engine_opens_it(team, tmp_path):
    tree = team.clone(tmp_path / "clone")
    tree.write(SCONSTRUCT + READS)
    tree.path("read_engine.py").write_text(
        "def export(target, onnx, engine):\n"
        "    assert open(engine, 'rb').read(4) == b'vtrt'\n"
        "    open(target, 'wb').write(open(onnx, 'rb').read())\n"
    )
    run = tree.scons("engines", "FETCH=none")
    assert run.status == 0, run.out
    assert (run.names("FETCHED"), run.names("FOUND"), run.reused) == (["a"], ["b"], ["c"])


@pytest.mark.slow
def test_in_an_interactive_session_a_later_build_finds_what_it_opens(team, tmp_path):
    tree = team.clone(tmp_path / "clone")
    done = subprocess.run(
        tree.command("--interactive", "FETCH=none"),
        cwd=tree.root,
        env=tree.env(),
        input="build engines\nbuild size.txt\nexit\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(tree.path("size.txt").read_text()) == tree.engine("a").stat().st_size


TWO_NAMES = """
made.append(env.Engine("same", "models/same.onnx"))
manifest = env.EngineManifest("all/manifest.json", made)
"""


@pytest.mark.slow
def test_a_model_under_two_names_is_found_once_and_copied_by_a_later_run(team, tmp_path):
    """The store has it under one name only: whoever uploaded it made the other as a copy."""

    def with_two_names(tree: Tree) -> Tree:
        shutil.copy(tree.path("models/a.onnx"), tree.path("models/same.onnx"))
        tree.write(SCONSTRUCT + TWO_NAMES)
        return tree

    full, tree = with_two_names(team.clone(tmp_path / "full")), with_two_names(team.clone(tmp_path / "clone"))
    run = full.scons("engines", "all/manifest.json")
    assert run.reused == ["same"], run.out
    run = tree.scons("engines", "all/manifest.json", "FETCH=none")
    assert (run.names("FOUND"), run.built) == (["a", "b", "same"], [])
    assert ", 3 not downloaded (0.5 MB)" in run.out  # it is one file in the store
    assert tree.path("all/manifest.json").read_bytes() == full.path("all/manifest.json").read_bytes()
    assert tree.scons("same", "FETCH=none").names("FOUND") == ["same"]  # as an earlier run found the other
    assert tree.scons("a", "FETCH=needed").names("FETCHED") == ["a"]
    run = tree.scons("engines")
    assert (run.names("REUSED"), run.names("FETCHED"), run.built) == (["a", "same"], ["b"], [])
    assert tree.cli("verify", "engines").out.count("OK ") == 3


def engine_name(team: Team, name: str) -> str:
    return team.full.engine(name).name


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def sign_with_another_key(team: Team, entry: Path) -> None:
    body = json.loads(entry.read_text())
    body["signature"] = "00" * 64
    entry.write_text(json.dumps(body))


# What is done to the store, and what a run with FETCH=none says of `a`.
ATTACKS = {
    "the entry is gone": lambda team, name: team.entry(name).unlink(),
    "the bytes are gone": lambda team, name: team.blob(name).unlink(),
    "the bytes are cut short": lambda team, name: os.truncate(team.blob(name), 1000),
    "the entry was altered": lambda team, name: flip(team.entry(name)),
    "the signature is not valid": lambda team, name: sign_with_another_key(team, team.entry(name)),
    "the entry is that of the other": lambda team, name: shutil.copy(
        team.entry(engine_name(team, "b")), team.entry(name)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_the_store_no_longer_has_is_compiled_and_not_found(attack, team, tmp_path):
    tree = team.clone(tmp_path / "clone")
    assert tree.scons("engines", "FETCH=none").names("FOUND") == ["a", "b"]
    ATTACKS[attack](team, engine_name(team, "a"))
    run = tree.scons("engines", "dist", "FETCH=none")
    assert run.status == 0, run.out
    assert (run.built, run.names("FOUND")) == (["a"], ["b"])
    assert run.out.count("engines: ignoring ") <= 1  # each cause is said once
    entries = json.loads(tree.path("dist/manifest.json").read_text())["engines"]
    assert entries[0]["sha256"] == tree.receipt("a")["sha256"]


@pytest.mark.slow
def test_damaged_bytes_are_found_and_compiled_by_the_run_that_needs_them(team, tmp_path):
    """Only a download can tell: the entry is right, and so is the size."""
    tree = team.clone(tmp_path / "clone")
    flip(team.blob(engine_name(team, "a")))
    assert tree.scons("engines", "FETCH=none").names("FOUND") == ["a", "b"]
    run = tree.scons("size.txt", "FETCH=none")
    assert "engines: ignoring the store's data of a__" in run.out
    assert run.built == ["a"]
    assert tree.path("size.txt").read_text().strip() == str(tree.engine("a").stat().st_size)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["", "bytes", "entry and bytes"])
def test_a_compile_brings_the_onnx_that_it_needs(lost, team, tmp_path):
    """A step's file is downloaded when its engine must be compiled, or made again if the store lost it."""
    tree = team.clone(tmp_path / "clone")
    team.entry(engine_name(team, "b")).unlink()
    if lost:
        team.blob("b.onnx").unlink()
    if "entry" in lost:
        team.entry("b.onnx").unlink()
    run = tree.scons("engines", "-j4", "FETCH=none")
    assert run.status == 0, run.out
    assert (run.built, run.names("FOUND")) == (["b"], ["a"])
    assert [line.split()[1] for line in run.lines("CONVERTED" if lost else "FETCHED")] == [STEP]
    assert tree.scons("engines", "FETCH=none").reused == ["b"]


LOSES = """
import os
from scons_tensorrt.cache import finder

find = finder.StoreFinder._find
def lose(self, kind, key, name):
    found = find(self, kind, key, name)
    if name == "b.onnx":
        os.remove(STORED)
    return found
finder.StoreFinder._find = lose
"""


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False], ids=["same bytes", "other bytes"])
def test_an_onnx_that_is_evicted_after_it_was_found(same, team, tmp_path):
    """It is made again; if the bytes differ, the engine fails, and the next run is right."""
    tree = team.clone(tmp_path / "clone")
    team.entry(engine_name(team, "b")).unlink()
    script = SCONSTRUCT + LOSES.replace("STORED", repr(str(team.blob("b.onnx"))))
    tree.write(script)
    tail = {} if same else {"TAIL": "1200"}  # an empty name of the producer
    run = tree.scons("engines", "FETCH=none", **tail)
    if same:
        assert run.built == ["b"], run.out
        return
    assert run.status == 2, run.out
    assert (
        "b.onnx was lost in the store after it was found there, and was made again with other bytes"
        in run.out
    )
    tree.write(SCONSTRUCT)
    assert tree.scons("engines", "FETCH=none").built == ["b"]


@pytest.mark.slow
def test_the_engine_that_a_found_one_replaces_is_kept_and_not_left_in_its_place(team, tmp_path):
    """An old engine in the place of one that was not downloaded would be taken for it."""
    tree = team.clone(tmp_path / "clone")
    tree.scons("engines", "FETCH=needed")
    before = tree.path("models/a.onnx").read_bytes()
    make_model(tree.path("models/a.onnx"), seed=7)
    assert tree.scons("engines").built == ["a"]
    tree.path("models/a.onnx").write_bytes(before)
    run = tree.scons("engines", "FETCH=none")
    assert run.names("FOUND") == ["a"]
    assert [name.split("__")[0] for name in engines_in(tree)] == ["b", "b"]
    assert len(list(tree.path(".trt/kept").rglob("*.engine"))) == 1
    make_model(tree.path("models/a.onnx"), seed=7)
    assert any("(kept)" in line for line in tree.scons("engines", "FETCH=none").lines("REUSED"))


@pytest.mark.slow
def test_an_engine_entry_an_earlier_version_is_downloaded(team, tmp_path, shared):
    """It does not say what a manifest, a bill of materials or another key needs."""
    from scons_tensorrt.files.signing_keys import load_signing_key

    signing = load_signing_key(str(shared / "key"))
    client = CacheClient(
        ObjectStore(team.store.as_uri(), True), {signing.trusted.name: signing.trusted}, signing
    )
    path = team.full.engine("a")
    team.entry(path.name).unlink()
    receipt = team.receipt(path.name)
    assert client.publish(engine_entry(receipt), {receipt.sha256: path})
    run = team.clone(tmp_path / "clone").scons("engines", "FETCH=none")
    assert (run.names("FETCHED"), run.names("FOUND")) == (["a"], ["b"])


@pytest.mark.slow
def test_in_a_tree_with_a_repository_everything_is_downloaded(team, tmp_path):
    """SCons might take an older file of the repository for one that is not in the tree."""
    run = team.clone(tmp_path / "clone").scons("engines", "FETCH=none", f"BEHIND={team.full.root}")
    assert run.status == 0, run.out
    assert "FOUND" not in run.out


@pytest.mark.slow
def test_the_report_of_a_run_without_bytes(team, tmp_path):
    tree = team.clone(tmp_path / "clone")
    assert tree.scons("engines-report", "FETCH=none").status == 0
    report = json.loads(tree.path(".trt/report/report.json").read_text())
    assert {each["on_disk"] for each in report["engines"]} == {"not downloaded"}
    assert all(each["receipt"] and each["sha256"] and each["size"] for each in report["engines"])
    assert report["run"]["found"] == 2
    page = tree.path(".trt/report/index.html").read_text()
    assert "All 2 engines intact or in the store; 2 not downloaded" in page
    ci = tree.cli("report", "--github", "--junit", "engines.xml")
    assert "::error" not in ci.out
    assert 'failures="0"' in tree.path("engines.xml").read_text()


@pytest.mark.slow
def test_other_ways_to_run_scons_with_what_was_not_downloaded(team, tmp_path):
    tree = team.clone(tmp_path / "clone")
    tree.scons("engines", "FETCH=none")
    before = tree.snapshot(".trt/receipts")
    dry = tree.scons("-n", "engines", "FETCH=none")
    assert len(dry.lines("WOULD BUILD")) == 2
    assert tree.scons("-q", "engines", "FETCH=none").status == 1
    assert tree.scons("-c", "engines", "FETCH=none").status == 0
    assert tree.snapshot(".trt/receipts") == before
    engine = f"engines/{engine_name(team, 'a')}"
    for command, status in (("verify", 1), ("reproduce", 1), ("check", 18)):
        said = tree.cli(command, engine)
        assert (said.status, said.err, len(said.out.splitlines())) == (status, "", 1)
        assert said.out.endswith(": not downloaded (FETCH=); run `scons engines`\n")
    assert "  not downloaded (FETCH=); showing the newest receipt:" in tree.cli("explain", engine).out
    told = tree.scons("--debug=explain", "--warn=all", "engines", "FETCH=none").out
    assert "because it doesn't exist" in told
    assert "Cannot find target" not in told


@pytest.mark.slow
def test_a_store_that_cannot_be_reached_compiles(team, tmp_path):
    tree = team.clone(tmp_path / "clone")
    run = tree.scons("a", f"STORE={tmp_path.as_uri()}/nowhere", "FETCH=none")
    assert run.built == ["a"]
    assert "is not used: no such folder" in run.out


@pytest.mark.slow
def test_bytes_that_the_store_lost_are_uploaded_again_and_counted(team, tmp_path, shared):
    lost = team.blob(engine_name(team, "a"))
    lost.unlink()
    write = "STORE_MODE=write", f"STORE_SIGNING_KEY={shared / 'key'}"
    run = team.clone(tmp_path / "clone").scons("a", "FETCH=none", *write)
    assert run.built == ["a"]
    assert "engines: 1 uploaded to " in run.out
    assert lost.exists()  # TensorRT for RTX gives the same bytes again
    assert team.clone(tmp_path / "other").scons("a", "FETCH=none").names("FOUND") == ["a"]


VANISHES = """
gone = env.Command("gone.txt", [], f"mv {STORE} {STORE}.away && touch $TARGET")
env.Requires(gone, a[0])
env.Requires([b[0], exported], gone)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_store_that_vanishes_during_the_run_is_named_once_and_not_made_anew(mode, team, tmp_path, shared):
    """An unmounted share: each entry seems to be missing, and an upload would fill the folder below it."""
    tree = team.clone(tmp_path / "clone")
    tree.write(f"STORE = {str(team.store)!r}" + SCONSTRUCT + VANISHES)
    key = [f"STORE_SIGNING_KEY={shared / 'key'}"] * (mode == "write")
    run = tree.scons("b", "a", "FETCH=none", f"STORE_MODE={mode}", *key)
    assert run.status == 0, run.out
    assert (run.names("FETCHED"), run.built) == (["a"], ["b"])
    said = [line for line in run.out.splitlines() if line.startswith("engines: not using the store")]
    assert len(said) == 1, run.out
    assert said[0].endswith(f"for the rest of this run: no such folder: {team.store}")
    assert not team.store.exists()


WRONG = {
    "FETCH=none": "FETCH=none needs STORE=URL, the shared cache",
    "FETCH=some STORE=file:///x": "FETCH=some: write FETCH=all or FETCH=needed or FETCH=none",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_setting_stops_the_run_with_one_line(wrong, tree):
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx")')
    run = tree.scons("engines", *wrong.split())
    assert run.status == 2
    assert [line for line in run.out.splitlines() if "***" in line] == [
        f"scons: *** SConstruct:4: {WRONG[wrong]}"
    ]


@pytest.mark.slow
def test_a_variable_without_a_store_has_no_effect(tree):
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx")')
    assert tree.scons("engines", TRT_FETCH="none").built == ["a"]


GATED = """
gate = {"inputs": "samples.npz", "atol": 1, "record": 2}
made = env.Engine("a", "models/a.onnx", precision="fp16", accuracy=gate)
env.EngineManifest("dist/manifest.json", made)
env.InstallEngines(GetLaunchDir() + "/installed", made)
"""


@pytest.mark.slow
def test_a_conversion_its_gate_and_its_recorded_samples_over_s3(s3, key, tmp_path):
    """Each step's entry is enough for the next step's key; what is installed is downloaded."""
    import numpy as np

    tree = Tree(tmp_path / "ci")
    make_model(tree.path("models/a.onnx"), external="a.data")
    np.savez(tree.path("samples.npz"), x=np.random.default_rng(0).random((2, 1, 8, 16, 16), np.float32))
    tree.write(GATED)
    clone = tree.copy(tmp_path / "clone", "models", "SConstruct", "samples.npz")
    writes = {"TRT_STORE_MODE": "write", "TRT_STORE_SIGNING_KEY": str(key)}
    tree.environment = {"TRT_STORE": f"{s3.url}/nobytes", **s3.env(WRITER), **writes}
    first = tree.scons("engines", "dist")
    assert first.built == ["a"], first.out
    trust = {"TRT_STORE_TRUSTED_KEYS": str(key.parent / "keys")}
    clone.environment = {"TRT_STORE": f"{s3.url}/nobytes", **s3.env(READER), **trust}
    run = clone.scons("engines", "dist", "FETCH=none", "-j2", TRT_ONNX_PYTHON="/nowhere/python")
    assert run.names("FOUND") == ["a", "a"], run.out  # the engine and its recorded samples
    assert any("accuracy.json" in line and "error" in line for line in run.lines("FOUND"))
    assert engines_in(clone) == []
    for path in tree.path("dist").iterdir():
        assert clone.path(f"dist/{path.name}").read_bytes() == path.read_bytes(), path.name
    run = clone.scons("install", "FETCH=none", TRT_ONNX_PYTHON="/nowhere/python")
    assert run.status == 0, run.out
    assert len(run.lines("FETCHED")) == 2
    assert not list(clone.path(".trt/onnx").glob("*.onnx"))


DAMAGED = [
    {},
    {"sha512": "0" * 128},
    {"sha512": "0" * 127, "onnx": [ONNX_FACT, []]},
    {"sha512": "0" * 128, "onnx": None},
    {"sha512": "0" * 128, "onnx": ["onnx 1", []]},
    {"sha512": "0" * 128, "onnx": [ONNX_FACT, {"inputs": 3}]},
    {"sha512": 5, "onnx": [ONNX_FACT, []]},
    [],
    "text",
    None,
]


def test_a_damaged_description_counts_as_none(tmp_path):
    for damaged in DAMAGED:
        assert description_of("a.onnx", {DESCRIBED: damaged}) is None, damaged
    path = make_model(tmp_path / "a.onnx", external="a.onnx.data")
    digests = {name: _sha256(tmp_path / name) for name in ("a.onnx", "a.onnx.data")}
    receipt = Receipt("a.onnx", "k", digests["a.onnx"], 1, {}, {"data_sha256": digests["a.onnx.data"]})
    described = describe(path, receipt)
    known = description_of("a.onnx", {**receipt.details, DESCRIBED: described})
    assert known
    assert known.summary.external == {"a.onnx.data": (tmp_path / "a.onnx.data").stat().st_size}
    assert (
        description_of("a.onnx", {**receipt.details, DESCRIBED: {**described, "data_sha512": None}}) is None
    )
    (tmp_path / "a.onnx.data").write_bytes(b"other")
    assert describe(path, receipt) is None


def _sha256(path: Path) -> str:
    from conftest import sha256

    return sha256(path)
