"""SCons's own switches mean for engines what they mean for everything else."""

import subprocess
from pathlib import Path

import pytest

from conftest import Tree, flip_last_bit, make_model, sound


def test_dry_run_writes_nothing_at_all(two: Tree) -> None:
    run = two.scons("-n", "engines")
    assert (run.status, run.names("WOULD BUILD")) == (0, ["a", "b"])
    assert run.summary.startswith("engines: 0 reused, 0 built, 0 failed in ")
    assert run.summary.endswith("(dry run: 2 would be built; no earlier receipt says how long that takes)")
    assert not two.path(".trt").exists()
    assert not two.path("engines").exists()


def test_dry_run_estimates_seconds_by_earlier_receipts(built: Tree) -> None:
    seconds = round(built.receipt("a")["duration_s"])
    make_model(built.path("models/a.onnx"), seed=3)
    make_model(built.path("models/c.onnx"), seed=4)
    built.write('for n in "abc": env.Engine(n, f"models/{n}.onnx")')
    run = built.scons("-n", "engines")
    assert run.summary.endswith(f"(dry run: 2 would be built; {seconds} s by earlier receipts, 1 of 2 known)")


def test_dry_run_of_what_is_current_builds_nothing(built: Tree) -> None:
    assert built.scons("-n", "engines").summary.endswith("(dry run: 0 would be built)")


def test_question_writes_nothing_and_says_nothing(two: Tree) -> None:
    run = two.scons("-q", "engines")
    assert run.status == 1
    assert "engines:" not in run.out
    assert not two.path(".trt").exists()


def test_dry_run_of_what_a_lost_sconsign_forgot_would_reuse(built: Tree) -> None:
    built.path(".sconsign.dblite").unlink()
    run = built.scons("-n", "engines")
    assert (run.names("WOULD REUSE"), run.names("WOULD BUILD")) == (["a", "b"], [])


def test_silent_says_nothing(built: Tree) -> None:
    assert built.scons("-s", "engines").out == ""


def test_silent_still_says_what_failed(built: Tree) -> None:
    built.path("models/a.onnx").write_bytes(b"junk")
    run = built.scons("-s", "engines")
    assert (run.status, run.failed) == (2, ["a"])


def test_keep_going_builds_the_rest(two: Tree) -> None:
    two.path("models/a.onnx").write_bytes(b"junk")
    run = two.scons("-k", "engines")
    assert (run.status, run.failed, run.built) == (2, ["a"], ["b"])
    assert run.summary.startswith("engines: 0 reused, 1 built, 1 failed in ")


def test_without_keep_going_the_first_failure_ends_it(two: Tree) -> None:
    two.path("models/a.onnx").write_bytes(b"junk")
    run = two.scons("engines")
    assert (run.status, run.failed, run.built) == (2, ["a"], [])


def test_jobs_compile_at_once_and_each_line_is_whole(tree: Tree) -> None:
    names = ["a", "b", "c", "d"]
    for seed, name in enumerate(names):
        make_model(tree.path(f"models/{name}.onnx"), seed=seed)
    tree.write(f'for n in {names}: env.Engine(n, f"models/{{n}}.onnx")')
    run = tree.scons("-j4", "engines")
    assert (run.status, run.built) == (0, names)
    assert all(sound(engine) for engine in tree.engines().values())
    assert tree.scons("-j4", "engines").reused == names


def test_bare_clean_leaves_engines_and_says_so(built: Tree) -> None:
    before = built.snapshot()
    run = built.scons("-c")
    assert run.status == 0
    assert "engines: 2 kept; `scons -c engines` removes them" in run.out
    assert built.snapshot() == before
    assert built.scons().reused == ["a", "b"]


def test_clean_engines_removes_them_and_keeps_receipts(built: Tree) -> None:
    assert built.scons("-c", "engines").status == 0
    assert built.engines() == {}
    assert not list(built.path("engines").glob("*"))
    assert list(built.path(".trt/receipts").rglob("*.json"))


def test_cleaning_one_named_engine_removes_that_pair(built: Tree) -> None:
    name = str(built.engine("a").relative_to(built.root))
    assert built.scons("-c", name).status == 0
    assert list(built.engines()) == ["b"]
    assert not list(built.path("engines").glob("a__*"))


def test_yocto_cleans_with_variables_and_keeps_engines(built: Tree) -> None:
    run = built.scons(f"--directory={built.root}", "--clean", "PREFIX=/usr", "prefix=/usr")
    assert run.status == 0
    assert sorted(built.engines()) == ["a", "b"]


def test_help_documents_the_command_line_without_asking_hardware(two: Tree) -> None:
    out = two.scons("-h", TRT_PYTHON="/no/such/python").out
    for word in ("HARDWARE=", "BACKEND=", "VERIFY=", "ENGINE_DIR=", "JETPACK=", "TRT_PYTHON"):
        assert word in out
    assert not two.path(".trt").exists()


def test_tree_shows_what_an_engine_depends_on(two: Tree) -> None:
    out = two.scons("-n", "--tree=all", "engines").out
    for node in ("hardware compute_capability=8.0+", "option precision=fp32", "models/a.onnx"):
        assert node in out


def test_an_engine_can_be_named_as_target(two: Tree) -> None:
    run = two.scons("engines/a__sm80plus_cu13.0_rtx1.7_fp32.engine")
    assert run.built == ["a"]
    assert list(two.engines()) == ["a"]


def test_scons_of_the_whole_tree_builds_engines_too(two: Tree) -> None:
    assert two.scons("-j2", ".").built == ["a", "b"]


def test_a_line_of_the_users_own_before_each_action(two: Tree) -> None:
    out = two.scons("engines", TRT_ENGINECOMSTR="TRT $SOURCE").out
    assert "\nTRT models/a.onnx\n" in out


@pytest.mark.parametrize("jobs", ["-j1", "-j4"])
def test_the_engine_returned_is_a_pair_of_nodes(two: Tree, jobs: str) -> None:
    two.write(
        """
        pair = env.Engine("a", "models/a.onnx")
        assert [str(n).rpartition("__")[2] for n in pair] == [
            "sm80plus_cu13.0_rtx1.7_fp32.engine", "sm80plus_cu13.0_rtx1.7_fp32.engine.sha256"]
        env.Command("listed", pair, "ls $SOURCES > $TARGET")
        """
    )
    assert two.scons(jobs, "listed").status == 0
    assert len(two.path("listed").read_text().splitlines()) == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_engines_that_fail(tree: Tree) -> None:
    """SCons keeps every failure to its end; what was sent to the compiler must not stay with it."""
    import onnx

    model = onnx.load(make_model(tree.path("models/a.onnx")))
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, tree.path("models/a.onnx"))
    peaks = []
    for count in (2, 26):
        tree.write(
            f"""
            import atexit

            def peak():  # of this program alone: ru_maxrss remembers who started it
                status = open("/proc/self/status").read()
                print("PEAK", status.partition("VmHWM:")[2].split()[0])

            atexit.register(peak)
            for i in range({count}):
                env.Engine(f"m{{i}}", "models/a.onnx")
            """
        )
        run = tree.scons("-k", "-j2", "engines")
        assert len(run.failed) == count
        peaks.append(int(run.lines("PEAK")[0].split()[1]))
    assert peaks[1] - peaks[0] < 24 * 128  # KiB; each of 24 more jobs is 256 KiB


@pytest.mark.slow
def test_a_dry_run_says_what_the_real_run_does(tree: Tree) -> None:
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


def test_an_interactive_session_looks_again(built: Tree) -> None:
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


def test_an_interactive_session_rebuilds_what_was_removed_for_any_target(built: Tree) -> None:
    name = built.engine("a").relative_to(built.root)
    with open(built.path("SConstruct"), "a", encoding="utf-8") as file:
        file.write(f'\nenv.Command("out/a.copy", "{name}", Copy("$TARGET", "$SOURCE"))\n')
    with subprocess.Popen(
        built.command("--interactive"),
        cwd=built.root,
        env=built.env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout

        def build(target: str) -> None:
            process.stdin.write(f"build {target}\n")
            process.stdin.flush()
            while "done clearing node information" not in process.stdout.readline():
                pass

        for target in ("engines", "out/a.copy", "a", "engines"):
            for path in (built.engine("a"), Path(f"{built.engine('a')}.sha256")):
                path.unlink()
                build(target)
                assert sound(built.engine("a")), (target, path.suffix)
        process.stdin.write("exit\n")


def test_settings_made_after_the_tool_count(two: Tree) -> None:
    two.write(
        """
        env["TRT_STATE_DIR"], env["TRT_ENGINE_DIR"] = "mystate", "out"
        env.Engine("a", "models/a.onnx")
        """
    )
    assert two.scons().built == ["a"]
    assert not two.path(".trt").exists()
    assert list(two.path("mystate/receipts").rglob("*.json"))


def test_cleaning_a_named_engine_from_elsewhere(built: Tree, tmp_path) -> None:
    name = f"engines/{built.engine('a').name}"
    assert built.scons(f"--directory={built.root}", "-c", name, cwd=tmp_path).status == 0
    assert list(built.engines()) == ["b"]
    name = f"#engines/{built.engine('b').name}"
    assert built.scons("-u", "-c", name, cwd=built.path("models")).status == 0
    assert built.engines() == {}
