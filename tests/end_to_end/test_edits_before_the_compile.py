"""A file that changes after a conversion or an accuracy gate and before the compile: the engine would
not be the one that was checked, so it is neither published nor given to a store."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest

from conftest import Run, Tree, fake_compiler, make_model, sha256

FP32_GATE = (
    'env.Engine("a", "models/a.onnx", accuracy=dict(inputs="models/s.npz", reference="models/ref.onnx"))\n'
)
FP16_GATE = (
    'env.Engine("a", "models/a.onnx", precision="fp16", '
    'accuracy=dict(inputs="models/s.npz", rtol=0.05, atol=0.05))\n'
)
FP16 = 'env.Engine("a", "models/a.onnx", precision="fp16")\n'
CHANGED = "EngineBuildError: {} changed since it was checked; run again"


def samples(path: Path, scale: float = 1) -> Path:
    random = np.random.default_rng(0)
    np.savez(path, x=(scale * random.standard_normal((2, 8, 16, 16))).astype(np.float32))
    return path


@pytest.fixture
def models(tree: Tree) -> Path:
    """`a` and its reference, alike; `v2` is neither of them. Returns the model."""
    make_model(tree.path("models/a.onnx"), seed=1)
    shutil.copy(tree.path("models/a.onnx"), tree.path("models/ref.onnx"))
    make_model(tree.path("models/v2.onnx"), seed=2)
    samples(tree.path("models/s.npz"))
    samples(tree.path("models/other.npz"), 2)
    return tree.path("models/a.onnx")


def before_the_compile(tree: Tree, code: str) -> None:
    """Run `code` when the engine's action is asked, once; every step before it is done then."""
    tree.path("site_scons").mkdir(exist_ok=True)
    done = str(tree.root.parent / f"{tree.root.name}.edited")
    head = f"""
        import os, shutil, subprocess, time
        from scons_tensorrt.scons_tool.engine_target import EngineTarget
        from scons_tensorrt.scons_tool.session import Session
        mark_requested = Session.mark_requested
        def edited(self, target):
            mark_requested(self, target)
            if isinstance(target, EngineTarget) and target.began and not os.path.exists({done!r}):
                open({done!r}, "w").close()
                edit()
        Session.mark_requested = edited
        def edit():
    """
    text = textwrap.dedent(head) + textwrap.indent(textwrap.dedent(code).strip("\n"), "    ") + "\n"
    tree.path("site_scons/site_init.py").write_text(text)


def copies(one: Path, other: Path) -> str:
    return f"shutil.copy({str(one)!r}, {str(other)!r})"


def assert_nothing_was_made(run: Run, tree: Tree, name: str) -> None:
    assert run.status == 2, run.out
    assert run.reason("a") == CHANGED.format(name)
    assert not run.built
    assert not tree.engines()
    assert not list(tree.path(".trt/receipts").glob("a__*/*.json"))


class TestOneBuild:
    def test_a_model_edited_after_its_gate_is_not_compiled(self, tree, models):
        before_the_compile(tree, copies(tree.path("models/v2.onnx"), models))
        tree.write(FP32_GATE)
        run = tree.scons()
        assert len(run.lines("CHECKED")) == 1, run.out
        assert_nothing_was_made(run, tree, "a.onnx")
        again = tree.scons()
        assert again.status == 2
        assert "AccuracyError" in again.out
        assert not tree.engines()

    def test_data_beside_a_model_edited_after_its_gate_are_not_compiled(self, tree, models):
        make_model(tree.path("models/other.onnx"), seed=2, external="w.bin")
        data = tree.path("models/w.bin").rename(tree.path("models/w2.bin"))
        make_model(models, seed=1, external="w.bin")
        before_the_compile(tree, copies(data, tree.path("models/w.bin")))
        tree.write(FP32_GATE)
        assert_nothing_was_made(tree.scons(), tree, "w.bin")

    @pytest.mark.parametrize(
        ("what", "edited", "by"),
        [
            (FP32_GATE, "ref.onnx", "v2.onnx"),
            (FP32_GATE, "s.npz", "other.npz"),
            (FP16_GATE, "a.onnx", "v2.onnx"),
            (FP16, "a.onnx", "v2.onnx"),
        ],
        ids=["reference", "samples", "original of a gate", "original"],
    )
    def test_another_input_of_a_step_edited_after_it_stops_the_engine(self, tree, models, what, edited, by):
        before_the_compile(tree, copies(tree.path(f"models/{by}"), tree.path(f"models/{edited}")))
        tree.write(what)
        assert_nothing_was_made(tree.scons(), tree, edited)

    @pytest.mark.parametrize("what", [FP16, FP16_GATE], ids=["converted", "converted and checked"])
    def test_a_converted_model_edited_before_the_compile_is_not_compiled(self, tree, models, what):
        converted = tree.path(".trt/onnx/a.fp16.onnx")
        before_the_compile(tree, copies(tree.path("models/v2.onnx"), converted))
        tree.write(what)
        assert_nothing_was_made(tree.scons(), tree, "a.fp16.onnx")
        again = tree.scons()
        assert (again.status, again.built) == (0, ["a"]), again.out

    def test_an_exported_model_edited_before_the_compile_is_not_compiled(self, tree, models):
        tree.path("models/export.py").write_text(
            "import shutil\ndef export(target, model):\n    shutil.copy(model, target)\n"
        )
        before_the_compile(tree, copies(tree.path("models/v2.onnx"), tree.path(".trt/onnx/a.onnx")))
        tree.write(
            """
            onnx = env.OnnxExport("a", "models/export.py:export", files={"model": "models/ref.onnx"})
            env.Engine("a", onnx, precision="fp16")
            """
        )
        assert_nothing_was_made(tree.scons(), tree, "a.onnx")

    def test_a_model_edited_to_that_of_the_engine_that_is_there_does_not_reuse_it(self, tree, models):
        """The gate passes on one model, the engine is of another one, which no gate saw."""
        shutil.copy(models, tree.root.parent / "v1.onnx")
        shutil.copy(tree.path("models/v2.onnx"), models)
        tree.write('env.Engine("a", "models/a.onnx")\n')
        assert tree.scons().built == ["a"]
        before = tree.snapshot()
        shutil.copy(tree.root.parent / "v1.onnx", models)
        before_the_compile(tree, copies(tree.path("models/v2.onnx"), models))
        tree.write(FP32_GATE)
        run = tree.scons()
        assert run.status == 2, run.out
        assert run.reason("a") == CHANGED.format("a.onnx")
        assert tree.snapshot() == before  # the engine that was there stands

    def test_an_engine_is_not_built_past_a_failed_gate_where_scons_ignores_errors(self, tree, models):
        shutil.copy(tree.path("models/v2.onnx"), models)
        tree.write(FP32_GATE)
        run = tree.scons("-i", "engines")
        assert "AccuracyError" in run.out
        assert run.reason("a") == (
            "EngineBuildError: .trt/onnx/a.fp32.accuracy.json could not be built, see error above"
        )
        assert not tree.engines()

    def test_a_model_edited_while_its_gate_waits_is_checked_as_it_is_then(self, tree, models):
        """The receipt names the key of what the gate read, so the next run has nothing to do."""
        tree.write(FP32_GATE)
        tree.path("site_scons").mkdir()
        edit = f"""
            import shutil, scons_tensorrt.scons_tool.before_building as before
            stop = before.stop_for_invalid_engines
            def edited(*given):
                {copies(tree.path("models/v2.onnx"), models)}
                {copies(tree.path("models/v2.onnx"), tree.path("models/ref.onnx"))}
                stop(*given)
            before.stop_for_invalid_engines = edited
        """
        tree.path("site_scons/site_init.py").write_text(textwrap.dedent(edit))
        run = tree.scons()
        assert (run.status, run.built) == (0, ["a"]), run.out
        gate = next(tree.path(".trt/receipts/a.fp32.accuracy.json").glob("*.json"))
        assert tree.receipt("a")["accuracy"]["by"] == json.loads(gate.read_text())["key"]
        assert tree.receipt("a")["inputs"][0]["sha256"] == sha256(tree.path("models/v2.onnx"))
        shutil.rmtree(tree.path("site_scons"))
        assert tree.scons().reused == ["a"]


class TestTwoBuilds:
    def convert_meanwhile(self, tree: Tree, models: Path) -> None:
        """A second build of the same tree converts another model, whose gate fails, while the first
        is about to compile."""
        log = tree.root.parent / "second.log"
        command = tree.command("engines")
        before_the_compile(
            tree,
            f"""
            import numpy
            shutil.copy({str(tree.path("models/v2.onnx"))!r}, {str(models)!r})
            with open({str(log)!r}, "wb") as out:
                subprocess.call({command!r}, cwd={str(tree.root)!r}, stdout=out, stderr=out)
            """,
        )

    @pytest.fixture
    def beyond(self, tree: Tree, models: Path) -> Path:
        """`v2` is one that fp16 cannot hold."""
        import onnx
        from onnx import numpy_helper

        model = onnx.load(tree.path("models/v2.onnx"))
        weights = model.graph.initializer[1]
        large = numpy_helper.from_array(numpy_helper.to_array(weights) * 1e4, weights.name)
        weights.CopyFrom(large)
        onnx.save(model, tree.path("models/v2.onnx"))
        return models

    @pytest.mark.parametrize("put_back", [False, True])
    def test_the_first_does_not_publish_what_the_gate_of_the_second_refused(self, tree, beyond, put_back):
        original = shutil.copy(beyond, tree.root.parent / "v1.onnx")
        self.convert_meanwhile(tree, beyond)
        if put_back:
            with tree.path("site_scons/site_init.py").open("a") as script:
                script.write(f"    {copies(original, beyond)}\n")
        tree.write(FP16_GATE)
        run = tree.scons()
        second = (tree.root.parent / "second.log").read_text()
        assert "AccuracyError" in second
        assert_nothing_was_made(run, tree, "a.fp16.onnx" if put_back else "a.onnx")

    def test_nothing_of_it_is_given_to_a_store(self, tree, beyond, tmp_path):
        self.convert_meanwhile(tree, beyond)
        tree.write(FP16_GATE)
        store = {"TRT_STORE": (tmp_path / "store").as_uri()}
        key = tmp_path / "key.pem"
        assert tree.cli("keygen", key).status == 0
        run = tree.scons(**store, TRT_STORE_MODE="write", TRT_STORE_SIGNING_KEY=str(key))
        assert_nothing_was_made(run, tree, "a.onnx")
        clone = tree.copy(tmp_path / "clone", "models")
        clone.write(FP16)  # without a gate, so that only the store decides
        other = clone.scons(**store, TRT_STORE_TRUSTED_KEYS=f"{key}.pub")
        assert not other.names("FETCHED"), other.out
        assert other.built == ["a"]


def test_a_model_swapped_and_swapped_back_is_compiled_as_it_was_hashed(two: Tree) -> None:
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


def test_a_model_written_to_while_it_is_compiled_is_not_recorded(two: Tree) -> None:
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


LINKED = "os.link(path, path + '2'); os.unlink(path + '2')"


@pytest.mark.parametrize("act", ["os.chmod(path, 0o600)", LINKED], ids=["a mode", "a link"])
def test_what_moves_no_byte_of_a_model_does_not_fail_its_compile(two: Tree, act: str) -> None:
    act = f"path = {str(two.path('models/a.onnx'))!r}; {act}; done(write())"
    python = fake_compiler(two.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    two.write('env.Engine("a", "models/a.onnx")')
    assert two.scons(TRT_PYTHON=str(python)).built == ["a"]
