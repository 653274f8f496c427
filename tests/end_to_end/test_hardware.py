"""Another board, JetPack or TensorRT: another name or folder; the old files untouched."""

from pathlib import Path

import pytest

from conftest import Tree, fake_compiler, hardware, make_model, make_two


@pytest.fixture
def boards(two: Tree) -> Tree:
    """Two Orins that share every filename, and a stand-in for the compiler of both."""
    return add_boards(two)


def add_boards(two: Tree) -> Tree:
    hardware(two.path("hardware/orin_nx.json"))
    hardware(two.path("hardware/agx_orin.json"), sm_count=16, memory_gib=64, memory_bus_bits=256)
    two.environment["TRT_PYTHON"] = str(fake_compiler(two.path("fake")))
    return two


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = add_boards(make_two(Tree(tmp_path_factory.mktemp("boards") / "tree")))
    assert tree.scons("engines", "HARDWARE=orin_nx").built == ["a", "b"]
    return tree


@pytest.fixture
def made(made_once: Tree, tmp_path: Path) -> Tree:
    """The boards, with the engines of the Orin NX built."""
    return made_once.twin(tmp_path / "made")


def test_boards_in_turn_compile_nothing_the_third_time(made: Tree) -> None:
    before = made.snapshot("engines/orin_nx")
    assert made.scons("engines", "HARDWARE=agx_orin").built == ["a", "b"]
    run = made.scons("engines", "HARDWARE=orin_nx")
    assert (run.status, run.built, run.reused) == (0, [], ["a", "b"])
    assert made.snapshot("engines/orin_nx") == before
    names = [{p.name for p in made.path(f"engines/{n}").iterdir()} for n in ("orin_nx", "agx_orin")]
    assert names[0] == names[1]
    assert "a__sm87_jp6.2_trt10.3_fp32.engine" in names[0]


def test_hardware_from_the_environment_is_the_same(made: Tree) -> None:
    assert made.scons(TRT_HARDWARE="orin_nx").reused == ["a", "b"]
    assert made.scons("engines", "HARDWARE=hardware/orin_nx.json").reused == ["a", "b"]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("runtime_version", "10.3.0.31", "hardware runtime_version changed: 10.3.0.30 → 10.3.0.31"),
        ("gpu_name", "Orin B", "hardware gpu_name changed: Orin → Orin B"),
        ("sm_count", 4, "hardware sm_count changed: 8 → 4"),
        ("memory_gib", 8, "hardware memory_gib changed: 16 → 8"),
        ("memory_bus_bits", 64, "hardware memory_bus_bits changed: 128 → 64"),
        ("l2_bytes", 1 << 20, "hardware l2_bytes changed: 2097152 → 1048576"),
        ("ecc", True, "hardware ecc changed: unknown → true"),
        ("integrated", False, "hardware integrated changed: true → false"),
        ("machine", "armv9", "hardware machine changed: aarch64 → armv9"),
        ("os", "qnx", "hardware os changed: linux → qnx"),
    ],
)
def test_a_hard_or_device_class_field_rebuilds(made: Tree, field, value, reason) -> None:
    hardware(made.path("hardware/orin_nx.json"), **{field: value})
    run = made.scons("engines", "HARDWARE=orin_nx")
    assert run.built == ["a", "b"]
    assert run.reason("a") == reason


def test_driver_host_name_and_cuda_patch_rebuild_nothing(made: Tree) -> None:
    new = {"driver": "550.1", "host_name": "other", "l4t": "36.4.4", "power_mode": "MAXN"}
    hardware(made.path("hardware/orin_nx.json"), recorded=new, cuda="12.6.11")
    assert made.scons("engines", "HARDWARE=orin_nx").built == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"jetpack": "6.1"}, "_jp6.1_"),
        ({"runtime_version": "10.4.0.26"}, "_trt10.4_"),
        ({"compute_capability": "11.0"}, "__sm110_"),
    ],
)
def test_a_new_jetpack_tensorrt_or_sm_is_a_new_name(made: Tree, change, part) -> None:
    before = made.snapshot()
    hardware(made.path("hardware/orin_nx.json"), **change)
    run = made.scons("engines", "HARDWARE=orin_nx")
    assert run.built == ["a", "b"]
    assert all(part in line for line in run.lines("BUILT"))
    after = made.snapshot()
    assert {name: after[name] for name in before} == before


def test_jetpack_on_the_command_line(boards: Tree) -> None:
    run = boards.scons("engines", "HARDWARE=orin_nx", "JETPACK=6.1")
    assert run.built == ["a", "b"]
    assert all("_jp6.1_" in line for line in run.lines("BUILT"))


def test_one_architecture_of_rtx_is_compiled_for_that_alone(two: Tree) -> None:
    run = two.scons("engines", "HARDWARE=rtx_sm89")
    assert run.built == ["a", "b"]
    engine = two.engines("engines/rtx_sm89")["a"]
    assert engine.name == "a__sm89_cu13.0_rtx1.7_fp32.engine"
    assert engine.read_bytes()[32] == 0x08


def test_portable_plans_hold_the_default_architectures_and_later_ones(built: Tree) -> None:
    assert built.engine("a").read_bytes()[32] == 0x02 | 0x04 | 0x08 | 0x10 | 0x20 | 0x40


def test_first_line_names_hardware_and_backend_and_why(built: Tree) -> None:
    line = next(line for line in built.scons().out.splitlines() if line.startswith("engines: for "))
    assert "TensorRT for RTX" in line
    assert "no NVIDIA GPU found" in line


def test_another_engine_dir(two: Tree) -> None:
    assert two.scons("engines", "ENGINE_DIR=out").built == ["a", "b"]
    assert sorted(two.engines("out")) == ["a", "b"]
    assert two.scons(TRT_ENGINE_DIR="out").reused == ["a", "b"]


def test_hardware_of_a_construction_variable(two: Tree) -> None:
    two.write(
        """
        env = Environment(tools=["trt_engines"], TRT_HARDWARE="rtx_sm86",
                          toolpath=[PyPackageDir("scons_tensorrt.tools")])
        env.Engine("a", "models/a.onnx")
        """
    )
    assert two.scons().built == ["a"]
    assert list(two.engines("engines/rtx_sm86")) == ["a"]


def test_firmware_build_on_a_host_without_tensorrt(boards: Tree, tmp_path) -> None:
    boards.scons("engines", "HARDWARE=agx_orin")
    names = ("models", "SConstruct", "hardware", "engines", ".trt")
    clone = boards.copy(tmp_path / "clone", *names)
    del clone.environment["TRT_PYTHON"]
    run = clone.scons("engines", "HARDWARE=agx_orin", "-k")
    assert (run.status, run.reused) == (0, ["a", "b"])
    clone.path("engines/agx_orin/a__sm87_jp6.2_trt10.3_fp32.engine").unlink()
    run = clone.scons("engines", "HARDWARE=agx_orin", "-k")
    assert (run.status, run.failed, run.reused) == (2, ["a"], ["b"])
    assert run.reason("a").startswith(
        "HardwareMismatchError: it can be compiled only on agx_orin (Orin, sm87, 64 GiB"
    )
    assert "Build it there and copy engines/agx_orin/ and .trt/ here" in run.reason("a")


def test_a_changed_model_of_a_foreign_board_is_not_passed_off(boards: Tree) -> None:
    boards.scons("engines", "HARDWARE=agx_orin")
    make_model(boards.path("models/a.onnx"), seed=9)
    del boards.environment["TRT_PYTHON"]
    run = boards.scons("engines", "HARDWARE=agx_orin", "-k")
    assert (run.status, run.failed, run.reused) == (2, ["a"], ["b"])


@pytest.mark.parametrize("text", ['{"schema": 1, "product": ["tensorrt"]}', "[" * 100_000])
def test_strange_hardware_files(two: Tree, text: str) -> None:
    hardware(two.path("hardware/board.json")).write_text(text)
    run = two.scons("engines", "HARDWARE=board")
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert "hardware/board.json" in run.reason("a")


def test_a_relative_interpreter_is_below_the_top_wherever_it_is_asked(two: Tree) -> None:
    fake_compiler(two.path("fake"), product="tensorrt_rtx", version="1.7.1.116")
    two.write('SConscript("models/SConscript", exports="env")')
    two.write('Import("env")\nenv.Engine("a", "a.onnx")', "models/SConscript", header="")
    assert two.scons(TRT_PYTHON="fake/python").built == ["a"]


def test_an_interpreter_that_does_not_answer(two: Tree) -> None:
    run = two.scons(TRT_PYTHON="/bin/false")
    assert "did not answer (it ended with status 1)" in run.reason("a")
