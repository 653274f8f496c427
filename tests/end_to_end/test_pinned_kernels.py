"""`timing_cache=`: kernels that were recorded and committed, in whole builds by the real worker, with an API
surface for TensorRT and a C library for the driver. No kernel was ever timed here."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import time
from pathlib import Path

import pytest
from test_read_only_tree import read_only

from conftest import Run, Tree, hardware, make_model, sha256

TESTS = Path(__file__).parents[1]
VERSION = "10.13.3.9"
CACHE = "models/a.cache"
PLAYED = """
import json, os, signal, sys, time
sys.path.insert(0, {compile!r})
from surface import Surface
here = os.path.dirname(__file__)
played = sys.modules[__name__] = Surface("tensorrt-{version}")
played.shape = (1, 8, 16, 16)
told = json.load(open(here + "/told.json"))
played.tuned, played.accepts = told["layers"], told["accepts"]
make_builder = played.Builder
def Builder(logger):
    with open(here + "/builders", "a") as out:
        out.write("x")
    if told["then"] == "sleep":
        open(here + "/sleeps", "w").close()
        time.sleep(60)
    played.fails = told["then"] == "fail"
    return make_builder(logger)
played.Builder = Builder
"""


class Host:
    """A tree on a host with a GPU and TensorRT 10.13, both played."""

    def __init__(self, tree: Tree, site: Path) -> None:
        self.tree, self.module = tree, site / "tensorrt"
        self.path = f"{site}:{tree.env()['PYTHONPATH']}"
        self.layers = {"first": ["0x11", "0xa1"], "second": ["0x22", "0xa2"]}
        self.chooses()

    def chooses(self, accepts: bool = True, then: str = "", **layers: list[str]) -> None:
        """TensorRT tunes these layers too: key and tactic by name."""
        self.layers |= layers
        told = {"layers": self.layers, "accepts": accepts, "then": then}
        (self.module / "told.json").write_text(json.dumps(told))

    def scons(self, *arguments: str, **environment: str) -> Run:
        return self.tree.scons(*(arguments or ("engines",)), PYTHONPATH=self.path, **environment)

    def record(self, *arguments: str) -> Run:
        run = self.scons("engines", "TIMING=record", *arguments)
        assert run.status == 0, run.out
        return run

    def compiles(self) -> int:
        """How many compiles began since the last call."""
        file = self.module / "builders"
        count = len(file.read_text()) if file.exists() else 0
        file.unlink(missing_ok=True)
        return count

    @property
    def cache(self) -> Path:
        return self.tree.path(CACHE)

    def kernels(self) -> dict[str, str]:
        return dict(json.loads(self.cache.read_text())["kernels"])


def declare(tree: Tree, *names: str, more: str = "") -> None:
    tree.write("".join(
        f'env.Engine("{name}", "models/{name}.onnx", timing_cache="{CACHE}"{more})\n' for name in names
    ))  # fmt: skip


def make_host(tree: Tree, site: Path, driver: Path, *names: str) -> Host:
    (site / "tensorrt").mkdir(parents=True)
    text = PLAYED.format(compile=str(TESTS / "build"), version=VERSION)
    (site / "tensorrt" / "__init__.py").write_text(text)
    (site / f"tensorrt_cu13-{VERSION}.dist-info").mkdir()
    for seed, name in enumerate(names):
        make_model(tree.path(f"models/{name}.onnx"), seed=seed)
    declare(tree, *names)
    board(tree)
    tree.environment.update(TRT_HARDWARE="nx", LD_LIBRARY_PATH=str(driver))
    return Host(tree, site)


def board(tree: Tree, **changes: object) -> None:
    """The hardware file of the played GPU."""
    fields = {"machine": platform.machine(), "runtime_version": VERSION, "jetpack": "7.0", **changes}
    hardware(tree.path("hardware/nx.json"), **fields)


@pytest.fixture
def host(tree: Tree, driver: Path, tmp_path: Path) -> Host:
    return make_host(tree, tmp_path / "site", driver, "a")


def test_kernels_are_recorded_once_and_then_pinned(host: Host) -> None:
    run = host.scons()
    assert (run.status, run.failed) == (2, ["a"])
    advice = "record it on the engine's hardware with TIMING=record"
    assert run.reason("a") == f"RecipeError: timing_cache {CACHE}: no such file; {advice}"
    assert host.compiles() == 0
    run = host.scons("-n", "engines", "TIMING=record")
    assert run.status == 0, run.out
    assert f"WOULD RECORD {CACHE} for a because there was none" in run.out.splitlines()
    assert run.reason("a") == f"{CACHE} would be built first"
    assert not host.cache.exists()
    run = host.record()
    assert run.lines("RECORDED")[0].startswith(f"RECORDED {CACHE} for a (2 layers, 2 new, ")
    assert run.built == ["a"]
    assert host.compiles() == 2
    assert host.kernels() == {"0x11": "0xa1 first", "0x22": "0xa2 second"}
    receipt = host.tree.receipt("a")
    assert receipt["kernels"] == host.kernels()
    sha256 = receipt["ingredients"]["input timing_cache"]
    assert {"role": "timing_cache", "name": CACHE, "sha256": sha256} in receipt["inputs"]
    before = host.tree.snapshot("engines", "models")
    for arguments in ([], ["engines", "TIMING=record"]):
        run = host.scons(*arguments)
        assert (run.status, run.reused, run.lines("RECORDED")) == (0, ["a"], []), run.out
    assert host.compiles() == 0
    assert host.tree.snapshot("engines", "models") == before
    host.tree.engine("a").unlink()
    assert host.record().built == ["a"]
    assert host.compiles() == 1  # the receipt says that the file has every layer


@pytest.fixture
def pinned(host: Host) -> Host:
    """The engine, built from its recorded kernels."""
    host.record()
    host.compiles()
    return host


@pytest.mark.slow
def test_a_layer_without_a_kernel_is_named_and_recording_adds_it_alone(pinned: Host) -> None:
    make_model(pinned.tree.path("models/a.onnx"), seed=5)
    pinned.chooses(first=["0x11", "0xb1"], third=["0x33", "0xa3"])
    before = pinned.tree.snapshot("engines", "models")
    run = pinned.scons()
    assert (run.status, run.failed) == (2, ["a"])
    wanted = f"EngineBuildError: timing_cache {CACHE}: it has no kernel for layer third (key 0x33); "
    wanted += "add it on this hardware with TIMING=record; log: .trt/logs/a__"
    assert run.reason("a").startswith(wanted)
    assert pinned.tree.snapshot("engines", "models") == before
    run = pinned.record()
    assert run.lines("RECORDED")[0].startswith(f"RECORDED {CACHE} for a (3 layers, 1 new, ")
    assert run.reason("a").endswith(" (of 3 layers: 1 new)")
    assert pinned.kernels() == {"0x11": "0xa1 first", "0x22": "0xa2 second", "0x33": "0xa3 third"}


@pytest.mark.slow
def test_another_kernel_in_the_file_is_the_reason_and_explain_names_its_layer(pinned: Host) -> None:
    data = pinned.cache.read_bytes()
    pinned.cache.unlink()
    pinned.chooses(first=["0x11", "0xb1"])
    run = pinned.record()
    assert run.reason("a").startswith("timing_cache changed: ")
    assert run.reason("a").endswith(" (of 2 layers: 1 with another kernel)")
    explained = pinned.tree.cli("explain", "a").out.splitlines()
    assert "  pinned              2, by timing_cache" in explained
    assert "  first: 0xa1 → 0xb1" in explained
    pinned.compiles()
    pinned.cache.write_bytes(data)  # of an earlier commit
    run = pinned.scons()
    assert (run.reused, pinned.compiles()) == (["a"], 0)


@pytest.mark.slow
def test_engines_that_share_a_file_are_recorded_before_either_is_built(
    tree: Tree, driver: Path, tmp_path: Path
) -> None:
    host = make_host(tree, tmp_path / "site", driver, "a", "b")
    run = host.record("-j2")
    told = run.lines("RECORDED")
    assert (len(told), run.built, host.compiles()) == (1, ["a", "b"], 4)
    assert f"engines: {CACHE} has every layer of b already (" in run.out
    assert host.scons("engines", "TIMING=record").reused == ["a", "b"]
    make_model(tree.path("models/b.onnx"), seed=9)
    host.chooses(third=["0x33", "0xa3"])
    run = host.record()
    assert run.lines("RECORDED")[0].startswith(f"RECORDED {CACHE} for b (3 layers, 1 new, ")
    assert run.built == ["a", "b"]  # the file is an input of both
    assert run.reason("a").startswith("timing_cache changed: ")
    assert host.scons().reused == ["a", "b"]


HARMS = {
    "another board": "recorded on other hardware (sm_count 16, here 8); each hardware needs a file",
    "another TensorRT": f"recorded with TensorRT 10.13.3.8, not {VERSION}; record it again on this ",
    "no JSON": "not a file that TIMING=record wrote (JSONDecodeError); restore it, or remove it ",
}


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_line_before_any_compile(host: Host) -> None:
    host.tree.environment["PYTHONPATH"] = host.path
    for arguments in (["-n", "engines", "TIMING=record"], ["engines", "TIMING=record"]):
        run = read_only(host.tree, *arguments)
        assert run.status == 2
        told = [line for line in run.out.splitlines() if "FAIL" in line.split(":")[0]]
        where = "the tree cannot be written" if "the tree" in told[0] else "models/ cannot be written"
        step = "Read-only file system; make it writable, or name another file in timing_cache="
        assert told[0].endswith(f"{CACHE}: SConstruct:4: PublishError: {where}: {step}"), run.out
        assert told[1].endswith(f"EngineBuildError: {CACHE} could not be built, see error above"), run.out
    assert host.compiles() == 0


@pytest.mark.slow
def test_a_file_in_a_variant_folder_is_recorded_at_its_source(host: Host) -> None:
    host.tree.write('SConscript("models/SConscript", variant_dir="build", exports="env")')
    call = 'Import("env")\nenv.Engine("a", "a.onnx", timing_cache="{}a.cache")\n'
    host.tree.path("models/SConscript").write_text(call.format(""))
    run = host.scons("engines", "TIMING=record")
    assert run.status == 2
    assert (
        "RecipeError: timing_cache build/a.cache: in a VariantDir, but a commit needs the source: write "
        in run.out
    )
    assert f"write #{CACHE}" in run.out
    host.tree.path("models/SConscript").write_text(call.format("#models/"))
    assert host.record().built == ["a"]
    assert host.cache.exists()
    host.tree.path("models/SConscript").write_text(call.format(""))
    assert host.scons().reused == ["a"]  # as a source, it may be in one


@pytest.mark.slow
def test_a_file_in_a_repository_is_read_and_not_written(pinned: Host, tmp_path: Path) -> None:
    shared = tmp_path / "shared/models/a.cache"
    shared.parent.mkdir(parents=True)
    pinned.cache.rename(shared)
    pinned.tree.write(
        f'Repository("{shared.parents[1]}")\nenv.Engine("a", "models/a.onnx", timing_cache="{CACHE}")'
    )
    assert pinned.scons().reused == ["a"]
    make_model(pinned.tree.path("models/a.onnx"), seed=5)
    pinned.chooses(third=["0x33", "0xa3"])
    before = shared.read_bytes()
    for arguments in ([], ["-n"]):
        run = pinned.scons("engines", "TIMING=record", *arguments)
        told = f"timing_cache {CACHE}: in a Repository, where nothing is recorded; copy it from {shared} "
        assert (run.status, told in run.out) == (2, True), run.out
    assert (shared.read_bytes(), pinned.compiles()) == (before, 0)
    shutil.copy(shared, pinned.cache)
    assert pinned.record().built == ["a"]
    assert shared.read_bytes() == before


@pytest.mark.slow
def test_a_link_stays_and_its_file_is_recorded(host: Host) -> None:
    real = host.tree.path("store/a.cache")
    real.parent.mkdir()
    host.cache.symlink_to("../store/a.cache")
    assert host.record().built == ["a"]
    assert host.cache.is_symlink()
    assert sorted(json.loads(real.read_text())["kernels"]) == ["0x11", "0x22"]


@pytest.mark.slow
def test_two_paths_of_one_file_are_one_line(tree: Tree, driver: Path, tmp_path: Path) -> None:
    host = make_host(tree, tmp_path / "site", driver, "a", "b")
    tree.path("link").symlink_to("models")
    calls = [f'env.Engine("{name}", "models/{name}.onnx", timing_cache="{folder}/a.cache")'
             for name, folder in (("a", "models"), ("b", "link"))]  # fmt: skip
    tree.write("\n".join(calls))
    run = host.scons("engines", "TIMING=record", "-j2")
    assert run.status == 2
    told = f"RecipeError: timing_cache {CACHE}: b names the same file by another path, link/a.cache; "
    assert f"SConstruct:4: {told}" in run.lines("FAILED")[0]
    assert (host.compiles(), host.cache.exists()) == (0, False)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-j1", "-k", "-n"])
def test_a_missing_onnx_is_one_line_with_its_place(host: Host, option: str) -> None:
    declare(host.tree, "gone")
    run = host.scons("engines", "TIMING=record", option)
    told = "SConstruct:4: RecipeError: models/gone.onnx: No such file or directory; check the path"
    assert (run.status, run.out.count(told), "not found" in run.out) == (2, 1, False), run.out


@pytest.mark.slow
def test_a_preview_says_what_is_recorded_and_why_an_engine_is_built(pinned: Host) -> None:
    pinned.tree.engine("a").unlink()
    run = pinned.scons("-n", "engines", "TIMING=record")
    assert (run.lines("WOULD RECORD"), run.reason("a")) == ([], "the engine is missing")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["engines"], ["engines", "TIMING=record"]], ids=["build", "record"])
def test_another_input_or_the_engine_itself_is_one_line(host: Host, arguments: list[str]) -> None:
    call = 'env.Engine("a", "models/a.onnx", {})'
    host.tree.write(call.format('timing_cache="models/a.onnx"'))
    run = host.scons(*arguments)
    assert (run.status, run.reason("a").partition(" wrote ")[0]) == (
        2,
        "RecipeError: timing_cache models/a.onnx: not a file that TIMING=record",
    )
    own = "engines/nx/a__sm87_jp7.0_trt10.13_fp32.engine"
    for option, given in (("timing_cache", f'timing_cache="{own}"'), ("plugin", f'plugins=["{own}"]')):
        host.tree.write(call.format(given))
        run = host.scons(*arguments)
        told = f"scons: *** SConstruct:4: Engine 'a': {option} {own}: the engine itself; name another file"
        assert told in run.out.splitlines(), run.out
        assert "dependency cycle" not in run.out
    assert host.compiles() == 0


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_does_not_fit_is_one_line_and_is_not_replaced(pinned: Host, harm: str) -> None:
    data = json.loads(pinned.cache.read_text())
    if harm == "another board":
        data["hardware"]["sm_count"] = "16"
    elif harm == "another TensorRT":
        data["hardware"]["runtime_version"] = "10.13.3.8"
    pinned.cache.write_text("<<<<<<< HEAD" if harm == "no JSON" else json.dumps(data))
    before = pinned.cache.read_bytes()
    for arguments in (["-n"], ["engines"]):
        run = pinned.scons(*arguments)
        assert (run.status, run.failed) == (2, ["a"] if arguments == ["engines"] else []), run.out
        assert f"SConstruct:4: RecipeError: timing_cache {CACHE}: {HARMS[harm]}" in run.out
    run = pinned.scons("engines", "TIMING=record")
    if harm == "another TensorRT":  # the way to update
        reason = f"because runtime_version changed: 10.13.3.8 → {VERSION}"
        assert run.lines("RECORDED")[0].endswith(reason)
        return
    assert run.status == 2
    assert HARMS[harm] in run.lines("FAILED")[0]
    assert pinned.cache.read_bytes() == before
    assert pinned.compiles() == 0


@pytest.mark.slow
def test_a_cache_that_tensorrt_does_not_take_is_one_line(pinned: Host) -> None:
    data = json.loads(pinned.cache.read_text())
    wanted = (
        f"EngineBuildError: timing_cache {CACHE}: TensorRT {VERSION} does not accept it on this GPU; remove "
    )
    for change in ({"cache": ["dW5yZWFkYWJsZQ=="]}, {"kernels": {**data["kernels"], "0x22": "0xee second"}}):
        pinned.cache.write_text(json.dumps({**data, **change}))
        assert pinned.scons().reason("a").startswith(wanted)
    pinned.chooses(accepts=False)
    pinned.cache.write_text(json.dumps(data) + " ")
    assert pinned.scons().reason("a").startswith(wanted)


@pytest.mark.slow
def test_what_stops_a_recording_leaves_the_file_as_it_was(pinned: Host) -> None:
    make_model(pinned.tree.path("models/a.onnx"), seed=5)
    before = pinned.tree.snapshot("engines", "models")
    pinned.chooses(then="fail")
    run = pinned.scons("engines", "TIMING=record")
    assert run.status == 2
    failed, engine = run.lines("FAILED")
    assert failed.startswith(
        f"FAILED {CACHE}: SConstruct:4: EngineBuildError: the builder refused the network: "
    )
    assert engine.endswith(f"EngineBuildError: {CACHE} could not be built, see error above")
    assert pinned.tree.snapshot("engines", "models") == before
    pinned.chooses(then="sleep")
    running = pinned.tree.start("engines", "TIMING=record", PYTHONPATH=pinned.path)
    sleeps, end = pinned.module / "sleeps", time.monotonic() + 60
    while not sleeps.exists() and time.monotonic() < end:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out = running.communicate(timeout=60)[0].decode()
    assert f"INTERRUPTED {CACHE}" in out.splitlines(), out
    assert "Traceback" not in out
    assert running.returncode == 2
    assert pinned.tree.snapshot("engines", "models") == before
    assert not list(pinned.tree.path(".trt/partial").rglob("*.engine"))


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        (
            {"runtime_version": "10.3.0.30"},
            "",
            "needs TensorRT 10.13 or later, and this is 10.3.0.30; leave it",
        ),
        ({}, ', flags=["DISABLE_TIMING_CACHE"]', "flag DISABLE_TIMING_CACHE switches it off; leave out one"),
        (None, "", "TensorRT for RTX chooses kernels when it loads the engine, not when it compiles"),
    ],
    ids=["before 10.13", "switched off", "RTX"],
)
@pytest.mark.parametrize("arguments", [["engines"], ["engines", "TIMING=record"]], ids=["build", "record"])
def test_where_kernels_cannot_be_pinned_is_one_line(host: Host, changes, more, message, arguments) -> None:
    hardware_name = "nx" if changes is not None else "rtx_sm89"
    board(host.tree, **(changes or {}))
    declare(host.tree, "a", more=more)
    run = host.scons(*arguments, TRT_HARDWARE=hardware_name)
    assert (run.status, run.failed) == (2, ["a"])
    assert run.reason("a").startswith(f"RecipeError: models/a.onnx: timing_cache: {message}"), run.out
    assert host.compiles() == 0
    assert not host.cache.exists()


@pytest.mark.slow
def test_only_hardware_that_a_map_names_is_pinned_and_none_that_there_is_not(host: Host) -> None:
    host.tree.write('env.Engine("a", "models/a.onnx", timing_cache={"nx": "models/a.nx.cache"})')
    run = host.scons("engines", "HARDWARE=nx,rtx_sm89", "TIMING=record")
    assert (run.status, run.built) == (0, ["a", "a"]), run.out
    assert host.tree.path("models/a.nx.cache").exists()
    host.tree.write('env.Engine("a", "models/a.onnx", timing_cache={"xn": "models/a.nx.cache"})')
    run = host.scons()
    assert run.status == 2
    assert "SConstruct:4: Engine 'a': timing_cache 'xn': no hardware/xn.json; write a name as in " in run.out


@pytest.mark.slow
def test_a_toml_file_and_build_have_it_too(host: Host) -> None:
    toml = host.tree.path("engines.toml")
    toml.write_text(f'[engine.a]\nonnx = "models/a.onnx"\ntiming_cache = "{CACHE}"\n')
    host.tree.path("SConstruct").unlink()
    done = host.tree.cli("build", PYTHONPATH=host.path)
    assert done.status == 2
    assert f"engines.toml:3: RecipeError: timing_cache {CACHE}: no such file" in done.out + done.err
    done = host.tree.cli("build", "TIMING=record", PYTHONPATH=host.path)
    assert (done.status, "BUILT engines/nx/a__" in done.out) == (0, True), done.out + done.err
    done = host.tree.cli("build", "models/a.onnx", "--timing-cache", CACHE, PYTHONPATH=host.path)
    assert (done.status, "REUSED engines/nx/a__" in done.out) == (0, True), done.out + done.err
    toml.write_text('[engine.a]\nonnx = "models/a.onnx"\ntiming_cache = 3\n')
    done = host.tree.cli("build", PYTHONPATH=host.path)
    assert (done.status, done.err.startswith("RecipeError: engines.toml:3: timing_cache = 3: write ")) == (
        1,
        True,
    )


@pytest.mark.slow
def test_settings_that_record_nothing_stop_the_run(host: Host) -> None:
    assert "TIMING=recrod: write TIMING=record" in host.scons("engines", "TIMING=recrod").out
    host.tree.write('env.Engine("a", "models/a.onnx")')
    run = host.scons("engines", "TIMING=record")
    assert (run.status, host.compiles()) == (2, 0)
    assert "TIMING=record: no engine has timing_cache=; name its file there" in run.out


@pytest.mark.slow
def test_reproduce_uses_the_same_kernels(pinned: Host) -> None:
    engine = str(pinned.tree.engine("a"))
    done = pinned.tree.cli("reproduce", engine, PYTHONPATH=pinned.path)
    assert done.out == f"EQUAL {engine}\n", done.err


@pytest.mark.slow
def test_a_manifest_lists_it_as_an_input(pinned: Host) -> None:
    with open(pinned.tree.path("SConstruct"), "a") as out:
        out.write('env.EngineManifest("dist/manifest.json", env.fs.File("engines/nx/'
                  'a__sm87_jp7.0_trt10.13_fp32.engine"))\n')  # fmt: skip
    run = pinned.scons("dist")
    assert run.status == 0, run.out
    listed = json.loads(pinned.tree.path("dist/manifest.json").read_text())["engines"][0]
    assert listed["recipe"]["input timing_cache"] == sha256(pinned.cache)
