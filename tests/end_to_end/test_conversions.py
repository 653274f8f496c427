"""What is made of an ONNX before its compile, by real converters, as targets of the graph."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import Tree, flip_last_bit, make_model, sha256, sound


@pytest.fixture(scope="module")
def half_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("half") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    run = tree.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    return tree


@pytest.fixture
def half(tmp_path: Path, half_once: Tree) -> Tree:
    """One engine of another precision than its ONNX, built."""
    return half_once.twin(tmp_path / "tree")


def made(tree: Tree, name: str = "a.fp16.onnx") -> Path:
    return tree.path(f".trt/onnx/{name}")


def samples(path: Path, count: int = 8, shape: tuple = (1, 8, 16, 16), seed: int = 0, **more) -> Path:
    random = np.random.default_rng(seed)
    arrays = {"x": random.standard_normal((count, *shape)).astype(np.float32), **more}
    np.savez(path, **arrays)
    return path


def types_of(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


# Another precision.


def test_an_fp16_engine_is_made_of_an_fp16_onnx(half: Tree) -> None:
    assert types_of(made(half)) == {TensorProto.FLOAT16}
    engine = half.engine("a")
    assert engine.name.endswith("_fp16.engine")
    assert sound(engine)
    assert half.receipt("a")["inputs"][0]["sha256"] == sha256(made(half))


def test_with_several_jobs_steps_run_beside_the_compiles_of_engines_without_steps(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.write(
        """
        for name in "bc":
            env.Engine(name, "models/a.onnx", workspace_mb=ord(name))
        env.Engine("a", "models/a.onnx", precision="fp16")
        """
    )
    assert tree.scons("-j2", "engines").built == ["a", "b", "c"]
    (step,) = (event for event in tree.events() if event["event"] == "engine.convert.done")
    assert step["started"] < min(
        event["time"] for event in tree.events() if event.get("model_name") in ("b", "c")
    )


def test_a_second_run_makes_nothing(half: Tree) -> None:
    before = half.snapshot("engines", ".trt/onnx")
    run = half.scons()
    assert (run.status, run.reused, run.lines("CONVERTED")) == (0, ["a"], [])
    assert half.snapshot("engines", ".trt/onnx") == before


def test_the_step_stands_in_the_tree(half: Tree) -> None:
    run = half.scons("--tree=prune", "-n", "engines")
    assert "+-.trt/onnx/a.fp16.onnx" in run.out
    assert "option to=fp16" in run.out


def test_a_changed_model_is_converted_and_compiled_again(half: Tree) -> None:
    make_model(half.path("models/a.onnx"), seed=2)
    run = half.scons()
    assert "because models/a.onnx changed: " in run.lines("CONVERTED")[0]
    assert run.reason("a").startswith(".trt/onnx/a.fp16.onnx changed: ")


def test_the_same_bytes_after_a_conversion_stop_there(half: Tree) -> None:
    model = onnx.load(half.path("models/a.onnx"))
    for tensor in model.graph.initializer:  # by less than fp16 can tell
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.nextafter(array, np.float32(0)), tensor.name))
    onnx.save(model, half.path("models/a.onnx"))
    run = half.scons()
    assert len(run.lines("CONVERTED")) == 1
    assert run.reused == ["a"]


@pytest.mark.parametrize("harm", ["bytes", "gone", "mtime kept"])
def test_an_intermediate_onnx_that_was_harmed_is_made_again(half: Tree, harm: str) -> None:
    whole = sha256(made(half))
    if harm == "gone":
        made(half).unlink()
    elif harm == "bytes":
        made(half).write_bytes(b"no model")
    else:
        flip_last_bit(made(half))
    run = half.scons()
    assert (run.status, len(run.lines("CONVERTED")), run.reused) == (0, 1, ["a"])
    assert sha256(made(half)) == whole


def test_a_clone_with_the_state_folder_restored_converts_nothing(half: Tree, tmp_path: Path) -> None:
    clone = half.copy(tmp_path / "clone", "SConstruct", "models", "engines", ".trt")
    run = clone.scons("engines", TRT_ONNX_PYTHON="/nowhere/python")
    assert (run.status, run.reused, run.lines("CONVERTED")) == (0, ["a"], [])


def test_without_the_converter_there_is_one_line_of_what_to_install(half: Tree) -> None:
    made(half).unlink()
    bare = half.path("bare")
    bare.write_text('#!/bin/sh\nexec /usr/bin/env python3 -I -S "$@"\n')
    bare.chmod(0o755)
    run = half.scons("engines", TRT_ONNX_PYTHON=str(bare))
    assert (run.status, run.failed) == (2, ["a"])
    line = run.lines("FAILED")[0]
    assert "-m pip install numpy onnx onnxruntime`" in line
    assert "TRT_ONNX_PYTHON" in line


@pytest.mark.parametrize("kind", ["bare", "missing"])
def test_a_dry_run_fails_where_the_converter_is_missing(half: Tree, kind: str) -> None:
    made(half).unlink()
    python = half.path("bare")
    if kind == "bare":
        python.write_text('#!/bin/sh\nexec /usr/bin/env python3 -I -S "$@"\n')
        python.chmod(0o755)
    before = half.snapshot()
    dry = half.scons("-n", "engines", TRT_ONNX_PYTHON=str(python))
    assert (dry.status, dry.names("WOULD FAIL")) == (2, ["a"]), dry.out
    assert not dry.lines("WOULD CONVERT")
    assert half.snapshot() == before
    real = half.scons("engines", TRT_ONNX_PYTHON=str(python))
    said = dry.lines("WOULD FAIL .trt/onnx/a.fp16.onnx:")[0].removeprefix("WOULD FAIL")
    assert real.lines("FAILED .trt/onnx/a.fp16.onnx:")[0].removeprefix("FAILED").startswith(said)
    assert half.scons("-n", "engines").lines("WOULD CONVERT .trt/onnx/a.fp16.onnx")


def test_a_dry_run_does_not_ask_for_a_converter_that_is_not_needed(half: Tree) -> None:
    half.engine("a").unlink()
    dry = half.scons("-n", "engines", TRT_ONNX_PYTHON="/nowhere/python")
    assert (dry.status, dry.names("WOULD BUILD")) == (0, ["a"]), dry.out


def test_a_dry_run_says_what_would_be_made_first(half: Tree) -> None:
    make_model(half.path("models/a.onnx"), seed=3)
    before = half.snapshot("engines", ".trt")
    run = half.scons("-n", "engines")
    assert "WOULD CONVERT .trt/onnx/a.fp16.onnx because models/a.onnx changed" in run.out
    assert run.reason("a") == ".trt/onnx/a.fp16.onnx would be built first"
    assert half.snapshot("engines", ".trt") == before


def test_a_bare_clean_keeps_it_and_a_clean_of_engines_does_not(half: Tree) -> None:
    half.scons("-c")
    assert made(half).exists()
    half.scons("-c", "engines")
    assert not made(half).exists()


def test_two_precisions_of_one_model_stand_side_by_side(half: Tree) -> None:
    half.write(
        """
        for precision in ("fp32", "fp16", "bf16"):
            env.Engine("a", "models/a.onnx", precision=precision)
        """
    )
    run = half.scons()
    assert (run.built, run.reused) == (["a", "a"], ["a"])
    names = sorted(path.name.rpartition("_")[2] for path in half.path("engines").glob("*.engine"))
    assert names == ["bf16.engine", "fp16.engine", "fp32.engine"]
    assert types_of(made(half, "a.bf16.onnx")) == {TensorProto.BFLOAT16}


def test_a_model_that_is_fp16_already_is_taken_as_it_is(half: Tree) -> None:
    half.path("models/h.onnx").write_bytes(made(half).read_bytes())
    half.write('env.Engine("h", "models/h.onnx", precision="fp16")')
    run = half.scons()
    assert (run.reused, run.lines("CONVERTED")) == (["h"], [])  # the engine of the converted one is copied
    assert half.receipt("h")["inputs"][0]["name"] == "models/h.onnx"


@pytest.mark.slow
def test_a_model_that_a_builder_makes_is_converted_after_it(tree: Tree) -> None:
    make_model(tree.path("src/a.onnx"), seed=1)
    tree.write(
        """
        env.Command("models/a.onnx", "src/a.onnx", Copy("$TARGET", "$SOURCE"))
        env.Engine("a", "models/a.onnx", precision="fp16")
        """
    )
    run = tree.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert tree.scons().reused == ["a"]


@pytest.mark.slow
def test_external_data_are_followed_and_their_change_is_a_reason(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), seed=1, external="a.bin")
    tree.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    assert tree.scons().built == ["a"]
    make_model(tree.path("models/a.onnx"), seed=2, external="a.bin")
    run = tree.scons()
    assert "external data a.bin changed" in run.lines("CONVERTED")[0]
    assert run.built == ["a"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ('keep_ops=["Cnov"]', "Cnov"),
        ('keep_nodes=["frist"]', "first"),
    ],
)
def test_a_keep_list_of_what_is_not_there_is_refused(half: Tree, option: str, message: str) -> None:
    half.write(f'env.Engine("a", "models/a.onnx", precision="fp16", {option})')
    run = half.scons()
    assert run.status == 2
    line = run.lines("FAILED")[0]
    assert line.startswith("FAILED .trt/onnx/a.fp16.onnx: SConstruct:4: RecipeError: models/a.onnx: ")
    assert message in line


# Quantization.


@pytest.fixture(scope="module")
def quantized_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("quantized") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    samples(tree.path("models/a.npz"))
    tree.write('env.Engine("a", "models/a.onnx", precision="int8", calibration="models/a.npz")')
    run = tree.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    return tree


@pytest.fixture
def quantized(tmp_path: Path, quantized_once: Tree) -> Tree:
    return quantized_once.twin(tmp_path / "tree")


def test_an_int8_engine_is_made_of_an_onnx_with_qdq_nodes(quantized: Tree) -> None:
    ops = {node.op_type for node in onnx.load(made(quantized, "a.int8.onnx")).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= ops
    assert quantized.engine("a").name.endswith("_int8.engine")
    assert quantized.scons().reused == ["a"]


@pytest.mark.slow
def test_a_quantized_engine_promises_to_repeat_unless_its_shapes_are_dynamic(
    quantized: Tree,
) -> None:
    assert quantized.receipt("a")["reproducible"] is True
    make_model(quantized.path("models/a.onnx"), seed=1, shape=("n", 8, "h", "w"))
    more = 'shapes={"x": ((1, 8, 8, 8), (2, 8, 16, 16), (4, 8, 64, 64))}'
    quantized.write(
        f'env.Engine("a", "models/a.onnx", precision="int8", calibration="models/a.npz", {more})\n'
        f'env.Engine("a", "models/a.onnx", {more})'
    )
    assert quantized.scons().status == 0
    receipts = [json.loads(p.read_text()) for p in quantized.path(".trt/receipts").glob("a__*/*.json")]
    dynamic = [each for each in receipts if "option shapes x" in each["ingredients"]]
    told = {each["engine"][-11:]: each["not_reproducible_because"] for each in dynamic}
    assert told["fp32.engine"] is None
    assert "numbers tensors anew" in told["int8.engine"]
    assert {each["reproducible"] for each in dynamic} == {True, False}


@pytest.mark.slow
def test_other_calibration_data_are_the_reason(quantized: Tree) -> None:
    samples(quantized.path("models/a.npz"), seed=1)
    run = quantized.scons()
    assert "because samples a.npz changed: " in run.lines("CONVERTED")[0]
    assert run.built == ["a"]


def test_how_many_samples_there_must_be_changes_no_bytes(quantized: Tree) -> None:
    quantized.write(
        """
        env.Engine("a", "models/a.onnx", precision="int8",
                   calibration=dict(data="models/a.npz", at_least=4))
        """
    )
    run = quantized.scons()
    assert (run.reused, run.lines("CONVERTED")) == (["a"], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 3}, "fewer than at_least=8"),
        ({"y": np.zeros(8, np.float32)}, "`y`"),
        ({"x": np.full((8, 1, 8, 16, 16), np.nan, np.float32)}, "NaN"),
        ({"shape": (1, 8, 16, 15)}, "x"),
    ],
)
def test_samples_that_cannot_serve_are_told(quantized: Tree, change: dict, message: str) -> None:
    arrays = dict(change)
    if "x" in arrays:
        np.savez(quantized.path("models/a.npz"), **arrays)
    else:
        samples(quantized.path("models/a.npz"), **arrays)
    before = quantized.snapshot()
    run = quantized.scons()
    assert run.status == 2
    line = run.lines("FAILED")[0]
    assert "a.npz" in line
    assert message in line
    assert quantized.snapshot() == before


@pytest.mark.slow
def test_a_folder_of_samples_is_followed_file_by_file(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), seed=1)
    random = np.random.default_rng(0)
    folder = tree.path("models/images")
    folder.mkdir()
    for number in range(8):
        array = random.standard_normal((1, 8, 16, 16)).astype(np.float32)
        np.save(folder / f"{number}.npy", array)
    tree.write('env.Engine("a", "models/a.onnx", precision="int8", calibration="models/images")')
    assert tree.scons().built == ["a"]
    assert tree.scons().reused == ["a"]
    np.save(folder / "9.npy", random.standard_normal((1, 8, 16, 16)).astype(np.float32))
    run = tree.scons()
    assert "samples images changed" in run.lines("CONVERTED")[0]


def test_a_reader_and_its_files_are_followed(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.path("models/scale.txt").write_text("1.0")
    tree.path("models/reader.py").write_text(
        "import numpy as np\n"
        "from pathlib import Path\n"
        "def batches():\n"
        "    random = np.random.default_rng(0)\n"
        "    scale = float(Path(__file__).with_name('scale.txt').read_text())\n"
        "    for _ in range(8):\n"
        "        yield {'x': (scale * random.standard_normal((1, 8, 16, 16))).astype(np.float32)}\n"
    )
    tree.write(
        """
        env.Engine("a", "models/a.onnx", precision="int8",
                   calibration=dict(data="models/reader.py:batches", files="models/scale.txt"))
        """
    )
    assert tree.scons().built == ["a"]
    assert tree.scons().reused == ["a"]
    tree.path("models/scale.txt").write_text("3.0")
    assert "samples reader.py changed" in tree.scons().lines("CONVERTED")[0]


# Accuracy.


def gated(tree: Tree, bounds: str, precision: str = "fp16") -> None:
    tree.write(
        f"""
        env.Engine("a", "models/a.onnx", precision="{precision}",
                   accuracy=dict(inputs="models/a.npz", {bounds}))
        """
    )


def test_the_line_names_the_same_worst_output_as_the_report(half: Tree) -> None:
    """`tiny` has no error and a small bound; `y` uses more of a large one."""
    model = onnx.load(half.path("models/a.onnx"))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    graph.node.append(helper.make_node("Mul", ["y", "zero"], ["tiny"]))
    graph.output.append(helper.make_tensor_value_info("tiny", TensorProto.FLOAT, None))
    onnx.save(model, half.path("models/a.onnx"))
    samples(half.path("models/a.npz"))
    gated(half, "rtol=0.05, atol=1e-4, metric='max'")
    run = half.scons("engines-report")
    assert run.status == 0, run.out
    told = json.loads(half.path(".trt/report/report.json").read_text())
    assert told["engines"][0]["accuracy"]["outputs"][0]["output"] == "y"
    assert ": output `y` max error " in run.lines("CHECKED")[0]


def test_a_gate_measures_and_the_receipt_tells(half: Tree) -> None:
    samples(half.path("models/a.npz"), count=3)
    gated(half, "rtol=0.05, atol=0.5")
    run = half.scons()
    assert run.status == 0, run.out
    assert len(run.lines("CHECKED")) == 1
    told = half.receipt("a")["accuracy"]
    figures = told["onnx"]["outputs"]["y"]
    assert told["onnx"]["samples"] == 3
    assert 0 < figures["max_abs"] < 0.5
    assert figures["cosine"] > 0.999
    assert "not run" in told["engine"]
    assert run.reused == ["a"]  # a gate changes no bytes
    assert half.scons().lines("CHECKED") == []


def test_beyond_the_bound_the_engine_fails_and_tells_where(half: Tree) -> None:
    samples(half.path("models/a.npz"), count=3)
    gated(half, "rtol=0, atol=1e-7")
    run = half.scons()
    assert run.status == 2
    line = run.lines("FAILED")[0]
    assert "AccuracyError: models/a.onnx: output `y`: elemwise error " in line
    assert "worst at [0, " in line
    assert run.failed == ["a"]


def test_a_bound_that_changes_measures_again_and_compiles_nothing(half: Tree) -> None:
    samples(half.path("models/a.npz"), count=2)
    gated(half, "rtol=0.05, atol=0.5")
    half.scons()
    gated(half, "rtol=0.05, atol=0.6")
    run = half.scons()
    assert "atol changed: 0.5 → 0.6" in run.lines("CHECKED")[0]
    assert (run.status, run.reused) == (0, ["a"])
    assert half.receipt("a")["accuracy"]["onnx"]["atol"] == 0.6


def test_a_bound_that_was_measured_by_itself_reaches_the_receipt_too(half: Tree) -> None:
    samples(half.path("models/a.npz"), count=2)
    gated(half, "rtol=0.05, atol=0.5")
    half.scons()
    gated(half, "rtol=0.05, atol=0.6")
    assert len(half.scons(".trt/onnx/a.fp16.accuracy.json").lines("CHECKED")) == 1
    assert half.scons().reused == ["a"]
    assert half.receipt("a")["accuracy"]["onnx"]["atol"] == 0.6


def test_a_gate_without_a_conversion_says_that_there_is_nothing_to_compare(half: Tree) -> None:
    samples(half.path("models/a.npz"))
    gated(half, "rtol=0, atol=0", precision="fp32")
    assert half.scons().built == ["a"]
    assert "nothing to compare" in json.dumps(half.receipt("a")["accuracy"])


def test_a_reference_of_ones_own_is_compared_with(half: Tree) -> None:
    make_model(half.path("models/other.onnx"), seed=9)
    samples(half.path("models/a.npz"))
    gated(half, 'reference="models/other.onnx", metric="cosine", atol=0.01', precision="fp32")
    run = half.scons()
    assert "AccuracyError: models/other.onnx: output `y`: cosine error" in run.lines("FAILED")[0]


# Exports.

EXPORT = """
import onnx
from onnx import TensorProto, helper, numpy_helper
import numpy as np
from helper import SEED

def export(target, width, weights=None):
    random = np.random.default_rng(SEED)
    scale = float(open(weights).read()) if weights else 1.0
    w = numpy_helper.from_array((scale * random.standard_normal((4, width))).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, target)
    return {"weights": "random, seed 0"}
"""


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("exported") / "tree")
    tree.path("models/net.py").write_text(EXPORT)
    tree.path("models/scale.txt").write_text("1.0")
    tree.path("models/helper.py").write_text("SEED = 0\n")
    tree.write(
        """
        scale = {"weights": "models/scale.txt"}
        helper = ["models/helper.py"]
        net = env.OnnxExport("net", "models/net.py:export", {"width": 8}, scale, helper)
        env.Engine("net", net)
        env.Engine("net", net, precision="fp16")
        """
    )
    run = tree.scons()
    assert (run.status, run.built) == (0, ["net", "net"]), run.out
    return tree


@pytest.fixture
def exported(tmp_path: Path, exported_once: Tree) -> Tree:
    return exported_once.twin(tmp_path / "tree")


def test_an_export_is_a_target_and_its_facts_reach_the_receipts(exported: Tree) -> None:
    receipts = exported.path(".trt/receipts").glob("net__*/*.json")
    for path in receipts:
        made_by = json.loads(path.read_text())["made_by"]
        assert made_by[0]["facts"] == {"weights": "random, seed 0"}
        assert made_by[0]["kind"] == "export"
    assert len(exported.scons().reused) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("script", "script changed: "),
        ("file", "file weights changed: "),
        ("option", "width changed: 8 → 16"),
        ("import", "file import helper.py changed: "),
    ],
)
def test_what_an_export_is_made_of_is_followed(exported: Tree, change: str, reason: str) -> None:
    if change == "script":
        exported.path("models/net.py").write_text(EXPORT.replace("default_rng(SEED)", "default_rng(7)"))
    elif change == "import":
        exported.path("models/helper.py").write_text("SEED = 1\n")
    elif change == "file":
        exported.path("models/scale.txt").write_text("2.0")
    else:
        text = exported.path("SConstruct").read_text()
        exported.path("SConstruct").write_text(text.replace('"width": 8', '"width": 16'))
    run = exported.scons()
    assert reason in run.lines("CONVERTED")[0]
    assert run.built == ["net", "net"]


def test_a_restored_export_needs_none_of_what_made_it(exported: Tree, tmp_path: Path) -> None:
    clone = exported.copy(tmp_path / "clone", "SConstruct", "models", "engines", ".trt")
    run = clone.scons("engines", TRT_ONNX_PYTHON="/nowhere/python")
    assert (run.status, run.reused) == (0, ["net", "net"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package", "net.py, line 1: ModuleNotFoundError: No module named"),
        ("def other(): pass", "net.py has no function `export`"),
        ("def export(target, width, weights): pass", "`export` wrote no ONNX"),
        (
            "def export(target, width, weights):\n    raise ValueError('no such key: a.b')",
            "line 2: ValueError",
        ),
    ],
)
def test_an_export_that_fails_is_told_in_one_line(exported: Tree, text: str, message: str) -> None:
    exported.path("models/net.py").write_text(text)
    run = exported.scons()
    assert run.status == 2
    assert message in run.lines("FAILED")[0]
    assert "models/net.py" in run.lines("FAILED")[0]


# Before any compile.


def test_what_is_wrong_is_said_before_anything_is_compiled(tree: Tree) -> None:
    for name in "ab":
        make_model(tree.path(f"models/{name}.onnx"))
    make_model(tree.path("models/c.onnx"), shape=("n", 8, 16, 16))
    tree.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Engine("b", "models/b.onnx", precision="fp16")
        env.Engine("c", "models/c.onnx", shapes={"y": (1,)}, flags=["EXCLUDE_LEAN_RUNTIME"])
        """
    )
    run = tree.scons()
    assert (run.status, run.built, run.failed) == (2, [], ["c"])
    for part in (
        "EXCLUDE_LEAN_RUNTIME",
        "shapes: the model has no input `y`",
        "input `x` [-1, 8, 16, 16] is dynamic",
    ):
        assert part in run.reason("c")
    assert run.lines("CONVERTED") == []
    assert tree.engines() == {}
    again = tree.scons("-k", "engines")
    assert (again.built, again.failed) == (["a", "b"], ["c"])
    assert tree.scons("engines", "-j4").failed == ["c"]


def test_an_engine_that_nobody_asked_for_stops_nothing(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"))
    make_model(tree.path("models/c.onnx"), shape=("n", 8, 16, 16))
    tree.write(
        """
        pair = env.Engine("a", "models/a.onnx")
        env.Engine("c", "models/c.onnx")
        env.Alias("mine", pair)
        """
    )
    assert tree.scons("mine").built == ["a"]


def test_an_option_without_effect_is_named_and_rebuilds_nothing(half: Tree) -> None:
    half.write('env.Engine("a", "models/a.onnx", precision="fp16", optimization_level=5)')
    assert half.scons().reused == ["a"]
    make_model(half.path("models/a.onnx"), seed=7)
    run = half.scons()
    assert "engines: optimization_level of a has no effect: " in run.out
    assert run.built == ["a"]


def test_the_values_of_a_shape_tensor_are_given_as_shapes(tree: Tree) -> None:
    from onnx import helper

    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "s"], ["e"]), helper.make_node("Relu", ["e"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8]),
            helper.make_tensor_value_info("s", TensorProto.INT64, [3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tree.path("models/s.onnx"))
    tree.write('env.Engine("s", "models/s.onnx", shapes={"s": ((1, 1, 8), (2, 3, 8), (4, 4, 8))})')
    run = tree.scons()
    assert run.built == ["s"], run.out
    tree.write('env.Engine("s", "models/s.onnx", shapes={"s": ((1, 1), (2, 3), (4, 4))})')
    assert "write 3 values in each of min, opt, max" in tree.scons().reason("s")
    tree.write('env.Engine("s", "models/s.onnx")')
    assert "input `s` is a shape tensor: write shapes={'s': (min, opt, max)}" in tree.scons().reason("s")
