"""Which option does something where: named before a compile, and in the key only where it does."""

from pathlib import Path

import pytest

from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.errors import RecipeError
from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.recipe.key_ingredients import value_fields
from scons_tensorrt.recipe.options import Recipe, parse
from scons_tensorrt.recipe.options_by_product import effective, unsupported_options, without_effect


def signature(product="tensorrt_rtx", version="1.7.1.116", **more):
    fields = {
        "schema": 1,
        "product": product,
        "runtime_version": version,
        "os": "linux",
        "machine": "x86_64",
        "compute_capability": "8.9",
        "cuda": "13.0",
    }
    return HardwareSignature.from_json({**fields, **more}, "test")


RTX = signature()
SERVER = signature("tensorrt", "10.13.3.9", integrated=False)
ORIN = signature("tensorrt", "10.3.0.30", integrated=True)
ORIN_7_2 = signature("tensorrt", "11.4.1.12", integrated=True, jetpack="7.2")
NATIVE = {"data": "c.npz", "by": "calibrator"}

EVERY = {  # an option, another value of it, and the field of the key that names it
    "precision": ("tf32", "precision"),
    "shapes": ({"x": (1, 3)}, "shapes x"),
    "workspace_mb": (512, "workspace_mb"),
    "flags": (["STRICT_NANS"], "flags"),
    "memory_pools": ({"tactic_dram": "1G"}, "memory_pools tactic_dram"),
    "optimization_level": (5, "optimization_level"),
    "hardware_compatibility": ("ampere_plus", "hardware_compatibility"),
    "dla_core": (0, "dla_core"),
    "max_aux_streams": (0, "max_aux_streams"),
    "avg_timing_iterations": (8, "avg_timing_iterations"),
    "tiling_optimization_level": ("full", "tiling_optimization_level"),
    "profiling_verbosity": ("detailed", "profiling_verbosity"),
    "strongly_typed": (True, "strongly_typed"),
    "max_num_tactics": (9, "max_num_tactics"),
    "l2_limit_for_tiling": ("24M", "l2_limit_for_tiling"),
    "build_route": ("-a=off  -b:c=2", "build_route"),
    "tactic_sources": ([], "tactic_sources"),
    "preview_features": (["aliased_plugin_io_10_03"], "preview_features"),
    "parser_flags": (["NATIVE_INSTANCENORM"], "parser_flags"),
    "engine_capability": ("safety", "engine_capability"),
    "io_formats": ({"x": "fp16:CHW16"}, "io_formats"),
    "layer_devices": ({"conv": "gpu"}, "layer_devices"),
}


@pytest.mark.parametrize("option", EVERY)
def test_an_option_is_in_the_key_of_a_product_on_which_it_does_something(option):
    value, field = EVERY[option]
    plain = value_fields(parse("a", {}), SERVER)
    changed = value_fields(parse("a", {option: value}), SERVER)
    differing = {name for name in {*plain, *changed} if plain.get(name) != changed.get(name)}
    assert differing == {f"option {field}"}


IDLE = ["optimization_level", "avg_timing_iterations", "tiling_optimization_level", "max_num_tactics"]
IDLE += ["l2_limit_for_tiling", "tactic_sources"]


@pytest.mark.parametrize("option", IDLE)
def test_an_option_without_effect_is_told_and_in_no_key(option):
    recipe = parse("a", {option: EVERY[option][0]})
    assert list(without_effect(recipe, "tensorrt_rtx")) == [option]
    assert value_fields(recipe, RTX) == value_fields(parse("a", {}), RTX)
    assert effective(recipe, "tensorrt_rtx").to_json() == parse("a", {}).to_json()
    assert without_effect(recipe, "tensorrt") == {}


@pytest.mark.parametrize("flag", ["SPARSE_WEIGHTS", "GPU_FALLBACK", "DISABLE_TIMING_CACHE"])
def test_a_flag_without_effect_is_as_if_it_were_not_there(flag):
    recipe = parse("a", {"flags": [flag, "STRICT_NANS"]})
    assert list(without_effect(recipe, "tensorrt_rtx")) == [f"flag {flag}"]
    assert effective(recipe, "tensorrt_rtx") == parse("a", {"flags": ["STRICT_NANS"]})
    assert effective(recipe, "tensorrt") is recipe


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("optimization_level", 3),
        ("avg_timing_iterations", 1),
        ("hardware_compatibility", "none"),
        ("profiling_verbosity", "layer_names_only"),
        ("tiling_optimization_level", "none"),
        ("memory_pools", {}),
        ("engine_capability", "standard"),
        ("preview_features", []),
        ("parser_flags", ()),
        ("io_formats", {}),
        ("layer_devices", {}),
        ("plugins_to_serialize", []),
    ],
)
def test_what_tensorrt_does_anyway_is_no_option(option, default):
    assert parse("a", {option: default}) == Recipe("a")


REFUSED = [
    (RTX, {"flags": ["STRIP_PLAN", "REFIT_INDIVIDUAL"]}, "does not strip weights; leave out STRIP_PLAN"),
    (RTX, {"flags": ["VERSION_COMPATIBLE"]}, "add EXCLUDE_LEAN_RUNTIME"),
    (SERVER, {"flags": ["EXCLUDE_LEAN_RUNTIME"]}, "needs flag VERSION_COMPATIBLE"),
    (RTX, {"hardware_compatibility": "ampere_plus"}, "set HARDWARE=rtx_portable"),
    (ORIN, {"hardware_compatibility": "ampere_plus"}, "not supported by TensorRT on a Jetson"),
    (RTX, {"dla_core": 0, "precision": "fp16"}, "dla_core: not supported by TensorRT for RTX"),
    (RTX, {"memory_pools": {"dla_local_dram": "1G"}}, "memory_pools dla_local_dram: not supported by"),
    (ORIN, {"dla_core": 0}, "a DLA supports fp16 and int8, not fp32"),
    (SERVER, {"dla_core": 0, "precision": "fp16"}, "only a Jetson has a DLA"),
    (ORIN, {"layer_devices": {"conv": "gpu"}}, "layer_devices: only for a DLA; set dla_core= too"),
    (ORIN, {"io_formats": {"x": "fp16:dla_linear"}}, "io_formats fp16:dla_linear: only for a DLA; set"),
    (RTX, {"io_formats": {"x": "dla_hwc4"}}, "io_formats dla_hwc4: not supported by TensorRT for RTX"),
    (ORIN, {"parser_flags": ["ADJUST_FOR_DLA"]}, "parser_flags ADJUST_FOR_DLA: only for a DLA"),
    (
        SERVER,
        {"engine_capability": "safety", "accuracy": "s.npz"},
        "so accuracy= cannot compare it; leave out engine_capability='safety' or accuracy=",
    ),
    (ORIN, {"engine_capability": "dla_standalone"}, "engine_capability='dla_standalone': only for a DLA"),
    (
        RTX,
        {"layer_devices": {"conv": "dla"}},
        "layer_devices: not supported by TensorRT for RTX; a DLA needs",
    ),
    (RTX, {"build_route": "-a=b"}, "build_route: not supported by TensorRT for RTX; leave it out"),
    (RTX, {"engine_capability": "safety"}, "engine_capability: not supported by TensorRT for RTX"),
    (ORIN, {"memory_pools": {"dla_managed_sram": "1M"}}, "only for a DLA; set dla_core= too"),
    (
        ORIN,
        {"dla_core": 0, "precision": "int8", "calibration": {**NATIVE, "method": "minmax"}},
        "a DLA supports only calibration method='entropy'",
    ),
]


@pytest.mark.parametrize(("hardware", "options", "message"), REFUSED)
def test_what_a_product_cannot_do_is_refused_with_what_would_serve(hardware, options, message):
    assert message in "; ".join(unsupported_options(parse("a", options), hardware))


TAKEN = [
    (RTX, {"flags": ["REFIT_INDIVIDUAL"]}),
    (RTX, {"flags": ["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"]}),
    (SERVER, {"flags": ["STRIP_PLAN", "REFIT_INDIVIDUAL"]}),
    (SERVER, {"hardware_compatibility": "same_compute_capability"}),
    (ORIN, {"dla_core": 1, "precision": "int8", "memory_pools": {"dla_managed_sram": "1M"}}),
    (ORIN, {"dla_core": 0, "precision": "int8", "calibration": NATIVE}),
    (ORIN_7_2, {"dla_core": 0, "precision": "fp16", "layer_devices": {"conv": "gpu"}}),
    (ORIN_7_2, {"dla_core": 1, "precision": "int8", "parser_flags": ["ADJUST_FOR_DLA"]}),
    (RTX, {"io_formats": {"x": "chw4"}, "parser_flags": ["ENABLE_PLUGIN_OVERRIDE"]}),
]


@pytest.mark.parametrize(("hardware", "options"), TAKEN)
def test_what_a_product_can_do_is_taken(hardware, options):
    assert unsupported_options(parse("a", options), hardware) == []


BAD = [
    ({"memory_pools": "1G"}, "memory_pools='1G': write a map"),
    ({"memory_pools": {"workspace": "1G"}}, "write workspace_mb= instead"),
    ({"memory_pools": {"tactic_drm": "1G"}}, "did you mean tactic_dram?"),
    ({"memory_pools": {"tactic_dram": "1T"}}, "write a number of bytes, such as"),
    ({"memory_pools": {"tactic_dram": -1}}, "write a number of bytes"),
    ({"memory_pools": {"tactic_dram": True}}, "write a number of bytes"),
    ({"optimization_level": 6}, "write a whole number from 0 to 5"),
    ({"optimization_level": True}, "optimization_level=True"),
    ({"hardware_compatibility": "ampere"}, "write one of none, ampere_plus"),
    ({"strongly_typed": 1}, "strongly_typed=1: write True or False"),
    ({"max_num_tactics": 0}, "write a whole number from 1 to 2147483647"),
    ({"l2_limit_for_tiling": "big"}, "l2_limit_for_tiling='big': write a number of bytes"),
    ({"build_route": "conv=off"}, "build_route='conv=off': write -NAME=VALUE, several with spaces"),
    ({"build_route": ["-a=b"]}, "write -NAME=VALUE"),
    ({"tactic_sources": ["CUBLASS"]}, "tactic_sources CUBLASS: unknown; did you mean CUBLAS?"),
    ({"tactic_sources": "CUDNN"}, "tactic_sources='CUDNN': write a list of names"),
    ({"preview_features": ["X"]}, "preview_features X: unknown; known: "),
    ({"parser_flags": ["NATIVE_INSTANCENORMS"]}, "did you mean NATIVE_INSTANCENORM?"),
    ({"engine_capability": "safe"}, "write one of standard, safety, dla_standalone"),
    ({"io_formats": {"x": "chw61"}}, "io_formats 'x' 'chw61': unknown; did you mean chw16?"),
    ({"io_formats": {"x": "fp61:chw16"}}, "io_formats 'x' 'fp61:chw16': unknown; "),
    ({"io_formats": {"x": ":chw16"}}, "io_formats 'x' ':chw16': unknown; did you mean chw16?"),
    ({"io_formats": {"x": "fp16:"}}, "io_formats 'x' 'fp16:': unknown; did you mean fp16:linear?"),
    ({"io_formats": "chw16"}, "io_formats='chw16': write a map such as {'image': 'chw16'}"),
    ({"layer_devices": {"conv": "cpu"}}, "layer_devices 'conv' 'cpu': write gpu or dla"),
    ({"layer_devices": {"conv": 1}}, "write a map such as {'/head/Softmax': 'gpu'}"),
    ({"plugins_to_serialize": ["p.so"]}, "plugins_to_serialize p.so: not among the names of plugins="),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_be_read_is_named(options, message):
    with pytest.raises(RecipeError) as caught:
        parse("a", options)
    assert message in str(caught.value)


def test_a_recipe_of_a_receipt_is_the_one_that_was_written():
    options = {"shapes": {"x": ((1,), (2,), (3,))}, "memory_pools": {"tactic_dram": "1G"}}
    options |= {"profiling_verbosity": "detailed", "flags": ["STRICT_NANS"], "precision": "fp16"}
    recipe = parse("a", options)
    again = Recipe.from_json("a", recipe.to_json(), ())
    assert again.to_json() == recipe.to_json()
    assert again.key_fields() == recipe.key_fields()


def test_a_plugin_to_serialize_is_one_of_plugins_and_needs_a_version_compatible_engine():
    options = {"plugins_to_serialize": ["p.so"]}
    recipe = parse("a", options, [Path("/x/p.so")])
    assert recipe.key_fields()["plugins_to_serialize"] == '["p.so"]'
    assert "add it" in "; ".join(unsupported_options(recipe, SERVER))
    recipe = parse("a", {**options, "flags": ["VERSION_COMPATIBLE"]}, [Path("/x/p.so")])
    assert unsupported_options(recipe, SERVER) == []


def test_a_calibrator_is_in_the_key_and_in_the_receipt_by_its_method():
    recipe = parse("a", {"precision": "int8", "calibration": NATIVE})
    assert value_fields(recipe, ORIN)["option calibrator"] == "entropy"
    again = Recipe.from_json("a", recipe.to_json(), ())
    assert again.calibrator == "entropy"
    assert again.key_fields() == recipe.key_fields()


def test_a_calibration_by_qdq_nodes_reaches_the_key_by_the_onnx_alone():
    recipe = parse("a", {"precision": "int8", "calibration": "c.npz"})
    assert recipe.calibrator is None
    assert value_fields(recipe, ORIN) == value_fields(parse("a", {"precision": "int8"}), ORIN)


def test_an_engine_for_ampere_and_later_says_so_in_its_name():
    recipe = parse("a", {"hardware_compatibility": "ampere_plus"})
    assert recipe.ampere_plus
    name = EngineFilename.of(SERVER, "a", "fp32", recipe.ampere_plus).build()
    assert name == "a__sm80plus_cu13.0_trt10.13_fp32.engine"
