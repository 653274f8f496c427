"""A VariantDir: an engine is made of the file that SCons means, whatever is in the variant folder."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from test_status import status

from conftest import Tree, fake_compiler, flip_last_bit, make_model, sha256


def receipt_onnx(tree: Tree, name: str = "a") -> str:
    return tree.receipt(name)["ingredients"]["input onnx"]


@pytest.fixture
def stale(tree: Tree) -> Tree:
    """An old copy of the model, and of its data, stands in the folder of a VariantDir without copies."""
    make_model(tree.path("src/a.onnx"), seed=1, external="a.bin")
    tree.path("build").mkdir()
    make_model(tree.path("build/a.onnx"), seed=2, external="a.bin")
    tree.write('VariantDir("build", "src", duplicate=0)\nenv.Engine("a", "build/a.onnx")')
    return tree


def test_without_copies_the_source_is_compiled_and_not_an_old_copy(stale: Tree) -> None:
    assert stale.scons().built == ["a"]
    told = stale.receipt("a")["ingredients"]
    assert told["input onnx"] == sha256(stale.path("src/a.onnx"))
    assert sha256(stale.path("src/a.bin")) in str(told)
    assert stale.scons().reused == ["a"]


def test_without_copies_an_edit_of_the_source_is_seen_beside_an_old_copy(stale: Tree) -> None:
    stale.scons()
    make_model(stale.path("src/a.onnx"), seed=3, external="a.bin")
    engine = str(stale.engine("a").relative_to(stale.root))
    assert stale.scons(engine).built == ["a"]  # SCons itself decides on an engine that is named
    assert receipt_onnx(stale) == sha256(stale.path("src/a.onnx"))


def test_without_copies_a_file_that_has_no_source_is_compiled(stale: Tree) -> None:
    shutil.rmtree(stale.path("src"))
    assert stale.scons().built == ["a"]
    assert receipt_onnx(stale) == sha256(stale.path("build/a.onnx"))


def test_a_dry_run_judges_the_copy_that_would_be_made(tree: Tree) -> None:
    make_model(tree.path("src/a.onnx"), seed=1)
    tree.write('VariantDir("build", "src", duplicate=1)\nenv.Engine("a", "build/a.onnx")')
    assert tree.scons().built == ["a"]
    tree.path("src/a.onnx").unlink()  # the copy is a link to the old file
    make_model(tree.path("src/a.onnx"), seed=2)
    assert tree.scons("-n", "engines").names("WOULD BUILD") == ["a"]
    assert tree.scons().built == ["a"]


@pytest.mark.parametrize("duplicate", [0, 1])
def test_samples_of_a_variant_folder_are_those_of_its_source(tree: Tree, duplicate: int) -> None:
    import numpy as np

    make_model(tree.path("src/a.onnx"), seed=1)
    for folder, value in (("src", 0), ("build", 1)) if duplicate == 0 else (("src", 0),):
        tree.path(f"{folder}/samples").mkdir(parents=True)
        np.save(tree.path(f"{folder}/samples/0.npy"), np.full((1, 8, 16, 16), value, np.float32))
    tree.write(
        f"""
        VariantDir("build", "src", duplicate={duplicate})
        env.Engine("a", "build/a.onnx", precision="fp16",
                   accuracy=dict(inputs="build/samples", atol=1.0, rtol=1.0))
        """
    )
    assert tree.scons().built == ["a"]
    assert tree.scons("-n", "engines").names("WOULD REUSE") == ["a"]
    source = tree.path("src/samples/0.npy")
    source.unlink()  # a copy may be a link to it
    np.save(source, np.full((1, 8, 16, 16), 2, np.float32))
    assert tree.scons("-q", "engines").status == 1
    assert tree.scons().lines("CHECKED")
    assert status(tree)[0] == 0


@pytest.mark.parametrize("duplicate", [0, 1])
def test_a_plugin_of_a_variant_dir(tree: Tree, duplicate: int) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.path("models/p.c").write_text("int f(void) { return 1; }\n")
    command = ["cc", "-shared", "-fPIC", "-o", tree.path("models/p.so"), tree.path("models/p.c")]
    subprocess.run(command, check=True)
    tree.write(f'SConscript("models/SConscript", exports="env", variant_dir="v", duplicate={duplicate})')
    tree.write('Import("env")\nenv.Engine("a", "a.onnx", plugins=["p.so"])', "models/SConscript", header="")
    assert tree.scons("-n", "engines").names("WOULD BUILD") == ["a"]
    assert tree.scons().built == ["a"]


@pytest.mark.slow
def test_a_variant_dirs_copy_linked_anew_does_not_fail_a_running_compile(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="a.bin")
    tree.write('env.VariantDir("build", "models")\nenv.Engine("a", "build/a.onnx")')
    act = "while not os.path.exists(FOLDER + '/go'): time.sleep(0.01)\ndone(write())"
    python = fake_compiler(tree.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    assert tree.scons().built == ["a"]
    flip_last_bit(tree.path("models/a.bin"))
    process = tree.start("engines", TRT_PYTHON=str(python))
    while not tree.path("fake/compiled").exists():
        time.sleep(0.01)
    for _ in range(3):
        assert tree.scons("-q", "engines", TRT_PYTHON=str(python)).status == 1
    tree.path("fake/go").touch()
    said = process.communicate()[0].decode()
    assert process.returncode == 0, said
