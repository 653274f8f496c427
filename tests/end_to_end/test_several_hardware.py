"""Several kinds of hardware in one run: a folder each, and what one cannot does not hinder another."""

import json
import shutil

import pytest

from conftest import Tree, fake_compiler, hardware, make_model

BOTH = "HARDWARE=rtx_sm86,rtx_sm89"


def folders(tree: Tree) -> list[str]:
    return sorted(str(path.parent.relative_to(tree.root)) for path in tree.path(".").rglob("*.engine"))


@pytest.mark.slow
def test_each_has_its_folder_and_is_named_first_and_last(two: Tree) -> None:
    run = two.scons("engines", BOTH)
    assert (run.status, run.built) == (0, ["a", "a", "b", "b"])
    assert folders(two) == ["engines/rtx_sm86"] * 2 + ["engines/rtx_sm89"] * 2
    lines = run.out.splitlines()
    first = [line for line in lines if line.startswith("engines: for ")]
    assert [line.split()[2] for line in first] == ["rtx_sm86", "rtx_sm89"]
    assert lines[-3:-1] == [f"engines: rtx_sm{sm}: 0 reused, 2 built, 0 failed" for sm in (86, 89)]
    assert run.summary.startswith("engines: 0 reused, 4 built, 0 failed in ")
    assert two.events()[-1]["hardware"]["rtx_sm89"] == {"reused": 0, "built": 2, "failed": 0}


@pytest.mark.slow
def test_one_alone_has_the_same_engines_as_among_several(two: Tree) -> None:
    two.scons("engines", BOTH)
    before = two.snapshot()
    run = two.scons("engines", "HARDWARE=rtx_sm89")
    assert (run.reused, run.built) == (["a", "b"], [])
    assert "rtx_sm86" not in run.out
    assert run.out.count("engines: rtx_sm89:") == 0
    assert two.scons(TRT_HARDWARE="rtx_sm89, rtx_sm86,rtx_sm89").reused == ["a", "a", "b", "b"]
    assert two.snapshot() == before


def test_a_call_names_its_own_and_gets_every_pair(two: Tree) -> None:
    two.write(
        """
        pairs = env.Engine("a", "models/a.onnx", hardware=["rtx_sm86", "rtx_sm89"])
        env.Engine("b", "models/b.onnx", hardware="rtx_sm120")
        env.Command("listed", pairs, "echo $SOURCES > $TARGET")
        """
    )
    run = two.scons("listed", TRT_HARDWARE="rtx_sm75")
    assert (run.status, run.built) == (0, ["a", "a"])
    name = "engines/rtx_sm{0}/a__sm{0}_cu13.0_rtx1.7_fp32.engine"
    spec = [name.format(sm) + suffix for sm in (86, 89) for suffix in ("", ".sha256")]
    assert two.path("listed").read_text().split() == spec
    assert two.scons("-n", "engines").names("WOULD BUILD") == ["b"]
    assert two.scons("-n", "engines", "HARDWARE=rtx_sm121").names("WOULD BUILD") == ["a", "b"]


def test_what_cannot_be_compiled_here_fails_alone(two: Tree) -> None:
    hardware(two.path("hardware/orin_nx.json"))
    run = two.scons("-k", "engines", "HARDWARE=orin_nx,nonsense,unheard,rtx_sm89")
    assert (run.status, run.failed, run.built) == (2, ["a"] * 3 + ["b"] * 3, ["a", "b"])
    assert folders(two) == ["engines/rtx_sm89"] * 2
    failed = {line.split()[1].split("/")[1]: line for line in reversed(run.lines("FAILED"))}
    assert "HardwareMismatchError: it can be compiled only on orin_nx (Orin, sm87" in failed["orin_nx"]
    assert "HARDWARE=nonsense: no hardware/nonsense.json" in failed["nonsense"]
    assert "HARDWARE=unheard: no hardware/unheard.json" in failed["unheard"]
    assert "engines: orin_nx: 0 reused, 0 built, 2 failed" in run.out
    assert "engines: rtx_sm89: 0 reused, 2 built, 0 failed" in run.out


@pytest.mark.parametrize("arguments", [["HARDWARE=rtx_sm86,,rtx_sm89"], ["HARDWARE=rtx_sm86,"]])
def test_a_comma_too_many_is_told_at_once(two: Tree, arguments: list[str]) -> None:
    run = two.scons("engines", *arguments)
    assert run.status == 2
    assert "a name is missing between commas" in run.out


@pytest.mark.parametrize("wrong", ["[]", "['rtx_sm86', '']", "7", "['rtx_sm86', 7]", "''"])
def test_hardware_that_is_no_name_is_told_at_once(two: Tree, wrong: str) -> None:
    two.write(f"env.Engine('a', 'models/a.onnx', hardware={wrong})")
    run = two.scons()
    assert run.status == 2
    assert "write a name or a list of names" in run.out


@pytest.mark.slow
def test_help_question_and_clean(two: Tree) -> None:
    assert two.scons("-h", "HARDWARE=x,y").status == 0
    assert two.scons("-q", "engines", BOTH).status == 1
    two.scons("engines", BOTH)
    assert two.scons("-q", "engines", BOTH).status == 0
    assert "engines: 4 kept" in two.scons("-c", BOTH).out
    assert two.scons("-c", "engines", "HARDWARE=rtx_sm86").status == 0
    assert folders(two) == ["engines/rtx_sm89"] * 2
    assert two.scons("-c", "engines", BOTH).status == 0
    assert folders(two) == []


def test_one_tampered_pair_is_rebuilt_alone(two: Tree) -> None:
    two.scons("engines", BOTH)
    two.engines("engines/rtx_sm86")["a"].write_bytes(b"")
    run = two.scons("engines", BOTH)
    assert (run.built, run.reused) == (["a"], ["a", "b", "b"])
    assert run.reason("a") == "the engine is empty"
    assert "/rtx_sm86/" in run.lines("BUILT")[0]


@pytest.mark.slow
def test_a_conversion_is_made_once_for_all_and_declared_for_each(two: Tree) -> None:
    two.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    run = two.scons("-j2", "engines", BOTH)
    assert (run.status, run.built, len(run.lines("CONVERTED"))) == (0, ["a", "a"], 1)
    spec = json.loads(two.path(".trt/declared.json").read_text())["engines"]
    assert [each["hardware"] for each in spec] == ["rtx_sm86", "rtx_sm89"]
    assert {each["onnx"] for each in spec} == {".trt/onnx/a.fp16.onnx"}
    only = two.engines("engines/rtx_sm89")["a"]
    run = two.scons(str(only.relative_to(two.root)), BOTH)
    assert "rtx_sm86" not in run.out


GATED = """
env.Engine("a", "models/a.onnx", precision="fp16",
           accuracy=dict(inputs="in.npz", reference="models/b.onnx", atol=1e9), **more)
"""


@pytest.fixture
def mixed(two: Tree) -> Tree:
    """A board whose TensorRT takes flags, one whose types are the network's, and a desktop's RTX; the
    compiler at hand is that of the boards."""
    import numpy as np

    np.savez(two.path("in.npz"), x=np.ones((1, 1, 8, 16, 16), np.float32))
    hardware(two.path("hardware/orin.json"))
    hardware(two.path("hardware/thor.json"), runtime_version="11.4.0.106", compute_capability="11.0")
    desk = {"product": "tensorrt_rtx", "runtime_version": "1.7.1.116", "cuda": "13.0", "machine": None}
    unknown = dict.fromkeys(("sm_count", "memory_gib", "memory_bus_bits", "l2_bytes", "gpu_name"))
    hardware(two.path("hardware/desk.json"), **desk, **unknown, integrated=None, jetpack=None)
    two.environment["TRT_PYTHON"] = str(fake_compiler(two.path("fake")))
    return two


def test_gates_stand_apart_where_one_compiles_the_converted_and_another_the_original(mixed) -> None:
    mixed.write("more = {}" + GATED)
    run = mixed.scons("-k", "engines", "HARDWARE=orin,desk")
    assert run.built == ["a"]
    checked = sorted(line.split()[1] for line in run.lines("CHECKED"))
    assert checked == [".trt/onnx/a.fp16.accuracy.json", ".trt/onnx/a.fp16.unconverted.accuracy.json"]
    assert "tensorrt_rtx is not installed for" in run.lines("FAILED")[0]


@pytest.mark.slow
def test_what_one_hardware_refuses_does_not_keep_the_others_from_their_conversion(mixed) -> None:
    shutil.rmtree(mixed.path("fake"))
    fake_compiler(mixed.path("fake"), version="11.4.0.106")
    mixed.write('more = {"dla_core": 0}' + GATED)
    make_model(mixed.path("models/b.onnx"), seed=1)
    run = mixed.scons("-k", "engines", "HARDWARE=desk,thor")
    assert (run.failed, len(run.lines("CONVERTED"))) == (["a"], 1)
    assert "dla_core" in run.lines("FAILED")[0]
    assert run.built == ["a"], run.out
    mixed.path(".trt/onnx/a.fp16.onnx").unlink()
    run = mixed.scons("engines", "HARDWARE=desk,thor")
    assert (run.status, run.lines("CONVERTED")) == (2, [])


@pytest.mark.parametrize("targets", [["engines/rtx_sm86", "engines/rtx_sm89"], ["."]])
def test_what_is_known_to_be_wrong_is_told_first_however_it_is_asked_for(two: Tree, targets) -> None:
    two.write(
        """
        env.Engine("a", "models/a.onnx", hardware="rtx_sm86")
        env.Engine("b", "models/b.onnx", hardware="rtx_sm89", dla_core=0)
        """
    )
    run = two.scons(*targets)
    assert (run.status, run.built, run.failed) == (2, [], ["b"])
    assert two.scons("engines/rtx_sm86").built == ["a"]


def test_boards_whose_compiler_never_repeats_its_bytes_keep_their_engines(two: Tree) -> None:
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
