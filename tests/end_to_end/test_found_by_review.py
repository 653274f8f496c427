"""Situations that a reviewer broke, numbered as they were found."""

import json
import os
import shutil
import subprocess
import threading
import time

import pytest

from conftest import Tree, fake_compiler, flip_last_bit, hardware, make_model, sha256, sound


@pytest.mark.slow
def test_01_two_trees_that_share_a_state_folder_keep_to_their_own_model(tmp_path) -> None:
    state = str(tmp_path / "state")
    trees = [Tree(tmp_path / name) for name in ("one", "two")]
    for seed, tree in enumerate(trees):
        make_model(tree.path("models/a.onnx"), seed=seed, depth=8, width=32)
        tree.write('env.Engine("a", "models/a.onnx")')
    alone = []
    for tree in trees:
        assert tree.scons().built == ["a"]
        alone.append(sha256(tree.engine("a")))
        shutil.rmtree(tree.path("engines"))
        shutil.rmtree(tree.path(".trt"))
        tree.path(".sconsign.dblite").unlink()
    running = [tree.start("engines", TRT_STATE_DIR=state) for tree in trees]
    assert [process.wait() for process in running] == [0, 0]
    assert [sha256(tree.engine("a")) for tree in trees] == alone
    assert all(tree.scons(TRT_STATE_DIR=state).reused == ["a"] for tree in trees)


def test_02_a_model_swapped_and_swapped_back_is_compiled_as_it_was_hashed(two: Tree) -> None:
    model, other = two.path("models/a.onnx"), two.path("models/b.onnx")
    act = f"""
import shutil
keep = {str(model)!r} + ".keep"
os.rename({str(model)!r}, keep); shutil.copy({str(other)!r}, {str(model)!r})
data = write()
os.rename(keep, {str(model)!r})
done(data)
"""
    python = fake_compiler(two.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    two.write('env.Engine("a", "models/a.onnx")')
    assert two.scons(TRT_PYTHON=str(python)).built == ["a"]
    swapped = two.engine("a").read_bytes()
    shutil.rmtree(two.path(".trt"))
    plain = fake_compiler(two.path("plain"), product="tensorrt_rtx", version="1.7.1.116")
    two.scons(TRT_PYTHON=str(plain))
    assert two.engine("a").read_bytes() == swapped


def test_02_a_model_written_to_while_it_is_compiled_is_not_recorded(two: Tree) -> None:
    model = str(two.path("models/a.onnx"))
    act = f"""
first = open({model!r}, "rb").read()
open({model!r}, "r+b").write(first[::-1]); data = write(); open({model!r}, "r+b").write(first)
done(data)
"""
    python = fake_compiler(two.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    two.write('env.Engine("a", "models/a.onnx")')
    run = two.scons(TRT_PYTHON=str(python))
    assert (run.status, run.failed) == (2, ["a"])
    assert "a.onnx changed while it was compiled" in run.reason("a")


def test_03_external_data_called_like_our_own_link_is_read(tree: Tree) -> None:
    make_model(tree.path("models/net.onnx"), external="model.onnx")
    make_model(tree.path("models/same.onnx"), external="other.bin")
    tree.write('env.Engine("a", "models/net.onnx")\nenv.Engine("b", "models/same.onnx")')
    assert tree.scons().built == ["a", "b"]
    assert tree.engine("a").stat().st_size == tree.engine("b").stat().st_size
    before = sha256(tree.engine("a"))
    flip_last_bit(tree.path("models/model.onnx"))
    assert tree.scons().built == ["a"]
    assert sha256(tree.engine("a")) != before


def test_04_another_builders_target_never_goes_stale(two: Tree) -> None:
    swap = f"os.replace({str(two.path('new.onnx'))!r}, {str(two.path('models/a.onnx'))!r})"
    python = fake_compiler(two.path("fake"), f"{swap}; done(write())", "tensorrt_rtx", "1.7.1.116")
    two.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Command("copy.onnx", "models/a.onnx", Copy("$TARGET", "$SOURCE"))
        """
    )
    make_model(two.path("new.onnx"), seed=7)
    os.utime(two.path("new.onnx"), (1, 1))
    assert two.scons("copy.onnx", "engines", TRT_PYTHON=str(python)).status == 2
    assert two.scons("engines", "copy.onnx").status == 0
    assert two.path("copy.onnx").read_bytes() == two.path("models/a.onnx").read_bytes()


def test_05_boards_whose_compiler_never_repeats_its_bytes_keep_their_engines(two: Tree) -> None:
    hardware(two.path("hardware/here.json"))
    hardware(two.path("hardware/there.json"))
    python = fake_compiler(two.path("fake"), "done(write(plan(job) + os.urandom(16)))")
    two.environment["TRT_PYTHON"] = str(python)
    assert two.scons("engines", "HARDWARE=here").built == ["a", "b"]
    away = two.path("engines/here").rename(two.root.with_name("here"))  # else they would be copied
    assert two.scons("engines", "HARDWARE=there").built == ["a", "b"]
    away.rename(two.path("engines/here"))
    for name in ("here", "there"):
        assert two.scons("engines", f"HARDWARE={name}").reused == ["a", "b"]


@pytest.mark.parametrize("duplicate", [0, 1])
def test_06_a_plugin_of_a_variant_dir(tree: Tree, duplicate: int) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.path("models/p.c").write_text("int f(void) { return 1; }\n")
    command = ["cc", "-shared", "-fPIC", "-o", tree.path("models/p.so"), tree.path("models/p.c")]
    subprocess.run(command, check=True)
    tree.write(f'SConscript("models/SConscript", exports="env", variant_dir="v", duplicate={duplicate})')
    tree.write('Import("env")\nenv.Engine("a", "a.onnx", plugins=["p.so"])', "models/SConscript", header="")
    assert tree.scons("-n", "engines").names("WOULD BUILD") == ["a"]
    assert tree.scons().built == ["a"]


def test_07_a_dollar_in_a_path(tmp_path) -> None:
    tree = Tree(tmp_path / "a$b")
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Install("firmware", env.Engine("a", "models/a.onnx"))')
    assert tree.scons("engines", "firmware", "ENGINE_DIR=out$x").built == ["a"]
    assert len(list(tree.path("firmware").iterdir())) == 2
    assert os.listdir(tmp_path) == ["a$b"]
    assert tree.scons("-q", "engines", "ENGINE_DIR=out$x").status == 0
    tree.scons("-c", "engines", "ENGINE_DIR=out$x")
    assert os.listdir(tree.path("out$x")) == []


@pytest.mark.slow
def test_08_a_dry_run_says_what_the_real_run_does(tree: Tree) -> None:
    make_model(tree.path("src/a.onnx"), external="a.bin")
    make_model(tree.path("src/b.onnx"), seed=1)
    tree.path("src/p.c").write_text("int f(void) { return 1; }\n")
    tree.write(
        """
        def copy(target, source):
            return env.Command(target, source, Copy("$TARGET", "$SOURCE"))
        copy("made/a.bin", "src/a.bin")
        env.Engine("data_made", copy("made/a.onnx", "src/a.onnx"))
        plugin = env.Command("made/p.so", "src/p.c", "cc -shared -fPIC -o $TARGET $SOURCE")
        env.Engine("plugin_made", "src/b.onnx", plugins=plugin)
        """
    )
    assert tree.scons("-n", "engines").names("WOULD BUILD") == ["data_made", "plugin_made"]
    run = tree.scons("-k", "engines")
    assert (run.status, run.built) == (0, ["data_made", "plugin_made"])
    tree.path("src/p.c").write_text("int f(void) { return 2; }\n")
    dry = tree.scons("-n", "engines")
    assert dry.reason("plugin_made") == "made/p.so would be built first"
    assert dry.names("WOULD REUSE") == ["data_made"]
    assert tree.scons().built == ["plugin_made"]


def test_09_an_interactive_session_looks_again(built: Tree) -> None:
    engine = built.engine("a")
    process = subprocess.Popen(
        built.command("--interactive"),
        cwd=built.root,
        env=built.env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin
    process.stdin.write("build engines\n")
    process.stdin.flush()
    assert process.stdout
    while "done clearing node information" not in process.stdout.readline():
        pass
    flip_last_bit(engine)
    out, _ = process.communicate("build engines\nexit\n", timeout=60)
    assert "BUILT" in out
    assert sound(engine)


def test_10_ctrl_c_at_the_terminal_is_not_called_a_crash(two: Tree) -> None:
    import signal

    python = fake_compiler(two.path("fake"), "time.sleep(30)", "tensorrt_rtx", "1.7.1.116")
    process = subprocess.Popen(
        two.command("engines"),
        cwd=two.root,
        env=two.env(TRT_PYTHON=str(python)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    while not two.path("fake/compiled").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert "INTERRUPTED engines/a__sm80plus_cu13.0_rtx1.7_fp32.engine: stopped on request" in out
    assert "crashed" not in out
    assert process.returncode != 0


WRONG = {
    "a number as source": 'env.Engine("a", 5)',
    "bytes as source": 'env.Engine("a", b"models/a.onnx")',
    "a file as folder of the source": 'env.Engine("a", "models/a.onnx/x")',
    "no source": 'env.Engine("a")',
    "nothing": "env.Engine()",
    "a number as plugin": 'env.Engine("a", "models/a.onnx", plugins=5)',
    "nothing as plugin": 'env.Engine("a", "models/a.onnx", plugins=[None])',
    "an empty plugin": 'env.Engine("a", "models/a.onnx", plugins=[""])',
    "a map as plugin": 'env.Engine("a", "models/a.onnx", plugins={"a": 1})',
    "a list as precision": 'env.Engine("a", "models/a.onnx", precision=["fp32"])',
    "a value as source": 'env.Engine("a", Value("x"))',
    "too many by position": 'env.Engine("a", "models/a.onnx", "fp32", None, 1, [], [], None, 1)',
    "one option twice": 'env.Engine("a", "models/a.onnx", "fp32", precision="fp32")',
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_11_wrong_types_are_one_line(two: Tree, call: str) -> None:
    two.write(call)
    run = two.scons()
    assert run.status == 2
    line = next(line for line in run.out.splitlines() if line.startswith("scons: *** "))
    assert line.startswith("scons: *** SConstruct:4: Engine"), run.out


@pytest.mark.parametrize(
    "call",
    [
        'Engine(deep, "models/a.onnx")',
        'OnnxExport(deep, "e.py:f")',
        'EngineManifest(deep, env.Engine("a", "models/a.onnx"))',
        'InstallEngines(deep, env.Engine("a", "models/a.onnx"))',
    ],
)
def test_11_a_list_a_thousand_deep_is_one_line(two: Tree, call: str) -> None:
    two.write(f"import functools\ndeep = functools.reduce(lambda x, _: [x], range(2000), [])\nenv.{call}")
    run = two.scons()
    assert run.status == 2
    assert f"scons: *** SConstruct:6: {call.partition('(')[0]}: " in run.out


def test_11_a_path_object_and_options_by_position_are_welcome(two: Tree) -> None:
    two.write(
        """
        import pathlib
        env.Engine("a", pathlib.Path("models/a.onnx"), "tf32", {"x": (1, 8, 16, 16)}, 2048)
        """
    )
    assert two.scons().built == ["a"]


@pytest.mark.parametrize("text", ['{"schema": 1, "product": ["tensorrt"]}', "[" * 100_000])
def test_11_strange_hardware_files(two: Tree, text: str) -> None:
    hardware(two.path("hardware/board.json")).write_text(text)
    run = two.scons("engines", "HARDWARE=board")
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert "hardware/board.json" in run.reason("a")


@pytest.mark.parametrize("suffix", ["", ".sha256"])
def test_11_a_folder_where_the_engine_shall_be(two: Tree, suffix: str) -> None:
    two.path(f"engines/a__sm80plus_cu13.0_rtx1.7_fp32.engine{suffix}").mkdir(parents=True)
    run = two.scons("-k", "engines")
    assert (run.status, run.failed, run.built) == (2, ["a"], ["b"])
    assert "is a folder, but the engine goes there; remove it" in run.reason("a")


@pytest.mark.parametrize("event", ["done", "error", "again"])
def test_11_events_without_their_fields(two: Tree, event: str) -> None:
    act = f"print(json.dumps({{'event': {event!r}}}))"
    python = fake_compiler(two.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    run = two.scons(TRT_PYTHON=str(python))
    assert (run.status, run.failed) == (2, ["a"])
    assert "no result" in run.reason("a")


def test_12_an_engine_folder_that_cannot_be_made(two: Tree) -> None:
    run = two.scons("engines", "ENGINE_DIR=/proc/no/such")
    assert (run.status, run.failed) == (2, ["a"])
    assert "cannot be made" in run.reason("a")
    assert "name another ENGINE_DIR=" in run.reason("a")


def test_13_a_relative_interpreter_is_below_the_top_wherever_it_is_asked(two: Tree) -> None:
    fake_compiler(two.path("fake"), product="tensorrt_rtx", version="1.7.1.116")
    two.write('SConscript("models/SConscript", exports="env")')
    two.write('Import("env")\nenv.Engine("a", "a.onnx")', "models/SConscript", header="")
    assert two.scons(TRT_PYTHON="fake/python").built == ["a"]


def test_14_settings_made_after_the_tool_count(two: Tree) -> None:
    two.write(
        """
        env["TRT_STATE_DIR"], env["TRT_ENGINE_DIR"] = "mystate", "out"
        env.Engine("a", "models/a.onnx")
        """
    )
    assert two.scons().built == ["a"]
    assert not two.path(".trt").exists()
    assert list(two.path("mystate/receipts").rglob("*.json"))


def test_14_two_state_folders_in_one_run_are_refused(two: Tree) -> None:
    two.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Clone(TRT_STATE_DIR="other").Engine("b", "models/b.onnx")
        """
    )
    run = two.scons()
    assert run.status == 2
    assert "use the same values" in run.out


def test_15_external_data_that_is_too_short_is_named(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="a.bin")
    tree.path("models/a.bin").write_bytes(b"short")
    tree.write('env.Engine("a", "models/a.onnx")')
    run = tree.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert "external data 'a.bin' of models/a.onnx has 5 bytes and the model needs" in run.reason("a")


def test_15_an_interpreter_that_does_not_answer(two: Tree) -> None:
    run = two.scons(TRT_PYTHON="/bin/false")
    assert "did not answer (it ended with status 1)" in run.reason("a")


def test_16_an_engine_whose_model_could_not_be_made_is_counted(two: Tree) -> None:
    two.write(
        """
        env.Engine("a", env.Command("made.onnx", [], "false"))
        env.Engine("b", "models/b.onnx")
        """
    )
    run = two.scons("-k", "engines")
    assert (run.status, run.failed, run.built) == (2, ["a"], ["b"])
    assert run.reason("a") == "EngineBuildError: made.onnx could not be built, see error above"
    assert run.summary.startswith("engines: 0 reused, 1 built, 1 failed")


def test_18_a_reader_that_goes_away_costs_nothing(built: Tree) -> None:
    command = " ".join(built.command("engines"))
    done = subprocess.run(
        f"{command} | head -1",
        shell=True,
        cwd=built.root,
        env=built.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "BrokenPipe" not in done.stderr
    assert built.events()[-1]["event"] == "engine.compile.summary"
    assert len(built.events()) == 6


@pytest.mark.parametrize("place", ["inside", "another filesystem"])
def test_19_what_a_killed_compile_left_is_swept_once_the_old_pair_is_current_again(
    two: Tree, place: str, tmp_path
) -> None:
    import tempfile

    state = tempfile.mkdtemp(dir="/dev/shm") if place != "inside" else str(two.path(".trt"))
    two.environment["TRT_STATE_DIR"] = state
    two.write('env.Engine("a", "models/a.onnx")')
    assert two.scons().built == ["a"]
    model = two.path("models/a.onnx")
    first = model.read_bytes()
    make_model(model, seed=5)
    python = fake_compiler(two.path("fake"), "write(); time.sleep(5)", "tensorrt_rtx", "1.7.1.116")
    process = two.start("engines", TRT_PYTHON=str(python))
    while not two.path("fake/compiled").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    process.kill()
    process.wait()
    model.write_bytes(first)
    assert two.scons().reused == ["a"]
    assert len(os.listdir(two.path("engines"))) == 2
    assert not [p for p in os.listdir(state) if p == "partial" and os.listdir(f"{state}/partial")]
    if place != "inside":
        shutil.rmtree(state)


def test_21_a_hash_in_names_is_no_top(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="#x.bin")
    tree.write('env.Engine("a", "models/a.onnx")')
    assert tree.scons("engines", "ENGINE_DIR=#out").built == ["a"]
    assert list(tree.engines("out")) == ["a"]


@pytest.mark.slow
def test_eight_scons_at_once_compile_each_engine_once(two: Tree) -> None:
    python = fake_compiler(two.path("fake"), "time.sleep(0.5); done(write())", "tensorrt_rtx", "1.7.1.116")
    two.environment["TRT_PYTHON"] = str(python)
    runs = []
    threads = [threading.Thread(target=lambda: runs.append(two.scons("-j4", "engines"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.status for run in runs] == [0] * 8
    assert sorted(name for run in runs for name in run.built) == ["a", "b"]
    assert len(two.path("fake/compiled").read_text().splitlines()) == 2
    assert all(run.summary.startswith("engines: ") for run in runs)
    assert any("WAITING" in run.out and "process" in run.out for run in runs)
    assert json.loads(two.path(".trt/declared.json").read_text())["schema"] == 1
