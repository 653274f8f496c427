"""An input that changes while an engine is made of it: the step fails, or was made from what was
hashed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from conftest import Tree, fake_compiler, hardware, make_model, sha256
from scons_tensorrt.files.mounts import Mounts

ENGINE = 'env.Engine("a", "models/a.onnx", hardware="orin_nx")\n'
FP16 = 'env.Engine("a", "models/a.onnx", precision="fp16")\n'
GATE = (
    'env.Engine("a", "models/a.onnx", precision="fp16", '
    'accuracy=dict(inputs="models/s.npz", rtol=1, atol=1))\n'
)


def swap(one: Path, other: Path) -> str:
    """Python that exchanges two files by renaming, as an editor or `git checkout` would."""
    return f"os.rename({str(one)!r}, {str(one) + '.away'!r}); os.rename({str(other)!r}, {str(one)!r})"


def swap_back(one: Path, other: Path) -> str:
    return f"os.rename({str(one)!r}, {str(other)!r}); os.rename({str(one) + '.away'!r}, {str(one)!r})"


def edit_in_place(path: Path, data: Path) -> str:
    """Python that writes other bytes into a file and restores its times."""
    return textwrap.dedent(
        f"""
        stat = os.stat({str(path)!r})
        with open({str(path)!r}, "r+b") as out:
            out.write(open({str(data)!r}, "rb").read())
            out.truncate()
        os.utime({str(path)!r}, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        """
    )


def copied_first(path: Path) -> bool:
    """Whether inputs on this file system are always copied, as in most containers."""
    return Mounts().hides_writes(path.stat().st_dev, path)


def wrapper(folder: Path, before: str, after: str = "") -> Path:
    """An interpreter for conversions that runs `before` when it starts, `after` when its job is done."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "python"
    script.write_text(
        f"#!{sys.executable}\nimport os, subprocess, sys\n"
        f"{textwrap.dedent(before)}\n"
        f"status = subprocess.call([{sys.executable!r}, *sys.argv[1:]])\n"
        f"{textwrap.dedent(after)}\n"
        "sys.exit(status)\n"
    )
    script.chmod(0o755)
    return script


def orin(tree: Tree, act: str) -> Path:
    """A tree whose compiler is played, with an action of its own."""
    python = fake_compiler(tree.root.parent / "compiler", act)
    hardware(tree.path("hardware/orin_nx.json"))
    tree.environment["TRT_PYTHON"] = str(python)
    tree.write(ENGINE)
    return python


@pytest.fixture
def models(tree: Tree) -> tuple[Path, Path]:
    """Two models of one size, `a` and `other`."""
    return (
        make_model(tree.path("models/a.onnx"), seed=1),
        make_model(tree.path("models/other.onnx"), seed=2),
    )


class TestCompiles:
    def test_a_model_renamed_away_and_back_is_compiled_as_it_was_hashed(self, tree, models):
        one, other = models
        orin(tree, f"{swap(one, other)}\ndata = write()\n{swap_back(one, other)}\ndone(data)")
        run = tree.scons("engines")
        assert run.status == 0, run.out
        assert tree.engine("a").read_bytes()[64:96].hex() == sha256(one)

    def test_a_model_edited_in_place_and_put_back_is_compiled_as_it_was_hashed(self, tree, models):
        """The first compile reads the edit, so the second one reads a copy."""
        one, other = models
        backup = shutil.copy(one, tree.root.parent / "backup")
        edited = edit_in_place(one, other) + "data = write()" + edit_in_place(one, backup) + "done(data)"
        python = orin(tree, edited)
        run = tree.scons("engines")
        assert run.status == 0, run.out
        assert tree.engine("a").read_bytes()[64:96].hex() == sha256(one)
        assert len((python.parent / "compiled").read_text().split()) == (1 if copied_first(tree.root) else 2)

    def test_data_beside_the_model_are_held_as_it_is(self, tree):
        make_model(tree.path("models/a.onnx"), seed=1, external="a.data")
        make_model(tree.path("models/b.onnx"), seed=2, external="b.data")
        data, other = tree.path("models/a.data"), tree.path("models/b.data")
        backup = shutil.copy(data, tree.root.parent / "backup")
        python = orin(
            tree,
            edit_in_place(data, other) + "made = write()" + edit_in_place(data, backup) + "done(made)",
        )
        run = tree.scons("engines")
        assert run.status == 0, run.out
        assert len((python.parent / "compiled").read_text().split()) == (1 if copied_first(tree.root) else 2)

    def test_a_model_that_is_written_to_fails_the_compile(self, tree, models):
        one, _ = models
        orin(tree, f"data = write()\nopen({str(one)!r}, 'ab').write(b'x')\ndone(data)")
        run = tree.scons("engines")
        assert run.status == 2
        assert "a.onnx changed while it was compiled; run again" in run.out
        assert not tree.engines()

    def test_a_file_that_somebody_may_write_to_is_copied_first(self, tree, models):
        """A shared mapping that was dirty before writes without moving the mtime."""
        one, other = models
        original, backup = sha256(one), one.read_bytes()
        wrong = other.read_bytes()
        code = textwrap.dedent(
            f"""
            with open({str(one)!r}, "r+b") as out:
                out.write({wrong[:64]!r})
            data = write()
            with open({str(one)!r}, "r+b") as out:
                out.write({backup[:64]!r})
            done(data)
            """
        )
        orin(tree, code)
        with open(one, "r+b"):  # open for writing while SCons runs
            run = tree.scons("engines")
        assert run.status == 0, run.out
        assert tree.engine("a").read_bytes()[64:96].hex() == original

    def test_a_file_with_several_hard_links_may_get_more_of_them(self, tree, models):
        one, _ = models
        os.link(one, tree.root.parent / "linked")
        more = tree.root.parent / "more"
        orin(tree, f"data = write()\nos.link({str(one)!r}, {str(more)!r})\ndone(data)")
        run = tree.scons("engines")
        assert run.status == 0, run.out
        assert tree.engine("a").read_bytes()[64:96].hex() == sha256(one)

    def test_a_model_linked_for_the_first_time_meanwhile_is_no_change(self, tree, models):
        one, _ = models
        more = tree.root.parent / "more"
        link = f"os.path.exists({str(more)!r}) or os.link({str(one)!r}, {str(more)!r})"
        orin(tree, f"data = write()\n{link}\ndone(data)")
        run = tree.scons("engines")
        assert run.status == 0, run.out

    def test_an_edit_that_was_undone_is_not_taken_for_a_new_hard_link(self, tree, models):
        one, other = models
        backup = shutil.copy(one, tree.root.parent / "backup")
        more = tree.root.parent / "more"
        undone = edit_in_place(one, other) + "data = write()" + edit_in_place(one, backup)
        orin(
            tree,
            f"if os.path.exists({str(more)!r}): done(write()); raise SystemExit\n"
            f"{undone}os.link({str(one)!r}, {str(more)!r})\ndone(data)",
        )
        run = tree.scons("engines")
        assert run.status == 0, run.out
        assert tree.engine("a").read_bytes()[64:96].hex() == sha256(one)

    def test_the_descriptors_reach_the_compiler_where_proc_is_of_another_namespace(self, tree, models):
        """`unshare -p` without a /proc of its own: the parent's number there is another process's."""
        if os.geteuid() or not shutil.which("unshare"):
            pytest.skip("needs root and unshare")
        tree.write('env.Engine("a", "models/a.onnx")\n')
        command = ["unshare", "-p", "-f", *tree.command("engines")]
        done = subprocess.run(
            command,
            cwd=tree.root,
            env=tree.env(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert tree.scons("engines").reused == ["a"]

    def test_a_refusal_of_a_model_that_was_put_back_is_no_refusal_of_it(self, tree, models):
        """The fake compiler refuses what it reads, for good, while another model stands there."""
        one, other = models
        backup = shutil.copy(one, tree.root.parent / "backup")
        refuse = textwrap.dedent(
            f"""
            data = plan(job)
            if data[64:96].hex() != {sha256(one)!r}:
                print(json.dumps({{"event": "error", "error_class": "EngineBuildError",
                                  "message": "no such operator", "lasting": True}}), flush=True)
                {{back}}
                raise SystemExit(1)
            {{back}}
            done(write(data))
            """
        )
        back = edit_in_place(one, backup).strip()
        act = edit_in_place(one, other) + refuse.replace("{back}", "exec(BACK)")
        orin(tree, f"BACK = {back!r}\n" + act)
        run = tree.scons("engines")
        assert run.status == 0, run.out  # compiled once more, from a copy
        assert tree.engine("a").read_bytes()[64:96].hex() == sha256(one)


class TestConversions:
    def convert(self, tree: Tree, python: Path, what: str = FP16, **environment: str):
        tree.write(what)
        tree.environment["TRT_ONNX_PYTHON"] = str(python)
        return tree.scons("engines", **environment)

    @pytest.mark.parametrize("verify", ["stat", "full"])
    def test_a_model_edited_before_the_converter_starts_is_not_what_is_converted(
        self, tree, models, tmp_path, verify
    ):
        one, other = models
        backup = shutil.copy(one, tmp_path / "backup")
        python = wrapper(tmp_path / "python", edit_in_place(one, other), edit_in_place(one, backup))
        run = self.convert(tree, python, TRT_VERIFY=verify)
        assert run.status == 0, run.out
        clean = tree.copy(tmp_path / "clean", "models")
        clean.write('env.Engine("a", "models/a.onnx", precision="fp16")\n')
        assert clean.scons("engines").status == 0
        onnx = ".trt/onnx/a.fp16.onnx"
        assert sha256(tree.path(onnx)) == sha256(clean.path(onnx))

    def test_a_model_that_changed_after_it_was_judged_fails_the_conversion(self, tree, models, tmp_path):
        """As when a second build waits for a lock while the model is edited."""
        one, other = models
        python = wrapper(tmp_path / "python", "")
        tree.write(FP16)
        tree.environment["TRT_ONNX_PYTHON"] = str(python)
        script = textwrap.dedent(
            f"""
            import shutil
            from scons_tensorrt.build import run_onnx_step
            check = run_onnx_step.check_onnx_up_to_date
            def edited(*given):
                found = check(*given)
                shutil.copy({str(other)!r}, {str(one)!r})
                return found
            run_onnx_step.check_onnx_up_to_date = edited
            """
        )
        tree.path("site_scons").mkdir()
        tree.path("site_scons/site_init.py").write_text(script)
        run = tree.scons("engines")
        assert run.status == 2
        assert "a.onnx changed while it was converted; run again" in run.out
        assert not list(tree.path(".trt/onnx").glob("*.onnx"))

    @pytest.mark.slow
    def test_samples_edited_while_the_gate_runs_are_not_what_it_runs_on(self, tree, models, tmp_path):
        samples = tree.path("models/s.npz")
        np.savez(samples, x=np.random.default_rng(0).standard_normal((2, 8, 16, 16), np.float32))
        bad = tmp_path / "bad.npz"
        np.savez(bad, x=np.full((2, 8, 16, 16), np.nan, np.float32))
        backup = shutil.copy(samples, tmp_path / "backup")
        python = wrapper(tmp_path / "python", edit_in_place(samples, bad), edit_in_place(samples, backup))
        run = self.convert(tree, python, GATE)
        assert run.status == 0, run.out  # NaN was never read

    @pytest.mark.slow
    def test_a_link_flipped_while_it_is_converted(self, tree, models, tmp_path):
        one, other = models
        real = one.rename(tree.path("models/real.onnx"))
        one.symlink_to(real)
        flip = "os.unlink({0!r}); os.symlink({1!r}, {0!r})"
        python = wrapper(
            tmp_path / "python", flip.format(str(one), str(other)), flip.format(str(one), str(real))
        )
        run = self.convert(tree, python)
        assert run.status == 0, run.out
        clean = Tree(tmp_path / "clean")
        shutil.copy(real, clean.path("models/a.onnx"))
        clean.write('env.Engine("a", "models/a.onnx", precision="fp16")\n')
        assert clean.scons("engines").status == 0
        onnx = ".trt/onnx/a.fp16.onnx"
        assert sha256(tree.path(onnx)) == sha256(clean.path(onnx))

    def test_an_exporting_script_that_is_edited_and_put_back_runs_as_it_was(self, tree, tmp_path):
        script, other = tree.path("models/export.py"), tmp_path / "other.py"
        make_model(tree.path("models/real.onnx"), seed=1)
        text = "import shutil\ndef export(target, model):\n    shutil.copy(model, target)\n"
        script.write_text(text)
        other.write_text(text + "    raise SystemExit\n")
        backup = shutil.copy(script, tmp_path / "backup")
        python = wrapper(tmp_path / "python", edit_in_place(script, other), edit_in_place(script, backup))
        tree.environment["TRT_ONNX_PYTHON"] = str(python)
        tree.write(
            """
            onnx = env.OnnxExport("a", "models/export.py:export", files={"model": "models/real.onnx"})
            env.Engine("a", onnx)
            """
        )
        run = tree.scons("engines")
        assert (run.status, run.built) == (0, ["a"]), run.out

    @pytest.mark.parametrize("kind", ["npz", "npy"])
    def test_a_refusal_names_the_users_file_and_not_the_private_copy(self, tree, models, kind):
        samples = tree.path("models/s.npz" if kind == "npz" else "models/samples")
        if kind == "npz":
            np.savez(samples, other=np.zeros((2, 8, 16, 16), np.float32))
        else:
            samples.mkdir()
            np.save(samples / "0.npy", np.zeros((3, 3), np.float32))
        tree.write(GATE.replace("models/s.npz", str(samples.relative_to(tree.root))))
        run = tree.scons("engines")
        assert run.status == 2
        assert str(samples) in run.lines("FAILED")[0]
        assert "partial" not in run.out

    def test_a_conversion_killed_between_its_receipt_and_its_rename_is_finished(self, tree, models, tmp_path):
        tree.write('env.Engine("a", "models/a.onnx", precision="fp16")\n')
        assert tree.scons("engines").status == 0
        target = tree.path(".trt/onnx/a.fp16.onnx")
        receipt = next(
            data
            for path in tree.path(".trt/receipts").glob("*/*.json")
            if (data := json.loads(path.read_text()))["sha256"] == sha256(target)
        )
        log = next(tree.path(".trt/locks").glob("a.fp16.onnx*")).name.split(".")[-2]
        partial = tree.path(f".trt/partial/{log}/step")
        partial.mkdir(parents=True)
        target.rename(partial / target.name)
        run = tree.scons("engines", TRT_ONNX_PYTHON="/nowhere/python")
        assert run.status == 0, run.out
        assert run.reused == ["a"]
        assert sha256(target) == receipt["sha256"]
        assert not partial.exists()


class TestPlugins:
    SOURCE = 'extern "C" int {name}() {{ return 1; }}\n'

    def library(self, folder: Path, name: str) -> Path:
        source = folder / f"{name}.cpp"
        source.write_text(self.SOURCE.format(name=name))
        made = folder / f"lib{name}.so"
        subprocess.run(["c++", "-shared", "-fPIC", "-o", made, source], check=True)
        return made

    @pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
    @pytest.mark.parametrize("flipped", [False, True])
    def test_a_library_flipped_while_it_is_loaded_is_noticed(self, tmp_path, flipped):
        from scons_tensorrt.worker.trt.runtime import is_loaded

        one, other = self.library(tmp_path, "one"), self.library(tmp_path, "other")
        program = textwrap.dedent(
            f"""
            import ctypes, os, sys
            from scons_tensorrt.worker.trt.runtime import is_loaded
            held = os.open({str(one)!r}, os.O_RDONLY)
            ctypes.CDLL({str(other if flipped else one)!r})
            print(is_loaded(held))
            """
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(not flipped)
        assert callable(is_loaded)


def plugin(tree: Tree, *flags: str) -> Path:
    """A plugin p.so beside the SConstruct, and an engine of `models/a.onnx` that uses it."""
    source, made = tree.root.parent / "p.c", tree.path("p.so")
    source.write_text("int p(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source, *flags], check=True)
    return made


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("flags", [(), ("-Wl,-rpath,$ORIGIN",)], ids=["plain", "looks beside itself"])
class TestPluginsWhileCompiling:
    ENGINE = 'env.Engine("a", "models/a.onnx", hardware="orin_nx", plugins=["p.so"])\n'

    def start(self, tree: Tree, act: str, flags: tuple[str, ...]) -> tuple[Path, Path]:
        """The library, and a file that gets the paths by which each compile loads it."""
        library, loaded = plugin(tree, *flags), tree.root.parent / "loaded"
        make_model(tree.path("models/a.onnx"), seed=1)
        note = f"open({str(loaded)!r}, 'a').write(job['plugins'][0][0] + chr(10))\n"
        orin(tree, note + act)
        tree.write(self.ENGINE)
        return library, loaded

    def test_a_hard_link_made_meanwhile_is_no_change(self, tree, flags):
        """As SCons's VariantDir, `cp -al` and snapshots make them."""
        library, more = tree.path("p.so"), tree.root.parent / "more"
        _, loaded = self.start(
            tree,
            f"import itertools\nname = next(f'{more}{{n}}' for n in itertools.count() "
            f"if not os.path.exists(f'{more}{{n}}'))\nos.link({str(library)!r}, name)\ndone(write())",
            flags,
        )
        run = tree.scons("engines")
        assert run.status == 0, run.out
        *first, last = loaded.read_text().split()
        if not copied_first(tree.root):
            assert first == [str(library)]
        assert (last == str(library)) == bool(flags)
        assert not list(tree.path(".trt/partial").rglob("p.so"))

    def test_a_plugin_that_is_written_to_fails_the_compile(self, tree, flags):
        library = tree.path("p.so")
        self.start(tree, f"data = write()\nopen({str(library)!r}, 'ab').write(b'x')\ndone(data)", flags)
        run = tree.scons("engines")
        assert run.status == 2
        assert "p.so changed while it was compiled; run again" in run.out

    def test_a_plugin_that_is_open_for_writing_is_copied_or_refused(self, tree, flags):
        """A shared mapping that was dirty before writes without moving the mtime."""
        library, loaded = self.start(tree, "done(write())", flags)
        with open(library, "r+b"):
            run = tree.scons("engines")
        if flags:
            assert run.status == 2
            assert "p.so is open for writing; run again when it is closed" in run.lines("FAILED")[0]
            assert tree.scons("engines").status == 0
        else:
            assert run.status == 0, run.out
            assert loaded.read_text().strip() != str(library)


class TestManyFiles:
    @pytest.mark.slow
    def test_models_of_600_data_files_under_1024_descriptors(self, tree):
        """Two compiles and two conversions at once."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        for name in ("a", "b"):
            folder = tree.path(f"models/{name}")
            folder.mkdir()
            weights = []
            for i in range(600):
                tensor = numpy_helper.from_array(np.full((4,), i, np.float32), f"w{i}")
                (folder / f"w{i}.bin").write_bytes(tensor.raw_data)
                onnx.external_data_helper.set_external_data(tensor, f"w{i}.bin", 0, 16)
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                weights.append(tensor)
            parts = ["x", *(f"w{i}" for i in range(600))]
            graph = helper.make_graph(
                [helper.make_node("Concat", parts, ["y"], axis=0)],
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2404])],
                weights,
            )
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
            (folder / "m.onnx").write_bytes(model.SerializeToString())
        tree.write(
            """
            for name in "ab":
                env.Engine(name, f"models/{name}/m.onnx")
                env.Engine(name, f"models/{name}/m.onnx", precision="fp16")
            """
        )
        command = ["bash", "-c", 'ulimit -n 1024; exec "$@"', "-", *tree.command("engines", "-j2")]
        done = subprocess.run(
            command,
            cwd=tree.root,
            env=tree.env(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list(tree.path("engines").glob("*.engine"))) == 4
