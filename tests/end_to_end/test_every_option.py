"""Every option of `env.Engine` in real scons: another value rebuilds its engine alone and is named, what
changes no bytes rebuilds nothing. The compiler is a stand-in, whose plan holds all it was told; the
conversions are real. One tree holds an engine an option, so that two runs tell of all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conftest import Run, Tree, fake_compiler, hardware, make_model
from scons_tensorrt.recipe.options import DEFAULTS

# By option: where (a hardware file), what else is declared, the option's values, and what is said of it.
CHANGES = {
    "precision": ("server", {}, ({}, {"precision": "tf32"}), "not built before"),
    "shapes": ("server", {}, ({}, {"shapes": {"x": [1, 8, 16, 16]}}), "shapes x changed: unset → 1x8"),
    "workspace_mb": ("server", {}, ({}, {"workspace_mb": 64}), "workspace_mb changed: 4096 → 64"),
    "flags": ("server", {}, ({}, {"flags": ["STRICT_NANS"]}), "flags changed: unset → STRICT_NANS"),
    "plugins": ("server", {}, ({}, {"plugins": ["p.so"]}), "plugin p.so changed: none → "),
    "memory_pools": (
        *("server", {}, ({}, {"memory_pools": {"tactic_dram": "1G"}})),
        "memory_pools tactic_dram changed: unset → 1073741824",
    ),
    "optimization_level": (
        "server",
        {},
        ({}, {"optimization_level": 5}),
        "optimization_level changed: ",
    ),
    "hardware_compatibility": (
        *("server", {}, ({}, {"hardware_compatibility": "same_compute_capability"})),
        "hardware_compatibility changed: unset → same_compute_capability",
    ),
    "dla_core": ("nx", {"precision": "fp16"}, ({}, {"dla_core": 1}), "dla_core changed: unset → 1"),
    "max_aux_streams": (
        "server",
        {},
        ({}, {"max_aux_streams": 0}),
        "max_aux_streams changed: unset → 0",
    ),
    "avg_timing_iterations": (
        "server",
        {},
        ({}, {"avg_timing_iterations": 8}),
        "avg_timing_iterations ",
    ),
    "tiling_optimization_level": (
        *("server", {}, ({}, {"tiling_optimization_level": "full"})),
        "tiling_optimization_level changed: unset → full",
    ),
    "profiling_verbosity": (
        *("server", {}, ({}, {"profiling_verbosity": "none"})),
        "profiling_verbosity changed: unset → none",
    ),
    "max_num_tactics": ("server", {}, ({}, {"max_num_tactics": 9}), "max_num_tactics changed: unset → 9"),
    "l2_limit_for_tiling": (
        *("server", {}, ({}, {"l2_limit_for_tiling": "1M"})),
        "l2_limit_for_tiling changed: unset → 1048576",
    ),
    "build_route": ("server", {}, ({}, {"build_route": "-a=b"}), "build_route changed: unset → -a=b"),
    "tactic_sources": (
        *("server", {}, ({"tactic_sources": ["CUDNN", "CUBLAS"]}, {"tactic_sources": ["JIT_CONVOLUTIONS"]})),
        "tactic_sources changed: CUBLAS CUDNN → JIT_CONVOLUTIONS",
    ),
    "preview_features": (
        *("server", {}, ({}, {"preview_features": ["PROFILE_SHARING_0806"]})),
        "preview_features changed: unset → PROFILE_SHARING_0806",
    ),
    "parser_flags": (
        *("server", {}, ({}, {"parser_flags": ["ENABLE_PLUGIN_OVERRIDE"]})),
        "parser_flags changed: unset → ENABLE_PLUGIN_OVERRIDE",
    ),
    "engine_capability": (
        *("server", {}, ({}, {"engine_capability": "safety"})),
        "engine_capability changed: unset → safety",
    ),
    "io_formats": (
        *("server", {}, ({}, {"io_formats": {"x": "chw4"}})),
        'io_formats changed: unset → {"x": "chw4"}',
    ),
    "layer_devices": (
        *("nx", {"precision": "fp16", "dla_core": 0}, ({}, {"layer_devices": {"first": "gpu"}})),
        'layer_devices changed: unset → {"first": "gpu"}',
    ),
    "plugins_to_serialize": (
        *(
            "server",
            {"plugins": ["p.so"], "flags": ["VERSION_COMPATIBLE"]},
            ({}, {"plugins_to_serialize": ["p.so"]}),
        ),
        'plugins_to_serialize changed: unset → ["p.so"]',
    ),
    "strongly_typed": (
        "server",
        {},
        ({}, {"strongly_typed": True}),
        "strongly_typed changed: unset → True",
    ),
}
# Of those that make another ONNX first, that step names the option, and the engine names the ONNX.
HALF = {"precision": "fp16", "strongly_typed": True}
SET = {"data": "models/a.npz", "at_least": 2}
CONVERSIONS = {
    "keep_ops": (HALF, ({}, {"keep_ops": ["Relu"]}), 'keep_ops changed: unset → ["Relu"]'),
    "keep_nodes": (HALF, ({}, {"keep_nodes": ["second"]}), 'keep_nodes changed: unset → ["second"]'),
    "keep_io": (HALF, ({}, {"keep_io": False}), "keep_io changed: true → false"),
    "calibration": (
        {"precision": "int8"},
        ({"calibration": SET}, {"calibration": {**SET, "percentile": 90}}),
        "percentile changed: 99.99 → 90.0",
    ),
}
# What changes no bytes: (where, what else, the values before and after).
GATE = {"inputs": "models/a.npz", "atol": 1.0}
EVERY_DEFAULT = {
    **{name: value for name, value in DEFAULTS.items() if value not in (None, ())},
    "optimization_level": 3,
    "avg_timing_iterations": 1,
    "profiling_verbosity": "layer_names_only",
    "hardware_compatibility": "none",
    "tiling_optimization_level": "none",
}
IGNORED_BY_RTX = {
    "optimization_level": 5,
    "avg_timing_iterations": 8,
    "tiling_optimization_level": "full",
    "flags": ["SPARSE_WEIGHTS", "GPU_FALLBACK"],
}
IDLE = {
    "timeout_s": ("server", {}, ({}, {"timeout_s": 600})),
    "model_card": ("server", {}, ({}, {"model_card": {"license": "MIT"}})),
    "accuracy": ("server", {}, ({}, {"accuracy": GATE})),
    "accuracy_of_a_converted": ("server", HALF, ({"accuracy": GATE}, {"accuracy": {**GATE, "atol": 2}})),
    "set_the_same": (
        "server",
        {"precision": "int8"},
        ({"calibration": SET}, {"calibration": {**SET, "most": 8}}),
    ),
    "every_default": ("server", {}, ({}, EVERY_DEFAULT)),
    "what_rtx_ignores": ("rtx", {}, ({}, IGNORED_BY_RTX)),
}


def test_no_option_is_forgotten() -> None:
    elsewhere = {"prepare", "freeze", "timing_cache"}  # test_prepared.py, test_pinned_kernels.py
    assert {*CHANGES, *CONVERSIONS, "timeout_s", "model_card", "accuracy", *elsewhere} == set(DEFAULTS)


def declare(tree: Tree, after: bool) -> None:
    engines = [(name, where, {**more, **values[after]}) for name, (where, more, values, _) in CHANGES.items()]
    engines += [
        (name, "server", {**more, **values[after]}) for name, (more, values, _) in CONVERSIONS.items()
    ]
    engines += [(f"idle_{n}", where, {**more, **values[after]}) for n, (where, more, values) in IDLE.items()]
    tree.write(
        f"""
        import json
        for name, where, options in json.loads({json.dumps(engines)!r}):
            python = "fake_rtx/python" if where == "rtx" else "fake/python"
            there = env.Clone(TRT_HARDWARE="rtx_sm89" if where == "rtx" else where, TRT_PYTHON=python)
            there.Engine(name, "models/a.onnx", **options)
        """
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Built, built again after each engine's one option was changed, and once more."""
    tree = Tree(tmp_path_factory.mktemp("options") / "tree")
    make_model(tree.path("models/a.onnx"))
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 16, 16)).astype(np.float32)
    np.savez(tree.path("models/a.npz"), x=x)
    tree.path("p.so").write_bytes(b"a library")
    hardware(tree.path("hardware/nx.json"))
    card = {"gpu_name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "integrated": False}
    hardware(tree.path("hardware/server.json"), **card, jetpack=None, cuda="12.6")
    fake_compiler(tree.path("fake"))
    fake_compiler(tree.path("fake_rtx"), product="tensorrt_rtx", version="1.7.1.116")
    found = []
    for after in (False, True, True):
        declare(tree, after)
        found.append(tree.scons("-j2", "engines"))
        assert found[-1].status == 0, found[-1].out
    return found


def test_at_first_all_are_built_or_copied_from_one_of_the_same_options(runs: list[Run]) -> None:
    copied = [line for line in runs[0].lines("REUSED") if "(copied from " in line]
    assert len(copied) == len(runs[0].reused)
    assert len(runs[0].built + copied) == len(CHANGES) + len(CONVERSIONS) + len(IDLE)


@pytest.mark.parametrize("option", CHANGES)
def test_another_value_rebuilds_its_engine_and_is_named(runs: list[Run], option: str) -> None:
    assert runs[1].reason(option).startswith(CHANGES[option][3])


@pytest.mark.parametrize("option", CONVERSIONS)
def test_another_value_converts_anew_and_is_named(runs: list[Run], option: str) -> None:
    (line,) = (line for line in runs[1].lines("CONVERTED") if f"/{option}." in line)
    assert line.endswith(f"because {CONVERSIONS[option][2]}")
    assert runs[1].reason(option).startswith(f".trt/onnx/{option}.")


def test_nothing_else_is_rebuilt(runs: list[Run]) -> None:
    assert runs[1].built == sorted({*CHANGES, *CONVERSIONS})
    assert runs[1].reused == sorted(f"idle_{name}" for name in IDLE)


def test_and_then_nothing_at_all(runs: list[Run]) -> None:
    assert runs[2].built == []
    assert runs[2].lines("CONVERTED") == runs[2].lines("CHECKED") == []


@pytest.mark.slow
def test_formats_of_inputs_change_a_real_engine_and_an_unknown_tensor_is_refused(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.write(
        """
        wanted = {"plain": None, "wide": {"x": "chw32"}, "wrong": {"z": "chw32"}, "refused": {"x": "chw4"}}
        for name, formats in wanted.items():
            env.Engine(name, "models/a.onnx", io_formats=formats)
        """
    )
    run = tree.scons("-k", "engines")
    assert (run.built, run.failed) == (["plain", "wide"], ["refused", "wrong"]), run.out
    assert run.reason("wrong") == "RecipeError: io_formats: the network has no input or output `z`"
    told = run.reason("refused")
    assert told.startswith("RecipeError: io_formats: TensorRT for RTX ")
    assert "x: has dataType Float unsupported by tensor's allowed TensorFormats" in told
    assert tree.engine("plain").read_bytes() != tree.engine("wide").read_bytes()
