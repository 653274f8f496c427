"""What a user gets wrong is one clear line with the next step, exit 2, and no traceback."""

import os
import sys
import time
from pathlib import Path

import pytest

from conftest import Tree, fake_compiler, flip_last_bit, hardware, make_model, workers_of

CALLS = {
    "a bad model name": (
        'env.Engine("DinoV2", "models/a.onnx")',
        "model name 'DinoV2': write lower-case letters",
    ),
    "a name that climbs out": ('env.Engine("../a", "models/a.onnx")', "model name '../a'"),
    "an unknown option": (
        'env.Engine("a", "models/a.onnx", workspace=1)',
        "unknown option workspace=1; did you mean workspace_mb?",
    ),
    "an unknown precision": (
        'env.Engine("a", "models/a.onnx", precision="fp17")',
        "precision='fp17': write one of fp32",
    ),
    "an unknown flag": (
        'env.Engine("a", "models/a.onnx", flags=["STRICT_NAN"])',
        "flag STRICT_NAN: unknown; did you mean STRICT_NANS?",
    ),
    "precision as a flag": (
        'env.Engine("a", "models/a.onnx", flags=["FP16"])',
        "flag FP16: write precision='fp16' instead",
    ),
    "a nonsense workspace": (
        'env.Engine("a", "models/a.onnx", workspace_mb="4G")',
        "workspace_mb='4G': write a whole number",
    ),
    "nonsense shapes": (
        'env.Engine("a", "models/a.onnx", shapes={"x": "1x3"})',
        "shape of input `x` is '1x3': write one shape or (min, opt, max)",
    ),
    "a plugin that is a folder": (
        'env.Engine("a", "models/a.onnx", plugins=["models"])',
        "plugin models is a folder",
    ),
    "two sources": ('env.Engine("a", ["models/a.onnx", "models/b.onnx"])', "2 sources: give the one"),
    "a source that is a folder": (
        'env.Engine("a", "models")',
        "source models is a folder: give the file itself",
    ),
    "one name twice": (
        'env.Engine("a", "models/a.onnx")\nenv.Engine("a", "models/b.onnx")',
        "Engine 'a' is declared twice for the same hardware",
    ),
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS)
def test_a_wrong_call(two: Tree, call: str, message: str) -> None:
    two.write(call)
    run = two.scons()
    assert run.status == 2
    line = next(line for line in run.out.splitlines() if line.startswith("scons: *** "))
    assert message in line


def onnx_truncated(tree: Tree) -> None:
    data = tree.path("models/a.onnx").read_bytes()
    tree.path("models/a.onnx").write_bytes(data[: len(data) // 2])


def external_missing(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="a.bin")
    tree.path("models/a.bin").unlink()


def external_at(location: str):
    def spoil(tree: Tree) -> None:
        make_model(tree.path("models/a.onnx"), external="weights.bin")
        data = tree.path("models/a.onnx").read_bytes()
        tree.path("models/a.onnx").write_bytes(data.replace(b"weights.bin", location.encode()))

    return spoil


MODELS = {
    "missing": (lambda t: t.path("models/a.onnx").unlink(), "No such file or directory; check the path"),
    "empty": (lambda t: t.path("models/a.onnx").write_bytes(b""), "the file is empty; export"),
    "random": (lambda t: t.path("models/a.onnx").write_bytes(os.urandom(4096)), "not a"),
    "all zeros": (lambda t: t.path("models/a.onnx").write_bytes(bytes(4096)), "not a readable ONNX"),
    "a web page": (
        lambda t: t.path("models/a.onnx").write_text("<html>404</html>"),
        "models/a.onnx: not an ONNX file but an HTML or XML page; download the model again",
    ),
    "text": (
        lambda t: t.path("models/a.onnx").write_text("import torch\n"),
        "models/a.onnx: not an ONNX file but text, which begins with 'import torch",
    ),
    "truncated": (onnx_truncated, "not a readable ONNX model (a field at byte"),
    "external data missing": (external_missing, "external data 'a.bin' of models/a.onnx is missing"),
    "external data absolute": (external_at("/etc/passwd"), "is outside its folder"),
    "external data climbs": (external_at("../../x.bin"), "is outside its folder"),
    "external data with NUL": (
        external_at("weigh\0s.bin"),
        r"external data 'weigh\x00s.bin' has a NUL character in its name; save the model with another name",
    ),
    "external data nowhere": (external_at("./././././."), "'./././././.' is not a file name; save"),
}


@pytest.mark.parametrize(("spoil", "message"), MODELS.values(), ids=MODELS)
def test_a_wrong_model(built: Tree, spoil, message: str) -> None:
    old = built.snapshot()
    spoil(built)
    run = built.scons("-k", "engines")
    assert run.status == 2
    assert (run.failed, run.reused) == (["a"], ["b"])
    assert message in run.reason("a")
    assert "models/a.onnx" in run.reason("a")
    assert run.summary.startswith("engines: 1 reused, 0 built, 1 failed in ")
    assert built.snapshot() == old
    assert built.scons("-q", "engines").status != 0


SHAPES = {
    "no shape for a dynamic input": ("", "input `x` [-1, 8, -1, 16] is dynamic: write shapes={'x': "),
    "no such input": (
        'shapes={"y": (1, 8, 16, 16)}',
        "shapes: the model has no input `y`; inputs: `x`",
    ),
    "wrong rank": ('shapes={"x": (1, 8)}', "write 4 sizes, like (?, 8, ?, 16)"),
    "min above max": (
        'shapes={"x": ((4, 8, 16, 16), (2, 8, 16, 16), (1, 8, 16, 16))}',
        "axis 0: min 4 > opt 2 and opt 2 > max 1; write min <= opt <= max",
    ),
    "a fixed size changed": ('shapes={"x": (1, 9, 16, 16)}', "axis 1: its size in the model is 8"),
}


@pytest.mark.parametrize(("option", "message"), SHAPES.values(), ids=SHAPES)
def test_wrong_shapes(tree: Tree, option: str, message: str) -> None:
    make_model(tree.path("models/a.onnx"), shape=("n", 8, "h", 16))
    tree.write(f'env.Engine("a", "models/a.onnx", {option})')
    run = tree.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert run.reason("a").startswith("RecipeError: models/a.onnx: ")
    assert message in run.reason("a")
    assert "WOULD FAIL" in tree.scons("-n", "engines").out


def test_every_fault_of_the_shapes_is_told_at_once(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), shape=("n", 8, "h", 16))
    tree.write('env.Engine("a", "models/a.onnx", shapes={"y": (1,), "x": (1, 9, 1, 17)})')
    reason = tree.scons().reason("a")
    assert all(part in reason for part in ("no input `y`", "axis 1", "axis 3"))


def test_what_the_parser_refuses_is_told_with_node_op_and_log(built: Tree) -> None:
    import onnx

    model = onnx.load(built.path("models/a.onnx"))
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, built.path("models/a.onnx"))
    old = built.snapshot()
    run = built.scons("-k", "engines")
    assert (run.status, run.failed, run.reused) == (2, ["a"], ["b"])
    reason = run.reason("a")
    assert reason.startswith("EngineBuildError: the parser refused node 1 `relu` (NoSuchOperator): ")
    log = reason.rpartition("log: ")[2]
    assert "NoSuchOperator" in built.path(log).read_text()
    assert built.snapshot() == old
    error = next(e for e in built.events() if e["event"] == "engine.compile.error")
    assert (error["error_class"], error["outcome"]) == ("EngineBuildError", "failed")
    assert not list(built.path(".trt").rglob("partial/*"))


def test_what_the_builder_refuses_is_told_with_its_reason(two: Tree) -> None:
    two.write('env.Engine("a", "models/a.onnx", flags=["REFIT"])')
    run = two.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert run.reason("a").startswith("EngineBuildError: the builder refused the network: ")


def test_a_flag_of_another_product_is_named(two: Tree) -> None:
    two.write('env.Engine("a", "models/a.onnx", flags=["PREFER_PRECISION_CONSTRAINTS"])')
    assert "is not supported by TensorRT for RTX 1.7.1.116" in two.scons().reason("a")


def test_a_name_never_promises_a_precision_that_is_not_there(two: Tree) -> None:
    two.write('env.Engine("a", "models/a.onnx", precision="int8")')
    run = two.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert "it has no Q/DQ nodes: give calibration=" in run.reason("a")
    assert two.engines() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["HARDWARE=nonsense"], "HARDWARE=nonsense: no hardware/nonsense.json and no built-in; known: "),
        (["HARDWARE=./x.json"], "HARDWARE=./x.json: no file "),
        (["HARDWARE=orin,thor"], "HARDWARE=orin: no hardware/orin.json and no built-in"),
        (["BACKEND=openvino"], "BACKEND=openvino: unknown; write one of tensorrt, tensorrt_rtx"),
        (["BACKEND=tensorrt"], "BACKEND=tensorrt: rtx_portable is for tensorrt_rtx"),
        (["JETPACK=6.2"], "JETPACK=6.2: this host is not a Jetson"),
    ],
)
def test_unknown_hardware_or_backend(two: Tree, arguments: list[str], message: str) -> None:
    run = two.scons("engines", *arguments)
    assert run.status == 2
    assert {*run.failed} == {"a", "b"}
    assert run.reason("a").startswith("HardwareError: ")
    assert message in run.reason("a")


def test_unknown_hardware_leaves_other_targets_alone(two: Tree) -> None:
    two.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Command("hello", [], "echo hi > $TARGET")
        """
    )
    assert two.scons("hello", "HARDWARE=nonsense").status == 0
    assert two.path("hello").exists()


def test_wrong_verify(two: Tree) -> None:
    run = two.scons("engines", "VERIFY=maybe")
    assert run.status == 2
    assert "VERIFY=maybe: write VERIFY=stat or VERIFY=full" in run.out


def test_a_wrong_setting_of_the_environment_is_named_as_it_was_given(two: Tree) -> None:
    assert "TRT_VERIFY=maybe: write TRT_VERIFY=stat or" in two.scons("engines", TRT_VERIFY="maybe").out
    assert "TRT_CACHE_SIZE=zz: " in two.scons("engines", TRT_CACHE_SIZE="zz").out
    assert ": CACHE_SIZE=zz: " in two.scons("engines", "CACHE_SIZE=zz").out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "not a JSON object"),
        ('{"schema": 2}', "schema 2"),
        (
            '{"schema": 1, "product": "tensorrt", "jetpack": "6.2", "runtime_version": "10.3.0.30"}',
            "missing field 'os'",
        ),
    ],
)
def test_a_damaged_hardware_file_is_named(two: Tree, text: str, message: str) -> None:
    hardware(two.path("hardware/board.json")).write_text(text)
    run = two.scons("engines", "HARDWARE=board")
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert "hardware/board.json" in run.reason("a")
    assert message in run.reason("a")


@pytest.mark.parametrize("option", ["-k", "-n", "-kj2"])
def test_one_cause_is_told_once_however_many_engines_it_stops(two: Tree, option: str) -> None:
    hardware(two.path("hardware/board.json")).write_text("{")

    run = two.scons(option, "engines", "HARDWARE=board")

    assert run.out.count("not readable as JSON") == 1
    assert run.out.count("FAIL engines/" if option == "-n" else "FAILED engines/") == 2
    assert run.out.count("__unknown_fp32.engine: SConstruct:6: HardwareError, see error above\n") == 1
    assert " 0 built, 2 failed " in run.summary
    assert run.status == 2


def test_tensorrt_not_installed(two: Tree, tmp_path) -> None:
    import venv

    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    run = two.scons(TRT_PYTHON=str(python))
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert run.reason("a").startswith(f"HardwareError: tensorrt_rtx is not installed for {python}: run ")


def test_no_such_interpreter(two: Tree) -> None:
    run = two.scons(TRT_PYTHON="/no/such/python")
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert "TRT_PYTHON=/no/such/python: no such program" in run.reason("a")


def test_the_wrong_version_of_the_runtime(two: Tree) -> None:
    fields = {"product": "tensorrt_rtx", "jetpack": None, "cuda": "13.0", "machine": os.uname().machine}
    hardware(two.path("hardware/box.json"), **fields, compute_capability="8.9", runtime_version="1.6.0.5")
    run = two.scons("engines", "HARDWARE=box")
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert "HardwareMismatchError: runtime_version: wanted 1.6.0.5, found 1.7.1.116" in run.reason("a")


def test_an_architecture_that_rtx_lacks(two: Tree) -> None:
    fields = {"product": "tensorrt_rtx", "jetpack": None, "cuda": "13.0", "machine": os.uname().machine}
    hardware(two.path("hardware/box.json"), **fields, runtime_version="1.7.1.116")
    run = two.scons("engines", "HARDWARE=box")
    assert "HardwareMismatchError: SM 87 is not supported by TensorRT for RTX 1.7.1.116" in run.reason("a")


def test_an_engine_folder_that_is_a_file(two: Tree) -> None:
    two.path("out").write_text("a file")
    run = two.scons("engines", "ENGINE_DIR=out")
    assert run.status == 2
    assert "out" in run.out


def test_a_state_folder_that_is_a_file(two: Tree) -> None:
    two.path("state").write_text("a file")
    run = two.scons(TRT_STATE_DIR="state")
    assert run.status == 2
    assert "Engine 'a': " in run.out
    assert f"{two.path('state')} is a file, but must be a folder; remove it, or use another path" in run.out


CRASHES = {
    "a segfault": ("os.kill(os.getpid(), signal.SIGSEGV)", "the compiler crashed (SIGSEGV)"),
    "an out-of-memory kill": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        "was killed (SIGKILL): most often",
    ),
    "a silent exit": ("sys.exit(0)", "ended with status 0 and no result"),
    "nothing written": ("done(plan(job))", "wrote an invalid engine: it is empty"),
    "a short write": (
        "data = plan(job); write(data[:-1]); done(data[:-1])",
        "wrote an invalid engine: it has ",
    ),
    "garbage without end": (
        "\n    while True: os.write(1, b'x' * 65536)",
        "the compiler wrote invalid events",
    ),
    "garbage before its last word": (
        'os.write(1, os.urandom(999) + b\'\\n[]\\n{"event": 5}\\n{"event": "done"}\\n\'); sys.exit(1)',
        "ended with status 1",
    ),
    "an empty engine": ("done(write(b''))", "wrote an invalid engine: it is empty"),
    "garbage on the pipe": ("os.write(1, os.urandom(100000)); sys.exit(1)", "ended with status 1"),
    "another product": ("done(write(b'ftrt' + bytes(96)))", "it is a plan of tensorrt"),
}


@pytest.mark.parametrize(("act", "message"), CRASHES.values(), ids=CRASHES)
def test_a_compiler_that_fails_is_told_with_its_log_and_the_others_go_on(
    two: Tree, act: str, message: str
) -> None:
    for name in ("a", "b"):
        flip_last_bit(two.path(f"models/{name}.onnx"))
    act = f"if job['recipe']['workspace_mb'] == 1: {act}\nelse: done(write())"
    python = fake_compiler(two.path("fake"), act, product="tensorrt_rtx", version="1.7.1.116")
    two.write(
        """
        env.Engine("a", "models/a.onnx", workspace_mb=1)
        env.Engine("b", "models/b.onnx")
        """
    )
    run = two.scons("-k", "engines", TRT_PYTHON=str(python))
    assert (run.status, run.failed, run.built) == (2, ["a"], ["b"])
    assert run.reason("a").startswith("EngineBuildError: ")
    assert message in run.reason("a")
    assert two.path(run.reason("a").rpartition("log: ")[2]).exists()
    assert list(two.engines()) == ["b"]
    assert sorted(p.name for p in two.path("engines").iterdir() if not p.name.startswith("b__")) == []


def test_a_timeout_ends_the_compile(two: Tree) -> None:
    python = fake_compiler(two.path("fake"), "time.sleep(60)", "tensorrt_rtx", "1.7.1.116")
    two.write('env.Engine("a", "models/a.onnx", timeout_s=0.5)')
    began = time.monotonic()
    run = two.scons(TRT_PYTHON=str(python))
    assert time.monotonic() - began < 20
    assert (run.status, run.failed) == (2, ["a"])
    assert "took longer than timeout_s" in run.reason("a")
    assert two.path(run.reason("a").rpartition("log: ")[2]).exists()
    assert not workers_of(str(two.path("fake"))), "the compiler outlived its timeout"


@pytest.mark.skipif(not os.access("/sys/fs/cgroup/memory", os.W_OK), reason="no cgroup to write to")
def test_the_kernels_out_of_memory_kill_is_told_as_one(two: Tree) -> None:
    """The kernel itself kills a compiler that wants more than its control group may have."""
    group = Path(f"/sys/fs/cgroup/memory/scons-tensorrt-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 << 20))
    except OSError as error:
        pytest.skip(f"no control group may be made here: {error.strerror}")
    try:
        act = f"""
open({str(group / "cgroup.procs")!r}, "w").write(str(os.getpid()))
held = [b"x" * (1 << 20) for _ in range(200)]
done(write())
"""
        python = fake_compiler(two.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
        two.write('env.Engine("a", "models/a.onnx")')
        run = two.scons(TRT_PYTHON=str(python))
        assert (run.status, run.failed) == (2, ["a"])
        assert "was killed (SIGKILL): most often the kernel, out of memory; log: " in run.reason("a")
    finally:
        group.rmdir()


CONVERTERS = {
    "killed": ("kill -KILL $$", "was killed (SIGKILL)"),
    "a segfault": ("kill -SEGV $$", "crashed (SIGSEGV)"),
    "a silent exit": ("exit 0", "ended with status 0 and no result"),
    "garbage": ("head -c 100000 /dev/urandom; exit 1", "ended with status 1"),
    "garbage without end": ("exec tr '\\0' x < /dev/zero", "the converter wrote invalid events"),
    "a lie": (
        'cat >/dev/null & echo \'{"event": "done", "facts": {}}\'; exit 0',
        "the converter did not write a.fp16.onnx",
    ),
}


@pytest.mark.parametrize(("act", "message"), CONVERTERS.values(), ids=CONVERTERS)
def test_a_converter_that_fails_is_told_with_its_log(two: Tree, act: str, message: str) -> None:
    two.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    python = two.path("converter")
    python.write_text(f"#!/bin/sh\n{act}\n")
    python.chmod(0o755)
    run = two.scons(TRT_ONNX_PYTHON=str(python))
    assert (run.status, run.failed) == (2, ["a"])
    assert message in run.lines("FAILED")[0], run.out
    if "did not write" not in message:
        assert two.path(run.lines("FAILED")[0].rpartition("log: ")[2]).exists()
    assert not list(two.path(".trt/partial").glob("*"))


def test_a_model_that_changes_while_it_is_compiled_is_not_recorded(two: Tree) -> None:
    act = f"open({str(two.path('models/a.onnx'))!r}, 'ab').write(b'x'); done(write())"
    python = fake_compiler(two.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    two.write('env.Engine("a", "models/a.onnx")')
    run = two.scons(TRT_PYTHON=str(python))
    assert (run.status, run.failed) == (2, ["a"])
    assert "a.onnx changed while it was compiled" in run.reason("a")
    assert not list(two.path(".trt").rglob("receipts/*/*.json"))


def test_a_foreign_interpreter_compiles(two: Tree) -> None:
    """A link to this Python is another interpreter to SCons: asked once by a child, then remembered."""
    link = two.path("trt/bin/python")
    link.parent.mkdir(parents=True)
    link.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    link.chmod(0o755)
    assert two.scons(TRT_PYTHON=str(link)).built == ["a", "b"]
    assert list(two.path(".trt/interpreters").iterdir())
    assert two.scons(TRT_PYTHON=str(link)).reused == ["a", "b"]


@pytest.mark.parametrize(
    ("operator", "domain", "said"),
    [
        ("MyOp", "my.plugins", "(MyOp): TensorRT has neither an operator nor a plugin of this name"),
        ("NoSuchOperator", "", "give the plugin's library with plugins=, or replace the operator"),
        ("Unique", "", "(Unique): TensorRT does not support this operator; replace it in the ONNX"),
    ],
)
def test_an_operator_that_tensorrt_lacks_is_told_with_what_helps(
    two: Tree, operator: str, domain: str, said: str
) -> None:
    import onnx

    model = onnx.load(two.path("models/a.onnx"))
    node = model.graph.node[1]
    node.op_type, node.domain = operator, domain
    if domain:
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    onnx.save(model, two.path("models/a.onnx"))
    run = two.scons("-k", "engines")
    assert (run.status, run.failed, run.built) == (2, ["a"], ["b"])
    assert said in run.reason("a")
    assert "plugin" in run.reason("a")
