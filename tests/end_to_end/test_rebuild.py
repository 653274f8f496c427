"""What changed is rebuilt, that engine only, and the line says what, old → new."""

import re

import pytest

from conftest import HEADER, Tree, flip_last_bit, make_model, sha256

CHANGES = {
    "one option": ("workspace_mb=2048", "workspace_mb changed: 4096 → 2048"),
    "a flag": ('flags=["strict_nans"]', "flags changed: unset → STRICT_NANS"),
    "another flag": ('flags=["REFIT_INDIVIDUAL"]', "flags changed: unset → REFIT_INDIVIDUAL"),
    "memory": (
        'memory_pools={"tactic_shared_memory": "1M"}',
        "memory_pools tactic_shared_memory changed: unset → 1048576",
    ),
    "verbosity": ('profiling_verbosity="detailed"', "profiling_verbosity changed: unset → detailed"),
    "streams": ("max_aux_streams=0", "max_aux_streams changed: unset → 0"),
    "a shape": ('shapes={"x": (1, 8, 16, 16)}', "shapes x changed: unset → 1x8x16x16"),
}


@pytest.mark.parametrize(("option", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_changed_option_rebuilds_that_engine_only(built: Tree, option: str, reason: str) -> None:
    built.write(
        f"""
        env.Engine("a", "models/a.onnx", {option})
        env.Engine("b", "models/b.onnx")
        """
    )
    before = built.snapshot("engines", ".trt")
    dry = built.scons("-n", "engines")
    assert dry.lines("WOULD BUILD")[0].endswith(f"because {reason}")
    assert dry.names("WOULD REUSE") == ["b"]
    assert built.snapshot("engines", ".trt") == before
    assert built.scons("-q", "engines").status == 1
    run = built.scons()
    assert (run.status, run.built, run.reused) == (0, ["a"], ["b"])
    assert run.reason("a") == reason
    assert built.scons().reused == ["a", "b"]


def test_one_byte_of_the_model_rebuilds_it(built: Tree) -> None:
    model = built.path("models/a.onnx")
    old = sha256(model)[:12]
    make_model(model, seed=3)
    run = built.scons()
    assert (run.built, run.reused) == (["a"], ["b"])
    assert run.reason("a") == f"models/a.onnx changed: {old} → {sha256(model)[:12]}"


def test_a_change_with_size_and_mtime_restored_is_seen(built: Tree) -> None:
    model = built.path("models/a.onnx")
    data = model.read_bytes()
    at = data.index(b"first") + 4  # a letter of a node's name: still a model
    stat = model.stat()
    model.write_bytes(data[:at] + b"T" + data[at + 1 :])
    import os

    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model.stat().st_size == stat.st_size
    assert built.scons().built == ["a"]


def test_changed_external_data_rebuilds_its_engine(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), seed=1, external="a.bin")
    make_model(tree.path("models/b.onnx"), seed=2, external="b.bin")
    tree.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Engine("b", "models/b.onnx")
        """
    )
    assert tree.scons().built == ["a", "b"]
    assert "models/a.bin" in tree.scons("-n", "--tree=all", "engines").out
    flip_last_bit(tree.path("models/a.bin"))
    run = tree.scons()
    assert (run.built, run.reused) == (["a"], ["b"])
    assert re.fullmatch(r"external data a.bin changed: \w{12} → \w{12}", run.reason("a"))
    names = [item["name"] for item in tree.receipt("a")["inputs"]]
    assert names == ["models/a.onnx", "models/a.bin"]


def test_a_changed_plugin_rebuilds_its_engine(two: Tree) -> None:
    import subprocess

    def compile_plugin(value: int) -> None:
        source = two.path("plugin.c")
        source.write_text(f"int plugin_value(void) {{ return {value}; }}\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", two.path("libp.so"), source], check=True)

    compile_plugin(1)
    two.write(
        """
        env.Engine("a", "models/a.onnx", plugins=["libp.so"])
        env.Engine("b", "models/b.onnx")
        """
    )
    assert two.scons().built == ["a", "b"]
    compile_plugin(2)
    run = two.scons()
    assert (run.built, run.reused) == (["a"], ["b"])
    assert run.reason("a").startswith("plugin libp.so changed: ")


def test_a_new_precision_is_a_new_file_and_the_old_one_stays(built: Tree) -> None:
    before = built.snapshot()
    built.write(
        """
        env.Engine("a", "models/a.onnx", precision="tf32")
        env.Engine("b", "models/b.onnx")
        """
    )
    run = built.scons()
    assert (run.built, run.reused) == (["a"], ["b"])
    after = built.snapshot()
    assert {name: after[name] for name in before} == before
    assert any(name.endswith("_tf32.engine") for name in after)


def test_an_edit_and_its_revert_reuses_nothing_wrongly(built: Tree) -> None:
    built.environment["TRT_CACHE_SIZE"] = "0"
    model = built.path("models/a.onnx")
    first = model.read_bytes()
    engine = built.engine("a").read_bytes()
    make_model(model, seed=3)
    assert built.scons().built == ["a"]
    model.write_bytes(first)
    run = built.scons()
    assert run.built == ["a"]
    assert run.reason("a").startswith("the engine is from another build: models/a.onnx changed")
    assert built.engine("a").read_bytes() == engine


def test_a_model_made_in_the_same_run_is_waited_for(tree: Tree) -> None:
    make_model(tree.path("first.onnx"), seed=1)
    make_model(tree.path("second.onnx"), seed=2)
    text = """
        onnx = env.Command("build/a.onnx", "{0}.onnx", Copy("$TARGET", "$SOURCE"))
        env.Engine("a", onnx)
        """
    tree.write(text.format("first"))
    assert tree.scons().built == ["a"]
    assert tree.scons().reused == ["a"]
    tree.write(text.format("second"))
    assert tree.scons("-n").reason("a") == "build/a.onnx would be built first"
    run = tree.scons()
    assert run.built == ["a"]
    assert run.reason("a").startswith("build/a.onnx changed: ")


def test_a_user_decider_and_a_touch_rebuild_nothing(built: Tree) -> None:
    built.write(
        """
        env.Decider("timestamp-newer")
        env.Engine("a", "models/a.onnx")
        env.Engine("b", "models/b.onnx")
        """,
        header=HEADER,
    )
    built.path("models/a.onnx").touch()
    assert built.scons().built == []
