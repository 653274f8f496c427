"""Engines restored into a clone on a host that has neither TensorRT nor the converters."""

from __future__ import annotations

import importlib.util
import json
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Tree, make_model
from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.hardware.signature import HardwareSignature

NEEDED = ("SCons", "filelock", "rich", "pygments", "markdown_it", "mdurl")


class BareTree(Tree):
    """A tree on a host whose Python has SCons, filelock and rich alone."""

    python = Path()

    def command(self, *arguments: str) -> list[str]:
        return [str(self.python), "-m", "SCons", *arguments]


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has nothing but what this package itself needs."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python3*/site-packages"))
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.origin
        (packages / name).symlink_to(Path(spec.origin).parent)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def converted_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Engines in fp32, fp16 and int8, the last two with an accuracy bound, built."""
    tree = Tree(tmp_path_factory.mktemp("converted") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    samples = np.random.default_rng(0).standard_normal((8, 1, 8, 16, 16)).astype(np.float32)
    np.savez(tree.path("models/a.npz"), x=samples)
    tree.write(
        """
        gate = {"inputs": "models/a.npz", "metric": "cosine", "atol": 0.5}
        made = [
            env.Engine("a", "models/a.onnx"),
            env.Engine("b", "models/a.onnx", precision="fp16", accuracy=gate),
            env.Engine(
                "c", "models/a.onnx", precision="int8", calibration="models/a.npz", accuracy=gate
            ),
        ]
        env.EngineManifest("dist/manifest.json", made)
        """
    )
    run = tree.scons()
    assert (run.status, run.built) == (0, ["a", "b", "c"]), run.out
    return tree


def restore(tree: Tree, root: Path, bare_python: Path, *names: str) -> BareTree:
    """A clone of the tree on a bare host, with new times, `engines/` and `.trt/` restored."""
    tree.copy(root, "SConstruct", "models", *(names or ("engines", ".trt")))
    bare = BareTree.__new__(BareTree)
    bare.root, bare.environment, bare.python = root, {}, bare_python
    return bare


@pytest.fixture
def bare(tmp_path: Path, converted_once: Tree, bare_python: Path) -> BareTree:
    return restore(converted_once, tmp_path / "clone", bare_python)


def test_the_bare_host_has_no_tensorrt_and_no_converter(bare: BareTree) -> None:
    bare.write(
        """
        import importlib.util
        for name in ("tensorrt_rtx", "tensorrt", "onnx", "onnxruntime", "numpy"):
            print(name, importlib.util.find_spec(name))
        """
    )
    assert bare.scons("-Q", "-h").out.count(" None\n") == 5


def test_everything_restored_is_reused_under_the_default_hardware(bare: BareTree) -> None:
    before = bare.snapshot("engines", ".trt/onnx")
    run = bare.scons()
    assert (run.status, run.reused) == (0, ["a", "b", "c"]), run.out
    assert not any(map(run.lines, ("CONVERTED", "CHECKED", "FAILED")))
    assert bare.snapshot("engines", ".trt/onnx") == before
    (line,) = run.lines("engines: no runtime here, so tensorrt_rtx")
    assert line.endswith(" is taken from the receipts")
    assert bare.scons("-q", "engines").status == 0


def test_the_first_run_may_be_a_question_or_a_dry_run(bare: BareTree) -> None:
    assert bare.scons("-q", "engines").status == 0
    run = bare.scons("-n", "engines")
    assert (run.status, run.names("WOULD REUSE")) == (0, ["a", "b", "c"]), run.out
    assert not any(map(run.lines, ("WOULD BUILD", "WOULD CONVERT", "WOULD CHECK", "WOULD FAIL")))


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Engines of a file and of an export, one of them converted, their manifest and installed copies."""
    tree = Tree(tmp_path_factory.mktemp("exported") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write(
        "import shutil\ndef make(target, source):\n    shutil.copy(source, target)\n", "models/e.py", ""
    )
    tree.write(
        """
        b = env.OnnxExport("b", "models/e.py:make", files={"source": "models/a.onnx"})
        made = [
            env.Engine("a", "models/a.onnx"),
            env.Engine("b", b),
            env.Engine("c", b, precision="fp16"),
        ]
        manifest = env.EngineManifest("dist/manifest.json", made)
        env.InstallEngines("image", made, manifest=manifest)
        """
    )
    run = tree.scons("engines", "dist", "install", "install_root=.")
    assert (run.status, run.built, run.reused) == (0, ["a", "c"], ["b"]), run.out  # b is a copy of a
    return tree


ENGINES = ("engines", ".trt")


@pytest.mark.parametrize("target", ["", "dist", "engines", "install"])
def test_a_clone_without_sconsign_is_asked_what_it_would_do(
    exported_once: Tree, tmp_path: Path, bare_python: Path, target: str
) -> None:
    """Each question in a clone of its own: even -n writes a .sconsign."""
    targets = ["install_root=.", *([target] if target else [])]
    for number, names in enumerate([ENGINES, (*ENGINES, "dist", "image")]):
        complete = target == "engines" or number == 1
        for option in ("-q", "-n"):
            bare = restore(exported_once, tmp_path / f"clone{number}{option}", bare_python, *names)
            run = bare.scons(option, *targets)
            assert run.status == int(option == "-q" and not complete), run.out
            if option == "-n":
                assert run.names("WOULD REUSE") == ["a", "b", "c"]
                assert not any(map(run.lines, ("WOULD BUILD", "WOULD CONVERT", "WOULD FAIL")))
                assert len(run.lines("WOULD WRITE dist/manifest.json")) == int(not complete), run.out


def test_a_restored_clone_says_no_where_something_would_be_made(
    exported_once: Tree, tmp_path: Path, bare_python: Path
) -> None:
    def clone(name: str) -> BareTree:
        return restore(exported_once, tmp_path / name, bare_python, *ENGINES, "dist", "image")

    edited = clone("model")
    make_model(edited.path("models/a.onnx"), seed=9)
    assert edited.scons("-q", "dist").status == 1
    lost = clone("engine")
    lost.engine("b").unlink()
    assert lost.scons("-q", "dist").status == 1
    other = clone("manifest")
    other.path("dist/SHA256SUMS").write_text("")
    assert other.scons("-q", "dist").status == 1
    assert other.scons("-q", "engines").status == 0
    acts = clone("actions")
    text = acts.path("SConstruct").read_text()
    acts.path("SConstruct").write_text(text + 'env.AddPostAction(made[0], "echo done")\n')
    assert acts.scons("-q", "dist").status == 1


def test_receipts_alone_are_enough(bare: BareTree) -> None:
    bare.path(".trt/declared.json").unlink()
    bare.path(".trt/digests.json").unlink()
    run = bare.scons()
    assert (run.status, run.reused) == (0, ["a", "b", "c"]), run.out


def test_a_manifest_is_written_there(bare: BareTree, converted_once: Tree) -> None:
    assert bare.scons("dist").status == 0
    assert converted_once.scons("dist").status == 0
    name = "dist/manifest.json"
    assert bare.path(name).read_bytes() == converted_once.path(name).read_bytes()


def test_named_hardware_without_a_version_is_reused_too(
    built: Tree, tmp_path: Path, bare_python: Path
) -> None:
    assert built.scons("engines", "HARDWARE=rtx_sm89").status == 0
    bare = restore(built, tmp_path / "clone", bare_python)
    run = bare.scons("engines", "HARDWARE=rtx_sm89")
    assert (run.status, run.reused) == (0, ["a", "b"]), run.out


def test_an_interpreter_that_is_not_there_is_no_hindrance(bare: BareTree) -> None:
    bare.environment["TRT_PYTHON"] = str(bare.path("venv/bin/python"))
    run = bare.scons()
    assert (run.status, run.reused) == (0, ["a", "b", "c"]), run.out


def test_an_edited_model_fails_and_says_what_is_needed(
    built: Tree, tmp_path: Path, bare_python: Path
) -> None:
    bare = restore(built, tmp_path / "clone", bare_python)
    make_model(bare.path("models/a.onnx"), seed=9)
    run = bare.scons("-k", "engines")
    assert (run.status, run.reused, run.failed) == (2, ["b"], ["a"]), run.out
    assert run.reason("a").startswith("HardwareError: tensorrt_rtx is not installed for ")
    assert "-m pip install tensorrt-rtx" in run.reason("a")
    assert bare.scons("-q", "engines").status == 1


def test_an_edited_model_of_a_conversion_names_the_converter(bare: BareTree) -> None:
    make_model(bare.path("models/a.onnx"), seed=9)
    run = bare.scons("-k", "engines")
    assert (run.status, run.reused, run.failed) == (2, [], ["a", "b", "c"]), run.out
    assert "onnx" in run.lines("FAILED .trt/onnx/b.fp16.onnx:")[0]
    assert "pip install" in run.lines("FAILED .trt/onnx/b.fp16.onnx:")[0]


def test_on_a_host_without_a_gpu_the_receipts_say_the_hardware_too(
    built: Tree, tmp_path: Path, bare_python: Path
) -> None:
    """As a board builds for itself, and a firmware build without that board reuses."""
    board = {"product": "tensorrt", "compute_capability": "8.7", "gpu_name": "Orin", "sm_count": 8}
    board |= {"os": "linux", "machine": "aarch64"}
    rewrite(built, jetpack="6.2", runtime_version="10.3.0.30", **board)
    bare = restore(built, tmp_path / "clone", bare_python)
    run = bare.scons()
    assert (run.status, run.reused) == (0, ["a", "b"]), run.out
    assert all("__sm87_jp6.2_trt10.3_fp32.engine" in line for line in run.lines("REUSED"))
    make_model(bare.path("models/a.onnx"), seed=9)
    run = bare.scons("-k", "engines")
    assert (run.status, run.reused, run.failed) == (2, ["b"], ["a"]), run.out
    assert "HardwareMismatchError: it can be compiled only on its own host (Orin, sm87" in run.reason("a")


def test_prune_removes_nothing_by_what_receipts_say(built: Tree, tmp_path: Path, bare_python: Path) -> None:
    rewrite(built, keep=True, runtime_version="1.99.0.1")
    bare = restore(built, tmp_path / "clone", bare_python)
    before = bare.snapshot()
    run = bare.scons("engines-prune", "PRUNE=yes")
    assert bare.snapshot() == before
    assert "engines/ is kept: the engines for this host are unknown" in run.out


def test_without_receipts_it_fails_as_before(built: Tree, tmp_path: Path, bare_python: Path) -> None:
    bare = restore(built, tmp_path / "clone", bare_python, "engines")
    run = bare.scons()
    assert run.status == 2
    assert "tensorrt_rtx is not installed for " in run.out


def rewrite(tree: Tree, *names: str, keep: bool = False, **fields: Any) -> None:
    """Let the engines of these models (of all) have been built for other hardware, too or instead."""
    for path in [*tree.path(".trt/receipts").glob("*/*.json")]:
        data = json.loads(path.read_text())
        name = EngineFilename.parse(data["engine"])
        signature = {**data["hardware"]["signature"], **fields}
        hardware = HardwareSignature.from_json(signature, "test")
        if (names and name.model not in names) or "_rtx1.99" in data["engine"]:
            continue
        old, new = data["engine"], EngineFilename.of(hardware, name.model, name.precision).build()
        given = {k: v for k, v in data["ingredients"].items() if not k.startswith("hardware ")}
        given.update({f"hardware {k}": v for k, v in hardware.key_fields().items()})
        data |= {"engine": new, "ingredients": given, "key": make_key(new, given)}
        data["hardware"]["signature"] = signature
        folder = tree.path(".trt/receipts") / new.removesuffix(".engine")
        folder.mkdir(exist_ok=True)
        (folder / f"{data['key']}.{data['sha256'][:16]}.json").write_text(json.dumps(data))
        for suffix in ("", ".sha256"):
            tree.path(f"engines/{new}{suffix}").write_bytes(tree.path(f"engines/{old}{suffix}").read_bytes())
        if not keep:
            path.unlink()


@pytest.mark.parametrize("declared", [True, False])
def test_the_newest_runtime_with_all_receipts_is_taken(
    built: Tree, tmp_path: Path, bare_python: Path, declared: bool
) -> None:
    now = built.receipt("a")["ingredients"]["hardware runtime_version"]
    rewrite(built, "a", keep=True, runtime_version="1.99.0.1")
    bare = restore(built, tmp_path / "clone", bare_python)
    if not declared:
        bare.path(".trt/declared.json").unlink()
    run = bare.scons()
    assert (run.status, run.reused) == (0, ["a", "b"]), run.out
    assert f"so tensorrt_rtx {now} is taken" in run.out
    assert f"(of tensorrt_rtx 1.99.0.1, tensorrt_rtx {now}" in run.out
    rewrite(bare, "b", keep=True, runtime_version="1.99.0.1")
    run = bare.scons()
    assert (run.status, run.reused) == (0, ["a", "b"]), run.out
    assert "so tensorrt_rtx 1.99.0.1 is taken" in run.out
    assert "rtx1.99" in run.lines("REUSED")[0]
